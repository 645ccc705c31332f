"""Tokenizers: load an existing one, turn text into ids, and save a directory that transformers
loads.

`bertjax.text.tokenizer_training` makes new ones.
"""

import functools
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.text import tokenizer_files
from bertjax.text.spelled_specials import find_specials, tell_specials
from bertjax.text.tokenizer_parts import (
    SPECIAL_TOKENS,
    added_tokens,
    build_wordpiece,
    find_offsets,
    find_part,
    has_part,
    hide_tokens,
)
from bertjax.text.word_cache import WordCache

if TYPE_CHECKING:
    import tokenizers

# What `Tokenizer.save` writes.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


class Tokenizer:
    """A tokenizer of the `tokenizers` library, with what rows and the model need.

    A text is read as transformers reads it, with one difference: `[PAD] [UNK] [CLS] [SEP] [MASK]`
    in a text are letters, because the content of a text must not act as its frame or mask. Tokens
    that were added to the tokenizer (`[E1]`, `<user>`) are one token each.

    Attributes:
        library: the `tokenizers.Tokenizer` itself, without padding and truncation; it reads special
            tokens in a text as such, so that `encode` and `encode_batch` are what texts go through.
        notes: what the user should know about its files.
        vocab_size: V, the largest id + 1.
        pad_id, unk_id, cls_id, sep_id, mask_id: the ids of the special tokens.
    """

    def __init__(
        self,
        library: "tokenizers.Tokenizer",
        name: str = "tokenizer",
        notes: Sequence[str] = (),
    ) -> None:
        """Wraps a tokenizer of the library.

        Args:
            library: it is changed: padding and truncation are turned off.
            name: its name in errors, a path for instance.
            notes: what the user should know about its files.

        Raises:
            UserError: special tokens are missing, or its way of marking words is unknown.
        """
        library.no_padding()
        library.no_truncation()
        self.library = library
        self.name = name
        self.notes = tuple(notes)
        missing = [token for token in SPECIAL_TOKENS if library.token_to_id(token) is None]
        if missing:
            raise UserError(
                f"{name}: the tokenizer has no {', '.join(missing)}; BERT needs"
                f" {' '.join(SPECIAL_TOKENS)} in the vocabulary: add them, or make a new tokenizer"
                " with `bertjax tokenizer`"
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            library.token_to_id(token) for token in SPECIAL_TOKENS
        )
        self.vocab_size: int = max(library.get_vocab(with_added_tokens=True).values()) + 1
        self._json: dict[str, Any] = json.loads(library.to_str())

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of `SPECIAL_TOKENS`, in that order."""
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    @property
    def kind(self) -> str:
        """The library's name for the model: WordPiece, BPE, Unigram or WordLevel."""
        return self._json["model"]["type"]

    @functools.cached_property
    def fingerprint(self) -> str:
        """The tokenizer's sha256: tokenizers with the same give the same ids for every text."""
        text = to_json(self._json, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @functools.cached_property
    def continues_word(self) -> np.ndarray:
        """Whether each token continues the word before it, [V] bool; whole-word masking needs it.

        WordPiece marks it by the prefix `##`; byte-level BPE and Unigram mark the *beginning* of a
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
            beginning = "Ġ" if has_part(self._json, "ByteLevel") else "▁"
            if not any(token.startswith(beginning) for token in tokens):
                raise UserError(
                    f"{self.name}: no token of this {model['type']} tokenizer begins with"
                    f" {beginning!r}, so it is unknown where a word begins; use a"
                    " WordPiece, byte-level BPE, Unigram or WordLevel tokenizer"
                )
            continues = [not token.startswith(beginning) for token in tokens]
        result = np.array(continues)
        result[list(self.special_ids)] = False
        return result

    def encode(self, texts: Sequence[str], *, masks: bool = False) -> list["tokenizers.Encoding"]:
        """Returns the library's encoding of each text: ids, offsets, words; without a frame.

        Args:
            texts: any number.
            masks: whether `[MASK]` in a text is the mask, as some questions to a masked LM need.
        """
        reader = self._reader_of_masks if masks else self._reader
        return reader.encode_batch(list(texts), add_special_tokens=False)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the ids of each text as `encode` does, int32.

        Where the tokenizer treats words separately, each distinct word goes through the library
        once and is cached: text repeats its words, so this is several times as fast.
        """
        return [np.frombuffer(ids, np.int32) for ids in self._cache.encode(texts)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids of each text as `encode_batch` does, and the characters of each.

        Returns:
            (ids [t] int32, offsets [t, 2] int64: from the first to past the last character).
        """
        return [
            (np.array(encoding.ids, np.int32), find_offsets(encoding, text))
            for encoding, text in zip(self.encode(texts), texts, strict=True)
        ]

    def encode_joined(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts, concatenated, and how many each has; see `encode_batch`."""
        encoded = self._cache.encode(texts)
        lengths = np.array([len(ids) for ids in encoded], np.int64) // np.dtype(np.int32).itemsize
        return np.frombuffer(b"".join(encoded), np.int32), lengths

    def forget_words(self) -> None:
        """Frees the cache of `encode_batch`, which fills again."""
        self._cache.forget()

    def lowercased(self) -> "Tokenizer":
        """Returns the same tokenizer, with texts lower-cased first."""
        import tokenizers

        old = self._json["normalizer"]
        steps = [] if old is None else old.get("normalizers", [old])
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
        parts = to_json({**self._json, "normalizer": normalizer})
        return Tokenizer(tokenizers.Tokenizer.from_str(parts), self.name, self.notes)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, special tokens left out."""
        return self.library.decode([int(id) for id in ids], skip_special_tokens=True)

    def token(self, id: int) -> str | None:
        """Returns the token of an id; None for an id without one."""
        return self.library.id_to_token(int(id))

    def spell(self, id: int) -> str:
        """Returns what is shown for an id: its token, or `[unnamed7]` where it has none.

        A vocabulary that is padded to a round number has ids without a token.
        """
        return self.token(id) or f"[unnamed{id}]"

    def describe_readings(
        self,
        texts: Iterable[str | Sequence[str | None]],
        *,
        masks: bool = False,
        noun: str = "text",
    ) -> list[str]:
        """Returns sentences on what is in texts and is not read as it looks.

        Args:
            texts: as given, each a text or several that belong together.
            masks: as in `encode`.
            noun: the noun for one of them.
        """
        names, spelled, decomposed, total = set[str](), 0, 0, 0
        for text in texts:
            parts = [text] if isinstance(text, str) else list(filter(None, text))
            specials = set().union(*map(find_specials, parts)) - ({"[MASK]"} if masks else set())
            names |= specials
            spelled += bool(specials)
            decomposed += any(map(self._loses_accents, parts))
            total += 1
        notes = tell_specials(names, spelled, counted(total, noun))
        if decomposed:
            notes.append(
                f"{decomposed:,} of {counted(total, noun)} have letters whose accents are"
                " characters of their own (decomposed, as in NFD), which this tokenizer reads"
                " differently from precomposed letters; normalize the texts to NFC"
            )
        return notes

    def describe(self) -> dict[str, Any]:
        """Describes the tokenizer as a JSON object."""
        return {
            "kind": self.kind,
            "vocab_size": self.vocab_size,
            **tokenizer_files.describe_spelling(self.library),
            "special_tokens_in_texts": "read as letters, except [MASK] in questions to a masked LM",
            "added_tokens": [added["content"] for added in added_tokens(self._json)],
            "notes": list(self.notes),
        }

    def describe_other_size(self, model_size: int) -> str:
        """Says what is wrong with a model that has embeddings for another number of tokens."""
        if self.vocab_size > model_size:
            return (
                f"its tokenizer has {self.vocab_size} tokens, more than the model's"
                f" vocab_size={model_size}; it is the tokenizer of another model"
            )
        return (
            f"its tokenizer has {self.vocab_size} tokens, the model embeddings for {model_size}; if"
            " the difference is not just padding, it is another model's"
        )

    def save(self, directory: Path | str, model_max_length: int | None = None) -> None:
        """Saves what transformers loads: tokenizer.json, tokenizer_config.json, vocab.txt.

        Args:
            directory: the directory, which is made.
            model_max_length: the longest text in tokens of the model that the tokenizer is for.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Not with `library.save`, which accepts only names that are UTF-8.
        text = self.library.to_str(pretty=True)
        (directory / "tokenizer.json").write_text(text, encoding="utf-8")
        normalizer = find_part(self._json, "normalizer", "BertNormalizer")
        config: dict[str, Any] = {
            # BertTokenizer rebuilds the normalizer: BERT's alone, with nothing before it.
            "tokenizer_class": "BertTokenizer"
            if self.kind == "WordPiece" and normalizer == self._json["normalizer"]
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
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        text = to_json(config, indent=2) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
        tokens = [self.token(id) or f"[unused{id}]" for id in range(self.vocab_size)]
        (directory / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")

    def _loses_accents(self, text: str) -> bool:
        """Returns whether the tokens differ from those of the same text in NFC."""
        if unicodedata.is_normalized("NFC", text):
            return False
        as_given, composed = self.encode_batch([text, unicodedata.normalize("NFC", text)])
        return not np.array_equal(as_given, composed)

    @functools.cached_property
    def _reader(self) -> "tokenizers.Tokenizer":
        return hide_tokens(self._json, SPECIAL_TOKENS)

    @functools.cached_property
    def _cache(self) -> WordCache:
        return WordCache(self._reader, self._json)

    @functools.cached_property
    def _reader_of_masks(self) -> "tokenizers.Tokenizer":
        reader = hide_tokens(self._json, [token for token in SPECIAL_TOKENS if token != "[MASK]"])
        reader.add_special_tokens(["[MASK]"])  # where tokenizer.json lists it as a word only
        return reader


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads `tokenizer.json` or `vocab.txt`, or a directory with either (`tokenizer.json` first).

    A `vocab.txt` is read as BERT's WordPiece. How it spells texts (capitals, accents, Chinese
    characters) is given by the `tokenizer_config.json` beside it, otherwise judged by its words.
    Added tokens are in these files, or in the others that transformers reads.

    Raises:
        UserError: the file is missing, damaged, or without BERT's special tokens.
    """
    path = Path(path)
    way_out = "make one with `bertjax tokenizer`"
    if path.is_dir():
        candidates = [path / "tokenizer.json", path / "vocab.txt"]
        files = [file for file in candidates if file.is_file()]
        if not files:
            raise UserError(f"{path}: contains neither tokenizer.json nor vocab.txt; {way_out}")
        path = files[0]
    elif not path.is_file():
        raise UserError(f"{path}: no such tokenizer file or directory; {way_out}")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a tokenizer: not UTF-8 at byte {error.start}") from None
    beside = tokenizer_files.read_beside(path.parent)
    if path.suffix == ".json":
        library = tokenizer_files.read_tokenizer_json(path, text)
        notes = tokenizer_files.heed_config(library, beside)
    else:
        tokens = tokenizer_files.read_vocabulary(path, text)
        spelling, notes = tokenizer_files.spelling_of_vocabulary(path, tokens, beside)
        library = build_wordpiece(tokens, *spelling)
    tokenizer_files.add_tokens(library, beside)
    return Tokenizer(library, str(path), notes)


# A forked worker would warn, or hang, if rayon's threads had run in its parent; we use the cores
# with one process each.
def use_one_thread() -> None:
    """Keeps the library from starting threads in this process; call it in each worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
