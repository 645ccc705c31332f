"""Attention whose memory is linear in the length: blocks of queries by blocks of keys.

No `[T, S]` array is ever made, neither forwards nor backwards: a block of scores is made, used and
forgotten, and a running maximum and total of every query keep the softmax exact.

Inside, axes are laid out `[blocks, B, N, block, H]`, so that the scans run over the first.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Shaped

from bertjax.kernels.visibility import Reach, reach_of, see
from bertjax.program.errors import UserError

# Tokens a block. Blocks of scores [B, N, 256, 256] are small beside the hidden states of a long
# text, and large enough that matrix products are.
BLOCK = 256


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
    local: Bool[Array, ""] | None = None,
    block: int = BLOCK,
) -> Float[Array, "B T N H"]:
    """Computes scaled dot-product attention exactly, in memory linear in T; so is its gradient.

    Args:
        sequence_ids: a token sees the tokens of its own number; 0 is padding.
        window: it sees no further than so many tokens to either side; blocks that are further away
            cost nothing.
        local: whether the window applies, which a layer of a scan knows when it runs; it does when
            left out.
        block: tokens a block, at least 1; the result does not depend on it but for rounding.

    Returns:
        The context in the inputs' dtype; statistics are float32 or wider. A query that sees no key
        (padding) gets 0, and gradients without NaN.

    Raises:
        UserError: `block` or `window` is below 1.

    Source: Milakov & Gimelshein 2018 (online softmax); Rabe & Staats 2021 (memory); Dao et al.
        2022, appendix B (the backward pass).
    """
    reach = reach_of(window, local)
    return attend(query, key, value, sequence_ids, reach=reach, block=block)[0]


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    reach: Reach = None,
    block: int = BLOCK,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T"]]:
    """Computes `attention`, and the log of the sum of the exponentials of each query's scores.

    With that sum a second sweep over the blocks has the probabilities, `exp(score - log sum)`,
    without keeping them. It is 0 of a query that sees no key.
    """
    if block < 1:
        raise UserError(f"block={block} must be at least 1 token")
    length = query.shape[1]
    block = min(block, length)
    by_block = (split_heads(part, block) for part in (query, key, value))
    context, log_sums = _attend(reach, *by_block, split(sequence_ids, block, 1))
    context = jnp.swapaxes(_join(context, 2, length), 1, 2)
    return context, _join(log_sums, 2, length)


def split(array: Shaped[Array, "..."], block: int, axis: int) -> Shaped[Array, "blocks ..."]:
    """Returns an axis in blocks, filled up with zeros: `[blocks, ..., block, ...]`."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, -array.shape[axis] % block)
    shape = (*array.shape[:axis], -1, block, *array.shape[axis + 1 :])
    return jnp.moveaxis(jnp.pad(array, widths).reshape(shape), axis, 0)


def split_heads(
    array: Float[Array, "B T N H"], block: int
) -> Float[Array, "blocks B N block_size H"]:
    """Returns queries, keys or values in blocks of tokens, a matrix for every head."""
    return split(jnp.swapaxes(array, 1, 2), block, 2)


def score_block(
    query: Float[Array, "B N t H"], key: Float[Array, "B N s H"], visible: Bool[Array, "B 1 t s"]
) -> Float[Array, "B N t s"]:
    """Computes scores in float32 or wider; those that do not count are `finfo.min`."""
    scores = _multiply("bnth,bnsh->bnts", query, key) * query.shape[-1] ** -0.5
    return jnp.where(visible, scores, jnp.finfo(scores.dtype).min)


def weigh_block(
    scores: Float[Array, "B N t s"],
    visible: Bool[Array, "B 1 t s"],
    log_sums: Float[Array, "B N t"],
) -> Float[Array, "B N t s"]:
    """Computes the probabilities of a block, of the log of each query's sum over all blocks."""
    return jnp.where(visible, jnp.exp(scores - log_sums[..., None]), 0)


def _join(blocks: Shaped[Array, "blocks ..."], axis: int, length: int) -> Shaped[Array, "..."]:
    """Returns what `split` made blocks of."""
    apart = jnp.moveaxis(blocks, 0, axis)
    shape = (*apart.shape[:axis], -1, *apart.shape[axis + 2 :])
    return jax.lax.slice_in_dim(apart.reshape(shape), 0, length, axis=axis)


def _wide(dtype: DTypeLike) -> DTypeLike:
    return jnp.promote_types(dtype, jnp.float32)


