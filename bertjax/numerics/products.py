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

from bertjax.numerics.placement import divide_rows, target_platform, whole_vectors


def hidden_dtype(dtype: DTypeLike) -> DTypeLike:
    """Returns what flows from one matrix product to the next when their operands are `dtype`.

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
    """Computes `jnp.tensordot(inputs, kernel, axes)` with operands in `dtype`.

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
    if outputs_first:
        kernel = whole_vectors(kernel)
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
    """Computes a product whose gradient, too, has narrow operands; jax would widen one of them.

    All three products are of matrices: what XLA:CPU makes of others it cannot run.
    """
    return _multiply_narrow_forward(dtype, outputs_first, result, inputs, kernel)[0]


def _multiply_narrow_forward(
    dtype: DTypeLike, outputs_first: bool, result: DTypeLike, inputs: Array, kernel: Array
) -> tuple[Array, tuple[Array, ...]]:
    narrow = inputs.astype(dtype), kernel.astype(dtype)
    product = sum_products(*narrow, over=(1, int(outputs_first)), result=result)
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
    of_inputs = sum_products(gradient, kernel, over, result=like_inputs.dtype)
    first, second = (gradient, inputs) if outputs_first else (inputs, gradient)
    transposed = _transpose(first, inputs)
    of_kernel = sum_products(transposed, second, over=(1, 0), result=like_kernel.dtype)
    return of_inputs, of_kernel


_multiply_narrow.defvjp(_multiply_narrow_forward, _multiply_narrow_backward)


def _transpose(matrix: Float[Array, "A C"], inputs: Float[Array, "rows D"]) -> Float[Array, "C A"]:
    """Transposes; on a CPU in a branch, where the product that it goes into cannot see it.

    XLA:CPU takes a transposition before a product into it, and multiplies transposed matrices in
    float32 alone, at half the rate. The other branch is for inputs that begin with NaN: the branch
    must not depend on the gradient, in which the backward pass is linear.
    """
    if target_platform() != "cpu":
        return matrix.T
    is_number = inputs[0, 0] == inputs[0, 0]
    return jax.lax.cond(is_number, jnp.transpose, lambda m: jnp.full_like(m.T, jnp.nan), matrix)


def sum_products(
    left: Array,
    right: Array,
    over: tuple[int, int],
    batch: int = 0,
    result: DTypeLike = jnp.float32,
) -> Float[Array, "..."]:
    """Computes the product over one axis of each, repeated over the first `batch` axes of both.

    A narrow `result` is rounded by the product itself, whose sums are float32 all the same: to
    write them out in float32 first doubles what a GPU has to move.
    """
    repeated = tuple(range(batch))
    axes = (((over[0],), (over[1],)), (repeated, repeated))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=result)
