"""The tuned dense attention: narrow operands, wide sums, forward and backward."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np

from bertjax.kernels import dense
from bertjax.kernels.dense import mix_values, score_keys
from bertjax.training.sharding import MeshConfig, make_mesh
from tests.kernels.compiled_programs import narrowed, operands_of_products


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


def test_causal_query_sees_its_own_example_up_to_itself():
    query, key, value = (part.astype(np.float64) for part in map(np.asarray, draw(*[QUERIES] * 3)))
    sequence_ids = np.array([[1] * 7, [1, 1, 2, 2, 2, 2, 0], [1, 2, 3, 3, 3, 0, 0]])
    scores = np.einsum("btnh,bsnh->bnts", query, key) / 5**0.5
    same = sequence_ids[:, :, None] == sequence_ids[:, None]
    visible = (same & (sequence_ids != 0)[:, None] & np.tri(7, dtype=bool))[:, None]
    weights = np.where(visible, np.exp(scores), 0)
    probs = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-30)
    expected = np.einsum("bnts,bsnh->btnh", probs, value)
    given = (jnp.asarray(part, jnp.float32) for part in (query, key, value))
    context = dense.attention(*given, jnp.asarray(sequence_ids), causal=True)
    np.testing.assert_allclose(context, expected, 1e-5, 1e-5)


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


def test_lone_token_gives_its_query_no_gradient_in_bfloat16():
    """It has nothing to choose from; in one path only a rounded gradient would not cancel out."""
    query, key, value = jax.random.normal(jax.random.key(4), (3, 3, 7, 4, 8))
    alone = jnp.tile(jnp.arange(1, 8), (3, 1))

    def total(query):
        context = dense.attention(query, key, value, alone, dtype=jnp.bfloat16)
        return (context**3).sum()

    assert np.abs(jax.grad(total)(query)).max() < 1e-4
