"""Turns of phrase that messages share."""

import difflib


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns `1 text`, `2,000 texts`; `plural` is given where it does not end in s alone."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def nearest(name: str, names: list[str]) -> str:
    """Returns `; did you mean X?` for the closest of `names` to `name`, or nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
