"""The ids of texts word by word, each distinct word encoded once.

Text repeats its words, so this is several times as fast as the library alone.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bertjax.text.tokenizer_parts import drops_spaces, find_part, words_are_alone

if TYPE_CHECKING:
    import tokenizers

# Distinct words whose ids are cached, with punctuation attached. English needs about 80,000 for all
# but rare ones; the bound keeps the memory of a process below about 30 MB.
MOST_REMEMBERED_WORDS = 1 << 17
# A longer run without a space is no word (a URL, Chinese text) and rarely occurs again.
LONGEST_REMEMBERED_WORD = 40
# New words that go to the library as one text.
WORDS_AT_ONCE = 100


class _Words(NamedTuple):
    """Words that are remembered. They are replaced as a whole: what a thread uses stays whole.

    Attributes:
        ids: of each word, int32.
        not_alone: those beside which a space counts.
    """

    ids: dict[str, bytes]
    not_alone: set[str]


class WordCache:
    """An encoder of texts by the library, word by word where it can; threads may share it.

    Attributes:
        words_are_alone: whether the ids of a text are those of its words; otherwise texts go to the
            library as a whole.
    """

    def __init__(
        self,
        library: "tokenizers.Tokenizer",
        parts: Mapping[str, Any],
        added: Sequence[Mapping[str, Any]],
    ) -> None:
        """Makes an empty cache.

        Args:
            library: what reads a text.
            parts: its tokenizer.json.
            added: the tokens that are never split in a text.
        """
        self._library = library
        self.words_are_alone = words_are_alone(parts, added)
        self._drops_spaces = drops_spaces(parts)
        self._added_ids = {token["id"] for token in added}
        # Where only a space that is there becomes part of a token, a text's first word has none.
        byte_level = find_part(parts, "pre_tokenizer", "ByteLevel")
        self._space = " " if byte_level and not byte_level["add_prefix_space"] else ""
        self._words = _Words({}, set())

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Returns the int32 ids of each text as bytes, which are fast to join."""
        if not self.words_are_alone:
            return self._ask_library(texts)
        # Several spaces in a row, or other white space, are a token in some tokenizers: such
        # a text goes to the library as a whole.
        split = [text.split() for text in texts]
        parts = [
            self._with_spaces(words) if " ".join(words) == text else [text]
            for words, text in zip(split, texts, strict=True)
        ]
        words = self._words
        new = list(set().union(*parts).difference(words.ids))
        fresh = dict(zip(new, self._encode_words(new), strict=True))
        if len(words.ids) + len(fresh) > MOST_REMEMBERED_WORDS:
            # Clearing the cache is simple, and frequent words are back after a few sentences.
            fresh |= {word: words.ids[word] for part in parts for word in part if word not in fresh}
            self.forget()
            words = self._words
        # A word without ids (a lone accent) may leave its space behind, which counts in some; the
        # space before an added token does where spaces are tokens.
        not_alone = {word for word, ids in fresh.items() if self._needs_its_spaces(ids)}
        words.not_alone.update(not_alone)  # before any thread can see their ids
        short = [item for item in fresh.items() if len(item[0]) <= LONGEST_REMEMBERED_WORD]
        kept = short[: max(0, MOST_REMEMBERED_WORDS - len(words.ids))]
        words.ids.update(kept)
        encoded = words.ids
        if len(kept) < len(fresh):
            encoded = {
                word: words.ids[word] for part in parts for word in part if word not in fresh
            }
            encoded |= fresh
        result = [b"".join(map(encoded.__getitem__, part)) for part in parts]
        if words.not_alone:
            for number, part in enumerate(parts):
                if not words.not_alone.isdisjoint(part):
                    [result[number]] = self._ask_library(texts[number : number + 1])
        return result

    def forget(self) -> None:
        """Frees the cache, which fills again."""
        self._words = _Words({}, set())

    def _with_spaces(self, words: list[str]) -> list[str]:
        """Returns the words of a text, each with the space before it that is part of it."""
        return [*words[:1], *(self._space + word for word in words[1:])] if self._space else words

    def _encode_words(self, words: list[str]) -> list[bytes]:
        """Returns the ids of each word. The library takes half the time for words in one text, and
        its offsets say where the tokens come from, except where spaces are tokens themselves.
        """
        if not self._drops_spaces:
            return self._ask_library(words)
        groups = [
            words[start : start + WORDS_AT_ONCE] for start in range(0, len(words), WORDS_AT_ONCE)
        ]
        joined = [" ".join(group) for group in groups]
        encodings = self._library.encode_batch(joined, add_special_tokens=False)
        result = []
        for group, encoding in zip(groups, encodings, strict=True):
            ends = np.cumsum([len(word) + 1 for word in group])
            starts = np.array([start for start, _ in encoding.offsets], np.int64)
            bounds = np.searchsorted(starts, ends) * np.dtype(np.int32).itemsize
            ids = np.array(encoding.ids, np.int32).tobytes()
            result += [ids[i:j] for i, j in itertools.pairwise([0, *bounds.tolist()])]
        return result

    def _ask_library(self, texts: Sequence[str]) -> list[bytes]:
        encodings = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, np.int32).tobytes() for encoding in encodings]

    def _needs_its_spaces(self, ids: bytes) -> bool:
        """Returns whether a space beside a word with these ids may be a token, or part of one."""
        if not ids:
            return True
        if self._drops_spaces or not self._added_ids:
            return False
        return not self._added_ids.isdisjoint(np.frombuffer(ids, np.int32).tolist())
