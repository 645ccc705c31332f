"""Splash attention, jax's kernel for TPUs: memory linear in the length, far blocks are skipped."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel,
    splash_attention_mask,
)
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Integer

from bertjax.kernels.visibility import check_window
from bertjax.numerics.placement import HEAD_AXIS, ROW_AXES, full_precision, is_divided

Kernel = splash_attention_kernel.SplashAttentionKernel

# A TPU's vector is as wide: lengths and blocks are multiples of it.
_LANES = 128
# Tokens a block, where the length allows: large ones keep the matrix unit busy.
_BLOCK = 512


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
    local: Bool[Array, ""] | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Computes splash attention, on TPUs; on a mesh each device takes its own rows and heads.

    Arguments and result as `blockwise.attention`.

    The mask is part of the kernel, so that where `local` is known only when the program runs there
    are two, and one of them runs; its backward pass computes it again.

    Args:
        interpret: run the kernel step by step on any device: slow, to check it.

    Source: `jax.experimental.pallas.ops.tpu.splash_attention`.
    """
    check_window(window)
    attend = functools.partial(_attend, window=window, interpret=interpret)
    inputs = query, key, value, sequence_ids
    if window is not None and local is not None:
        inputs += (local,)
    if is_divided():
        # XLA cannot divide a kernel itself.
        parts = PartitionSpec(ROW_AXES, None, HEAD_AXIS)
        specs = (parts, parts, parts, PartitionSpec(ROW_AXES), PartitionSpec())[: len(inputs)]
        attend = jax.shard_map(attend, in_specs=specs, out_specs=parts, check_vma=False)
    return attend(*inputs)


def _attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    local: Bool[Array, ""] | None = None,
    *,
    window: int | None,
    interpret: bool,
) -> Float[Array, "B T N H"]:
    length, heads = query.shape[1], query.shape[2]
    fill = -length % _LANES
    make = functools.partial(_make_kernel, length + fill, heads, interpret=interpret)
    # The kernel does not scale the scores.
    query = query * query.shape[3] ** -0.5

    def by_head(part: Float[Array, "B T N H"]) -> Float[Array, "B N T H"]:
        return jnp.pad(jnp.swapaxes(part, 1, 2), [(0, 0), (0, 0), (0, fill), (0, 0)])

    ids = jnp.pad(sequence_ids, [(0, 0), (0, fill)]).astype(jnp.int32)
    segments = splash_attention_kernel.SegmentIds(ids, ids)
    inputs = by_head(query), by_head(key), by_head(value), segments
    if local is None:
        context = _keep_precision(make(window), *inputs)
    else:
        context = _run_one_of((make(window), make(None)), local, *inputs)
    context = jnp.swapaxes(context[:, :, :length], 1, 2).astype(query.dtype)
    # The kernel lets padding see padding.
    return jnp.where(sequence_ids[:, :, None, None] != 0, context, 0)


# A kernel holds arrays of the trace in which it was made, and its gradient is computed in another
# one: so here they are arguments.


def _keep_precision(kernel: Kernel, *inputs: Any) -> Float[Array, "B N T H"]:
    """Runs a kernel, whose float32 products are float32, those of its gradient too."""
    arrays, structure = jax.tree.flatten(kernel)

    def run(arrays: Sequence[Array], *inputs: Any) -> Array:
        with full_precision(inputs[0].dtype):
            return jax.vmap(structure.unflatten(arrays))(*inputs)

    def run_forward(
        arrays: Sequence[Array], *inputs: Any
    ) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
        with full_precision(inputs[0].dtype):
            return jax.vjp(jax.vmap(structure.unflatten(arrays)), *inputs)

    def run_backward(pull: Callable[[Array], tuple[Any, ...]], gradient: Array) -> tuple[Any, ...]:
        with full_precision(gradient.dtype):
            return None, *pull(gradient)

    precise = jax.custom_vjp(run)
    precise.defvjp(run_forward, run_backward)
    return precise(arrays, *inputs)


def _run_one_of(
    kernels: tuple[Kernel, Kernel], local: Bool[Array, ""], *inputs: Any
) -> Float[Array, "B N T H"]:
    """Runs the first kernel where `local`, or the other, as `_keep_precision` does.

    The gradient keeps the inputs alone: of a choice jax would keep what each of both needs.
    """
    arrays, structure = jax.tree.flatten(kernels)

    def run(arrays: Sequence[Array], local: Array, *inputs: Any) -> Array:
        with full_precision(inputs[0].dtype):
            return jax.lax.cond(local, *map(jax.vmap, structure.unflatten(arrays)), *inputs)

    def run_forward(
        arrays: Sequence[Array], local: Array, *inputs: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        return run(arrays, local, *inputs), (arrays, local, *inputs)

    def run_backward(kept: tuple[Any, ...], gradient: Array) -> tuple[Any, ...]:
        arrays, local, *operands, segments = kept

        def pull(kernel: Kernel) -> tuple[Array, ...]:
            def attend(*operands: Array) -> Array:
                return jax.vmap(kernel)(*operands, segments)

            return jax.vjp(attend, *operands)[1](gradient)

        near, far = structure.unflatten(arrays)
        with full_precision(gradient.dtype):
            gradients = jax.lax.cond(local, lambda: pull(near), lambda: pull(far))
        return None, None, *gradients, None

    one_of = jax.custom_vjp(run)
    one_of.defvjp(run_forward, run_backward)
    return one_of(arrays, local, *inputs)


def _make_kernel(length: int, heads: int, window: int | None, *, interpret: bool) -> Kernel:
    shape = (length, length)
    mask: splash_attention_mask.Mask = splash_attention_mask.FullMask(shape)
    if window is not None:
        mask = splash_attention_mask.LocalMask(shape, (window, window), offset=0)
    block = next(size for size in (_BLOCK, 2 * _LANES, _LANES) if length % size == 0)
    sizes = splash_attention_kernel.BlockSizes(
        block_q=block, block_kv=block, block_kv_compute=block,
        block_q_dkv=block, block_kv_dkv=block, block_kv_dkv_compute=block,
        block_q_dq=block, block_kv_dq=block,
    )  # fmt: skip
    return splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
