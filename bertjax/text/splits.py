"""Which split a document goes to: by its hash, where that keeps the requested shares.

With few documents, or some that are much longer than the rest, hashes give shares that are far
off: then the long ones are cut into contiguous parts.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

Split = Literal["train", "validation", "test"]
# The order in which places in [0, 1) are handed out; a split is a number here.
SPLIT_ORDER: tuple[Split, ...] = ("validation", "test", "train")
VALIDATION, TEST, TRAIN = range(3)

# A held-out split keeps its requested share within this much of it.
TOLERANCE = 0.25
# A document with more than this share of the tokens of the smallest held-out split is long: where
# it goes as a whole decides too much.
LONG_DOCUMENT = 0.5
# A part has at least this share of the tokens of its split: at each cut a text ends
# in the middle.
SMALLEST_PART = 1 / 8


def split_place(exact: bytes) -> float:
    """Returns a document's place in [0, 1): validation is lowest, then test, then train.

    Args:
        exact: `DocumentSignature.exact`.
    """
    # Salted, so that the split is independent of other uses of the hash's bits.
    salted = hashlib.blake2b(exact, digest_size=8, person=b"split").digest()
    return int.from_bytes(salted, "little") / 2**64


def split_shares(places: np.ndarray, fractions: tuple[float, float]) -> np.ndarray:
    """Returns the split of each place, as a number in `SPLIT_ORDER`."""
    validation, test = fractions
    return np.searchsorted([validation, validation + test], places, "right")


def document_split(exact: bytes, fractions: tuple[float, float]) -> Split:
    """Returns a document's split, by its hash alone: neither its place in the input nor other
    documents matter.

    Args:
        exact: `DocumentSignature.exact`.
        fractions: The shares of validation and of test, in [0, 1) and together below 1.
    """
    return SPLIT_ORDER[int(split_shares(np.array(split_place(exact)), fractions))]


class Part(NamedTuple):
    """Consecutive pieces of a document, first ... last - 1, and their split."""

    split: int
    first: int
    last: int


class Division(NamedTuple):
    """The split of every document and part.

    splits: uint8, the split of each document; meaningless for one that was cut.
    parts: by the number of a cut document, all of its parts in order.
    shares: each split's share of all tokens.
    counts: each split's number of documents and parts.
    """

    splits: np.ndarray
    parts: dict[int, list[Part]]
    shares: tuple[float, float, float]
    counts: tuple[int, int, int]

    def split_of(self, documents: np.ndarray, pieces: np.ndarray) -> np.ndarray:
        """Returns the splits of pieces of documents."""
        splits = self.splits[documents]
        for document, parts in self.parts.items():
            own = np.flatnonzero(documents == document)
            ends = [part.last for part in parts]
            splits[own] = np.array([part.split for part in parts], np.uint8)[
                np.searchsorted(ends, pieces[own], "right")
            ]
        return splits


def divide(
    places: np.ndarray,
    tokens: np.ndarray,
    piece_tokens: Callable[[int], np.ndarray],
    fractions: tuple[float, float],
    least: int,
) -> Division:
    """Divides documents into validation, test and train.

    The hash of each alone decides, if each split then has what it needs and the requested share of
    the tokens, to within `TOLERANCE` of it. If not, short documents go whole, in the order of their
    hashes, and a contiguous run is held out of every long one, long enough that the shares come
    out. The result depends on the documents alone, not on their order.

    Args:
        places: each document's, in [0, 1), by its hash (`split_place`).
        tokens: each document's number of tokens.
        piece_tokens: by the number of a document, the tokens of each of its pieces.
        fractions: the shares of validation and of test.
        least: how many documents or parts a split needs, if its fraction is not 0.
    """
    dividing = _Dividing(places, tokens, piece_tokens, fractions, least)
    if not dividing.keeps_shares():
        dividing.share_out()
        dividing.see_to_the_least()
    return dividing.result()


class _Dividing:
    """A division being made; it starts from what the hashes say."""

    def __init__(
        self,
        places: np.ndarray,
        tokens: np.ndarray,
        piece_tokens: Callable[[int], np.ndarray],
        fractions: tuple[float, float],
        least: int,
    ) -> None:
        self.places, self.tokens, self.piece_tokens = places, tokens, piece_tokens
        self.total = int(tokens.sum())
        self.fractions = (*fractions, 1 - sum(fractions))
        self.least = [least if fraction else 0 for fraction in (*fractions, 1)]
        self.splits = split_shares(places, fractions).astype(np.uint8)
        self.parts: dict[int, list[Part]] = {}

    def _whole(self, split: int) -> np.ndarray:
        """Returns the documents that go to a split whole."""
        whole = self.splits == split
        whole[list(self.parts)] = False
        return np.flatnonzero(whole)

    def _parts_of(self, split: int) -> list[tuple[int, Part]]:
        return [
            (document, part)
            for document, parts in self.parts.items()
            for part in parts
            if part.split == split
        ]

    def _part_tokens(self, document: int, part: Part) -> int:
        return int(self.piece_tokens(document)[part.first : part.last].sum())

    def counts(self) -> list[int]:
        return [len(self._whole(split)) + len(self._parts_of(split)) for split in range(3)]

    def shares(self) -> list[float]:
        sums = [
            int(self.tokens[self._whole(split)].sum())
            + sum(self._part_tokens(document, part) for document, part in self._parts_of(split))
            for split in range(3)
        ]
        return [tokens / max(1, self.total) for tokens in sums]

    def keeps_shares(self) -> bool:
        asked = self.fractions[:TRAIN]
        return all(map(int.__ge__, self.counts(), self.least)) and all(
            abs(share - fraction) <= TOLERANCE * fraction
            for share, fraction in zip(self.shares(), asked, strict=False)
        )

    def share_out(self) -> None:
        wanted = [split for split in (VALIDATION, TEST) if self.fractions[split]]
        targets = {split: self.fractions[split] * self.total for split in wanted}
        by_hash = np.argsort(self.places, kind="stable")
        long = self.tokens > LONG_DOCUMENT * min(targets.values(), default=np.inf)
        owed = dict.fromkeys(wanted, 0.0)

        self.splits[:] = TRAIN
        short = by_hash[~long[by_hash]]
        ends = np.concatenate([[0], np.cumsum(self.tokens[short])])
        start = 0
        for split in wanted:
            goal = ends[start] + self.fractions[split] * ends[-1]
            end = start + int(np.abs(ends[start:] - goal).argmin())
            self.splits[short[start:end]] = split
            owed[split] = float(goal - ends[end])
            start = end

        later = by_hash[long[by_hash]].tolist()
        for number, document in enumerate(later, 1):
            for split in wanted:
                owed[split] += self.fractions[split] * self.tokens[document]
            takes = {
                split: owed[split]
                for split in wanted
                if owed[split] >= SMALLEST_PART * targets[split] or number == len(later)
            }
            for split, taken in self._cut(document, takes).items():
                owed[split] -= taken

    def _cut(self, document: int, takes: dict[int, float]) -> dict[int, int]:
        """Holds out a run of pieces; returns the tokens that each split got.

        Its place in the document depends on the hash: the ends of books are unlike the rest.
        """
        bounds = np.concatenate([[0], np.cumsum(self.piece_tokens(document))])
        drawn = self.places[document] * 2**20 % 1.0
        start = _nearest(bounds, drawn * max(0.0, bounds[-1] - sum(takes.values())))
        parts = [Part(TRAIN, 0, start)]
        taken = {}
        for split, size in takes.items():
            end = max(start, _nearest(bounds, bounds[start] + size))
            parts.append(Part(split, start, end))
            taken[split] = int(bounds[end] - bounds[start])
            start = end
        parts.append(Part(TRAIN, start, len(bounds) - 1))
        if any(taken.values()):
            self._replace(document, [part for part in parts if part.first < part.last])
        return taken

    def _replace(self, document: int, parts: list[Part]) -> None:
        if len(parts) > 1:
            self.parts[document] = parts
        else:
            self.parts.pop(document, None)
            self.splits[document] = parts[0].split

    def see_to_the_least(self) -> None:
        """Halves the longest part of a split that has too few; where none can be halved, takes a
        piece of the longest elsewhere, and where nothing can be cut, the smallest document or part
        of the split with the most to spare.
        """
        for split in range(3):
            while self.counts()[split] < self.least[split]:
                if not (
                    self._halve_longest(split)
                    or self._take_piece(split)
                    or self._take_smallest(split)
                ):
                    break

    def _longest(self, splits: Sequence[int]) -> tuple[int, Part] | None:
        """Returns the longest document, or part of one, that can be cut."""
        candidates = [part for split in splits for part in self._parts_of(split)] + [
            (document, Part(split, 0, len(self.piece_tokens(document))))
            for split in splits
            for document in self._whole(split).tolist()
        ]
        candidates = [part for part in candidates if part[1].last - part[1].first > 1]
        return max(
            candidates,
            key=lambda part: (self._part_tokens(*part), self.places[part[0]]),
            default=None,
        )

    def _halve_longest(self, split: int) -> bool:
        longest = self._longest([split])
        if longest:
            document, part = longest
            bounds = np.concatenate([[0], np.cumsum(self.piece_tokens(document))])
            middle = _nearest(bounds, (bounds[part.first] + bounds[part.last]) / 2)
            middle = min(max(middle, part.first + 1), part.last - 1)
            self._cut_part(document, part, middle, split)
        return longest is not None

    def _take_piece(self, split: int) -> bool:
        longest = self._longest([other for other in range(3) if other != split])
        if longest:
            document, part = longest
            self._cut_part(document, part, part.last - 1, split)
        return longest is not None

    def _cut_part(self, document: int, part: Part, middle: int, split: int) -> None:
        """Cuts a part in two; the second goes to `split`."""
        old = self.parts.get(document, [part])
        at = old.index(part)
        two = [Part(part.split, part.first, middle), Part(split, middle, part.last)]
        self._replace(document, [*old[:at], *two, *old[at + 1 :]])

    def _take_smallest(self, split: int) -> bool:
        counts = self.counts()
        giver = max(range(3), key=lambda other: counts[other] - self.least[other])
        if counts[giver] <= self.least[giver]:
            return False
        sizes = [(int(self.tokens[document]), document, None) for document in self._whole(giver)]
        sizes += [(self._part_tokens(*part), *part) for part in self._parts_of(giver)]
        _, document, part = min(sizes, key=lambda one: (one[0], self.places[one[1]]))
        if part is None:
            self.splits[document] = split
        else:
            moved = part._replace(split=split)
            self.parts[document] = [moved if one == part else one for one in self.parts[document]]
        return True

    def result(self) -> Division:
        return Division(self.splits, self.parts, tuple(self.shares()), tuple(self.counts()))


def _nearest(bounds: np.ndarray, place: float) -> int:
    return int(np.abs(bounds - place).argmin())
