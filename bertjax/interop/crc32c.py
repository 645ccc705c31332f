"""CRC-32C, the checksum of TensorFlow's files; with numpy, some hundred MB a second."""

import functools

import numpy as np

_POLYNOMIAL = np.uint32(0x82F63B78)  # Castagnoli's, its bits reversed
# How many parts of the bytes are worked on at once; a number of two bytes of each is one step.
_LANES = (8192, 64)
# Source: TensorFlow, core/lib/hash/crc32c.h, `Mask`.
_MASK_DELTA = 0xA282EAD8


def masked_crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """Returns the checksum of the bytes as TensorFlow saves it."""
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + _MASK_DELTA) & 0xFFFFFFFF


def crc32c(data: bytes | memoryview | np.ndarray) -> int:
    """Returns the checksum of the bytes.

    A checksum is linear over GF(2), so that parts of equal length are computed beside each other
    and then joined, two neighbours at a time.
    """
    left, state = np.frombuffer(data, np.uint8), np.uint32(0xFFFFFFFF)
    for lanes in _LANES:
        steps = left.size // (2 * lanes)
        if steps:
            part, left = np.split(left, [2 * lanes * steps])
            state = _checksum_of_lanes(part.view("<u2").reshape(lanes, steps), state)
    for byte in left.tolist():
        state = _table(8)[(int(state) ^ byte) & 0xFF] ^ (state >> np.uint32(8))
    return int(state) ^ 0xFFFFFFFF


def _checksum_of_lanes(lanes: np.ndarray, state: np.uint32) -> np.uint32:
    """Returns the state after the numbers of two bytes `[lanes, steps]`, row by row."""
    states, table = np.zeros(len(lanes), np.uint32), _table(16)
    states[0] = state
    for numbers in lanes.T:
        states = table[(states ^ numbers) & 0xFFFF] ^ (states >> np.uint32(16))
    skip = _zeros(2 * lanes.shape[1])
    while len(states) > 1:
        states = _apply(skip, states[::2]) ^ states[1::2]
        skip = _apply(skip, skip)
    return states[0]


@functools.cache
def _table(bits: int) -> np.ndarray:
    """Returns the state after so many bits, by the state before them."""
    states = np.arange(2**bits, dtype=np.uint32)
    for _ in range(bits):
        states = (states >> np.uint32(1)) ^ (_POLYNOMIAL * (states & np.uint32(1)))
    return states


def _zeros(count: int) -> np.ndarray:
    """Returns the effect of so many bytes of 0 on a state: what each of its bits becomes."""
    bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
    one = _table(8)[bits & np.uint32(0xFF)] ^ (bits >> np.uint32(8))
    effect = bits
    while count:
        if count & 1:
            effect = _apply(one, effect)
        one, count = _apply(one, one), count >> 1
    return effect


def _apply(effect: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Returns the states after the effect, a matrix of bits."""
    bits = (states[:, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return np.bitwise_xor.reduce(bits * effect, axis=1)
