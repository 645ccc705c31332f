"""Turns of phrase that messages share."""

import difflib


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns `1 text`, `2,000 texts`; `plural` is given where it does not end in s alone."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def with_article(name: str) -> str:
    """Returns `a BertModel`, `an ElectraModel`, `an XLMRobertaModel`: X is spoken as a letter."""
    return f"{'an' if name[:1].lower() in 'aeiox' else 'a'} {name}"


def nearest(name: str, names: list[str], alike: float = 0.6) -> str:
    """Returns `; did you mean X?` for the closest of `names` to `name`, or nothing.

    Args:
        name: as it was written.
        names: those that there are.
        alike: the share of letters, in order, that the two must have in common.
    """
    close = difflib.get_close_matches(name, names, n=1, cutoff=alike)
    return f"; did you mean {close[0]!r}?" if close else ""
