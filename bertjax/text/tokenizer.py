"""Tokenizers: load an existing one, turn text into ids, and save a directory that transformers
loads.

`bertjax.text.tokenizer_training` makes new ones.
"""

import functools
import hashlib
import itertools
import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.text import spelling, tokenizer_files
from bertjax.text.shown_tokens import find_space, show_token
from bertjax.text.special_tokens import (
    describe_for_transformers,
    find_other_masks,
    find_special_tokens,
    find_specials,
    named_tokens,
    tell_specials,
)
from bertjax.text.tokenizer_parts import (
    build_wordpiece,
    find_offsets,
    hide_tokens,
)
from bertjax.text.word_cache import WordCache

if TYPE_CHECKING:
    import tokenizers

# What `Tokenizer.save` writes.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


class Tokenizer:
    """A tokenizer of the `tokenizers` library, with what rows and the model need.

    A text is read as transformers reads it, with one difference: special tokens (`[SEP]`, `<mask>`)
    in a text are letters, because the content of a text must not act as its frame or mask. Tokens
    that were added to the tokenizer (`[E1]`, `<user>`) are one token each.

    Attributes:
        library: the `tokenizers.Tokenizer` itself, without padding and truncation; it reads special
            tokens in a text as such, so that `encode` and `encode_batch` are what texts go through.
        notes: what the user should know about its files.
        vocab_size: V, the largest id + 1.
        special_tokens: as the vocabulary spells them.
        specials: all that no text has: these, and what else the frame or the files call special.
        frame: what stands around a text and between two.
        pad_id, unk_id, cls_id, sep_id, mask_id: the ids of the special tokens.
    """

    def __init__(
        self,
        library: "tokenizers.Tokenizer",
        name: str = "tokenizer",
        notes: Sequence[str] = (),
        declared: Mapping[str, Any] | None = None,
    ) -> None:
        """Wraps a tokenizer of the library.

        Args:
            library: it is changed: padding and truncation are turned off.
            name: its name in errors, a path for instance.
            notes: what the user should know about its files.
            declared: what its files name: fields of `special_tokens.NAME_FIELDS`, and
                `model_input_names`.

        Raises:
            UserError: special tokens are missing, or its way of framing texts is unknown.
        """
        library.no_padding()
        library.no_truncation()
        self.library = library
        self.name = name
        self.notes = tuple(notes)
        self.vocab_size: int = max(library.get_vocab(with_added_tokens=True).values()) + 1
        self._json: dict[str, Any] = json.loads(library.to_str())
        self._declared = dict(declared or {})
        self.special_tokens, self.frame = find_special_tokens(
            library, self._json, self._declared, name
        )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(
            library.token_to_id, self.special_tokens
        )
        more = [
            *map(library.id_to_token, itertools.chain(*self.frame)),
            *named_tokens(self._declared).values(),
        ]
        known = [token for token in more if library.token_to_id(token) is not None]
        self.specials = tuple(dict.fromkeys([*self.special_tokens, *known]))

    @property
    def special_ids(self) -> tuple[int, ...]:
        """The ids of `specials`, in that order."""
        return tuple(map(self.library.token_to_id, self.specials))

    @property
    def ids_of_fields(self) -> dict[str, int]:
        """The ids of the special tokens that a model's config.json names, by its fields."""
        return {
            "pad_token_id": self.pad_id,
            "bos_token_id": self.cls_id,
            "cls_token_id": self.cls_id,
            "eos_token_id": self.sep_id,
            "sep_token_id": self.sep_id,
        }

    @property
    def mask_token(self) -> str:
        """What a text has in the place of a word that is to be found: `[MASK]` or `<mask>`."""
        return self.special_tokens.mask

    @functools.cached_property
    def word_space(self) -> str:
        """What stands before a word that is given by itself, so that it is read as in a text.

        A space where the space before a word is part of its token and is not put there by the
        tokenizer (RoBERTa, ModernBERT); otherwise nothing.
        """
        alone, after_space = (encoding.ids for encoding in self.encode(["a", " a"]))
        return "" if alone == after_space else " "

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

        Raises:
            UserError: the tokenizer does not say where words begin.
        """
        tokens = [self.token(id) or "" for id in range(self.vocab_size)]
        model = self._json["model"]
        if prefix := model.get("continuing_subword_prefix"):
            continues = [token.startswith(prefix) for token in tokens]
        elif model["type"] == "WordLevel":
            continues = [False] * len(tokens)
        else:
            if not any(token.startswith(self._space) for token in tokens):
                raise UserError(
                    f"{self.name}: no token of this {model['type']} tokenizer begins with"
                    f" {self._space!r}, so it is unknown where a word begins; use a"
                    " WordPiece, byte-level BPE, Unigram or WordLevel tokenizer"
                )
            continues = [not token.startswith(self._space) for token in tokens]
        result = np.array(continues)
        result[list(self.special_ids)] = False
        return result

    def encode(self, texts: Sequence[str], *, masks: bool = False) -> list["tokenizers.Encoding"]:
        """Returns the library's encoding of each text: ids, offsets, words; without a frame.

        Args:
            texts: any number.
            masks: whether `mask_token` in a text is the mask, as some questions to a masked LM
                need.
        """
        reader = self._reader_of_masks if masks else self._reader
        return reader.encode_batch(list(texts), add_special_tokens=False)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Returns the ids of each text as `encode` does, int32.

        Where the tokenizer treats words separately, each distinct word goes through the library
        once and is cached: text repeats its words, so this is several times as fast.

        Args:
            texts: any number.
        """
        return [np.frombuffer(ids, np.int32) for ids in self._cache.encode(texts)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Returns the ids of each text as `encode_batch` does, and the characters of each.

        Args:
            texts: any number.

        Returns:
            (ids [t] int32, offsets [t, 2] int64: from the first to past the last character).
        """
        return [
            (np.array(encoding.ids, np.int32), find_offsets(encoding, text))
            for encoding, text in zip(self.encode(texts), texts, strict=True)
        ]

    def encode_joined(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts, concatenated, and how many each has; see `encode_batch`.

        Args:
            texts: any number.
        """
        encoded = self._cache.encode(texts)
        lengths = np.array([len(ids) for ids in encoded], np.int64) // np.dtype(np.int32).itemsize
        return np.frombuffer(b"".join(encoded), np.int32), lengths

    def forget_words(self) -> None:
        """Frees the cache of `encode_batch`, which fills again."""
        self._cache.forget()

    def lowercased(self) -> "Tokenizer":
        """Returns the same tokenizer, with texts lower-cased first."""
        old = self._json["normalizer"]
        steps = [] if old is None else old.get("normalizers", [old])
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
        return self.with_parts(normalizer=normalizer)

    @property
    def parts(self) -> Mapping[str, Any]:
        """Its tokenizer.json."""
        return self._json

    def with_parts(self, **changed: Any) -> "Tokenizer":
        """Returns the same tokenizer with other parts of its tokenizer.json.

        Args:
            changed: the parts by their names in tokenizer.json.
        """
        import tokenizers

        library = tokenizers.Tokenizer.from_str(to_json({**self._json, **changed}))
        return Tokenizer(library, self.name, self.notes, self._declared)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of the ids, special tokens left out.

        Args:
            ids: of tokens.
        """
        return self.library.decode([int(id) for id in ids], skip_special_tokens=True)

    def token(self, id: int) -> str | None:
        """Returns the token of an id; None for an id without one.

        Args:
            id: any number.
        """
        return self.library.id_to_token(int(id))

    def spell(self, id: int, *, begins_word: bool = False) -> str:
        """Returns what a reader is shown for an id: `dog`, or `##s` where it goes on a word.

        A vocabulary that is padded to a round number has ids without a token: `[unnamed7]`.

        Args:
            id: of the token.
            begins_word: whether it begins a word where it stands, whatever is before it.
        """
        token = self.token(id)
        if token is None:
            return f"[unnamed{id}]"
        if token in self._whole_tokens:
            return token
        return show_token(token, self._space, begins_word=begins_word)

    def find_token(self, spelled: str) -> int | None:
        """Returns the id of the token that is shown so, or that the vocabulary calls so.

        Of several that are shown alike it is the shortest.

        Args:
            spelled: a token as a reader writes it.
        """
        id = self._ids_as_shown.get(spelled)
        return self.library.token_to_id(spelled) if id is None else id

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
        others: dict[str, None] = {}
        for text in texts:
            parts = [text] if isinstance(text, str) else list(filter(None, text))
            specials = set().union(*(find_specials(part, self.specials) for part in parts))
            if masks:
                specials -= {self.mask_token}
                others |= dict.fromkeys(
                    other for part in parts for other in find_other_masks(part, self.mask_token)
                )
            names |= specials
            spelled += bool(specials)
            decomposed += any(map(self._loses_accents, parts))
            total += 1
        notes = tell_specials(names, self.specials, spelled, counted(total, noun))
        notes += [
            f"{other} in a text is read as letters: this model's mask is {self.mask_token}"
            for other in others
        ]
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
            **spelling.describe_spelling(self.library),
            "special_tokens": self.special_tokens._asdict(),
            "frame": self.describe_frame(),
            "special_tokens_in_texts": (
                f"read as letters, except {self.mask_token} in questions to a masked LM"
            ),
            "added_tokens": [added["content"] for added in self._added],
            "notes": list(self.notes),
        }

    def describe_frame(self) -> str:
        """Returns the frame of a pair: `[CLS] A [SEP] B [SEP]`."""
        before, between, after = (" ".join(map(self.spell, ids)) for ids in self.frame)
        return " ".join(filter(None, (before, "A", between, "B", after)))

    def describe_other_size(self, model_size: int) -> str:
        """Says what is wrong with a model that has embeddings for another number of tokens.

        Args:
            model_size: the rows of the model's table of tokens.
        """
        if self.vocab_size > model_size:
            return (
                f"its tokenizer has {self.vocab_size} tokens, more than the model's"
                f" vocab_size={model_size}; it is the tokenizer of another model"
            )
        return (
            f"its tokenizer has {self.vocab_size} tokens, the model embeddings for {model_size}; if"
            " the difference is not just padding, it is another model's"
        )

    def save(
        self,
        directory: Path | str,
        model_max_length: int | None = None,
        token_types: bool | None = None,
    ) -> None:
        """Saves what transformers loads: tokenizer.json, tokenizer_config.json, and WordPiece's
        vocab.txt.

        Args:
            directory: the directory, which is made.
            model_max_length: the longest text in tokens of the model that the tokenizer is for.
            token_types: whether the model takes token types; as its files or frame have it where
                left out.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        # Not with `library.save`, which accepts only names that are UTF-8.
        text = self.library.to_str(pretty=True)
        (directory / "tokenizer.json").write_text(text, encoding="utf-8")
        config = describe_for_transformers(
            self._json, self.special_tokens, self._declared, token_types
        )
        if model_max_length is not None:
            config["model_max_length"] = model_max_length
        text = to_json(config, indent=2) + "\n"
        (directory / "tokenizer_config.json").write_text(text, encoding="utf-8")
        if self.kind == "WordPiece":
            tokens = [self.token(id) or f"[unused{id}]" for id in range(self.vocab_size)]
            (directory / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")

    def _loses_accents(self, text: str) -> bool:
        """Returns whether the tokens differ from those of the same text in NFC."""
        if unicodedata.is_normalized("NFC", text):
            return False
        as_given, composed = self.encode_batch([text, unicodedata.normalize("NFC", text)])
        return not np.array_equal(as_given, composed)

    @functools.cached_property
    def _space(self) -> str | None:
        return find_space(self._json)

    @functools.cached_property
    def _whole_tokens(self) -> frozenset[str]:
        """The tokens that are what they look like: special ones, and those that were added."""
        return frozenset([*self.specials, *(token["content"] for token in self._added)])

    @functools.cached_property
    def _ids_as_shown(self) -> dict[str, int]:
        ids = sorted(range(self.vocab_size), key=lambda id: len(self.token(id) or ""), reverse=True)
        return {self.spell(id): id for id in ids}

    @functools.cached_property
    def _reader(self) -> "tokenizers.Tokenizer":
        return hide_tokens(self._json, self.specials)

    @property
    def _added(self) -> list[dict[str, Any]]:
        """The tokens that are never split in a text, special tokens left out."""
        added = self._json["added_tokens"]
        return [token for token in added if token["content"] not in self.specials]

    @functools.cached_property
    def _cache(self) -> WordCache:
        return WordCache(self._reader, self._json, self._added)

    @functools.cached_property
    def _reader_of_masks(self) -> "tokenizers.Tokenizer":
        mask = self.mask_token
        reader = hide_tokens(self._json, [token for token in self.specials if token != mask])
        if not any(token["content"] == mask for token in self._json["added_tokens"]):
            reader.add_special_tokens([mask])  # tokenizer.json lists it as a word only
        return reader


def load_tokenizer(path: Path | str) -> Tokenizer:
    """Loads the tokenizer of a file or directory: `tokenizer.json`, `vocab.txt` or `vocab.json`.

    The first of them in a directory counts. A `vocab.json` is read, with the `merges.txt` beside
    it, as RoBERTa's byte-level BPE; a `vocab.txt` as BERT's WordPiece. How that spells texts
    (capitals, accents, Chinese characters) is given by the `tokenizer_config.json` beside it,
    otherwise judged by its words. Added tokens are in these files, or in the others that
    transformers reads.

    Args:
        path: a file or a directory.

    Raises:
        UserError: the file is missing, damaged, or without the special tokens that a model needs.
    """
    path = Path(path)
    if path.is_dir():
        file = tokenizer_files.find_tokenizer_file(path)
        if file is None:
            raise UserError(tokenizer_files.describe_missing(path))
        path = file
    elif not path.is_file():
        raise UserError(
            f"{path}: no such tokenizer file or directory; make one with `bertjax tokenizer`"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a tokenizer: not UTF-8 at byte {error.start}") from None
    beside, notes = tokenizer_files.read_beside(path.parent), []
    if path.name == "vocab.json":
        library = tokenizer_files.read_byte_level(path, text, beside)
    elif path.suffix == ".json":
        library = tokenizer_files.read_tokenizer_json(path, text)
        notes = spelling.heed_config(library, beside)
    else:
        tokens = tokenizer_files.read_vocabulary(path, text)
        spelled, notes = spelling.spelling_of_vocabulary(path, tokens, beside)
        library = build_wordpiece(tokens, *spelled)
    tokenizer_files.add_tokens(library, beside)
    return Tokenizer(library, str(path), notes, beside.declared)


# A forked worker would warn, or hang, if rayon's threads had run in its parent; we use the cores
# with one process each.
def use_one_thread() -> None:
    """Keeps the library from starting threads in this process; call it in each worker."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
