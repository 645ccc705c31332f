"""Attention by whole maps, tuned: the formula of `model.attention.attend`, in another order.

The context is divided by the total of the weights, not the weights, which are more numbers. Where
the dtype is narrow, so are the operands of all products, forward and backward.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer

from bertjax.kernels.visibility import reach_of, see_own_sequence
from bertjax.numerics.dropout import Dropout, drop_out
from bertjax.numerics.placement import is_divided, target_platform
from bertjax.numerics.products import sum_products


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
    local: Bool[Array, ""] | None = None,
    dropout: Dropout | None = None,
    dtype: DTypeLike | None = None,
    causal: bool = False,
) -> Float[Array, "B T N H"]:
    """Computes scaled dot-product attention; memory [B, N, T, T].

    Arguments and result as `blockwise.attention`.

    Args:
        dropout: of the probabilities.
        dtype: of the operands of the products; None = the query's.
        causal: a query sees no key behind it.

    Source: Vaswani et al. 2017, section 3.2.1; google-research/bert `attention_layer`.
    """
    dtype = dtype or query.dtype
    scores = score_keys(query, key, dtype) * query.shape[-1] ** -0.5
    visible = see_own_sequence(sequence_ids, reach_of(window, local), causal)
    weights, total = weigh_keys(scores, visible)
    if dropout is not None:
        weights = drop_out(weights, *dropout)
    return mix_values(weights, total, value, dtype).astype(value.dtype)


def weigh_keys(
    scores: Float[Array, "B N T S"], visible: Bool[Array, "B 1 T S"]
) -> tuple[Float[Array, "B N T S"], Float[Array, "B N T 1"]]:
    """Computes the softmax over the visible keys, before its division.

    Returns:
        (weights, total), in float32 or wider: the attention probabilities are `weights / total`.
        They are those of `model.attention.masked_softmax`, but the total of a query that sees no
        key is 1. What is to be differentiated has to depend on the quotient alone: the gradient
        takes the largest score for a constant.
    """
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    hidden = jnp.finfo(scores.dtype).min
    scores = jnp.where(visible, scores, hidden)
    # The largest score cancels out of the quotient: nothing has to be differentiated by it.
    largest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    # Where no key is visible it is a hidden one's, whose weight has to be 0 all the same.
    weights = jnp.exp(scores - jnp.where(largest == hidden, 0, largest))
    total = weights.sum(axis=-1, keepdims=True)
    return weights, jnp.where(total == 0, 1, total)


def score_keys(
    query: Float[Array, "B T N H"], key: Float[Array, "B S N H"], dtype: DTypeLike
) -> Float[Array, "B N T S"]:
    """Computes the product of every query with every key of its head, operands in `dtype`.

    Where that is narrower than float32 so are the operands of the gradient's two products; the
    sums, and the result, are float32 or wider.
    """
    if jnp.finfo(dtype).bits >= 32:
        operands = query.astype(dtype), key.astype(dtype)
        return jnp.einsum("btnh,bsnh->bnts", *operands, precision="highest")
    return _score_narrow(dtype, query, key)


def mix_values(
    weights: Float[Array, "B N T S"],
    total: Float[Array, "B N T 1"],
    value: Float[Array, "B S N H"],
    dtype: DTypeLike,
) -> Float[Array, "B T N H"]:
    """Sums every head's values, each times its weight, and divides by the total.

    The product, and the gradient's two, are as those of `score_keys`.
    """
    if jnp.finfo(dtype).bits >= 32:
        # Transposed by hand: XLA:CPU would compute [B, N, H, T] first, and transpose that.
        operands = weights.astype(dtype), value.astype(dtype)
        context = jnp.einsum("bnts,bsnh->bnth", *operands, precision="highest")
        return _by_head(context / total)
    return _mix_narrow(dtype, weights, total, value)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _score_narrow(dtype: DTypeLike, query: Array, key: Array) -> Float[Array, "B N T S"]:
    return _score_narrow_forward(dtype, query, key)[0]


def _score_narrow_forward(
    dtype: DTypeLike, query: Array, key: Array
) -> tuple[Array, tuple[Array, ...]]:
    narrow = query.astype(dtype), key.astype(dtype)
    scores = _sum_by_head(_by_head(narrow[0]), _by_head(narrow[1]), over=(3, 3))
    return scores, (*narrow, query[:0], key[:0])


def _score_narrow_backward(
    dtype: DTypeLike, kept: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array]:
    query, key, like_query, like_key = kept
    gradient = gradient.astype(dtype)
    of_query = _by_head(_sum_by_head(gradient, _by_head(key), over=(3, 2)))
    of_key = _sum_over_queries(query, gradient)
    return of_query.astype(like_query.dtype), of_key.astype(like_key.dtype)


_score_narrow.defvjp(_score_narrow_forward, _score_narrow_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _mix_narrow(
    dtype: DTypeLike, weights: Array, total: Array, value: Array
) -> Float[Array, "B T N H"]:
    """Divides the sum, in one function: what comes back by way of the weights and by way of the
    total nearly cancels out, so that one rounded gradient has to go both ways.
    """
    return _mix_narrow_forward(dtype, weights, total, value)[0]


def _mix_narrow_forward(
    dtype: DTypeLike, weights: Array, total: Array, value: Array
) -> tuple[Array, tuple[Array, ...]]:
    narrow = weights.astype(dtype), value.astype(dtype)
    context = _by_head(_sum_by_head(narrow[0], _by_head(narrow[1]), over=(3, 2)) / total)
    return context, (*narrow, total, context, weights[:0], value[:0])


def _mix_narrow_backward(
    dtype: DTypeLike, kept: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array, Array]:
    weights, value, total, context, like_weights, like_value = kept
    gradient = (gradient / _by_head(total)).astype(dtype)
    of_weights = _sum_by_head(_by_head(gradient), _by_head(value), over=(3, 3))
    of_total = -_by_head((gradient * context).sum(axis=-1, keepdims=True))
    of_value = _sum_over_queries(gradient, weights)
    return of_weights.astype(like_weights.dtype), of_total, of_value.astype(like_value.dtype)


_mix_narrow.defvjp(_mix_narrow_forward, _mix_narrow_backward)


def _by_head(values: Float[Array, "B T N H"]) -> Float[Array, "B N T H"]:
    """Exchanges tokens and heads; twice, it is the same again."""
    return values.transpose(0, 2, 1, 3)


def _sum_over_queries(
    by_query: Float[Array, "B T N H"], pairs: Float[Array, "B N T S"]
) -> Float[Array, "B S N H"]:
    """Sums by way of [B, N, H, S], so that `pairs`, the largest of the three, is not transposed."""
    return _sum_by_head(by_query.transpose(0, 2, 3, 1), pairs, over=(3, 2)).transpose(0, 3, 1, 2)


def _sum_by_head(
    left: Float[Array, "B N ..."], right: Float[Array, "B N ..."], over: tuple[int, int]
) -> Float[Array, "B N ..."]:
    """Returns a product for every row and head, summed over an axis of each, in float32.

    On a CPU row and head become one axis: XLA multiplies narrow matrices in float32, at a quarter
    of the rate, where a product has two axes that it is repeated over. Over divided rows and heads
    they stay two, as one axis cannot be divided by both.
    """
    if target_platform() != "cpu" or is_divided():
        return sum_products(left, right, over, batch=2)
    one_axis = (values.reshape(-1, *values.shape[2:]) for values in (left, right))
    product = sum_products(*one_axis, (over[0] - 1, over[1] - 1), batch=1)
    return product.reshape(*left.shape[:2], *product.shape[1:])
