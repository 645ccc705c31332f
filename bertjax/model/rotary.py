"""Rotary positions: queries and keys are turned by angles that grow with their place."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer


class Rotation(NamedTuple):
    """Cosines and sines of every token's angles, a pair of numbers of a head each."""

    cosine: Float[Array, "*kinds B T pairs"]
    sine: Float[Array, "*kinds B T pairs"]


def rotary_frequencies(
    bases: tuple[float, ...], head_size: int
) -> Float[np.ndarray, "kinds pairs"]:
    """Computes `base^(-2i/H)` of the i-th of the H/2 pairs, in float32.

    Rounded otherwise, far positions would have other angles than in training.
    """
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    # A power in float64, rounded, is torch's in float32 but for few; numpy's own is off more often.
    powers = np.power(np.array(bases)[:, None], exponents.astype(np.float64))
    return np.float32(1) / powers.astype(np.float32)


def make_rotations(
    bases: tuple[float, ...],
    head_size: int,
    position_ids: Integer[Array, "B T"],
    dtype: DTypeLike,
) -> Rotation:
    """Computes the rotations of each base, of positions that restart with every example.

    The angles are positions times `rotary_frequencies`, in float32 or wider.

    Source: Su et al. 2021, section 3.2.2; `ModernBertRotaryEmbedding`.
    """
    frequencies = rotary_frequencies(bases, head_size)
    wide = jnp.promote_types(dtype, jnp.float32)
    angles = position_ids[..., None].astype(wide) * frequencies[:, None, None].astype(wide)
    return Rotation(jnp.cos(angles), jnp.sin(angles))


def rotate(values: Float[Array, "B T N H"], rotation: Rotation) -> Float[Array, "B T N H"]:
    """Turns every head's pairs of numbers, the i-th and the (i + H/2)-th, in float32 or wider.

    The product of a query with a key then depends on the distance of their positions alone.
    """
    cosine, sine = (part[:, :, None] for part in rotation)
    first, second = jnp.split(values.astype(cosine.dtype), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, axis=-1).astype(values.dtype)
