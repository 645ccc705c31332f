"""Which tokens of a tokenizer are special, and what a text that spells one out is told to be."""

import functools
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bertjax.program.errors import UserError
from bertjax.text.framing import Frame, read_frame

if TYPE_CHECKING:
    import tokenizers


class SpecialTokens(NamedTuple):
    """The tokens that a model needs beside those of texts.

    Attributes:
        pad: fills rows up.
        unk: stands for what the vocabulary cannot spell.
        cls, sep: the first token of a frame, and the last.
        mask: stands for a hidden token.
    """

    pad: str
    unk: str
    cls: str
    sep: str
    mask: str


class Style(NamedTuple):
    """How a published family's tokenizers are, and how they have special tokens.

    Attributes:
        tokens: their names.
        first, last: tokens with the lowest ids, and with the highest, in order.
        separators: how many `sep` are between two texts.
        mask_takes_space: whether the space before a mask is the mask's (`lstrip`).
        token_types: whether models of the family tell the second text by token types.
        kind: their only kind, as `VocabularyConfig.kind`; None = they read texts as BERT's do, and
            may be of every kind.
        lowercase: whether the family's first models read all texts in lower case.
    """

    tokens: SpecialTokens
    first: tuple[str, ...]
    last: tuple[str, ...] = ()
    separators: int = 1
    mask_takes_space: bool = True
    token_types: bool = False
    kind: str | None = None
    lowercase: bool = False


