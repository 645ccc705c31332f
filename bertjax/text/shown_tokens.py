"""How a reader is shown the tokens of a vocabulary: `dog`, and `##s` where a word goes on."""

from collections.abc import Mapping
from typing import Any

from bertjax.text.tokenizer_parts import has_part

# What stands for the space before a word in the tokens of byte-level BPE, and in those of Unigram.
_OF_BYTES, _OF_PIECES = "Ġ", "▁"


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
    a space by itself as `␣`.

    Args:
        token: as the vocabulary has it.
        space: of `find_space`.
        begins_word: whether it begins a word where it stands, whatever is before it.
    """
    if space is None:
        return token
    if space == _OF_BYTES:
        from tokenizers import decoders

        text = decoders.ByteLevel().decode([token])
    else:
        text = token.replace(space, " ")
    word = text.strip()
    if not word:  # white space alone
        return "".join("␣" if letter == " " else repr(letter)[1:-1] for letter in text)
    if "\ufffd" in word:  # a part of a letter's bytes
        return token
    goes_on = not begins_word and not text[0].isspace() and word[0].isalnum()
    return f"##{word}" if goes_on else word