def _multiply(subscripts: str, left: Array, right: Array) -> Array:
    """Multiplies operands in the narrower of their dtypes; sums in float32 or wider."""
    narrow = min(left.dtype, right.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
    return jnp.einsum(
        subscripts,
        left.astype(narrow),
        right.astype(narrow),
        # Accelerators would round float32 operands.
        precision="highest" if jnp.finfo(narrow).bits >= 32 else None,
        preferred_element_type=_wide(narrow),
    )


def number_places(sequence_ids: Integer[Array, "blocks B t"]) -> Integer[Array, "blocks t"]:
    """Returns the tokens' numbers in the row."""
    blocks, _, block = sequence_ids.shape
    return jnp.arange(blocks * block).reshape(blocks, block)


def _blocks_near(
    number: Integer[Array, ""], blocks: int, block: int, reach: Reach
) -> tuple[int | Array, int | Array]:
    """Returns the first of the blocks with tokens in reach of a block's, and the end of them."""
    if reach is None:
        return 0, blocks
    away = (reach + block - 1) // block
    return jnp.maximum(number - away, 0), jnp.minimum(number + away + 1, blocks)


@jax.custom_vjp
def _attend(
    reach: Reach,
    query: Float[Array, "blocks B N t H"],
    key: Float[Array, "blocks B N t H"],
    value: Float[Array, "blocks B N t H"],
    sequence_ids: Integer[Array, "blocks B t"],
) -> tuple[Float[Array, "blocks B N t H"], Float[Array, "blocks B N t"]]:
    wide, places = _wide(query.dtype), number_places(sequence_ids)
    blocks, block = places.shape

    def read_keys(of_block: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        query, query_ids, query_places = of_block

        def read_block(
            number: Integer[Array, ""], running: tuple[Array, Array, Array]
        ) -> tuple[Array, Array, Array]:
            most, total, context = running
            distance = query_places[:, None] - places[number]
            visible = see(query_ids, sequence_ids[number], distance, reach)
            scores = score_block(query, key[number], visible)
            new_most = jnp.maximum(most, scores.max(axis=-1))
            shrink = jnp.exp(most - new_most)
            weights = jnp.where(visible, jnp.exp(scores - new_most[..., None]), 0)
            total = total * shrink + weights.sum(axis=-1)
            context = context * shrink[..., None]
            context += _multiply("bnts,bnsh->bnth", weights, value[number])
            return new_most, total, context

        most = jnp.full(query.shape[:-1], jnp.finfo(wide).min, wide)
        start = most, jnp.zeros_like(most), jnp.zeros(query.shape, wide)
        near = _blocks_near(query_places[0] // block, blocks, block, reach)
        most, total, context = jax.lax.fori_loop(*near, read_block, start)
        seen = total > 0
        total = jnp.where(seen, total, 1)
        log_sums = jnp.where(seen, most + jnp.log(total), 0)
        return (context / total[..., None]).astype(query.dtype), log_sums

    return jax.lax.map(read_keys, (query, sequence_ids, places))


def _attend_forward(
    reach: Reach, query: Array, key: Array, value: Array, sequence_ids: Array
) -> tuple[tuple[Array, Array], tuple[Reach | Array, ...]]:
    context, log_sums = _attend(reach, query, key, value, sequence_ids)
    return (context, log_sums), (reach, query, key, value, sequence_ids, context, log_sums)


def _attend_backward(
    kept: tuple[Any, ...], gradients: tuple[Array, Array]
) -> tuple[None, Array, Array, Array, None]:
    """Computes the probabilities again, block by block.

    With o the context, l the log sum and p the probabilities, the gradient by a score is
    `p * (do . v - do . o + dl)`.
    """
    reach, query, key, value, sequence_ids, context, log_sums = kept
    by_context, by_log_sums = gradients
    wide, places = _wide(query.dtype), number_places(sequence_ids)
    blocks, block = places.shape
    scale = query.shape[-1] ** -0.5
    offset = by_log_sums - (by_context.astype(wide) * context.astype(wide)).sum(axis=-1)

    def read_keys(
        by_query: Array, keys: tuple[Array, Array, Array, Array]
    ) -> tuple[Array, tuple[Array, Array]]:
        key, value, key_ids, key_places = keys

        def read_queries(
            number: Integer[Array, ""], running: tuple[Array, Array, Array]
        ) -> tuple[Array, Array, Array]:
            by_key, by_value, by_query = running
            distance = places[number][:, None] - key_places
            visible = see(sequence_ids[number], key_ids, distance, reach)
            scores = score_block(query[number], key, visible)
            probs = weigh_block(scores, visible, log_sums[number])
            by_probs = _multiply("bnth,bnsh->bnts", by_context[number], value)
            by_scores = probs * (by_probs + offset[number][..., None]) * scale
            by_value += _multiply("bnts,bnth->bnsh", probs, by_context[number])
            by_key += _multiply("bnts,bnth->bnsh", by_scores, query[number])
            more = _multiply("bnts,bnsh->bnth", by_scores, key)
            return by_key, by_value, by_query.at[number].add(more)

        start = jnp.zeros(key.shape, wide), jnp.zeros(value.shape, wide), by_query
        near = _blocks_near(key_places[0] // block, blocks, block, reach)
        by_key, by_value, by_query = jax.lax.fori_loop(*near, read_queries, start)
        return by_query, (by_key, by_value)

    start = jnp.zeros(query.shape, wide)
    by_query, (by_key, by_value) = jax.lax.scan(
        read_keys, start, (key, value, sequence_ids, places)
    )
    by_query, by_key, by_value = (
        gradient.astype(part.dtype)
        for gradient, part in ((by_query, query), (by_key, key), (by_value, value))
    )
    return None, by_query, by_key, by_value, None


_attend.defvjp(_attend_forward, _attend_backward)
