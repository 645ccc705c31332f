"""Matrix products in the compute dtype: narrow operands, sums in float32, forward and backward.

Products of float32 operands say `precision="highest"`: a GPU would round the operands to TF32, a
TPU to bfloat16. A CPU computes the same with it or without.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from bertjax.numerics.placement import divide_rows, is_divided, target_platform


def hidden_dtype(dtype: DTypeLike) -> DTypeLike:
    """What flows from one matrix product to the next when their operands are `dtype`.

    The same; on a CPU, which adds and multiplies nothing narrower, at least float32.
    """
    return jnp.promote_types(dtype, jnp.float32) if target_platform() == "cpu" else dtype


def multiply(
    inputs: Float[Array, "rows ..."],
    kernel: Float[Array, "..."],
    axes: int,
    dtype: DTypeLike,
    *,
    outputs_first: bool = False,
    widen: bool = False,
) -> Float[Array, "rows ..."]:
    """`jnp.tensordot(inputs, kernel, axes)` with operands in `dtype`.

    Where `dtype` is narrower than float32 the sums are in float32, those of the gradient's two
    products too, and are rounded once, to the dtype of what they are or are the gradient of.

    Args:
        inputs: of the rows.
        kernel: what they are multiplied by.
        axes: how many last axes of the inputs, and first ones of the kernel, are summed over.
        dtype: of the operands.
        outputs_first: the kernel is a matrix `[outputs, inputs]`, as an embedding table that
            decodes.
        widen: the result is not rounded to the inputs' dtype, but float32 or wider, as logits have
            to be.
    """
    inputs = divide_rows(inputs)  # and so is their gradient
    if jnp.finfo(dtype).bits >= 32:
        kernel = kernel.T if outputs_first else kernel
        operands = inputs.astype(dtype), kernel.astype(dtype)
        return divide_rows(jnp.tensordot(*operands, axes, precision="highest"))
    rows = inputs.shape[: inputs.ndim - axes]
    features = kernel.shape[:1] if outputs_first else kernel.shape[axes:]
    flat = inputs.reshape(math.prod(rows), -1)
    matrix = kernel if outputs_first else kernel.reshape(flat.shape[1], -1)
    result = jnp.promote_types(inputs.dtype, jnp.float32) if widen else inputs.dtype
    product = _multiply_narrow(dtype, outputs_first, result, flat, matrix)
    return divide_rows(product.reshape(*rows, *features))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _multiply_narrow(
    dtype: DTypeLike,
    outputs_first: bool,
    result: DTypeLike,
    inputs: Float[Array, "rows A"],
    kernel: Float[Array, "..."],
) -> Float[Array, "rows C"]:
    """A product whose gradient, too, has narrow operands; jax would widen one of them.

    All three products are of matrices: what XLA:CPU makes of others it cannot run.
    """
    return _multiply_narrow_forward(dtype, outputs_first, result, inputs, kernel)[0]


def _multiply_narrow_forward(
    dtype: DTypeLike, outputs_first: bool, result: DTypeLike, inputs: Array, kernel: Array
) -> tuple[Array, tuple[Array, ...]]:
    narrow = inputs.astype(dtype), kernel.astype(dtype)
    product = _sum_products(*narrow, over=(1, int(outputs_first)), result=result)
    return product, (*narrow, inputs[:0], kernel[:0])


def _multiply_narrow_backward(
    dtype: DTypeLike,
    outputs_first: bool,
    result: DTypeLike,
    kept: tuple[Array, ...],
    gradient: Array,
) -> tuple[Array, Array]:
    inputs, kernel, like_inputs, like_kernel = kept
    gradient = gradient.astype(dtype)
    over = (1, int(not outputs_first))
    of_inputs = _sum_products(gradient, kernel, over, result=like_inputs.dtype)
    first, second = (gradient, inputs) if outputs_first else (inputs, gradient)
    of_kernel = _sum_products(_transpose(first), second, over=(1, 0), result=like_kernel.dtype)
    return of_inputs, of_kernel


_multiply_narrow.defvjp(_multiply_narrow_forward, _multiply_narrow_backward)


def _transpose(matrix: Float[Array, "A C"]) -> Float[Array, "C A"]:
    """The transpose; on a CPU made in a branch, where the product that it goes into cannot see it.

    XLA:CPU takes a transposition before a product into it, and multiplies transposed matrices in
    float32 alone, at half the rate. The other branch is for a matrix that begins with NaN.
    """
    if target_platform() != "cpu":
        return matrix.T
    is_number = matrix[0, 0] == matrix[0, 0]
    return jax.lax.cond(is_number, jnp.transpose, lambda m: jnp.full_like(m.T, jnp.nan), matrix)


def score_keys(
    query: Float[Array, "B T N H"], key: Float[Array, "B S N H"], dtype: DTypeLike
) -> Float[Array, "B N T S"]:
    """The product of every query with every key of its head, operands in `dtype`.

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
    """Every head's values, each times its weight, summed and divided by the total.

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
    """The quotient as a whole, since what comes back by way of the weights and by way of the total
    nearly cancels out: one rounded gradient has to go both ways."""
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
    """Tokens and heads change places; twice, it is the same again."""
    return values.transpose(0, 2, 1, 3)


def _sum_over_queries(
    by_query: Float[Array, "B T N H"], pairs: Float[Array, "B N T S"]
) -> Float[Array, "B S N H"]:
    """By way of [B, N, H, S], so that `pairs`, the largest of the three, is not transposed."""
    return _sum_by_head(by_query.transpose(0, 2, 3, 1), pairs, over=(3, 2)).transpose(0, 3, 1, 2)


def _sum_by_head(
    left: Float[Array, "B N ..."], right: Float[Array, "B N ..."], over: tuple[int, int]
) -> Float[Array, "B N ..."]:
    """A product for every row and head, summed over an axis of each, in float32.

    On a CPU row and head become one axis: XLA multiplies narrow matrices in float32, at a quarter
    of the rate, where a product has two axes that it is repeated over. Over divided rows and heads
    they stay two, as one axis cannot be divided by both.
    """
    if target_platform() != "cpu" or is_divided():
        return _sum_products(left, right, over, batch=2)
    one_axis = (values.reshape(-1, *values.shape[2:]) for values in (left, right))
    product = _sum_products(*one_axis, (over[0] - 1, over[1] - 1), batch=1)
    return product.reshape(*left.shape[:2], *product.shape[1:])


def _sum_products(
    left: Array,
    right: Array,
    over: tuple[int, int],
    batch: int = 0,
    result: DTypeLike = jnp.float32,
) -> Float[Array, "..."]:
    """The product over one axis of each, repeated over the first `batch` axes of both.

    A narrow `result` is rounded by the product itself, whose sums are float32 all the same: to
    write them out in float32 first doubles what a GPU has to move.
    """
    repeated = tuple(range(batch))
    axes = (((over[0],), (over[1],)), (repeated, repeated))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=result)
