"""Hashes of words and of runs of words (shingles, n-grams), for many documents at once.

Documents are identified, and compared, by their runs of words. Everything is arithmetic on whole
arrays: a word is read as numbers of eight bytes each, a run of words is a weighted sum of its
words' hashes, mixed.
"""

import functools
import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, kana, Han): each character
# counts as a word.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
_UNSPACED_CHARACTER = re.compile(f"([{_UNSPACED}])")
_ASCII = bytes(range(128))

# Words in the longest run that can be hashed.
LONGEST_RUN = 8

# Bytes. Longer words (a URL, base64) are rare, and hashed singly.
_LONG_WORD = 64
# The low k bytes of a number of eight bytes.
_LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)


class Words(NamedTuple):
    """The words of several documents, laid out for `hash_runs`.

    padded: uint64, the hash of every word, with `LONGEST_RUN - 1` zeros after each document.
    places: Where in `padded` the words are.
    within: The number of every word in its document, from 0.
    counts: How many words each document has.
    """

    padded: np.ndarray
    places: np.ndarray
    within: np.ndarray
    counts: np.ndarray


class Runs(NamedTuple):
    """The runs of n words of several documents.

    hashes: uint64, the hash of every run of all documents, in order.
    counts: How many runs each document has.
    begins: The number of each run's first word in its document, from 0.
    """

    hashes: np.ndarray
    counts: np.ndarray
    begins: np.ndarray


def fold(text: str) -> bytes:
    """Removes a clean text's differences in case and line ends: words with one space between
    them, as UTF-8.
    """
    data = text.encode()
    if characters := set(data.translate(None, _ASCII).decode()):
        if any(map(_is_unspaced, characters)):
            text = " ".join(_UNSPACED_CHARACTER.sub(r" \1 ", text).split())
            data = text.encode()
        if any(map(_is_folded_away, characters)):
            data = text.casefold().encode()
    # For ASCII bytes only: eight times as fast as `str.casefold`, which most texts do not need.
    return data.lower().replace(b"\n", b" ")


@functools.lru_cache(maxsize=1 << 16)
def _is_unspaced(character: str) -> bool:
    return bool(_UNSPACED_CHARACTER.match(character))


@functools.lru_cache(maxsize=1 << 16)
def _is_folded_away(character: str) -> bool:
    return character.casefold() != character


def hash_words(documents: Sequence[bytes]) -> Words:
    """Hashes every word of documents that `fold` returned."""
    # The zeros let the last words be read in eights, too.
    buffer = b" ".join(documents) + b" " + bytes(_LONG_WORD)
    ends = np.flatnonzero(np.frombuffer(buffer, np.uint8) == ord(" "))
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    if not lengths.all():
        starts, lengths = starts[lengths > 0], lengths[lengths > 0]
    eights = np.ndarray(len(buffer) - 7, "<u8", buffer, strides=(1,))
    hashes = lengths.astype(np.uint64) * _FACTORS[-1]
    for number in range(_LONG_WORD // 8):
        reaching = np.flatnonzero(lengths > 8 * number)
        if not len(reaching):
            break
        values = eights[starts[reaching] + 8 * number]
        values &= _LOW_BYTES[np.minimum(lengths[reaching] - 8 * number, 8)]
        hashes[reaching] += values * _FACTORS[number]
    for word in np.flatnonzero(lengths > _LONG_WORD):
        whole = buffer[starts[word] : starts[word] + lengths[word]]
        hashes[word] = int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")
    bounds = np.cumsum([0, *(len(document) + 1 for document in documents)])
    counts = np.diff(np.searchsorted(starts, bounds))
    gap = LONGEST_RUN - 1
    places = np.arange(len(hashes)) + np.repeat(np.arange(len(counts)) * gap, counts)
    padded = np.zeros(len(hashes) + len(counts) * gap, np.uint64)
    padded[places] = _mix(hashes)
    within = np.arange(len(hashes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Words(padded, places, within, counts)


def hash_runs(words: Words, length: int) -> Runs:
    """Hashes every run of `length` words, at most `LONGEST_RUN`. A run is within one document; a
    shorter document is one run.
    """
    sums = words.padded[: len(words.padded) - length + 1] * _FACTORS[0]
    for offset in range(1, length):
        sums += words.padded[offset : offset + len(sums)] * _FACTORS[offset]
    counts = np.minimum(words.counts, np.maximum(words.counts - length + 1, 1))
    whole = words.within < np.repeat(counts, words.counts)
    return Runs(_mix(sums[words.places[whole]]), counts, words.within[whole])


def _mix(values: np.ndarray) -> np.ndarray:
    """Mixes a value so that each bit of the result depends on each bit of it, one to one.

    Source: Steele et al. 2014, "Fast splittable pseudorandom number generators", the finalizer of
        SplitMix64.
    """
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values


# Odd numbers without a pattern.
_FACTORS = _mix(np.arange(1, 18, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)) | np.uint64(1)
