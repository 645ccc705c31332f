"""How a reader is shown the tokens of a vocabulary: `dog`, and `##s` where a word goes on."""

from collections.abc import Mapping
from typing import Any

from bertjax.text.tokenizer_parts import has_part

# What stands for the space before a word in the tokens of byte-level BPE, and in those of Unigram.
_OF_BYTES, _OF_PIECES = "Ġ", "▁"
# The letters that stand for bytes: those that can be seen for themselves, others for the rest.
# Source: openai/gpt-2 `bytes_to_unicode`.
_SEEN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
_HIDDEN = [byte for byte in range(256) if byte not in _SEEN]
BYTE_LETTERS = {chr(byte): byte for byte in _SEEN}
BYTE_LETTERS |= {chr(256 + number): byte for number, byte in enumerate(_HIDDEN)}


def find_space(parts: Mapping[str, Any]) -> str | None:
    """Returns what a token begins with that begins a word; None where words go on with a prefix.

    Args:
        parts: a tokenizer.json.
    """
    model = parts["model"]
    if model.get("continuing_subword_prefix") or model["type"] == "WordLevel":
        return None
    return _OF_BYTES if has_part(parts, "ByteLevel") else _OF_PIECES


def show_token(token: str, space: str | None, *, begins_word: bool) -> str:
    """Returns what is shown for a token of a text.

    WordPiece's vocabulary has tokens as they are shown. Byte-level BPE and Unigram mark the
    beginning of a word (`Ġdog`, `▁dog`), and the one writes letters as bytes (`ĠcafÃ©`): these
    tokens are shown like WordPiece's. Punctuation, which mostly follows a word, is shown as it is,
    a space by itself as `␣`, and what cannot be seen by its number (`\\n`, `\\xe9` for a byte of a
    letter).

    Args:
        token: as the vocabulary has it.
        space: of `find_space`.
        begins_word: whether it begins a word where it stands, whatever is before it.
    """
    if space is None:
        return token
    text = token.replace(space, " ")
    if space == _OF_BYTES:
        if not BYTE_LETTERS.keys() >= {*token}:  # no token of bytes
            return token
        text = bytes(map(BYTE_LETTERS.__getitem__, token)).decode("utf-8", "backslashreplace")
    word = "".join(one if one.isprintable() else repr(one)[1:-1] for one in text).strip(" ")
    if not word:
        return "␣" * len(text)
    goes_on = not begins_word and text[0] != " " and word[0].isalnum()
    return f"##{word}" if goes_on else word
