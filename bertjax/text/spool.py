"""Token ids of documents on disk, between tokenizing and pairing: written once, read anywhere.

Three flat files a split: `tokens` (ids), `sentences` (where each sentence starts, in tokens) and
`documents` (where each document starts, in sentences). They are read by `pread`, not mapped: pages
of a mapped file count as memory of every process that touched them.
"""

import itertools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

_PARTS = ("tokens", "sentences", "documents")
_OFFSET = np.dtype(np.int64)


class DocumentTokens(NamedTuple):
    """One document: [tokens] its ids, [sentences] the end of each sentence in them, ascending."""

    token_ids: np.ndarray
    sentence_ends: np.ndarray


class SpoolWriter:
    """Appends documents to the three files `STEM.tokens`, `STEM.sentences`, `STEM.documents`.

    Args:
        stem: path without suffix; its directory must be there.
        unit_tokens: tokens that make a unit of work; units are cut between documents.
    """

    def __init__(self, stem: Path, unit_tokens: int) -> None:
        self._files = [open(f"{stem}.{part}", "wb") for part in _PARTS]  # noqa: SIM115, closed in close()
        self._unit_tokens = unit_tokens
        self._unit_starts = [0]
        self._unit_size = 0
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self.documents = self.sentences = self.tokens = 0
        for file in self._files[1:]:
            file.write(np.zeros(1, _OFFSET).tobytes())

    def append(self, token_ids: np.ndarray, sentence_lengths: np.ndarray) -> None:
        """Adds one document: its ids, and the number of tokens in each of its sentences.

        The arrays may be kept until the next `flush`.
        """
        self._pending.append((token_ids, sentence_lengths))
        self.documents += 1
        self._unit_size += len(token_ids)
        if self._unit_size >= self._unit_tokens:
            self._unit_starts.append(self.documents)
            self._unit_size = 0

    def flush(self) -> None:
        """Writes what was appended; many documents at once are several times as fast as each."""
        if not self._pending:
            return
        lengths = np.concatenate([lengths for _, lengths in self._pending])
        sentences = np.array([len(lengths) for _, lengths in self._pending])
        ends = self.tokens + np.cumsum(lengths, dtype=_OFFSET)
        self._files[0].write(
            np.concatenate([token_ids for token_ids, _ in self._pending]).tobytes()
        )
        self._files[1].write(ends.tobytes())
        self._files[2].write((self.sentences + np.cumsum(sentences, dtype=_OFFSET)).tobytes())
        self.tokens = int(ends[-1])
        self.sentences += len(lengths)
        self._pending.clear()

    def close(self) -> list[tuple[int, int]]:
        """Ends writing; returns the units: (first document, last document + 1)."""
        self.flush()
        for file in self._files:
            file.close()
        starts = self._unit_starts
        if starts[-1] < self.documents:
            starts.append(self.documents)
        return list(itertools.pairwise(starts))


class SpoolReader:
    """Reads what a `SpoolWriter` wrote.

    Args:
        stem: the writer's stem.
        token_type: the type of the ids that were written.
    """

    def __init__(self, stem: Path, token_type: np.dtype) -> None:
        self._descriptors = [os.open(f"{stem}.{part}", os.O_RDONLY) for part in _PARTS]
        self._types = [np.dtype(token_type), _OFFSET, _OFFSET]
        self._documents = os.fstat(self._descriptors[2]).st_size // _OFFSET.itemsize - 1

    def __len__(self) -> int:
        """How many documents there are."""
        return self._documents

    def close(self) -> None:
        """Closes the files."""
        for descriptor in self._descriptors:
            os.close(descriptor)

    def documents(self, first: int, last: int) -> list[DocumentTokens]:
        """The documents first ... last - 1."""
        bounds = self._read(2, first, last + 1)
        starts = self._read(1, int(bounds[0]), int(bounds[-1]) + 1)
        token_ids = self._read(0, int(starts[0]), int(starts[-1]))
        starts = starts - starts[0]
        bounds = bounds - bounds[0]
        return [
            DocumentTokens(
                token_ids[starts[begin] : starts[end]], starts[begin + 1 : end + 1] - starts[begin]
            )
            for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)
        ]

    def sentence_starts(self, document: int) -> np.ndarray:
        """[sentences + 1] where each sentence of a document starts among all tokens; the end."""
        first, last = self._read(2, document, document + 2).tolist()
        return self._read(1, first, last + 1)

    def tokens(self, start: int, end: int) -> np.ndarray:
        """The ids start ... end - 1 among all tokens."""
        return self._read(0, start, end)

    def _read(self, part: int, start: int, end: int) -> np.ndarray:
        dtype = self._types[part]
        data = os.pread(
            self._descriptors[part], (end - start) * dtype.itemsize, start * dtype.itemsize
        )
        return np.frombuffer(data, dtype)
