"""Products in the compute dtype: narrow operands, wide sums, forward and backward."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.numerics.products import mix_values, multiply, score_keys
from bertjax.training.sharding import MeshConfig, make_mesh


def narrowed(values):
    return np.asarray(jnp.asarray(values, jnp.bfloat16), np.float64)


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


def operands_of_products(function, *arguments):
    """The dtype of the first operand of every product of the compiled function."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    types = dict(re.findall(r"%([\w.-]+) = (\w+)\[", text))
    products = re.findall(r" dot\((?:\w+\[.*?\]\S* )?%([\w.-]+), ", text)
    return [types[name] for name in products]


def test_narrow_gradient_of_what_begins_with_nan_is_nan():
    inputs = jnp.full((4, 3), jnp.nan)
    gradient = jax.grad(lambda w: multiply(inputs, w, 1, jnp.bfloat16).sum())(jnp.ones((3, 2)))
    assert jnp.isnan(gradient).all()


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


def draw(*shapes):
    random = np.random.default_rng(6)
    return [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in shapes]


# B=3, T=7, S=6, N=2, H=5
QUERIES, KEYS, PAIRS = (3, 7, 2, 5), (3, 6, 2, 5), (3, 2, 7, 6)


def check_scores(make):
    query, key, gradient = draw(QUERIES, KEYS, PAIRS)
    scores, pull_back = jax.vjp(make, query, key)
    of_query, of_key = pull_back(gradient)
    assert {scores.dtype, of_query.dtype, of_key.dtype} == {jnp.dtype(jnp.float32)}
    q, k, g = map(narrowed, (query, key, gradient))
    np.testing.assert_allclose(scores, np.einsum("btnh,bsnh->bnts", q, k), 1e-5, 1e-5)
    np.testing.assert_allclose(of_query, np.einsum("bnts,bsnh->btnh", g, k), 1e-5, 1e-5)
    np.testing.assert_allclose(of_key, np.einsum("bnts,btnh->bsnh", g, q), 1e-5, 1e-5)


def check_context(make):
    weights, value, gradient = draw(PAIRS, KEYS, QUERIES)
    total = jnp.exp(draw((*PAIRS[:3], 1))[0])
    context, pull_back = jax.vjp(make, weights, total, value)
    of_weights, of_total, of_value = pull_back(gradient)
    dtypes = {context.dtype, of_weights.dtype, of_total.dtype, of_value.dtype}
    assert dtypes == {jnp.dtype(jnp.float32)}
    w, v = map(narrowed, (weights, value))
    by_query = total.transpose(0, 2, 1, 3)
    expected = np.einsum("bnts,bsnh->btnh", w, v) / by_query
    g = narrowed(gradient / by_query)
    np.testing.assert_allclose(context, expected, 1e-5, 1e-5)
    np.testing.assert_allclose(of_weights, np.einsum("btnh,bsnh->bnts", g, v), 1e-5, 1e-5)
    np.testing.assert_allclose(of_value, np.einsum("bnts,btnh->bsnh", w, g), 1e-5, 1e-5)
    np.testing.assert_allclose(
        of_total, -np.einsum("btnh,btnh->bnt", g, expected)[..., None], 1e-5, 1e-5
    )


def test_narrow_products_of_attention_and_their_gradients():
    check_scores(lambda query, key: score_keys(query, key, jnp.bfloat16))
    check_context(lambda *operands: mix_values(*operands, jnp.bfloat16))


def test_products_of_attention_in_float32_are_of_what_they_are_given():
    query, key, weights, value = draw(QUERIES, KEYS, PAIRS, KEYS)
    scores = score_keys(query, key, jnp.float32)
    np.testing.assert_allclose(scores, np.einsum("btnh,bsnh->bnts", query, key), 1e-5, 1e-5)
    total = jnp.full((*PAIRS[:3], 1), 2.0)
    context = mix_values(weights, total, value, jnp.float32)
    expected = np.einsum("bnts,bsnh->btnh", weights, value) / 2
    np.testing.assert_allclose(context, expected, 1e-5, 1e-5)
    narrow = mix_values(weights, total, value.astype(jnp.bfloat16), jnp.bfloat16)
    assert narrow.dtype == jnp.float32


def test_products_of_attention_have_narrow_operands_once_compiled():
    # XLA:CPU would multiply in float32 what has an axis of rows and one of heads.
    def total(query, key, value):
        weights = score_keys(query, key, jnp.bfloat16)
        context = mix_values(weights, jnp.ones_like(weights[..., :1]), value, jnp.bfloat16)
        return jnp.square(context).sum()

    query, key, value = draw((4, 32, 2, 16), (4, 48, 2, 16), (4, 48, 2, 16))
    compiled = operands_of_products(jax.grad(total, argnums=(0, 1, 2)), query, key, value)
    assert compiled == ["bf16"] * 6


def test_narrow_products_of_attention_on_divided_rows_and_heads_send_nothing_around():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    rows = jax.sharding.PartitionSpec(("data", "fsdp"), None, "tensor")
    query, key, gradient = draw((8, 7, 4, 5), (8, 6, 4, 5), (8, 4, 7, 6))
    by_head = jax.sharding.PartitionSpec(("data", "fsdp"), "tensor")
    place = [jax.sharding.NamedSharding(mesh, spec) for spec in (rows, rows, by_head)]

    def make(query, key, gradient):
        scores, pull_back = jax.vjp(lambda q, k: score_keys(q, k, jnp.bfloat16), query, key)
        return scores, *pull_back(gradient)

    with jax.set_mesh(mesh):
        arguments = [*map(jax.device_put, (query, key, gradient), place)]
        compiled = jax.jit(make).lower(*arguments).compile()
    assert not re.search(r"all-gather|all-to-all|all-reduce|collective", compiled.as_text())
    whole = jax.jit(make)(query, key, gradient)
    chex.assert_trees_all_close(compiled(*arguments), whole, rtol=1e-5, atol=1e-5)
