"""Dropout whose bits depend on a key, a row's id and a place in the row, and on nothing else."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Key, UInt32


class Dropout(NamedTuple):
    """What is dropped at a place in the network.

    Attributes:
        rate: the share to drop, in [0, 1).
        key: the key of this place in the network at this step.
        row_ids: the rows' places in the global batch (see `draw_kept`).
    """

    rate: float
    key: Key[Array, ""]
    row_ids: Integer[Array, " B"]


def draw_kept(
    key: Key[Array, ""], row_ids: Integer[Array, " B"], shape: tuple[int, ...], rate: float
) -> Bool[Array, "B ..."]:
    """Draws what dropout keeps: each element with probability 1 - rate, by (key, row id, place).

    A row's mask depends on nothing but its own id, so it is the same on one device or eight, alone
    or in a microbatch.

    Args:
        key: the key of this place in the network at this step.
        row_ids: the rows' places in the global batch.
        shape: a row's shape; at most 2^32 elements.
        rate: the share to drop, in [0, 1).
    """
    row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(row_ids)
    return draw_bits(row_keys, shape) >= jnp.uint32(round(rate * 2**32))


def draw_bits(row_keys: Key[Array, " B"], shape: tuple[int, ...]) -> UInt32[Array, "B ..."]:
    """Draws 32 bits for every element of every row, from the row's key and the element's place.

    They come from a counter-based hash: two rounds of a 32-bit integer finaliser over the element's
    index, keyed per row by threefry. threefry itself for every element would be a tenth of a
    training step of the base size on a CPU (docs/performance.md).

    Args:
        row_keys: each row's.
        shape: a row's shape; at most 2^32 elements.

    Source: the finaliser is `lowbias32` (C. Wellons, hash-prospector).
    """
    words = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(row_keys)
    place = jax.lax.broadcasted_iota(jnp.uint32, (1, *shape), len(shape))
    stride = 1
    for axis in range(len(shape) - 1, 0, -1):
        stride *= shape[axis]
        place += jax.lax.broadcasted_iota(jnp.uint32, (1, *shape), axis) * jnp.uint32(stride)
    first, second = (words[:, word].reshape(-1, *(1 for _ in shape)) for word in range(2))
    return _mix_bits(_mix_bits(place + first) ^ second)


def _mix_bits(bits: Integer[Array, "*shape"]) -> Integer[Array, "*shape"]:
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def drop_out(
    values: Float[Array, "*shape"], rate: float, key: Key[Array, ""], row_ids: Integer[Array, " B"]
) -> Float[Array, "*shape"]:
    """Drops out: each element becomes 0 with probability `rate`, else 1 / (1 - rate) times itself.

    Args:
        values: `[B, ...]`, or flat over tokens `[B*T, D]`.
        rate: the share to drop, in [0, 1).
        key: the key of this place in the network at this step.
        row_ids: the rows' places in the global batch (see `draw_kept`).

    Source: Srivastava et al. 2014.
    """
    rows = row_ids.shape[0]
    shape = (values.shape[0] // rows, *values.shape[1:])
    kept = draw_kept(key, row_ids, shape, rate).reshape(values.shape)
    # The factor is not rounded to the dtype of the values: all would be off by as much.
    scale = jnp.asarray(1 / (1 - rate), jnp.promote_types(values.dtype, jnp.float32))
    return jnp.where(kept, values * scale, 0).astype(values.dtype)
