"""The maths every part of the model shares: pure functions, and modules that own parameters."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Key

from bertjax.placement import divide_rows, target_platform


def initialize_weights(standard_deviation: float) -> nn.initializers.Initializer:
    """The initializer of every kernel and embedding table: normal, cut at two standard deviations.

    Source: google-research/bert `create_initializer`, tf.truncated_normal_initializer. Differs from
    `jax.nn.initializers.truncated_normal`, which rescales so that the *cut* distribution has the
    deviation asked for; TensorFlow's has 0.88 of it.
    """

    def initialize(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return standard_deviation * jax.random.truncated_normal(key, -2.0, 2.0, shape, dtype)

    return initialize


def activate(name: str, pre_activation: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The activation that `config.hidden_act` names.

    gelu is the exact one; jax's default is the tanh approximation, which is `gelu_new` here. It is
    written with erf, as torch's is: `jax.nn.gelu` takes erfc, which costs a CPU nearly
    twice as much.

    Source: `transformers.activations.ACT2FN`; Hendrycks & Gimpel 2016.
    """
    functions = {
        "gelu": lambda x: x * 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))),
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
    }
    return functions[name](pre_activation)


def normalize_layer(
    hidden: Float[Array, "*rows D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    epsilon: float,
) -> Float[Array, "*rows D"]:
    """Layer normalisation over the last axis; statistics in float32, result in the input's dtype.

    Source: Ba et al. 2016, eq. 3-4; `torch.nn.LayerNorm`. BERT's epsilon is 1e-12 (flax: 1e-6).
    """
    wide = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
    centred = wide - wide.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(hidden.dtype)


def draw_kept(
    key: Key[Array, ""], row_ids: Integer[Array, " B"], shape: tuple[int, ...], rate: float
) -> Bool[Array, "B ..."]:
    """Which elements dropout keeps: each with probability 1 - rate, by (key, row id, place).

    A row's mask depends on nothing but its own id, so it is the same on one device or eight, alone
    or in a microbatch. The bits come from a counter-based hash: two rounds of a 32-bit integer
    finaliser over the element's index, keyed per row by threefry. threefry itself for every element
    would be a tenth of a training step of the base size on a CPU (docs/performance.md).

    Args:
        key: the key of this place in the network at this step.
        row_ids: the rows' places in the global batch.
        shape: a row's shape; at most 2^32 elements.
        rate: the share to drop, in [0, 1).

    Source: the finaliser is `lowbias32` (C. Wellons, hash-prospector).
    """
    row_keys = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row), (2,)))(row_ids)
    place = jax.lax.broadcasted_iota(jnp.uint32, (1, *shape), len(shape))
    stride = 1
    for axis in range(len(shape) - 1, 0, -1):
        stride *= shape[axis]
        place += jax.lax.broadcasted_iota(jnp.uint32, (1, *shape), axis) * jnp.uint32(stride)
    first, second = (row_keys[:, word].reshape(-1, *(1 for _ in shape)) for word in range(2))
    bits = _mix_bits(_mix_bits(place + first) ^ second)
    return bits >= jnp.uint32(round(rate * 2**32))


def _mix_bits(bits: Integer[Array, "*shape"]) -> Integer[Array, "*shape"]:
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def drop_out(
    values: Float[Array, "*shape"], rate: float, key: Key[Array, ""], row_ids: Integer[Array, " B"]
) -> Float[Array, "*shape"]:
    """Dropout: each element is 0 with probability `rate`, else 1 / (1 - rate) times itself.

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
    return jnp.where(kept, values * (1 / (1 - rate)), 0).astype(values.dtype)


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
) -> Float[Array, "rows ..."]:
    """`jnp.tensordot(inputs, kernel, axes)` with operands in `dtype`.

    Where `dtype` is narrower than float32 the sums are in float32, those of the gradient's two
    products too, and the result has the inputs' dtype. With `outputs_first` the kernel is a matrix
    `[outputs, inputs]`, as an embedding table that decodes.
    """
    inputs = divide_rows(inputs)  # and so is their gradient
    if jnp.finfo(dtype).bits >= 32:
        kernel = kernel.T if outputs_first else kernel
        return divide_rows(jnp.tensordot(inputs.astype(dtype), kernel.astype(dtype), axes))
    rows = inputs.shape[: inputs.ndim - axes]
    features = kernel.shape[:1] if outputs_first else kernel.shape[axes:]
    flat = inputs.reshape(math.prod(rows), -1)
    matrix = kernel if outputs_first else kernel.reshape(flat.shape[1], -1)
    product = _multiply_narrow(dtype, outputs_first, flat, matrix)
    return divide_rows(product.reshape(*rows, *features))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _multiply_narrow(
    dtype: DTypeLike,
    outputs_first: bool,
    inputs: Float[Array, "rows A"],
    kernel: Float[Array, "..."],
) -> Float[Array, "rows C"]:
    """A product whose gradient, too, has narrow operands; jax would widen one of them.

    All three products are of matrices: what XLA:CPU makes of others it cannot run.
    """
    return _multiply_narrow_forward(dtype, outputs_first, inputs, kernel)[0]


def _multiply_narrow_forward(
    dtype: DTypeLike, outputs_first: bool, inputs: Array, kernel: Array
) -> tuple[Array, tuple[Array, ...]]:
    narrow = inputs.astype(dtype), kernel.astype(dtype)
    product = _sum_products(*narrow, over=(1, int(outputs_first))).astype(inputs.dtype)
    return product, (*narrow, inputs[:0], kernel[:0])


def _multiply_narrow_backward(
    dtype: DTypeLike, outputs_first: bool, kept: tuple[Array, ...], gradient: Array
) -> tuple[Array, Array]:
    inputs, kernel, like_inputs, like_kernel = kept
    gradient = gradient.astype(dtype)
    of_inputs = _sum_products(gradient, kernel, over=(1, int(not outputs_first)))
    first, second = (gradient, inputs) if outputs_first else (inputs, gradient)
    of_kernel = _sum_products(_transpose(first), second, over=(1, 0))
    return of_inputs.astype(like_inputs.dtype), of_kernel.astype(like_kernel.dtype)


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


def _sum_products(left: Array, right: Array, over: tuple[int, int]) -> Float[Array, "A C"]:
    axes = (((over[0],), (over[1],)), ((), ()))
    return jax.lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


class LayerNorm(nn.Module):
    """`normalize_layer` with its parameters `scale [D]` and `bias [D]`, both float32."""

    epsilon: float

    @nn.compact
    def __call__(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        size = hidden.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (size,))
        bias = self.param("bias", nn.initializers.zeros, (size,))
        return normalize_layer(hidden, scale, bias, self.epsilon)


class Linear(nn.Module):
    """`inputs @ kernel + bias`, contracted over as many last axes of the input as `contract` names.

    Attributes:
        features: the output's last axes.
        contract: the input's last axes, all summed over.
        initializer_range: standard deviation of the kernel's initializer.
        dtype: of the product's operands (see `multiply`); the parameters
            `kernel [*contract, *features]`, `bias [*features]` are float32.
    """

    features: tuple[int, ...]
    contract: tuple[int, ...]
    initializer_range: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, inputs: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
        kernel = self.param(
            "kernel", initialize_weights(self.initializer_range), (*self.contract, *self.features)
        )
        bias = self.param("bias", nn.initializers.zeros, self.features)
        product = multiply(inputs, kernel, len(self.contract), self.dtype)
        return product + bias.astype(product.dtype)
