"""Token ids of documents on disk, between tokenizing and pairing: written once, read anywhere.

Flat files: `tokens` (ids), `sentences` (where each sentence ends, in tokens), `pieces` (where each
piece ends, in sentences), and for each split its documents, as ranges of sentences: a
part of a document is a shorter range. They are read by `pread`, not mapped: pages of a mapped file
count as memory of every process that touched them.
"""

import array
import itertools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

_OFFSET = np.dtype(np.int64)


class DocumentTokens(NamedTuple):
    """One document: its ids, [tokens], and the end of each sentence in them, [sentences]."""

    token_ids: np.ndarray
    sentence_ends: np.ndarray


class SpoolWriter:
    """Appends documents to the files `STEM.tokens`, `STEM.sentences`, `STEM.pieces`.

    Attributes:
        documents, sentences, tokens: how many were written.
    """

    def __init__(self, stem: Path) -> None:
        """Makes the files; `stem` is their path without suffix, and its directory must exist."""
        self._stem = stem
        parts = ("tokens", "sentences", "pieces")
        self._files = [open(f"{stem}.{part}", "wb") for part in parts]  # noqa: SIM115, closed in close()
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        # 24 bytes a document, besides the 272 of the duplicate filter.
        self._tokens, self._sentence_ends, self._piece_ends = (array.array("q") for _ in range(3))
        self.documents = self.sentences = self.tokens = 0
        for file in self._files[1:]:
            file.write(np.zeros(1, _OFFSET).tobytes())

    def append(
        self,
        token_ids: np.ndarray,
        sentence_lengths: np.ndarray,
        piece_sentences: np.ndarray | None = None,
    ) -> None:
        """Adds one document: its ids, the number of tokens in each of its sentences, and the number
        of sentences in each of its pieces (None: there is one piece).

        The arrays may be kept until the next `flush`.
        """
        if piece_sentences is None:
            piece_sentences = np.array([len(sentence_lengths)])
        self._pending.append((token_ids, sentence_lengths, piece_sentences))
        self.documents += 1
        self._tokens.append(len(token_ids))
        for ends, size in (
            (self._sentence_ends, len(sentence_lengths)),
            (self._piece_ends, len(piece_sentences)),
        ):
            ends.append((ends[-1] if ends else 0) + size)

    def flush(self) -> None:
        """Writes what was appended, for many documents at once: several times as fast as singly."""
        if not self._pending:
            return
        token_ids, lengths, pieces = map(np.concatenate, zip(*self._pending, strict=True))
        ends = self.tokens + np.cumsum(lengths, dtype=_OFFSET)
        self._files[0].write(token_ids.tobytes())
        self._files[1].write(ends.tobytes())
        self._files[2].write((self.sentences + np.cumsum(pieces, dtype=_OFFSET)).tobytes())
        self.tokens = int(ends[-1])
        self.sentences += len(lengths)
        self._pending.clear()

    def close(self) -> None:
        """Ends writing."""
        self.flush()
        for file in self._files:
            file.close()

    @property
    def document_tokens(self) -> np.ndarray:
        """The number of tokens of each document, [documents]."""
        return np.array(self._tokens, _OFFSET)

    def ranges(self) -> np.ndarray:
        """Returns the first sentence of each document, and the last + 1, [documents, 2]."""
        return _ranges(np.array(self._sentence_ends, _OFFSET))

    def piece_ends(self, document: int) -> np.ndarray:
        """Returns a document's first sentence, then where each of its pieces ends, [pieces + 1]."""
        first = self._piece_ends[document - 1] if document else 0
        last = self._piece_ends[document]
        with open(f"{self._stem}.pieces", "rb") as file:
            return _read(file.fileno(), _OFFSET, first, last + 1)

    def piece_tokens(self, document: int) -> np.ndarray:
        """Returns the tokens of each piece of a document, [pieces]; after `close`."""
        ends = self.piece_ends(document)
        with open(f"{self._stem}.sentences", "rb") as file:
            starts = _read(file.fileno(), _OFFSET, int(ends[0]), int(ends[-1]) + 1)
        return np.diff(starts[ends - ends[0]])

    def write_split(self, split: str, ranges: np.ndarray) -> None:
        """Writes a split's documents, as ranges of sentences."""
        ranges.astype(_OFFSET).tofile(f"{self._stem}.{split}")


def cut_units(tokens: np.ndarray, unit_tokens: int) -> list[tuple[int, int]]:
    """Yields units of work, (first document, last document + 1), of at least so many tokens."""
    starts = [0]
    ends = np.cumsum(tokens)
    while starts[-1] < len(tokens):
        before = ends[starts[-1] - 1] if starts[-1] else 0
        end = int(np.searchsorted(ends, before + unit_tokens)) + 1
        starts.append(min(end, len(tokens)))
    return list(itertools.pairwise(starts))


class SpoolReader:
    """A reader of the documents of a split that a `SpoolWriter` wrote.

    Args:
        stem: the writer's stem.
        split: the split to read.
        token_type: the type that the ids were written with.
    """

    def __init__(self, stem: Path, split: str, token_type: np.dtype) -> None:
        parts = ("tokens", "sentences", split)
        self._descriptors = [os.open(f"{stem}.{part}", os.O_RDONLY) for part in parts]
        self._types = [np.dtype(token_type), _OFFSET, _OFFSET]
        self._documents = os.fstat(self._descriptors[2]).st_size // (2 * _OFFSET.itemsize)

    def __len__(self) -> int:
        """Returns the number of documents."""
        return self._documents

    def close(self) -> None:
        """Closes the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    def documents(self, first: int, last: int) -> list[DocumentTokens]:
        """Returns the documents first ... last - 1."""
        ranges = self._ranges(first, last)
        # Neighbours are read together.
        breaks = np.flatnonzero(ranges[1:, 0] != ranges[:-1, 1]) + 1
        read = []
        for together in np.split(ranges, breaks):
            begin, end = int(together[0, 0]), int(together[-1, 1])
            starts = self._read(1, begin, end + 1)
            token_ids = self._read(0, int(starts[0]), int(starts[-1]))
            starts = starts - starts[0]
            for left, right in (together - begin).tolist():
                ids = token_ids[starts[left] : starts[right]]
                read.append(DocumentTokens(ids, starts[left + 1 : right + 1] - starts[left]))
        return read

    def sentence_starts(self, document: int) -> np.ndarray:
        """Returns where a document's sentences start among all tokens; the end, [sentences + 1]."""
        [[first, last]] = self._ranges(document, document + 1).tolist()
        return self._read(1, first, last + 1)

    def tokens(self, start: int, end: int) -> np.ndarray:
        """Returns the ids start ... end - 1 among all tokens."""
        return self._read(0, start, end)

    def _ranges(self, first: int, last: int) -> np.ndarray:
        return self._read(2, 2 * first, 2 * last).reshape(-1, 2)

    def _read(self, part: int, start: int, end: int) -> np.ndarray:
        return _read(self._descriptors[part], self._types[part], start, end)


def _ranges(ends: np.ndarray) -> np.ndarray:
    """Returns where each run begins and ends, [n, 2], given the ends."""
    return np.stack([np.concatenate([[0], ends])[: len(ends)], ends], axis=1).astype(_OFFSET)


def _read(descriptor: int, dtype: np.dtype, start: int, end: int) -> np.ndarray:
    data = os.pread(descriptor, (end - start) * dtype.itemsize, start * dtype.itemsize)
    return np.frombuffer(data, dtype)
