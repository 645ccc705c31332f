"""The parts of a `tokenizer.json`, how they treat words, and where tokens are in a text."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bertjax.program.strict_json import to_json
from bertjax.text.special_tokens import BERT, Style

if TYPE_CHECKING:
    import tokenizers

# A tokenizer that reads a special token as letters has it under a name with this prefix: code
# points that Unicode keeps out of texts.
_HIDDEN = "\ufdd0\ufdd1"

# With these, the ids of a text are those of its space-separated words, concatenated: the
# pre-tokenizers drop white space. Where a space becomes part of a token (byte-level BPE, Unigram),
# the normalizer must not make new ones.
_PRE_TOKENIZERS_WITHOUT_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_NORMALIZERS_WITHOUT_NEW_SPACES = {"NFC", "NFD", "Lowercase", "StripAccents"}
_NORMALIZERS_OF_WORDS = _NORMALIZERS_WITHOUT_NEW_SPACES | {"BertNormalizer", "NFKC", "NFKD", "Nmt"}


def hide_tokens(tokenizer: dict[str, Any], tokens: Sequence[str]) -> "tokenizers.Tokenizer":
    """Puts tokens out of reach of any text, and keeps every id as it was.

    Leaving them out of the added tokens is not enough: some models find `[MASK]` in a text as
    a word of their vocabulary.
    """
    import tokenizers

    names = {token: _HIDDEN + token for token in tokens}
    model = dict(tokenizer["model"])
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): id for token, id in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if "unk_token" in model:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [
            pair for pair in pairs if names.keys().isdisjoint([*pair, "".join(pair)])
        ]
    added = [
        {**token, "content": names[token["content"]], "normalized": False}
        if token["content"] in names
        else token
        for token in tokenizer["added_tokens"]
    ]
    parts = {**tokenizer, "model": model, "added_tokens": added, "post_processor": None}
    return tokenizers.Tokenizer.from_str(to_json(parts))


def drops_spaces(tokenizer: dict[str, Any]) -> bool:
    """Returns whether no token depends on a space."""
    part = tokenizer["pre_tokenizer"] or {"type": None}
    first, *rest = part.get("pretokenizers") or [part]
    return first["type"] in _PRE_TOKENIZERS_WITHOUT_SPACES and all(
        one["type"] == "Metaspace" and one["prepend_scheme"] == "always" for one in rest
    )


def words_are_alone(tokenizer: dict[str, Any], added: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether the ids of a text are those of its space-separated words, concatenated.

    True only where the parts of the tokenizer are known to keep words apart. Where a space is part
    of a token, it is part of the word after it.

    Args:
        tokenizer: its tokenizer.json.
        added: the tokens that are never split in a text.
    """
    if any(" " in token["content"] or token["lstrip"] or token["rstrip"] for token in added):
        return False
    normalizer = tokenizer["normalizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    if drops_spaces(tokenizer):
        return all(
            step["type"] in _NORMALIZERS_OF_WORDS
            # ALBERT's quotation marks; a pattern with a space reaches over two words.
            or (step["type"] == "Replace" and " " not in step["pattern"].get("String", " "))
            for step in steps
        )
    part = tokenizer["pre_tokenizer"] or {"type": None}
    return all(
        step["type"] in _NORMALIZERS_WITHOUT_NEW_SPACES
        or (step["type"] == "BertNormalizer" and not step["handle_chinese_chars"])
        for step in steps
    ) and (
        (part["type"] == "ByteLevel" and part["use_regex"])
        or (part["type"] == "Metaspace" and part["prepend_scheme"] == "always" and part["split"])
    )


def find_part(tokenizer: dict[str, Any], place: str, kind: str) -> dict[str, Any] | None:
    """Returns the normalizer, pre-tokenizer or decoder of that type, alone or within a sequence."""
    part = tokenizer[place] or {}
    parts = part.get("normalizers") or part.get("pretokenizers") or part.get("decoders") or [part]
    return next((part for part in parts if part.get("type") == kind), None)


def has_part(tokenizer: dict[str, Any], kind: str) -> bool:
    """Returns whether the pre-tokenizer or the decoder is of that type."""
    return any(find_part(tokenizer, place, kind) for place in ("pre_tokenizer", "decoder"))


def build(
    model: Any, normalizer: Any, pre_tokenizer: Any, decoder: Any, style: Style = BERT
) -> "tokenizers.Tokenizer":
    """Builds a library tokenizer from these parts, with a family's special tokens and frame."""
    import tokenizers

    library = tokenizers.Tokenizer(model)
    library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizer
    library.decoder = decoder
    add_frame(library, style)
    return library


def add_frame(library: "tokenizers.Tokenizer", style: Style) -> None:
    """Gives a tokenizer the special tokens and frame of a family."""
    from tokenizers import AddedToken, processors

    mask = style.tokens.mask
    library.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=True)
            if token == mask and style.mask_takes_space
            else token
            for token in [*style.first, *style.last]
        ]
    )
    cls, sep = style.tokens.cls, style.tokens.sep
    ends = [(token, library.token_to_id(token)) for token in (cls, sep)]
    if style.separators == 2:
        library.post_processor = processors.RobertaProcessing(ends[1], ends[0], trim_offsets=True)
    else:
        library.post_processor = processors.TemplateProcessing(
            single=f"{cls} $A {sep}", pair=f"{cls} $A {sep} $B:1 {sep}:1", special_tokens=ends
        )


def build_wordpiece(
    tokens: Sequence[str],
    lowercase: bool,
    strip_accents: bool | None,
    separate_chinese: bool = True,
) -> "tokenizers.Tokenizer":
    """Builds BERT's WordPiece tokenizer from a vocabulary, tokens in the order of their ids."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    model = models.WordPiece(
        {token: id for id, token in enumerate(tokens)},
        unk_token="[UNK]",
        max_input_chars_per_word=100,
    )
    normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=separate_chinese
    )
    return build(model, normalizer, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece("##"))


def find_offsets(encoding: "tokenizers.Encoding", text: str) -> np.ndarray:
    """Returns the characters of each token in the text, from the first to past the last.

    White space at the ends of a token is left out, as by the post-processors of byte-level BPE.

    Differs: the library leaves out accents that a normalizer strips, or joins to their letter,
    where they are characters of their own. Here they belong to the token of the letter.

    Returns:
        [t, 2] int64.
    """
    offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
    for number, (start, end) in enumerate(encoding.offsets):
        if start < end and (text[start].isspace() or text[end - 1].isspace()):
            inside = text[start:end].lstrip()
            offsets[number] = end - len(inside), end - len(inside) + len(inside.rstrip())
    if text.isascii():
        return offsets
    starts = set(offsets[:, 0].tolist())
    for number, end in enumerate(offsets[:, 1].tolist()):
        while 0 < end < len(text) and unicodedata.combining(text[end]) and end not in starts:
            end += 1
        offsets[number, 1] = end
    return offsets
