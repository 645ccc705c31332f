"""Cleaning of text."""

import dataclasses
import hashlib
import unicodedata
from typing import Literal

import numpy as np


@dataclasses.dataclass
class CleaningConfig:
    """How text is cleaned.

    Attributes:
        fix_unicode: Mend broken Unicode by ftfy.
        normalization: Unicode normal form.
        minimum_characters: A document with fewer characters after cleaning is dropped by the caller.
        boilerplate_documents: A line seen in at least so many documents is boilerplate; 0 = off.
    """

    fix_unicode: bool = True
    normalization: Literal["NFC", "NFKC", "none"] = "NFC"
    minimum_characters: int = 20
    boilerplate_documents: int = 30


def clean(text: str, config: CleaningConfig) -> str:
    """The text, clean; lines stay lines, blank lines go."""
    text = unicodedata.normalize(config.normalization, text)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def line_hashes(text: str) -> np.ndarray:
    """uint64 hashes of the distinct lines of a document."""
    digests = {hashlib.blake2b(line.encode(), digest_size=8).digest() for line in text.split("\n")}
    return np.sort(np.frombuffer(b"".join(digests), np.uint64))


class LineCounts:
    """In how many documents each line occurs: a count-min sketch of fixed size."""

    def __init__(self) -> None:
        self.table = np.zeros((4, 1 << 21), np.uint32)
        self.total = 0

    def add(self, hashes: np.ndarray) -> None:
        """Counts one document's `line_hashes`, or those of several documents concatenated."""
        self.total += len(hashes)
        for row, slots in zip(self.table, self._slots(hashes), strict=True):
            np.add.at(row, slots, 1)

    def merge(self, other: "LineCounts") -> None:
        """Adds another sketch's counts to these."""
        self.table += other.table
        self.total += other.total

    def count(self, hashes: np.ndarray) -> np.ndarray:
        """The count of every hash."""
        found = [row[slots] for row, slots in zip(self.table, self._slots(hashes), strict=True)]
        return np.min(found, axis=0)

    def _slots(self, hashes: np.ndarray) -> list[np.ndarray]:
        return [(hashes >> np.uint64(14 * row)) & np.uint64((1 << 21) - 1) for row in range(4)]


def remove_boilerplate(text: str, counts: LineCounts, config: CleaningConfig) -> tuple[str, int]:
    """The text without the lines that are boilerplate, and how many lines went."""
    if not config.boilerplate_documents:
        return text, 0
    lines = text.split("\n")
    hashes = np.array(
        [
            int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest(), "little")
            for line in lines
        ],
        np.uint64,
    )
    kept = counts.count(hashes) < config.boilerplate_documents
    return "\n".join(line for line, keep in zip(lines, kept, strict=True) if keep), int(
        (~kept).sum()
    )
