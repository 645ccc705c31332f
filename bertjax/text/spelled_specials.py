"""Special tokens that a text spells out: they are read as letters, which is reported."""

import re
from collections.abc import Collection

from bertjax.text.tokenizer_parts import SPECIAL_TOKENS

_SPELLED_OUT = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))


def find_specials(text: str) -> set[str]:
    """Returns those of `SPECIAL_TOKENS` that a text spells out."""
    return set(_SPELLED_OUT.findall(text)) if "[" in text else set()


def tell_specials(names: Collection[str], number: int, total: str) -> list[str]:
    """Returns the sentence about special tokens that texts spell out; none where there are none.

    Args:
        names: the tokens.
        number: how many texts spell one out.
        total: how many texts there are, with their noun.
    """
    if not names:
        return []
    listed = ", ".join(sorted(names, key=SPECIAL_TOKENS.index))
    return [
        f"{listed} spelled out in {number:,} of {total}: read as letters, where transformers would"
        " read special tokens"
    ]
