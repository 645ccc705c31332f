"""Products in the compute dtype: narrow operands, wide sums, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.numerics.products import multiply
from tests.kernels.compiled_programs import narrowed, operands_of_products


def test_narrow_product_and_its_gradient_are_of_narrow_operands_with_wide_sums():
    random = np.random.default_rng(5)
    inputs, kernel, gradient = (
        random.normal(size=shape).astype(np.float32)
        for shape in ((4, 5, 2, 3), (2, 3, 7, 2), (4, 5, 7, 2))
    )
    product, pull_back = jax.vjp(lambda x, w: multiply(x, w, 2, jnp.bfloat16), inputs, kernel)
    of_inputs, of_kernel = pull_back(gradient)
    assert {product.dtype, of_inputs.dtype, of_kernel.dtype} == {jnp.dtype(jnp.float32)}
    x, w, g = map(narrowed, (inputs, kernel, gradient))
    np.testing.assert_allclose(product, np.einsum("abij,ijcd->abcd", x, w), 1e-5, 1e-5)
    np.testing.assert_allclose(of_inputs, np.einsum("abcd,ijcd->abij", g, w), 1e-5, 1e-5)
    np.testing.assert_allclose(of_kernel, np.einsum("abij,abcd->ijcd", x, g), 1e-5, 1e-5)


def test_narrow_product_with_an_embedding_table():
    random = np.random.default_rng(1)
    inputs, table, gradient = (
        jnp.asarray(random.normal(size=size), jnp.float32) for size in ((9, 12), (20, 12), (9, 20))
    )
    product, pull_back = jax.vjp(
        lambda x, w: multiply(x, w, 1, jnp.bfloat16, outputs_first=True), inputs, table
    )
    of_inputs, of_table = pull_back(gradient)
    x, w, g = map(narrowed, (inputs, table, gradient))
    np.testing.assert_allclose(product, x @ w.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_inputs, g @ w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_table, g.T @ x, rtol=1e-5, atol=1e-5)
    wide = multiply(inputs, table, 1, jnp.float32, outputs_first=True)
    np.testing.assert_allclose(wide, inputs @ table.T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("outputs_first", [False, True])
def test_every_product_of_a_narrow_gradient_has_narrow_operands_once_compiled(outputs_first):
    # XLA:CPU would multiply transposed matrices in float32, at half the rate.
    inputs, kernel = jnp.ones((64, 32)), jnp.ones((48, 32) if outputs_first else (32, 48))

    def total(x, w):
        return jnp.square(multiply(x, w, 1, jnp.bfloat16, outputs_first=outputs_first)).sum()

    assert operands_of_products(jax.grad(total, argnums=(0, 1)), inputs, kernel) == ["bf16"] * 3


def test_narrow_gradient_of_what_begins_with_nan_is_nan():
    inputs = jnp.full((4, 3), jnp.nan)
    gradient = jax.grad(lambda w: multiply(inputs, w, 1, jnp.bfloat16).sum())(jnp.ones((3, 2)))
    assert jnp.isnan(gradient).all()


@pytest.mark.parametrize("outputs_first", [False, True])
def test_transpose_of_a_narrow_gradient_is_the_forward_derivative(outputs_first):
    random = np.random.default_rng(2)
    inputs, way_of_inputs = jnp.asarray(random.normal(size=(2, 4, 6)), jnp.float32)
    kernel, way_of_kernel = jnp.asarray(random.normal(size=(2, 6, 5)), jnp.float32)

    def product(x, w):
        w = w.T if outputs_first else w
        return multiply(x, w, 1, jnp.bfloat16, outputs_first=outputs_first)

    output, pull_back = jax.vjp(product, inputs, kernel)
    push_forward = jax.linear_transpose(pull_back, output)
    [derivative] = push_forward((way_of_inputs, way_of_kernel))
    x, w = map(narrowed, (inputs, kernel))
    expected = way_of_inputs @ w + x @ way_of_kernel
    np.testing.assert_allclose(derivative, expected, atol=0.1)  # the gradient is rounded on its way
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(product, (inputs, kernel), (way_of_inputs, way_of_kernel))


def test_logits_of_narrow_inputs_are_not_rounded():
    random = np.random.default_rng(3)
    inputs, kernel = (
        jnp.asarray(random.normal(size=size), jnp.bfloat16) for size in ((5, 64), (64, 7))
    )
    exact = np.asarray(inputs, np.float64) @ np.asarray(kernel, np.float64)
    logits = multiply(inputs, kernel, 1, jnp.bfloat16, widen=True)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, exact, rtol=1e-5, atol=1e-5)
    rounded = multiply(inputs, kernel, 1, jnp.bfloat16)
    np.testing.assert_array_equal(rounded, logits.astype(jnp.bfloat16))


def test_product_of_narrow_inputs_is_narrow():
    inputs = jnp.ones((2, 3), jnp.bfloat16)
    assert multiply(inputs, jnp.ones((3, 4)), 1, jnp.bfloat16).dtype == jnp.bfloat16
    assert multiply(inputs, jnp.ones((3, 4)), 1, jnp.float32).dtype == jnp.float32
