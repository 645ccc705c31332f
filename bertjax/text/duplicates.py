"""Exact and near duplicates, and what the splits have in common.

signatures(texts)      -> in the workers: all that is needed to judge a document, small and pure
DuplicateFilter.judge  -> in the main process, document by document: "new", "exact" or "near"
OverlapMeter           -> the share of held-out word runs that also occur in train
"""

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from bertjax.program.errors import UserError
from bertjax.text.shingles import fold, hash_runs, hash_words

Verdict = Literal["new", "exact", "near"]

# Words in a shingle, the unit in which documents are compared; Lee et al. 2022 ("Deduplicating
# training data makes language models better", section 4.2) also take 5.
SHINGLE_WORDS = 5
# Words in a run that counts as overlap between splits: long enough not to be a phrase of the
# language.
OVERLAP_WORDS = 8

# With 16 bands of 4 of the 64 minima, a pair with similarity 0.8 becomes a candidate with
# probability 0.9998, one with 0.3 with 0.12; the estimate of a similarity of 0.8 has a standard
# error of 0.05.
_MINIMA = 64
_BANDS = 16
_BAND_NUMBERS = np.arange(_BANDS, dtype=np.uint64)
_SEED = 1

# Of the overlap hashes a signature keeps those that are 0 modulo this: only a share is measured.
_OVERLAP_SAMPLING = np.uint64(4)


@dataclasses.dataclass
class DuplicateConfig:
    """What counts as a duplicate.

    Attributes:
        near_threshold: Documents with at least this estimated similarity (Jaccard, of their runs of
            5 words) to an earlier one are near duplicates and removed, in (0, 1]; 0 removes only
            documents that are equal except for case and white space.
    """

    near_threshold: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.near_threshold <= 1:
            raise UserError(f"near_threshold={self.near_threshold!r} must be in [0, 1]")


class DocumentSignature(NamedTuple):
    """All that is needed to judge a document.

    Attributes:
        exact: 16 bytes, the hash of the text without differences in case and white space.
        minima: uint16 [64], its MinHash.
        overlap_hashes: uint64, a fixed quarter of the hashes of its runs of 8 words, for
            `OverlapMeter.add`.
        overlap_pieces: uint16, the piece of the document that each of those runs begins in.
    """

    exact: bytes
    minima: np.ndarray
    overlap_hashes: np.ndarray
    overlap_pieces: np.ndarray


def signature(text: str) -> DocumentSignature:
    """Returns the signature of one clean document; for many short ones `signatures` is ten times as
    fast.
    """
    return signatures([text])[0]


def signatures(texts: Sequence[str | tuple[str, ...]]) -> list[DocumentSignature]:
    """Returns the signature of each clean document: the same on every machine, in every process.

    Args:
        texts: each a text, or its pieces.
    """
    import rensa

    if not texts:
        return []
    pieces = [
        [fold(piece) for piece in ((text,) if isinstance(text, str) else text)] for text in texts
    ]
    folded = [b" ".join(of_document) for of_document in pieces]
    words = hash_words(folded)
    shingles = hash_runs(words, SHINGLE_WORDS)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        shingles.hashes, [0, *np.cumsum(shingles.counts).tolist()], _MINIMA, _SEED
    )
    digests = np.fromiter(itertools.chain.from_iterable(matrix.to_rows()), np.uint32)
    # The high half of a product: the minima of long documents are small numbers.
    minima = (
        ((digests * np.uint32(0x9E3779B1)) >> np.uint32(16)).astype(np.uint16).reshape(-1, _MINIMA)
    )
    runs = hash_runs(words, OVERLAP_WORDS)
    sampled = runs.hashes % _OVERLAP_SAMPLING == 0
    hashes = runs.hashes[sampled]
    bounds = np.concatenate([[0], np.cumsum(sampled)])[np.cumsum(runs.counts)].tolist()
    starts = [0, *bounds]
    begins = runs.begins[sampled]
    return [
        DocumentSignature(
            hashlib.blake2b(data, digest_size=16).digest(),
            row,
            hashes[start:end].copy(),
            _pieces_of_words(of_document, begins[start:end]),
        )
        for data, of_document, row, start, end in zip(
            folded, pieces, minima, starts, bounds, strict=False
        )
    ]


