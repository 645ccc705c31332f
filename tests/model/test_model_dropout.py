"""Dropout of the whole model: a function of key and row, everywhere that the paper has it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.bert import BertForPreTraining


@pytest.fixture(scope="module")
def drop(forward, batch):
    """The model with dropout on: `drop(params, key, row_ids)`."""

    def apply(params, key, row_ids, inputs=batch[:5]):
        options = {"dropout_key": jax.random.key(key), "row_ids": jnp.array(row_ids)}
        return forward(params, *inputs, dropout=True, trace=True, **options)

    return apply


def test_dropout_is_a_function_of_key_and_row(drop, forward, params, batch):
    def logits(*arguments):
        return np.asarray(drop(params, *arguments).mlm_logits)

    real = np.asarray(batch.sequence_ids) > 0
    first = logits(0, [4, 5, 6])
    np.testing.assert_array_equal(logits(0, [4, 5, 6]), first)
    assert not np.allclose(logits(1, [4, 5, 6])[real], first[real])
    assert not np.allclose(logits(0, [4, 9, 6])[1], first[1])
    counted = forward(params, *batch[:5], dropout=True, dropout_key=jax.random.key(0))
    np.testing.assert_allclose(counted.mlm_logits, logits(0, [0, 1, 2]), rtol=1e-5, atol=1e-5)
    turned = logits(0, [6, 5, 4], tuple(x[::-1] for x in batch[:5]))
    np.testing.assert_allclose(turned[::-1][real], first[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", ["attention", "feed-forward"])
def test_dropout_differs_from_layer_to_layer(drop, params, place):
    """Of a layer whose only output is a bias of ones, dropout shows its mask."""
    silent = jax.tree.map(jnp.zeros_like, params["bert"]["encoder"]["layers"])
    part = silent["attention"] if place == "attention" else silent
    part["output"]["bias"] = jnp.ones((2, 32))
    for norm in ("attention_layer_norm", "output_layer_norm"):
        silent[norm]["scale"] = jnp.ones((2, 32))
    changed = {**params, "bert": {**params["bert"], "encoder": {"layers": silent}}}
    hidden = np.asarray(drop(changed, 0, [4, 5, 6]).encoder.trace.hidden_states)
    dropped = np.diff(hidden, axis=0) < -0.5  # a kept 1 / 0.9 rises the others only a little
    assert dropped.mean((1, 2, 3)) == pytest.approx(0.1, abs=0.05)
    assert (dropped[0] & dropped[1]).mean() < 0.5 * dropped.mean()


def test_embeddings_and_probabilities_are_dropped_out(drop, params, output):
    dropped = drop(params, 0, [4, 5, 6]).encoder.trace
    share = np.mean(np.asarray(dropped.embedded) == 0)
    assert share == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / dropped.embedded.size))
    value = jax.tree.map(lambda x: x[0], params["bert"]["encoder"]["layers"]["attention"]["value"])

    def context_without_dropout(trace):
        values = jnp.einsum("btd,dnh->btnh", trace.embedded, value["kernel"]) + value["bias"]
        return jnp.einsum("bnts,bsnh->btnh", trace.probs[0], values)

    plain = output.encoder.trace
    np.testing.assert_allclose(plain.context[0], context_without_dropout(plain), atol=1e-5)
    assert not np.allclose(dropped.context[0], context_without_dropout(dropped), atol=1e-2)


def test_dropout_off_needs_no_key_and_ignores_the_rates(config, forward, params, batch):
    without = dataclasses.replace(config, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    other = jax.jit(BertForPreTraining(without).apply)({"params": params}, *batch[:5])
    plain = forward(params, *batch[:5])
    np.testing.assert_array_equal(plain.mlm_logits, other.mlm_logits)
