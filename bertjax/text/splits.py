"""Which split a document goes to: by its hash; of few documents each split gets some."""

import collections
from collections.abc import Callable
from typing import Any

from bertjax.text.duplicates import Split, document_split, split_place

# Up to so many documents, of so many tokens, the splits see to each other. They wait in memory.
FEW_DOCUMENTS = 256
FEW_TOKENS = 1 << 24


class Splitter:
    """Hands every document on with its split.

    The hash alone decides, whatever else there is, once the documents are more than a few. While
    they are few, a split may be left with too little by chance: it then gets, from the split that
    has most to spare, the documents whose hashes come next.

    Args:
        fractions: of validation and of test, as `document_split` takes them.
        least: documents that a split needs, if its fraction is not 0.
        hand_on: is called with each document and its split, in the order in which they came.
    """

    def __init__(
        self, fractions: tuple[float, float], least: int, hand_on: Callable[[Split, Any], None]
    ) -> None:
        self._fractions = fractions
        wanted = zip(("validation", "test", "train"), (*fractions, 1.0), strict=True)
        self._least = {split: least if fraction else 0 for split, fraction in wanted}
        self._hand_on = hand_on
        self._waiting: list[tuple[bytes, Any]] | None = []
        self._waiting_tokens = 0

    def add(self, exact: bytes, tokens: int, document: Any) -> None:
        """Takes a document.

        Args:
            exact: `DocumentSignature.exact`.
            tokens: how many it has.
            document: what is handed on.
        """
        if self._waiting is None:
            self._hand_on(document_split(exact, self._fractions), document)
            return
        self._waiting.append((exact, document))
        self._waiting_tokens += tokens
        if len(self._waiting) > FEW_DOCUMENTS or self._waiting_tokens > FEW_TOKENS:
            waiting, self._waiting = self._waiting, None
            for exact, document in waiting:
                self._hand_on(document_split(exact, self._fractions), document)

    def close(self) -> None:
        """Hands on what still waits; no document comes after."""
        waiting, self._waiting = self._waiting or [], None
        found = collections.Counter(document_split(exact, self._fractions) for exact, _ in waiting)
        sizes = _sizes({split: found[split] for split in self._least}, self._least)
        # In this order the hash alone makes the same splits, with the sizes that it found.
        by_hash = sorted(range(len(waiting)), key=lambda number: split_place(waiting[number][0]))
        splits = dict(zip(by_hash, (s for s in sizes for _ in range(sizes[s])), strict=True))
        for number, (_, document) in enumerate(waiting):
            self._hand_on(splits[number], document)


def _sizes(found: dict[Split, int], least: dict[Split, int]) -> dict[Split, int]:
    """The sizes of the splits, at least `least` where there are enough documents for all."""
    sizes = dict(found)
    for split in sizes:
        while sizes[split] < least[split]:
            giver = max(sizes, key=lambda other: sizes[other] - least[other])
            if sizes[giver] <= least[giver]:
                break
            sizes[giver] -= 1
            sizes[split] += 1
    return sizes