def _pieces_of_words(pieces: list[bytes], words: np.ndarray) -> np.ndarray:
    """Returns the piece that each word is in, by its number in the document."""
    if len(pieces) == 1:
        return np.zeros(len(words), np.uint16)
    ends = np.cumsum([len(piece.split(b" ")) if piece else 0 for piece in pieces])
    return np.searchsorted(ends, words, "right").astype(np.uint16)


class DuplicateFilter:
    """Judges documents in order: of several that are alike, the first is new.

    Memory: 272 bytes for a new document (16 exact hash, 128 minima, 128 index), none for a
        duplicate, and some
        10 MB whatever the number.
    """

    def __init__(self, config: DuplicateConfig) -> None:
        self._threshold = config.near_threshold
        self._index = _BandIndex()
        self._size = 0
        self._exact = np.empty((1024, 2), np.uint64)
        self._minima = np.empty((1024, _MINIMA), np.uint16)

    def judge(self, signature: DocumentSignature) -> Verdict:
        """Returns whether a document is new, or an exact or near duplicate of a new one; remembers
        it if it is new.

        Args:
            signature: of the document.
        """
        exact = np.frombuffer(signature.exact, np.uint64)
        keys = _band_keys(signature.minima)
        candidates = self._index.find(keys)
        if candidates:
            # Equal texts have equal minima, so an exact duplicate is always among the candidates.
            if (self._exact[candidates] == exact).all(axis=1).any():
                return "exact"
            similarity = (self._minima[candidates] == signature.minima).mean(axis=1).max()
            if self._threshold and similarity >= self._threshold:
                return "near"
        if self._size == len(self._exact):
            self._exact = _doubled(self._exact)
            self._minima = _doubled(self._minima)
        self._exact[self._size] = exact
        self._minima[self._size] = signature.minima
        self._index.add(keys, self._size)
        self._size += 1
        return "new"


def _doubled(array: np.ndarray) -> np.ndarray:
    larger = np.empty((2 * len(array), *array.shape[1:]), array.dtype)
    larger[: len(array)] = array
    return larger


