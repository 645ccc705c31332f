"""The files of a tokenizer: what they hold, and what those beside it say."""

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.text.special_tokens import BERT_TOKENS, NAME_FIELDS, ROBERTA, find_special_tokens
from bertjax.text.tokenizer_parts import add_frame

if TYPE_CHECKING:
    import tokenizers

CONFIG_NAME = "tokenizer_config.json"
# In the order in which they are looked for.
VOCABULARY_NAMES = ("tokenizer.json", "vocab.txt", "vocab.json")
MERGES_NAME = "merges.txt"
# What transformers 4 reads with the library sentencepiece.
_SENTENCEPIECE = ("*.model",)


class Spelling(NamedTuple):
    """How BERT's normalizer spells a text; the fields are those of tokenizer_config.json.

    Attributes:
        do_lower_case: texts are lower-cased.
        strip_accents: `é` becomes `e`; None = as `do_lower_case`.
        tokenize_chinese_chars: each Chinese character is a word of its own.
    """

    do_lower_case: bool
    strip_accents: bool | None = None
    tokenize_chinese_chars: bool = True

    @property
    def effect(self) -> "Spelling":
        """The same with nothing left undecided."""
        strips = self.do_lower_case if self.strip_accents is None else self.strip_accents
        return self._replace(strip_accents=strips)


class Beside(NamedTuple):
    """The files beside a tokenizer.

    Attributes:
        folder: where they are.
        config: the content of tokenizer_config.json; empty where there is none.
        numbered: tokens with their required ids, and the file that says so.
        special: special tokens that take the next free ids.
        declared: the fields of `special_tokens.NAME_FIELDS` and `model_input_names`, where given.
    """

    folder: Path
    config: dict[str, Any]
    numbered: list[tuple[int, "tokenizers.AddedToken", Path]]
    special: list["tokenizers.AddedToken"]
    declared: dict[str, Any]


def read_beside(folder: Path) -> Beside:
    """Reads the files that transformers reads beside vocab.txt and tokenizer.json.

    Raises:
        UserError: a file is damaged, or one of its fields has the wrong type.
    """
    config = _read_object(folder / CONFIG_NAME)
    for field in Spelling._fields:
        if not isinstance(config.get(field), bool | None):
            raise UserError(
                f"{folder / CONFIG_NAME}: {field}={to_json(config[field])} must be true, false"
                " or null"
            )
    added, decoder = folder / "added_tokens.json", config.get("added_tokens_decoder") or {}
    numbered: dict[int, tuple[Any, Path]] = {}
    special: list[Any] = []
    declared: dict[str, Any] = {}
    try:
        for content, number in _read_object(added).items():
            numbered[int(number)] = _read_token(content, normalized=True, special=False), added
        for number, token in decoder.items():
            numbered[int(number)] = _read_token(token), folder / CONFIG_NAME
        for values in (config, _read_object(folder / "special_tokens_map.json")):
            for field in (*itertools.chain(*NAME_FIELDS.values()), "model_input_names"):
                if (value := values.get(field)) is not None:
                    declared.setdefault(field, _spell(value))
            for field in ("additional_special_tokens", "extra_special_tokens"):
                tokens = values.get(field) or []
                special += map(_read_token, tokens.values() if isinstance(tokens, dict) else tokens)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UserError(
            f"{folder}: its added tokens cannot be read from {CONFIG_NAME}, added_tokens.json or"
            f" special_tokens_map.json ({type(error).__name__}: {error})"
        ) from None
    in_order = [(number, *token) for number, token in sorted(numbered.items())]
    return Beside(folder, config, in_order, special, declared)


def find_tokenizer_file(folder: Path) -> Path | None:
    """Returns the file of a directory that holds a tokenizer; None where there is none."""
    files = (folder / name for name in VOCABULARY_NAMES)
    return next((file for file in files if file.is_file()), None)


def describe_missing(folder: Path) -> str:
    """Says that a directory has no tokenizer, and what to do."""
    if any(file for pattern in _SENTENCEPIECE for file in folder.glob(pattern)):
        return (
            f"{folder}: has a tokenizer of SentencePiece only, which bertjax does not read; write"
            " its tokenizer.json with transformers:"
            " AutoTokenizer.from_pretrained(DIRECTORY).save_pretrained(DIRECTORY)"
        )
    is_model = (folder / "config.json").is_file()
    way_out = (
        "copy the one that its model was trained with there; another gives words other ids"
        if is_model
        else "make one with `bertjax tokenizer`"
    )
    return f"{folder}: contains neither {' nor '.join(VOCABULARY_NAMES[:2])}; {way_out}"


