"""The maths that every part of the model shares, against float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import HIDDEN_ACTIVATIONS
from bertjax.model.layers import Linear, activate, initialize_weights, normalize_layer


def layer_norm_in_float64(hidden, scale, bias, epsilon):
    hidden = np.asarray(hidden, np.float64)
    mean = hidden.mean(-1, keepdims=True)
    deviation = np.sqrt(((hidden - mean) ** 2).mean(-1, keepdims=True) + epsilon)
    return (hidden - mean) / deviation * scale + bias


def test_layer_norm_equals_float64():
    rng = np.random.default_rng(0)
    hidden, scale, bias = (rng.normal(size=shape) for shape in ((3, 7, 32), 32, 32))
    with jax.enable_x64(True):
        actual = normalize_layer(*map(jnp.asarray, (hidden, scale, bias)), 1e-12)
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, layer_norm_in_float64(hidden, scale, bias, 1e-12), 1e-12)
    narrow = [jnp.asarray(x, jnp.float32) for x in (hidden, scale, bias)]
    np.testing.assert_allclose(normalize_layer(*narrow, 1e-12), actual, rtol=1e-4, atol=1e-5)


def test_layer_norm_of_small_values_shows_the_epsilon(config):
    """Deviations of 1e-4: with flax's 1e-6 the result would be a tenth of what it is."""
    hidden = jnp.asarray(1e-4 * np.random.default_rng(1).normal(size=(3, 32)), jnp.float32)
    ones, zeros = jnp.ones(32), jnp.zeros(32)
    assert config.layer_norm_eps == 1e-12
    actual = normalize_layer(hidden, ones, zeros, config.layer_norm_eps)
    np.testing.assert_allclose(actual, layer_norm_in_float64(hidden, 1, 0, 1e-12), 1e-3)


def test_layer_norm_of_bfloat16_takes_its_statistics_in_float32():
    hidden = jnp.asarray(100 + np.random.default_rng(2).normal(size=(3, 32)), jnp.bfloat16)
    actual = normalize_layer(hidden, jnp.ones(32), jnp.zeros(32), 1e-12)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        actual.astype(jnp.float32), layer_norm_in_float64(hidden, 1, 0, 1e-12), atol=0.01
    )


def test_gelu_is_the_exact_one():
    places = np.linspace(-6, 6, 101)
    exact = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in places]
    with jax.enable_x64(True):
        np.testing.assert_allclose(activate("gelu", jnp.asarray(places)), exact, 1e-12, 1e-15)
    narrow = activate("gelu", jnp.asarray(places, jnp.float32))
    np.testing.assert_allclose(narrow, exact, rtol=1e-5, atol=1e-5)


def test_gelu_new_is_the_tanh_approximation():
    places = np.linspace(-6, 6, 101)
    inner = math.sqrt(2 / math.pi) * (places + 0.044715 * places**3)
    approximate = 0.5 * places * (1 + np.tanh(inner))
    exact = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in places]
    assert np.abs(approximate - exact).max() > 1e-4  # the two are told apart
    with jax.enable_x64(True):
        np.testing.assert_allclose(
            activate("gelu_new", jnp.asarray(places)), approximate, atol=1e-13
        )


@pytest.mark.parametrize(
    ("name", "expected"), [("relu", [0, 0, 2]), ("silu", [-0.2689, 0, 1.7616])]
)
def test_other_activations(name, expected):
    np.testing.assert_allclose(activate(name, jnp.array([-1.0, 0, 2])), expected, atol=1e-4)


@pytest.mark.parametrize("name", HIDDEN_ACTIVATIONS)
def test_activation_of_bfloat16_is_rounded_once(name):
    """What flows on accelerators: 1 + erf in bfloat16 is off by 3 % at -2, and 0 below -3.5."""
    places = jnp.linspace(-3.5, 3.5, 57, dtype=jnp.bfloat16)
    exact = activate(name, places.astype(jnp.float32))
    actual = activate(name, places)
    assert actual.dtype == jnp.bfloat16
    # Half a unit in the last of eight places.
    np.testing.assert_allclose(actual.astype(jnp.float32), exact, rtol=2**-8, atol=1e-7)
    slope, exact_slope = (
        jax.grad(lambda x: activate(name, x).astype(jnp.float32).sum())(x).astype(jnp.float32)
        for x in (places, places.astype(jnp.float32))
    )
    np.testing.assert_allclose(slope, exact_slope, rtol=2**-8, atol=1e-5)


def test_gradient_of_narrow_values_keeps_nothing_wide():
    """It makes the float32 values again, which would take four times the memory of its input."""
    places = jnp.ones((4, 8), jnp.bfloat16)
    scale = jnp.ones(8)
    for compute in (
        lambda x: activate("gelu", x),
        lambda x: normalize_layer(x, scale, scale, 1e-12),
    ):
        _, pull_back = jax.vjp(compute, places)
        kept = [leaf for leaf in jax.tree.leaves(pull_back) if leaf.size >= places.size]
        assert [leaf.dtype for leaf in kept] == [jnp.bfloat16]


def test_initializer_cuts_at_two_deviations_and_does_not_rescale():
    values = np.asarray(initialize_weights(0.02)(jax.random.key(0), (500, 400)))
    # The deviation of a normal cut at +-2, as TensorFlow's truncated_normal_initializer has it.
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    expected = 0.02 * math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))
    assert expected == pytest.approx(0.88 * 0.02, rel=1e-3)
    assert np.abs(values).max() <= 0.04
    assert np.abs(values).max() > 0.0399
    assert values.std() == pytest.approx(expected, rel=0.01)
    assert abs(values.mean()) < 5 * 0.02 / math.sqrt(values.size)


def test_every_weight_is_drawn_that_way_heads_included(new_params):
    weights = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(new_params)
    }
    drawn = [name for name in weights if name.endswith(("kernel", "_embeddings"))]
    assert len(drawn) == 3 + 6 + 3  # embeddings, encoder, heads
    for name in drawn:
        values = weights.pop(name)
        # The smallest, of the next-sentence head, has 64 numbers.
        bound = 5 / math.sqrt(2 * values.size)
        assert values.std() == pytest.approx(0.88 * 0.02, rel=bound), name
        assert np.abs(values).max() <= 0.04, name
    for name, values in weights.items():
        np.testing.assert_array_equal(values, 1 if name.endswith("scale") else 0, err_msg=name)


def test_layers_of_the_stack_are_drawn_apart(new_params):
    first, second = new_params["bert"]["encoder"]["layers"]["output"]["kernel"]
    assert not np.array_equal(first, second)


def test_linear_contracts_every_axis_it_names():
    linear = Linear(features=(5,), contract=(4, 8), initializer_range=0.5, dtype=jnp.float32)
    inputs = jax.random.normal(jax.random.key(0), (7, 4, 8))
    variables = linear.init(jax.random.key(1), inputs)
    variables["params"]["bias"] = jnp.arange(5.0)
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    expected = np.einsum("tnh,nhd->td", np.asarray(inputs, np.float64), kernel) + np.arange(5)
    np.testing.assert_allclose(linear.apply(variables, inputs), expected, rtol=1e-5, atol=1e-5)
