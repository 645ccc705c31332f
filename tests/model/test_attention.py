"""Attention, step by step: who sees whom, probabilities, context."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.kernels.dense import weigh_keys
from bertjax.kernels.visibility import see_own_sequence
from bertjax.model.attention import attend, masked_softmax
from bertjax.numerics.dropout import Dropout, drop_out


def divided_weights(scores, visible):
    weights, total = weigh_keys(scores, visible)
    return weights / total


# Compiled, as eager calls would compile every operation for itself.
@pytest.fixture(params=[jax.jit(masked_softmax), jax.jit(divided_weights)])
def softmax(request):
    """The textbook's and that of the dense backend."""
    return request.param


attend_compiled = jax.jit(attend)

# B=3, N=4, T=S=7: row 0 packed, row 1 with padding, row 2 nothing but padding.
SEQUENCES = jnp.array([[1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0], [0] * 7])


@pytest.fixture
def scores():
    return 3 * jax.random.normal(jax.random.key(0), (3, 4, 7, 7))


@pytest.fixture
def visible():
    return see_own_sequence(SEQUENCES)


def test_token_sees_its_own_example_and_nothing_else():
    drawn = see_own_sequence(jnp.array([[1, 1, 2, 2, 0]]))[0, 0]
    expected = ["xx...", "xx...", "..xx.", "..xx.", "....."]
    assert ["".join(".x"[int(cell)] for cell in row) for row in drawn] == expected


def test_probabilities_equal_float64(softmax, scores, visible):
    wide = np.where(visible, np.exp(np.asarray(scores, np.float64)), 0)
    total = wide.sum(-1, keepdims=True)
    expected = wide / np.where(total == 0, 1, total)
    np.testing.assert_allclose(softmax(scores, visible), expected, rtol=1e-5, atol=1e-7)


def test_probabilities_sum_to_1_over_visible_keys_and_are_0_elsewhere(softmax, scores, visible):
    probs = np.asarray(softmax(scores, visible))
    sees = np.broadcast_to(visible, probs.shape)
    assert (probs[~sees] == 0).all()
    assert (probs[sees] > 0).all()
    np.testing.assert_allclose(probs.sum(-1)[sees.any(-1)], 1, rtol=1e-5)


def test_query_that_sees_nothing_gets_zeros_and_no_nan_in_the_gradient(softmax, scores, visible):
    probs, pull = jax.vjp(lambda scores: softmax(scores, visible), scores)
    assert (np.asarray(probs[2]) == 0).all()
    (gradient,) = pull(jax.random.normal(jax.random.key(1), probs.shape))
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[~np.broadcast_to(visible, probs.shape)] == 0).all()
    assert np.abs(gradient[:2]).max() > 0


@pytest.mark.parametrize("huge", [1e4, 1e30, jnp.inf])
def test_huge_score_of_a_hidden_key_does_not_leak(softmax, scores, visible, huge):
    """An added -10000 would lose against 1e4, and let the hidden key through."""
    spoilt = jnp.where(visible, scores, huge)
    np.testing.assert_array_equal(softmax(spoilt, visible), softmax(scores, visible))


def test_huge_visible_scores_do_not_overflow(softmax, visible):
    probs = softmax(jnp.full((3, 4, 7, 7), 3e38), visible)
    np.testing.assert_allclose(probs[1, :, :5, :5], 0.2, rtol=1e-5)


def test_bfloat16_operands_give_float32_probabilities(visible):
    query, key, value = jax.random.normal(jax.random.key(4), (3, 3, 7, 4, 8), jnp.bfloat16)
    context, probs = attend_compiled(query, key, value, visible)
    assert (context.dtype, probs.dtype) == (jnp.bfloat16, jnp.float32)
    wide = (part.astype(jnp.float32) for part in (query, key, value))
    np.testing.assert_array_equal(probs, attend_compiled(*wide, visible)[1])


def test_context_equals_float64(visible):
    rng = np.random.default_rng(3)
    query, key, value = rng.normal(size=(3, 3, 7, 4, 8))
    context, probs = attend_compiled(
        *(jnp.asarray(x, jnp.float32) for x in (query, key, value)), visible
    )
    for row, example in ((0, slice(0, 3)), (0, slice(3, 7)), (1, slice(0, 5))):
        for head in range(4):
            q, k, v = (x[row, example, head] for x in (query, key, value))
            weights = np.exp(q @ k.T / np.sqrt(8))
            weights /= weights.sum(-1, keepdims=True)
            np.testing.assert_allclose(probs[row, head, example, example], weights, rtol=1e-4)
            np.testing.assert_allclose(context[row, example, head], weights @ v, atol=1e-5)
    assert (np.asarray(context[2]) == 0).all()


def test_dropout_changes_the_context_but_not_the_probabilities_told(visible):
    query, key, value = jax.random.normal(jax.random.key(4), (3, 3, 7, 4, 8))
    plain, probs = attend_compiled(query, key, value, visible)
    dropout = Dropout(0.5, jax.random.key(5), jnp.array([0, 1, 2]))
    dropped, told = jax.jit(lambda *inputs: attend(*inputs, dropout))(query, key, value, visible)
    np.testing.assert_allclose(told, probs, rtol=1e-5, atol=1e-7)
    assert not np.allclose(dropped[:2], plain[:2])
    kept = drop_out(probs, *dropout)
    expected = np.einsum("bnts,bsnh->btnh", kept, value)
    np.testing.assert_allclose(dropped, expected, rtol=1e-4, atol=1e-5)


def test_offset_of_the_probabilities_reaches_the_context_undivided(visible):
    query, key, value = jax.random.normal(jax.random.key(4), (3, 3, 7, 4, 8))
    offset = jax.random.normal(jax.random.key(6), (3, 4, 7, 7))
    plain, _ = attend_compiled(query, key, value, visible)
    context, _ = jax.jit(lambda *inputs: attend(*inputs, edit_probs=lambda probs: probs + offset))(
        query, key, value, visible
    )
    more = np.einsum("bnts,bsnh->btnh", offset, value)
    np.testing.assert_allclose(context, plain + more, rtol=1e-4, atol=1e-5)