def _band_keys(minima: np.ndarray) -> np.ndarray:
    """Returns a key of 32 bits, as uint64, for each band of the minima; equal bands in equal places
    have equal keys.
    """
    return ((minima.view(np.uint64) + _BAND_NUMBERS) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(
        32
    )


class _BandIndex:
    """The documents that have each key: sorted arrays of (key, document) in 8 bytes, and a small
    dictionary of the newest.

    A dictionary of everything would take ten times the memory.
    """

    _NEWEST = 1 << 16

    def __init__(self) -> None:
        self._newest: dict[int, list[int]] = {}
        self._waiting: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []  # each more than four times as long as the next

    def add(self, keys: np.ndarray, document: int) -> None:
        for key in keys.tolist():
            self._newest.setdefault(key, []).append(document)
        self._waiting.append((keys << np.uint64(32)) | np.uint64(document))
        if len(self._waiting) * len(keys) >= self._NEWEST:
            self._levels.append(np.sort(np.concatenate(self._waiting)))
            while len(self._levels) > 1 and len(self._levels[-2]) <= 4 * len(self._levels[-1]):
                merged = np.concatenate([self._levels.pop(), self._levels.pop()])
                merged.sort(kind="stable")  # which merges runs that are sorted already
                self._levels.append(merged)
            self._newest.clear()
            self._waiting.clear()

    def find(self, keys: np.ndarray) -> list[int]:
        """Returns the documents that have any of the keys, ascending."""
        similar: set[int] = set()
        for key in self._newest.keys() & keys.tolist():
            similar.update(self._newest[key])
        for level in self._levels:
            starts = np.searchsorted(level, keys << np.uint64(32))
            hits = np.flatnonzero(
                level[np.minimum(starts, len(level) - 1)] >> np.uint64(32) == keys
            )
            for hit in hits.tolist():
                end = np.searchsorted(level, (keys[hit] + np.uint64(1)) << np.uint64(32))
                similar.update((level[starts[hit] : end] & np.uint64(0xFFFFFFFF)).tolist())
        return sorted(similar)


class OverlapMeter:
    """The share of the runs of 8 words of validation and test that train also has, in fixed memory.

    Keeps the hashes below a bound; when there are more than `capacity` of them the bound is halved.
    So what is kept is a fair sample of the distinct runs, the same for all splits, whatever the
    order of the documents. Each hash is kept with the places where it occurs, since their splits
    are decided at the end.

    Args:
        capacity: How many hashes to keep, at 16 bytes each with their place; half as many again
            wait to be sorted in.
    """

    # For a run that is everywhere, some places are enough.
    _MOST_PLACES = 64

    def __init__(self, capacity: int = 1 << 20) -> None:
        self._capacity = capacity
        self._bound = 1 << 64
        self._hashes = np.empty(0, np.uint64)
        self._owners = np.empty(0, np.int64)
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []
        self._waiting_size = 0

    def add(self, document: int, hashes: np.ndarray, pieces: np.ndarray) -> None:
        """Counts a document's `overlap_hashes`, which begin in these pieces of it."""
        kept = hashes <= np.uint64(self._bound - 1)
        owners = (np.int64(document) << 16) | pieces[kept].astype(np.int64)
        self._waiting.append((hashes[kept], owners))
        self._waiting_size += len(owners)
        if self._waiting_size > self._capacity // 2:
            self._compact()

    def report(
        self, split_of: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> dict[str, float | None]:
        """Returns for validation and test the share of their distinct runs that train has, in
        [0, 1]; None for a split without runs.

        Args:
            split_of: The splits of (documents, pieces), by number: 0 validation, 1 test, 2 train.
        """
        self._compact()
        splits = split_of(self._owners >> 16, self._owners & 0xFFFF)
        validation, test, train = (_distinct(self._hashes[splits == split]) for split in range(3))
        shares: dict[str, float | None] = {}
        for name, held_out in (("validation", validation), ("test", test)):
            shared = np.searchsorted(train, held_out, "right") > np.searchsorted(train, held_out)
            shares[name] = float(shared.mean()) if len(held_out) else None
        return shares

    def _compact(self) -> None:
        hashes = np.concatenate([self._hashes, *(hashes for hashes, _ in self._waiting)])
        owners = np.concatenate([self._owners, *(owners for _, owners in self._waiting)])
        self._waiting.clear()
        self._waiting_size = 0
        order = np.lexsort((owners, hashes))
        hashes, owners = hashes[order], owners[order]
        if len(hashes):
            new = np.concatenate(
                [[True], (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])]
            )
            hashes, owners = hashes[new], owners[new]
            rank = np.arange(len(hashes)) - np.searchsorted(hashes, hashes)
            hashes, owners = hashes[rank < self._MOST_PLACES], owners[rank < self._MOST_PLACES]
        while len(hashes) > self._capacity:
            self._bound >>= 1
            end = np.searchsorted(hashes, np.uint64(self._bound))
            hashes, owners = hashes[:end].copy(), owners[:end].copy()
        self._hashes, self._owners = hashes, owners


def _distinct(hashes: np.ndarray) -> np.ndarray:
    """Returns the distinct hashes, ascending. By sorting, since `np.unique` is several times as
    slow on millions of numbers.
    """
    hashes.sort()
    return hashes[np.concatenate([[True], hashes[1:] != hashes[:-1]])] if len(hashes) else hashes