BERT_TOKENS = SpecialTokens("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_TOKENS = SpecialTokens("<pad>", "<unk>", "<s>", "</s>", "<mask>")
_ALBERT_TOKENS = BERT_TOKENS._replace(pad="<pad>", unk="<unk>")
_GEMMA_TOKENS = _ROBERTA_TOKENS._replace(cls="<bos>", sep="<eos>")
BERT = Style(BERT_TOKENS, BERT_TOKENS, mask_takes_space=False, token_types=True, lowercase=True)
ROBERTA = Style(
    _ROBERTA_TOKENS, ("<s>", "<pad>", "</s>", "<unk>"), ("<mask>",), separators=2, kind="bpe"
)
_XLM_ROBERTA = ROBERTA._replace(kind="unigram")
# By model_type.
STYLES = {
    "bert": BERT,
    "distilbert": BERT._replace(token_types=False),
    "electra": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": _XLM_ROBERTA,
    "camembert": _XLM_ROBERTA._replace(
        first=("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>")
    ),
    "modernbert": Style(
        BERT_TOKENS, (), ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"), kind="bpe"
    ),
    "albert": Style(
        _ALBERT_TOKENS, _ALBERT_TOKENS, token_types=True, kind="unigram", lowercase=True
    ),
}
# mmBERT's vocabulary is Gemma's.
_KNOWN = (*STYLES.values(), Style(_GEMMA_TOKENS, ()))
# The fields of tokenizer_config.json and special_tokens_map.json, the first that is there.
NAME_FIELDS = {
    "pad": ("pad_token",),
    "unk": ("unk_token",),
    "cls": ("cls_token", "bos_token"),
    "sep": ("sep_token", "eos_token"),
    "mask": ("mask_token",),
}


def find_special_tokens(
    library: "tokenizers.Tokenizer", parts: Mapping[str, Any], named: Mapping[str, str], name: str
) -> tuple[SpecialTokens, Frame]:
    """Returns the special tokens of a tokenizer, and the frame that it makes of them.

    The frame is the post-processor's, and its first and last tokens are `cls` and `sep`; the others
    are those that the tokenizer's files name. What neither says is as in the published family that
    the vocabulary has the most special tokens of.

    Args:
        library: the tokenizer.
        parts: its tokenizer.json.
        named: the fields of `NAME_FIELDS` that its files have.
        name: the tokenizer's, for messages.

    Raises:
        UserError: the vocabulary has not one of them, or the frame is of no known form.
    """
    known = max(_KNOWN, key=lambda known: _count(library, known.tokens))
    frame = read_frame(parts["post_processor"], name)
    tokens = known.tokens._asdict()
    if unknown := parts["model"].get("unk_token"):
        tokens["unk"] = unknown
    for role, fields in NAME_FIELDS.items():
        tokens[role] = next((named[field] for field in fields if field in named), tokens[role])
    if frame is not None:
        tokens["cls"], tokens["sep"] = map(
            library.id_to_token, (frame.before[0], (frame.after or frame.before)[-1])
        )
    special = SpecialTokens(**tokens)
    missing = [token for token in special if library.token_to_id(token) is None]
    if missing:
        raise UserError(
            f"{name}: the tokenizer has no {', '.join(missing)}; a model needs"
            f" {' '.join(special)} in the vocabulary: add them, name its own special tokens in"
            " tokenizer_config.json, or make a new tokenizer with `bertjax tokenizer`"
        )
    if frame is None:
        cls, sep = library.token_to_id(special.cls), library.token_to_id(special.sep)
        frame = Frame((cls,), (sep,) * known.separators, (sep,))
    return special, frame


def named_tokens(declared: Mapping[str, Any]) -> dict[str, str]:
    """Returns the special tokens that a tokenizer's files name, by the names of their fields."""
    fields = itertools.chain(*NAME_FIELDS.values())
    return {field: declared[field] for field in fields if field in declared}


def describe_for_transformers(
    parts: Mapping[str, Any],
    tokens: SpecialTokens,
    declared: Mapping[str, Any],
    token_types: bool | None,
) -> dict[str, Any]:
    """Returns the tokenizer_config.json with which transformers reads a tokenizer.json as we do.

    Args:
        parts: the tokenizer.json.
        tokens: its special tokens.
        declared: what the files it comes from name.
        token_types: whether its model takes token types; None = as `declared`, or else as the
            frame has it.
    """
    normalizer, frame = parts["normalizer"] or {}, parts["post_processor"] or {}
    if token_types is None and "model_input_names" in declared:
        token_types = "token_type_ids" in declared["model_input_names"]
    elif token_types is None:
        pair = frame.get("pair", ())
        one_type = pair and not any(part["type_id"] for item in pair for part in item.values())
        token_types = frame.get("type") != "RobertaProcessing" and not one_type
    # BertTokenizer rebuilds all but the vocabulary: BERT's parts, with nothing before them.
    is_bert = normalizer.get("type") == "BertNormalizer" and parts["model"]["type"] == "WordPiece"
    config = {
        "tokenizer_class": "BertTokenizer"
        if is_bert and tokens == BERT_TOKENS
        else "PreTrainedTokenizerFast",
        "model_input_names": [
            "input_ids", *["token_type_ids"] * bool(token_types), "attention_mask"
        ],
        **{f"{role}_token": token for role, token in tokens._asdict().items()},
        **named_tokens(declared),
    }  # fmt: skip
    steps = normalizer.get("normalizers", [normalizer])
    if bert := next((step for step in steps if step.get("type") == "BertNormalizer"), None):
        config |= {
            "do_lower_case": bert["lowercase"],
            "strip_accents": bert["strip_accents"],
            "tokenize_chinese_chars": bert["handle_chinese_chars"],
        }
    return config


def find_specials(text: str, tokens: Sequence[str]) -> set[str]:
    """Returns those of the tokens that a text spells out."""
    pattern, beginnings = _spelled_out(tuple(tokens))
    if not any(beginning in text for beginning in beginnings):  # most texts, and this is quick
        return set()
    return set(pattern.findall(text))


def tell_specials(
    names: Collection[str], tokens: Sequence[str], number: int, total: str
) -> list[str]:
    """Returns the sentence about special tokens that texts spell out; none where there are none.

    Args:
        names: those that are spelled out.
        tokens: all of the tokenizer, in the order in which to name them.
        number: how many texts spell one out.
        total: how many texts there are, with their noun.
    """
    if not names:
        return []
    return [
        f"{', '.join(sorted(names, key=tokens.index))} spelled out in {number:,} of {total}:"
        " read as letters, where transformers would read special tokens"
    ]


def find_other_masks(text: str, mask: str) -> list[str]:
    """Returns the masks of other families that a text spells out, letters to this model."""
    masks = dict.fromkeys(known.tokens.mask for known in _KNOWN)
    return [other for other in masks if other != mask and other in text]


def _count(library: "tokenizers.Tokenizer", tokens: SpecialTokens) -> int:
    return sum(library.token_to_id(token) is not None for token in tokens)


@functools.lru_cache
def _spelled_out(tokens: tuple[str, ...]) -> tuple[re.Pattern[str], frozenset[str]]:
    longest_first = sorted(tokens, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)))
    return pattern, frozenset(token[0] for token in tokens)
