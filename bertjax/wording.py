"""Turns of phrase that messages share."""

import difflib


def counted(number: int, noun: str) -> str:
    """`1 text`, `2,000 texts`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest(name: str, names: list[str]) -> str:
    """`; did you mean X?` for the one of `names` that looks most like `name`; else nothing."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
