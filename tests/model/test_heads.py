"""The classifier: what stands before its linear layer, and that padding has no part in it."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model import heads
from bertjax.model.bert import BertForSequenceClassification, BertForTokenClassification
from bertjax.model.heads import BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, ClassifierHead

D, C = 32, 3
IN_USE = jnp.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0], [0, 0, 0, 0, 0]], bool)  # B=3, 5 places


@pytest.fixture(scope="module")
def hidden():
    return jnp.asarray(np.random.default_rng(2).normal(1, 2, (3, 5, D)), jnp.float32)


@pytest.fixture
def make_head(config, hidden):
    """`make_head(norm, rate)` gives the function (hidden, training) -> (logits, statistics)."""

    def make(norm, rate=0.0):
        fields = {"classifier_norm": norm, "classifier_dropout": rate}
        head = ClassifierHead(
            dataclasses.replace(config, **fields), "sequence_head", C, jnp.float32
        )
        rows = jnp.arange(3)
        variables = head.init(jax.random.key(0), hidden, IN_USE, rows, False)
        random = np.random.default_rng(4)
        variables = jax.tree.map(lambda x: x + jnp.float32(0.3 * random.random(x.shape)), variables)

        def apply(hidden, training):
            return head.apply(
                variables,
                hidden,
                IN_USE,
                rows,
                training,
                rngs={"dropout": jax.random.key(1)},
                mutable=["batch_stats"],
            )

        return apply, variables

    return make


def test_layer_normalisation_is_that_of_the_places_own(make_head, hidden):
    apply, variables = make_head("layer")
    params = variables["params"]
    centred = hidden - hidden.mean(-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True))
    normal = normal * params["norm"]["scale"] + params["norm"]["bias"]
    expected = normal @ params["dense"]["kernel"] + params["dense"]["bias"]
    np.testing.assert_allclose(apply(hidden, False)[0], expected, atol=1e-5)


def test_batch_normalisation_counts_the_places_in_use_alone(make_head, hidden):
    apply, variables = make_head("batch")
    params, before = variables["params"], variables["batch_stats"]["norm"]
    used = hidden[IN_USE]
    mean, variance = used.mean(0), used.var(0)

    def logits(mean, variance):
        normal = (hidden - mean) / np.sqrt(variance + BATCH_NORM_EPSILON)
        normal = normal * params["norm"]["scale"] + params["norm"]["bias"]
        return normal @ params["dense"]["kernel"] + params["dense"]["bias"]

    actual, after = apply(hidden, True)
    np.testing.assert_allclose(actual, logits(mean, variance), atol=1e-4)
    after, old = after["batch_stats"]["norm"], BATCH_NORM_MOMENTUM
    np.testing.assert_allclose(after["mean"], old * before["mean"] + (1 - old) * mean, atol=1e-5)
    np.testing.assert_allclose(after["var"], old * before["var"] + (1 - old) * variance, atol=1e-4)

    actual, after = apply(hidden, False)
    np.testing.assert_allclose(actual, logits(before["mean"], before["var"]), atol=1e-4)
    jax.tree.map(np.testing.assert_array_equal, after["batch_stats"]["norm"], before)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_statistics_are_taken_before_the_dropout(make_head, hidden, norm):
    without, with_dropout = make_head(norm)[0], make_head(norm, 0.5)[0]
    plain, statistics = without(hidden, True)
    dropped, statistics_of_dropped = with_dropout(hidden, True)
    assert np.abs(dropped - plain).max() > 0.1
    chex.assert_trees_all_close(statistics, statistics_of_dropped, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(with_dropout(hidden, False)[0], without(hidden, False)[0], atol=1e-5)


@pytest.mark.parametrize("model_class", [BertForSequenceClassification, BertForTokenClassification])
def test_classes_tell_the_head_what_is_in_use(config, batch, model_class):
    model = model_class(dataclasses.replace(config, classifier_norm="batch"))
    variables = jax.jit(model.init)(jax.random.key(0), *batch[:5])
    body = "pooled" if model_class is BertForSequenceClassification else "hidden"
    in_use = [[1, 1], [1, 0], [1, 0]] if body == "pooled" else batch.sequence_ids != 0
    model = model.clone(config=dataclasses.replace(
        model.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    ))  # fmt: skip
    apply = functools.partial(model.apply, dropout=True, mutable=["batch_stats"])
    output, after = jax.jit(apply)(variables, *batch[:5], row_ids=jnp.arange(3))
    used = np.asarray(getattr(output.encoder, body))[np.asarray(in_use, bool)]
    [statistics] = (head["norm"] for head in after["batch_stats"].values())
    np.testing.assert_allclose(statistics["mean"], 0.1 * used.mean(0), atol=1e-5)


def test_token_bias_has_the_gradient_of_a_sum():
    random = np.random.default_rng(2)
    logits, bias, weights = (
        jnp.asarray(random.normal(size=size), jnp.float32) for size in ((6, 50), (50,), (6, 50))
    )
    of_logits, of_bias = jax.grad(
        lambda x, b: (jnp.sin(heads._add_token_bias(x, b)) * weights).sum(), argnums=(0, 1)
    )(logits, bias)
    expected = jnp.cos(logits + bias) * weights
    np.testing.assert_allclose(of_logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_bias, expected.sum(0), rtol=1e-5, atol=1e-5)
