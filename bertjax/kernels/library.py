"""jax's own attention: what XLA makes of it, and cuDNN's fused kernel."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from bertjax.kernels.visibility import check_window, see_own_sequence
from bertjax.numerics.placement import full_precision
from bertjax.program.errors import UserError

# What cuDNN's kernel takes.
_CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)
_CUDNN_HEAD_SIZES = "a multiple of 8, at most 128 (256 from Hopper on)"


def xla(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
) -> Float[Array, "B T N H"]:
    """`jax.nn.dot_product_attention` as XLA compiles it, on any device; memory [B, N, T, T].

    Arguments and result as `blockwise.attention`.
    """
    return _attend(query, key, value, sequence_ids, window, "xla")


def cudnn(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
) -> Float[Array, "B T N H"]:
    """cuDNN's fused attention, on NVIDIA GPUs; the mask, [B, T, T], is the only square it needs.

    Arguments and result as `blockwise.attention`.

    Raises:
        UserError: a dtype, head size or length that the kernel does not take.
    """
    length, head_size = query.shape[1], query.shape[3]
    if query.dtype not in _CUDNN_DTYPES:
        raise UserError(
            f"attention=cudnn computes in bfloat16 or float16, not in {query.dtype}; choose one of"
            " these with --dtype, or another attention"
        )
    if head_size % 8 or head_size > 256:
        raise UserError(f"attention=cudnn needs a head size that is {_CUDNN_HEAD_SIZES}")
    # An odd length has no gradient there: one place of padding makes it even.
    odd = [(0, 0), (0, length % 2)]
    query, key, value = (jnp.pad(part, [*odd, (0, 0), (0, 0)]) for part in (query, key, value))
    padded_ids = jnp.pad(sequence_ids, odd)
    return _attend(query, key, value, padded_ids, window, "cudnn")[:, :length]


def _attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    window: int | None,
    implementation: Literal["xla", "cudnn"],
) -> Float[Array, "B T N H"]:
    check_window(window)
    visible = see_own_sequence(sequence_ids, window)
    with full_precision(query.dtype):
        context = jax.nn.dot_product_attention(
            query, key, value, mask=visible, implementation=implementation
        )
    # The library gives a query that sees no key the mean of all values.
    return jnp.where(sequence_ids[:, :, None, None] != 0, context, 0)
