"""Halves of characters, which JSON can write (`\\ud83d`) but which are not text."""

import json
import re
from typing import Any

from bertjax.program.errors import UserError
from bertjax.text.streams import Decoding

# How JSON writes half of a character; a half whose other half is missing; what Python makes of it.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_ALONE = re.compile(
    r"\\u[dD][89abAB]..(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB]..)\\u[dD][c-fC-F]..", re.DOTALL
)
_HALF = re.compile("[\ud800-\udfff]")


def without_surrogates(name: str, line: int, value: Any, text: str, config: Decoding) -> Any:
    """Makes the texts of a JSON value encodable: half a character is treated as a bad byte is.

    Args:
        name: the file's name.
        line: the line on which the value begins.
        value: the value, which may contain halves of characters.
        text: the text it was read from.
        config: says what to do with bad bytes.

    Raises:
        UserError: with `errors` strict, half of a character.
    """
    if not _SURROGATE.search(text) or not (half := _find_surrogate(value)):
        return value
    if config.errors == "strict":
        alone = _ALONE.search(text)
        line += text.count("\n", 0, alone.start() if alone else 0)
        raise UserError(
            f"{name}:{line}: \\u{ord(half):04x} is half of a character (a surrogate without its"
            " other half), not text; correct it, or pass --errors replace"
        )
    return _mend(value, "\ufffd" if config.errors == "replace" else "")


def _find_surrogate(value: Any) -> str | None:
    text = json.dumps(value, ensure_ascii=False)
    return match[0] if (match := _HALF.search(text)) else None


def _mend(value: Any, replacement: str) -> Any:
    if isinstance(value, str):
        return _HALF.sub(replacement, value)
    if isinstance(value, list):
        return [_mend(part, replacement) for part in value]
    if isinstance(value, dict):
        return {_mend(name, replacement): _mend(part, replacement) for name, part in value.items()}
    return value
