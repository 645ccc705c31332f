"""jax's own attention: what XLA makes of it, and cuDNN's fused kernel."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from bertjax.kernels.backends import Need, choose_backend
from bertjax.kernels.visibility import Reach, reach_of, see_own_sequence
from bertjax.numerics.placement import full_precision


def xla(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
    local: Bool[Array, ""] | None = None,
) -> Float[Array, "B T N H"]:
    """Computes `jax.nn.dot_product_attention` as XLA compiles it, anywhere; memory [B, N, T, T].

    Arguments and result as `blockwise.attention`.
    """
    return _attend(query, key, value, sequence_ids, reach_of(window, local), "xla")


def cudnn(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
    local: Bool[Array, ""] | None = None,
) -> Float[Array, "B T N H"]:
    """Computes cuDNN's fused attention, on NVIDIA GPUs; the mask, [B, T, T], is its only square.

    Arguments and result as `blockwise.attention`.

    Raises:
        UserError: a dtype or head size that the kernel does not take.
    """
    length, head_size = query.shape[1], query.shape[3]
    choose_backend("cudnn", Need("gpu", query.dtype.name, length, head_size))
    # An odd length has no gradient there: one place of padding makes it even.
    odd = [(0, 0), (0, length % 2)]
    query, key, value = (jnp.pad(part, [*odd, (0, 0), (0, 0)]) for part in (query, key, value))
    padded_ids = jnp.pad(sequence_ids, odd)
    reach = reach_of(window, local)
    return _attend(query, key, value, padded_ids, reach, "cudnn")[:, :length]


def _attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    reach: Reach,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "B T N H"]:
    visible = see_own_sequence(sequence_ids, reach)
    with full_precision(query.dtype):
        context = jax.nn.dot_product_attention(
            query, key, value, mask=visible, implementation=implementation
        )
    # The library gives a query that sees no key the mean of all values.
    return jnp.where(sequence_ids[:, :, None, None] != 0, context, 0)
