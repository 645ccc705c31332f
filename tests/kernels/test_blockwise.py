"""Blockwise attention equals the explicit one, forwards and backwards, and is linear in memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.kernels import blockwise
from bertjax.kernels.visibility import see_own_sequence
from bertjax.model.attention import attend
from bertjax.program.errors import UserError
from tests.kernels.compiled_programs import largest_buffer

# B=3, T=23, N=4, H=8. Two examples of a row, one with padding behind, one that fills its row.
SEQUENCE_IDS = np.array([[1] * 9 + [2] * 14, [1] * 17 + [0] * 6, [1] * 23])


@pytest.fixture(scope="module")
def drawn():
    """Query, key, value, and weights of the context and of the log sums, float64."""
    rng = np.random.default_rng(1)
    query, key, value, of_context = rng.normal(size=(4, 3, 23, 4, 8))
    return 2 * query, 2 * key, value, of_context, rng.normal(size=(3, 4, 23))


def narrow(arrays, dtype=jnp.float32):
    return [jnp.asarray(array, dtype) for array in arrays]


@functools.partial(jax.jit, static_argnames="block")
def outputs(query, key, value, block):
    return blockwise.attend(query, key, value, jnp.asarray(SEQUENCE_IDS), block=block)


def explicit(query, key, value):
    """Context and log sums by whole maps."""
    visible = see_own_sequence(jnp.asarray(SEQUENCE_IDS))
    context, _ = attend(query, key, value, visible)
    scores = jnp.einsum("btnh,bsnh->bnts", query, key) * 8**-0.5
    exponentials = jnp.where(visible, jnp.exp(scores), 0).sum(axis=-1)
    return context, jnp.log(jnp.where(exponentials > 0, exponentials, 1))


def weighted_sum(attention, query, key, value, of_context, of_log_sums):
    context, log_sums = attention(query, key, value)
    return (context * of_context).sum() + (log_sums * of_log_sums).sum()


@pytest.mark.parametrize("block", [5, 64])
def test_context_and_log_sums_equal_float64(drawn, block):
    context, log_sums = outputs(*narrow(drawn[:3]), block)
    query, key, value = drawn[:3]
    for row, ids in enumerate(SEQUENCE_IDS):
        for number in set(ids) - {0}:
            own = ids == number
            scores = np.einsum("tnh,snh->nts", query[row, own], key[row, own]) / np.sqrt(8)
            total = np.exp(scores).sum(axis=-1)
            probs = np.exp(scores) / total[..., None]
            expected = np.einsum("nts,snh->tnh", probs, value[row, own])
            np.testing.assert_allclose(context[row, own], expected, atol=1e-4)
            np.testing.assert_allclose(log_sums[row][:, own], np.log(total), atol=1e-4)


@pytest.mark.parametrize("block", [5, 64])
def test_gradients_equal_the_explicit_ones(drawn, block):
    arrays = narrow(drawn)
    ours, theirs = (
        jax.jit(jax.grad(functools.partial(weighted_sum, way), argnums=(0, 1, 2)))(*arrays)
        for way in (functools.partial(outputs, block=block), explicit)
    )
    for our, their in zip(ours, theirs, strict=True):
        assert np.abs(their).max() > 0.1
        np.testing.assert_allclose(our, their, atol=2e-4)


def test_padding_gives_zeros_and_no_nan(drawn):
    arrays = narrow(drawn)
    context, log_sums = outputs(*arrays[:3], 5)
    assert (np.asarray(context)[SEQUENCE_IDS == 0] == 0).all()
    assert (np.moveaxis(np.asarray(log_sums), 1, 2)[SEQUENCE_IDS == 0] == 0).all()
    gradients = jax.grad(
        functools.partial(weighted_sum, functools.partial(outputs, block=5)), argnums=(0, 1, 2)
    )(*arrays)
    for gradient in gradients:
        assert np.isfinite(gradient).all()
        assert (np.asarray(gradient)[SEQUENCE_IDS == 0] == 0).all()


def test_other_examples_and_padding_have_no_influence(drawn):
    query, key, value = narrow(drawn[:3])
    hidden = jnp.asarray(SEQUENCE_IDS != 1)[..., None, None]
    spoilt = outputs(query, jnp.where(hidden, 1e18, key), jnp.where(hidden, 1e18, value), 5)
    plain = outputs(query, key, value, 5)
    seen = SEQUENCE_IDS == 1
    np.testing.assert_array_equal(np.asarray(spoilt[0])[seen], np.asarray(plain[0])[seen])


def test_huge_scores_do_not_overflow(drawn):
    query, key, value = narrow(drawn[:3])
    context, _ = outputs(1e12 * query, 1e12 * key, value, 5)
    assert np.isfinite(context).all()
    largest = np.einsum("tnh,snh->nts", drawn[0][2], drawn[1][2]).argmax(axis=-1)
    chosen = np.take_along_axis(np.asarray(value[2]), largest.T[..., None], axis=0)
    np.testing.assert_allclose(context[2], chosen, rtol=1e-5)


def test_what_all_scores_of_a_query_have_in_common_does_not_matter(drawn):
    """They are all moved, by hundreds up or down."""
    query, key, value = narrow(drawn[:3])
    moved, log_sums = outputs(query, key + 200, value, 5)
    by = query.sum(axis=-1)[SEQUENCE_IDS > 0] * 200 * 8**-0.5
    assert by.min() < -500
    assert by.max() > 500
    context, plain_log_sums = outputs(query, key, value, 5)
    np.testing.assert_allclose(moved, context, atol=2e-3)
    change = np.moveaxis(np.asarray(log_sums - plain_log_sums), 1, 2)[SEQUENCE_IDS > 0]
    np.testing.assert_allclose(change, by, rtol=1e-3, atol=1e-2)


def test_bfloat16_stays_narrow_with_wide_statistics(drawn):
    inputs = narrow(drawn[:3], jnp.bfloat16)
    narrow_context, log_sums = outputs(*inputs, 5)
    assert (narrow_context.dtype, log_sums.dtype) == (jnp.bfloat16, jnp.float32)
    context, wide_log_sums = outputs(*narrow(inputs), 5)
    np.testing.assert_allclose(log_sums, wide_log_sums, atol=1e-5)
    np.testing.assert_allclose(narrow_context.astype(jnp.float32), context, atol=0.02)


def test_a_block_without_tokens_is_refused(drawn):
    with pytest.raises(UserError, match="block=0 must be at least 1"):
        blockwise.attention(*narrow(drawn[:3]), jnp.asarray(SEQUENCE_IDS), block=0)


def test_no_buffer_is_as_large_as_a_map():
    length = 160
    arrays = [jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)] * 3
    ids = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def score(attention, query, key, value, ids):
        context = attention(query, key, value, ids)
        return (context**2).sum()

    def whole_maps(query, key, value, ids):
        return attend(query, key, value, see_own_sequence(ids))[0]

    ours, theirs = (
        jax.jit(jax.value_and_grad(functools.partial(score, attention), argnums=(0, 1, 2)))
        .lower(*arrays, ids)
        .compile()
        for attention in (functools.partial(blockwise.attention, block=16), whole_maps)
    )
    assert largest_buffer(ours) < length**2 <= largest_buffer(theirs)
