"""Tokenizers: load an existing one, turn text into ids, and write a directory that transformers
loads.

`bertjax.text.tokenizer_training` makes new ones.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertjax.errors import UserError
from bertjax.strict_json import to_json

if TYPE_CHECKING:
    import tokenizers

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# What `Tokenizer.save` writes.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")

# Distinct words whose ids are remembered, punctuation attached. English needs about 80,000 for all
# but rare ones; the bound keeps the memory of a process below about 30 MB.
MOST_REMEMBERED_WORDS = 1 << 17
# A longer run without a space is no word (a URL, Chinese text) and rarely comes again.
LONGEST_REMEMBERED_WORD = 40

# New words that go to the library as one text.
WORDS_AT_ONCE = 100

# With these, the ids of a text are those of its space-separated words, one after the other: the
# pre-tokenizers drop white space. Where a space becomes part of a token (byte-level BPE, Unigram),
# the normalizer must not make new ones.
_PRE_TOKENIZERS_WITHOUT_SPACES = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
_NORMALIZERS_WITHOUT_NEW_SPACES = {"NFC", "NFD", "Lowercase", "StripAccents"}
_NORMALIZERS_OF_WORDS = _NORMALIZERS_WITHOUT_NEW_SPACES | {"BertNormalizer", "NFKC", "NFKD"}


class Tokenizer:
    """A tokenizer of the `tokenizers` library, with what the making of rows and the model need.

    Attributes:
        library: the `tokenizers.Tokenizer` itself, without padding and truncation.
        vocab_size: V, the largest id + 1.
        pad_id, unk_id, cls_id, sep_id, mask_id: the ids of the special tokens.
    """

    def __init__(self, library: "tokenizers.Tokenizer", name: str = "tokenizer") -> None:
        """Takes a tokenizer of the library.

        Args:
            library: it is changed: padding and truncation go.
            name: what an error calls it, a path for instance.

        Raises:
            UserError: special tokens are missing, or its way of marking words is unknown.
        """
        library.no_padding()
        library.no_truncation()
        self.library = library
        self.name = name
        missing = [token for token in SPECIAL_TOKENS if library.token_to_id(token) is None]
        if missing:
            raise UserError(
                f"{name}: the tokenizer has no {', '.join(missing)}; BERT needs"
                f" {' '.join(SPECIAL_TOKENS)} in the vocabulary: add them, or make a new tokenizer"
                " with `python -m train.tokenizer`"
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            library.token_to_id(token) for token in SPECIAL_TOKENS
        )
        self.vocab_size: int = max(library.get_vocab(with_added_tokens=True).values()) + 1
        self._json: dict[str, Any] = json.loads(library.to_str())
        self._words_are_alone = _words_are_alone(self._json)
        self._remembered: dict[str, bytes] = {}
        self._vanishing: set[str] = set()  # those of them without ids

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of `SPECIAL_TOKENS`, in that order."""
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    @property
    def kind(self) -> str:
        """The library's name of the model: WordPiece, BPE, Unigram or WordLevel."""
        return self._json["model"]["type"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 of the tokenizer: two with the same one give the same ids for every text."""
        text = to_json(self._json, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def continues_word(self) -> np.ndarray:
        """[V] bool: the token continues the word before it. It is what whole-word masking needs.

        WordPiece says so by the prefix `##`; byte-level BPE and Unigram mark the *beginning* of a
        word, so that every other token continues one (punctuation that follows a word, too).
        Special tokens continue nothing.
        """
        tokens = [self.token(id) or "" for id in range(self.vocab_size)]
        model = self._json["model"]
        if prefix := model.get("continuing_subword_prefix"):
            continues = [token.startswith(prefix) for token in tokens]
        elif model["type"] == "WordLevel":
            continues = [False] * len(tokens)
        else:
            beginning = "Ġ" if _has_part(self._json, "ByteLevel") else "▁"
            if not any(token.startswith(beginning) for token in tokens):
                raise UserError(
                    f"{self.name}: no token of this {model['type']} tokenizer begins with"
                    f" {beginning!r}, so that it cannot be told where a word begins; take a"
                    " WordPiece, byte-level BPE, Unigram or WordLevel tokenizer"
                )
            continues = [not token.startswith(beginning) for token in tokens]
        result = np.array(continues)
        result[list(self.special_ids)] = False
        return result

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, int32, without special tokens.

        They are the library's ids for the text (`encode_special_tokens = True`: a `[MASK]` that
        stands in a raw text is four characters and a word, never the mask). Where the tokenizer
        treats words separately, each distinct word goes through the library once and is
        remembered: text repeats its words, and this is several times as fast.
        """
        return [np.frombuffer(ids, np.int32) for ids in self._encode(texts)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The ids of each text as `encode_batch` gives them, and each one's characters there.

        Returns:
            (ids [t] int32, offsets [t, 2] int64: from the first to past the last character).
        """
        with self._special_tokens_as_text():
            encodings = self.library.encode_batch(list(texts), add_special_tokens=False)
        return [
            (np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int64).reshape(-1, 2))
            for encoding in encodings
        ]

    def encode_joined(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all texts one after the other, and how many each has; see `encode_batch`."""
        encoded = self._encode(texts)
        lengths = np.array([len(ids) for ids in encoded], np.int64) // np.dtype(np.int32).itemsize
        return np.frombuffer(b"".join(encoded), np.int32), lengths

    def _encode(self, texts: Sequence[str]) -> list[bytes]:
        """The int32 ids of each text, as bytes: joining those is what makes this fast."""
        if not self._words_are_alone:
            return self._ask_library(texts)
        remembered = self._remembered
        # More than one space in a row, or another white space, is a token in some tokenizers: such
        # a text goes to the library as a whole.
        split = [text.split() for text in texts]
        parts = [
            words if " ".join(words) == text else [text]
            for words, text in zip(split, texts, strict=True)
        ]
        new = list(set().union(*parts).difference(remembered))
        found = dict(zip(new, self._encode_words(new), strict=True))
        if len(remembered) + len(found) > MOST_REMEMBERED_WORDS:
            # To forget all is simple, and the frequent words are back after a few sentences.
            old = {word for words in parts for word in words if word in remembered}
            found |= {word: remembered[word] for word in old}
            self.forget_words()
        remembered.update(found)
        result = [b"".join(map(remembered.__getitem__, words)) for words in parts]
        # A word without ids (a lone accent) may leave its space behind, which counts in some.
        self._vanishing |= {word for word, ids in found.items() if not ids}
        if self._vanishing:
            for number, words in enumerate(parts):
                if not self._vanishing.isdisjoint(words):
                    [result[number]] = self._ask_library(texts[number : number + 1])
        for word in found:
            if len(word) > LONGEST_REMEMBERED_WORD or len(remembered) > MOST_REMEMBERED_WORDS:
                del remembered[word]
        return result

    def forget_words(self) -> None:
        """Frees the memory that `encode_batch` keeps; it fills again."""
        self._remembered.clear()
        self._vanishing.clear()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of the ids, special tokens left out."""
        return self.library.decode([int(id) for id in ids], skip_special_tokens=True)

    def token(self, id: int) -> str | None:
        """The token of an id; None for an id that the vocabulary leaves free."""
        return self.library.id_to_token(int(id))

    def describe_missing(self, model_size: int) -> str:
        """What to tell of a model with embeddings for more ids than there are tokens."""
        return (
            f"its tokenizer has {self.vocab_size} tokens, the model embeddings for {model_size}; if"
            " these are not merely padding, it is another model's"
        )

    def save(self, directory: Path | str) -> None:
        """Writes what transformers loads: tokenizer.json, tokenizer_config.json, vocab.txt."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.library.save(str(directory / "tokenizer.json"))
        normalizer = _part(self._json, "normalizer", "BertNormalizer")
        config: dict[str, Any] = {
            "tokenizer_class": "BertTokenizer"
            if self.kind == "WordPiece" and normalizer
            else "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        }
        names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        config |= dict(zip(names, SPECIAL_TOKENS, strict=True))
        if normalizer:
            config |= {
                "do_lower_case": normalizer["lowercase"],
                "strip_accents": normalizer["strip_accents"],
                "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            }
        text = to_json(config, indent=2) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
        tokens = [self.token(id) or f"[unused{id}]" for id in range(self.vocab_size)]
        (directory / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")

    def _encode_words(self, words: list[str]) -> list[bytes]:
        """The ids of each word. The library takes half the time for words in one text, and tells
        by the offsets where the tokens come from; not so where spaces are tokens themselves.
        """
        part = self._json["pre_tokenizer"] or {"type": None}
        if part["type"] not in _PRE_TOKENIZERS_WITHOUT_SPACES:
            return self._ask_library(words)
        groups = [
            words[start : start + WORDS_AT_ONCE] for start in range(0, len(words), WORDS_AT_ONCE)
        ]
        with self._special_tokens_as_text():
            encodings = self.library.encode_batch(
                [" ".join(group) for group in groups], add_special_tokens=False
            )
        found = []
        for group, encoding in zip(groups, encodings, strict=True):
            ends = np.cumsum([len(word) + 1 for word in group])
            starts = np.array([start for start, _ in encoding.offsets], np.int64)
            bounds = np.searchsorted(starts, ends) * np.dtype(np.int32).itemsize
            ids = np.array(encoding.ids, np.int32).tobytes()
            found += [ids[i:j] for i, j in itertools.pairwise([0, *bounds.tolist()])]
        return found

    def _ask_library(self, texts: Sequence[str]) -> list[bytes]:
        with self._special_tokens_as_text():
            encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32).tobytes() for encoding in encodings]

    @contextlib.contextmanager
    def _special_tokens_as_text(self) -> Iterator[None]:
        self.library.encode_special_tokens = True
        try:
            yield
        finally:
            self.library.encode_special_tokens = False


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads `tokenizer.json` or `vocab.txt`, or a directory with either (`tokenizer.json` first).

    A `vocab.txt` is read as BERT's WordPiece. Whether it is lowercase and removes accents is said
    by the `tokenizer_config.json` beside it, and otherwise by the vocabulary: lowercase where no
    token has a capital letter, accents removed (as lowercase implies) where no token has any.

    Raises:
        UserError: no such file, a damaged one, or one without BERT's special tokens.
    """
    path = Path(path)
    way_out = "make one with `python -m train.tokenizer`"
    if path.is_dir():
        candidates = [path / "tokenizer.json", path / "vocab.txt"]
        files = [file for file in candidates if file.is_file()]
        if not files:
            raise UserError(f"{path}: holds neither tokenizer.json nor vocab.txt; {way_out}")
        path = files[0]
    elif not path.is_file():
        raise UserError(f"{path}: no such tokenizer file or directory; {way_out}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a tokenizer: not UTF-8 at byte {error.start}") from None
    library = _read_json(path, text) if path.suffix == ".json" else _read_vocabulary(path, text)
    return Tokenizer(library, str(path))


def build(model: Any, normalizer: Any, pre_tokenizer: Any, decoder: Any) -> "tokenizers.Tokenizer":
    """A library tokenizer of these parts, with the frame `[CLS] A [SEP] B [SEP]`."""
    import tokenizers
    from tokenizers import processors

    library = tokenizers.Tokenizer(model)
    library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizer
    library.decoder = decoder
    library.add_special_tokens(list(SPECIAL_TOKENS))
    ends = [(token, library.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    library.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    return library


def build_wordpiece(
    tokens: Sequence[str], lowercase: bool, strip_accents: bool | None
) -> "tokenizers.Tokenizer":
    """BERT's WordPiece tokenizer of a vocabulary, tokens in the order of their ids."""
    from tokenizers import decoders, models, normalizers, pre_tokenizers

    model = models.WordPiece(
        {token: id for id, token in enumerate(tokens)},
        unk_token="[UNK]",
        max_input_chars_per_word=100,
    )
    normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=strip_accents)
    return build(model, normalizer, pre_tokenizers.BertPreTokenizer(), decoders.WordPiece("##"))


def _read_json(path: Path, text: str) -> "tokenizers.Tokenizer":
    import tokenizers

    try:
        json.loads(text)
        return tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception for every fault of the file
        raise UserError(
            f"{path}: damaged, or not a tokenizer.json ({' '.join(str(error).split())})"
        ) from None


def _read_vocabulary(path: Path, text: str) -> "tokenizers.Tokenizer":
    tokens = text.removesuffix("\n").split("\n")
    tokens = [token.removesuffix("\r") for token in tokens]
    missing = [token for token in SPECIAL_TOKENS if token not in tokens]
    if missing:
        raise UserError(
            f"{path}: the vocabulary has no {', '.join(missing)}; it is one token a line, and BERT"
            f" needs {' '.join(SPECIAL_TOKENS)} among them"
        )
    if len(set(tokens)) < len(tokens):
        twice = next(token for number, token in enumerate(tokens) if token in tokens[:number])
        raise UserError(f"{path}: the token {twice!r} stands on two lines; ids must be unique")
    lowercase = not any(map(_has_capital, tokens))
    strip_accents = False if any(map(_has_accent, tokens)) else None
    config = path.parent / "tokenizer_config.json"
    if config.is_file():
        try:
            values = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{config}: damaged, not JSON ({error})") from None
        lowercase = values.get("do_lower_case", lowercase)
        strip_accents = values.get("strip_accents", strip_accents)
    return build_wordpiece(tokens, lowercase, strip_accents)


def _has_capital(token: str) -> bool:
    return token != token.lower() and not re.fullmatch(r"\[[A-Z]+\d*\]", token)


def _has_accent(token: str) -> bool:
    """Whether BERT's removal of accents changes the token, so that it would never be used."""
    return any(unicodedata.category(part) == "Mn" for part in unicodedata.normalize("NFD", token))


def _words_are_alone(tokenizer: dict[str, Any]) -> bool:
    """Whether the ids of a text are those of its space-separated words, one after the other.

    It says yes only where the parts of the tokenizer are known to keep words apart.
    """
    if any(
        " " in added["content"] or added["lstrip"] or added["rstrip"]
        for added in tokenizer["added_tokens"]
    ):
        return False
    normalizer = tokenizer["normalizer"]
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    part = tokenizer["pre_tokenizer"] or {"type": None}
    if part["type"] in _PRE_TOKENIZERS_WITHOUT_SPACES:
        return all(step["type"] in _NORMALIZERS_OF_WORDS for step in steps)
    return all(
        step["type"] in _NORMALIZERS_WITHOUT_NEW_SPACES
        or (step["type"] == "BertNormalizer" and not step["handle_chinese_chars"])
        for step in steps
    ) and (
        (part["type"] == "ByteLevel" and part["add_prefix_space"] and part["use_regex"])
        or (part["type"] == "Metaspace" and part["prepend_scheme"] == "always" and part["split"])
    )


def _part(tokenizer: dict[str, Any], place: str, kind: str) -> dict[str, Any] | None:
    """The normalizer, pre-tokenizer or decoder of that type, alone or within a sequence."""
    part = tokenizer[place] or {}
    parts = part.get("normalizers") or part.get("pretokenizers") or part.get("decoders") or [part]
    return next((part for part in parts if part.get("type") == kind), None)


def _has_part(tokenizer: dict[str, Any], kind: str) -> bool:
    return any(_part(tokenizer, place, kind) for place in ("pre_tokenizer", "decoder"))


# A forked worker would warn, or hang, if rayon's threads had run in its parent; one process a core
# is our way of using the cores.
def use_one_thread() -> None:
    """Keeps the library from starting threads in this process; call it in each worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