def read_tokenizer_json(path: Path, text: str) -> "tokenizers.Tokenizer":
    """Returns the tokenizer that a `tokenizer.json` holds.

    Args:
        path: the file's, for messages.
        text: its content.

    Raises:
        UserError: it is damaged, or something else.
    """
    import tokenizers

    try:
        json.loads(text)
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise UserError(
            f"{path}: damaged, or not a tokenizer.json ({' '.join(str(error).split())})"
        ) from None


def read_vocabulary(path: Path, text: str) -> list[str]:
    """Returns the tokens of a `vocab.txt`, in the order of their ids.

    Args:
        path: the file's, for messages.
        text: its content.

    Raises:
        UserError: one of BERT's special tokens is missing, or a token occurs twice.
    """
    tokens = text.removesuffix("\n").split("\n")
    tokens = [token.removesuffix("\r") for token in tokens]
    missing = [token for token in BERT_TOKENS if token not in tokens]
    if missing:
        raise UserError(
            f"{path}: the vocabulary has no {', '.join(missing)}; it is one token a line, and BERT"
            f" needs {' '.join(BERT_TOKENS)} among them"
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for number, token in enumerate(tokens) if token in tokens[:number])
        raise UserError(f"{path}: the token {twice!r} is on two lines; ids must be unique")
    return tokens


def read_byte_level(path: Path, text: str, beside: Beside) -> "tokenizers.Tokenizer":
    """Returns the byte-level BPE of a `vocab.json` and the `merges.txt` beside it, RoBERTa's form.

    Args:
        path: the vocabulary's.
        text: its content.
        beside: the files beside it.

    Raises:
        UserError: a file is missing or damaged.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    merges = path.parent / MERGES_NAME
    if not merges.is_file():
        raise UserError(f"{path}: there is no {MERGES_NAME} beside it, which the vocabulary needs")
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [
            tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")
        ]
        library = tokenizers.Tokenizer(models.BPE(json.loads(text), pairs))
    except Exception as error:  # the library raises bare Exception for merges that do not fit
        raise UserError(
            f"{path}: damaged, or not the vocabulary of {merges} ({' '.join(str(error).split())})"
        ) from None
    add_prefix_space = bool(beside.config.get("add_prefix_space"))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    library.decoder = decoders.ByteLevel()
    tokens, frame = find_special_tokens(
        library, json.loads(library.to_str()), beside.declared, str(path)
    )
    add_frame(
        library,
        ROBERTA._replace(tokens=tokens, first=tokens, last=(), separators=len(frame.between)),
    )
    return library


def add_tokens(library: "tokenizers.Tokenizer", beside: Beside) -> None:
    """Adds the tokens of the files beside a tokenizer; those that exist stay as they are.

    Raises:
        UserError: a file gives a token an id that is not the next free one.
    """
    for number, token, file in beside.numbered:
        _add(library, token)
        if library.token_to_id(token.content) != number:
            raise UserError(
                f"{file}: gives the token {token.content!r} the id {number}, the tokenizer"
                f" {library.token_to_id(token.content)}; they belong to different tokenizers"
            )
    for token in beside.special:
        _add(library, token)


def _add(library: "tokenizers.Tokenizer", token: Any) -> None:
    known = {added.content for added in library.get_added_tokens_decoder().values()}
    if token.content not in known:
        (library.add_special_tokens if token.special else library.add_tokens)([token])


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: damaged, not JSON ({error})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged, not a JSON object")
    return values


def _spell(value: Any) -> Any:
    """Returns the text of a token, which may be an object with `content`; others as they are."""
    return value["content"] if isinstance(value, dict) else value


def _read_token(token: Any, **flags: bool) -> "tokenizers.AddedToken":
    """Reads a token as the files have it: its text, or an object with `content` and flags."""
    from tokenizers import AddedToken

    flags = {"normalized": False, "special": True, **flags}
    if isinstance(token, str):
        return AddedToken(token, **flags)
    names = ("lstrip", "rstrip", "single_word", "normalized", "special")
    return AddedToken(
        token["content"], **{**flags, **{name: token[name] for name in names if name in token}}
    )
