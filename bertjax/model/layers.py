"""The maths every part of the model shares: pure functions, and modules that own parameters."""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from bertjax.numerics.products import multiply


def initialize_weights(
    standard_deviation: float, cutoff: float = 2.0
) -> nn.initializers.Initializer:
    """Returns the initializer of kernels and tables: normal, cut at so many standard deviations.

    Args:
        standard_deviation: before the cut.
        cutoff: in standard deviations.

    Source: google-research/bert `create_initializer`, tf.truncated_normal_initializer. Differs from
    `jax.nn.initializers.truncated_normal`, which rescales so that the *cut* distribution has the
    deviation asked for; TensorFlow's has 0.88 of it.
    """
    return functools.partial(_draw_weights, standard_deviation, cutoff)


def _draw_weights(
    standard_deviation: float,
    cutoff: float,
    key: Array,
    shape: tuple[int, ...],
    dtype: DTypeLike = jnp.float32,
) -> Array:
    return standard_deviation * jax.random.truncated_normal(key, -cutoff, cutoff, shape, dtype)


def initialize_waves(
    key: Array, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "M E"]:
    """Initializes a table of positions: sines in the even columns, cosines in the odd ones.

    Args:
        key: not used: nothing is drawn.
        shape: (M, E), positions and columns.
        dtype: of the table.

    Source: Vaswani et al. 2017, section 3.5; `transformers` `create_sinusoidal_embeddings`.
    """
    positions, columns = np.arange(shape[0])[:, None], np.arange(shape[1])
    angles = positions / 10000 ** (2 * (columns // 2) / shape[1])
    return jnp.asarray(np.where(columns % 2, np.cos(angles), np.sin(angles)), dtype)


def activate(name: str, pre_activation: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Computes the activation that `config.hidden_act` names, in float32 or wider.

    gelu is the exact one; jax's default is the tanh approximation, which is `gelu_new` here. It is
    written with erf, as torch's is: `jax.nn.gelu` takes erfc, which costs a CPU nearly
    twice as much. In bfloat16 `1 + erf` would be 3 % off at -2 and 0 below -3.5.

    Args:
        name: one of `config.HIDDEN_ACTIVATIONS`.
        pre_activation: what goes in.

    Source: `transformers.activations.ACT2FN`; Hendrycks & Gimpel 2016.
    """
    functions = {
        "gelu": lambda x: x * 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5))),
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
        "tanh": jnp.tanh,
    }
    return _in_float32(functions[name], pre_activation)


def normalize_layer(
    hidden: Float[Array, "*rows D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None,
    epsilon: float,
) -> Float[Array, "*rows D"]:
    """Normalises over the last axis; statistics in float32, result in the input's dtype.

    Args:
        hidden: vectors.
        scale: by which each column is multiplied after it was normalised.
        bias: what is added to each column then; None = nothing.
        epsilon: added to the variance.

    Source: Ba et al. 2016, eq. 3-4; `torch.nn.LayerNorm`. BERT's epsilon is 1e-12 (flax: 1e-6).
    """
    others = (scale,) if bias is None else (scale, bias)
    return _in_float32(functools.partial(_normalize, epsilon), hidden, *others)


def _normalize(
    epsilon: float,
    hidden: Float[Array, "*rows D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None = None,
) -> Float[Array, "*rows D"]:
    centred = hidden - hidden.mean(axis=-1, keepdims=True)
    variance = jnp.square(centred).mean(axis=-1, keepdims=True)
    scaled = centred * jax.lax.rsqrt(variance + epsilon) * scale
    return scaled if bias is None else scaled + bias


def _in_float32(
    function: Callable[..., Float[Array, "*shape"]],
    values: Float[Array, "*shape"],
    *others: Float[Array, "..."],
) -> Float[Array, "*shape"]:
    """Computes the function of the values in float32 or wider; the result in their own dtype.

    Of narrow values its gradient makes the wide ones again: kept for it, they would take most of
    the memory of a step that is not to make anything again.
    """
    wide = jnp.promote_types(values.dtype, jnp.float32)
    if values.dtype == wide:
        return function(values, *others).astype(values.dtype)

    def compute(values: Float[Array, "*shape"], *others: Array) -> Float[Array, "*shape"]:
        return function(values.astype(wide), *others).astype(values.dtype)

    return jax.checkpoint(compute, prevent_cse=False)(values, *others)


class LayerNorm(nn.Module):
    """`normalize_layer` with its parameters `scale [D]` and `bias [D]`, both float32.

    Attributes:
        epsilon: added to the variance.
        has_bias: whether there is a bias.
    """

    epsilon: float
    has_bias: bool = True

    @nn.compact
    def __call__(self, hidden: Float[Array, "*rows D"]) -> Float[Array, "*rows D"]:
        size = hidden.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (size,))
        bias = self.param("bias", nn.initializers.zeros, (size,)) if self.has_bias else None
        return normalize_layer(hidden, scale, bias, self.epsilon)


class Linear(nn.Module):
    """`inputs @ kernel + bias`, contracted over as many last axes of the input as `contract` names.

    Attributes:
        features: the output's last axes.
        contract: the input's last axes, all summed over.
        initializer_range: standard deviation of the kernel's initializer.
        dtype: of the product's operands (see `multiply`); the parameters
            `kernel [*contract, *features]`, `bias [*features]` are float32.
        widen: the result is float32 or wider, as logits have to be; not the input's dtype.
        has_bias: whether there is a bias.
        cutoff: of the initializer, in standard deviations.
    """

    features: tuple[int, ...]
    contract: tuple[int, ...]
    initializer_range: float
    dtype: DTypeLike
    widen: bool = False
    has_bias: bool = True
    cutoff: float = 2.0

    @nn.compact
    def __call__(self, inputs: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
        initialize = initialize_weights(self.initializer_range, self.cutoff)
        kernel = self.param("kernel", initialize, (*self.contract, *self.features))
        product = multiply(inputs, kernel, len(self.contract), self.dtype, widen=self.widen)
        if not self.has_bias:
            return product
        bias = self.param("bias", nn.initializers.zeros, self.features)
        return product + bias.astype(product.dtype)
