"""A permutation of any length, computed place by place, so that none of it need be kept."""

import functools

import numpy as np
from jaxtyping import Int, UInt64

# Rounds of the cipher. Blocks of fewer bits shuffle badly.
ROUNDS = 4
FEWEST_BITS = 16
# Below this length walks are long, and all of them together quicker than one after the other.
FEW = 4096


def permute(places: Int[np.ndarray, " R"], length: int, seed: int) -> Int[np.ndarray, " R"]:
    """Returns where the permutation of `range(length)` that the seed names puts these places.

    A block cipher permutes the numbers of an even count of bits; a number that is too large is
    enciphered again until it is one of ours (cycle walking).

    Args:
        places: in `range(length)`.
        length: 1 to 2**32, rows that a uint32 can number.
        seed: a uint32.

    Source: grain's `experimental.index_shuffle`, whose numbers these are; the cipher is Simon
        (Beaulieu et al. 2013, ePrint 2013/404) with keys of `std::seed_seq`. Differs: many places
        at once, where grain takes 3 us for each to make the keys anew; and a permutation, too,
        where `length` - 1 is 2**16, 2**18, ..., for which grain's block lacks a bit.
    """
    half = (max(FEWEST_BITS, (length - 1).bit_length()) + 1) // 2
    keys = _round_keys(seed, half)
    if length < FEW:
        walked = _encipher(np.arange(1 << FEWEST_BITS, dtype=np.uint64), keys, half)
        while (walked[:length] >= length).any():  # every round makes the walks twice as long
            walked = np.where(walked < length, walked, walked[walked])
        return walked[places].astype(np.int64)
    numbers = _encipher(places.astype(np.uint64), keys, half)
    while len(outside := np.flatnonzero(numbers >= length)):
        numbers[outside] = _encipher(numbers[outside], keys, half)
    return numbers.astype(np.int64)


def _encipher(
    numbers: UInt64[np.ndarray, " R"], keys: tuple[np.uint64, ...], half: int
) -> UInt64[np.ndarray, " R"]:
    """Enciphers with Simon over words of `half` bits, two rounds at a time."""
    ones = np.uint64((1 << half) - 1)
    left, right = numbers >> np.uint64(half), numbers & ones

    def rotate(word: np.ndarray, by: int) -> np.ndarray:
        return (word << np.uint64(by)) | (word >> np.uint64(half - by))

    def mix(word: np.ndarray) -> np.ndarray:
        return ((rotate(word, 1) & rotate(word, 8)) ^ rotate(word, 2)) & ones

    for first, second in zip(keys[::2], keys[1::2], strict=True):
        left = left ^ mix(right) ^ first
        right = right ^ mix(left) ^ second
    return (left << np.uint64(half)) | right


@functools.lru_cache(maxsize=16)
def _round_keys(seed: int, half: int) -> tuple[np.uint64, ...]:
    """Returns the rounds' keys of `half` bits: what C++'s `std::seed_seq{seed}` generates.

    Source: ISO C++, [rand.util.seedseq], for one seed and four numbers.
    """
    most = (1 << 32) - 1

    def mix(word: int) -> int:
        return (word ^ (word >> 27)) & most

    def add(place: int, value: int) -> None:
        words[place % ROUNDS] = (words[place % ROUNDS] + value) & most

    words = [0x8B8B8B8B] * ROUNDS
    for k, offset in enumerate((1, 1 + seed, 2, 3)):
        value = 1664525 * mix(words[k] ^ words[(k + 1) % ROUNDS] ^ words[k - 1]) & most
        add(k + 1, value)
        add(k + 2, value + offset)
        words[k] = (value + offset) & most
    for k in range(ROUNDS):
        value = 1566083941 * mix(words[k] + words[(k + 1) % ROUNDS] + words[k - 1] & most) & most
        words[(k + 1) % ROUNDS] ^= value
        words[(k + 2) % ROUNDS] ^= (value - k) & most
        words[k] = (value - k) & most
    return tuple(np.uint64(word & ((1 << half) - 1)) for word in words)
