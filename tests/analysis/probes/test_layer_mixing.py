import json

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.probes.label_tasks import LabelBatch
from bertjax.analysis.probes.layer_mixing import (
    layer_weights,
    mix_layers,
    mixing_loss,
    study_mixing,
)
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.word_vectors import WordVectors

TAGS = ("ADJ", "NOUN", "VERB")
SIZE = 12
SPLITS = {"train": np.arange(200), "validation": np.arange(200, 240), "test": np.arange(240, 300)}


@pytest.fixture(scope="module")
def figures():
    """Of four layers the third alone holds the tag; in the control the first does."""
    random = np.random.default_rng(0)
    tags = random.integers(3, size=(300, 8))
    sentences = [
        Sentence("", named, np.arange(8) - 1, named, named, named)
        for named in (tuple(TAGS[tag] for tag in own) for own in tags)
    ]
    starts, types = np.arange(0, 2401, 8), np.zeros(2400, int)

    def vectors(layer):
        values = random.normal(size=(4, 2400, SIZE))
        values[layer] += 2 * random.normal(size=(3, SIZE))[tags.ravel()]
        return WordVectors(values.astype(np.float32), starts, types)

    return study_mixing("upos", vectors(2), vectors(0), sentences, SPLITS, resamples=8)


def test_the_weight_is_where_the_label_is(figures):
    assert figures.weights.model.value[2] > 0.85
    assert figures.weights.model.low[2] > 0.8
    assert figures.weights.control.value[0] > 0.85
    assert abs(figures.centre.model.value - 2) < 0.15
    assert figures.centre.control.value < 0.3
    assert figures.accuracy.model.value > 0.9
    assert figures.centre.distinguishable


def test_intervals_are_of_classifiers_of_their_own(figures):
    model = figures.weights.model
    np.testing.assert_allclose(model.value.sum(), 1, rtol=1e-5)
    assert (model.low < model.high).all()
    assert figures.centre.model.low <= figures.centre.model.high
    found = json.loads(json.dumps(figures.to_json()))
    assert len(found["weights"]["low"]) == 4
    assert found["centre"]["value"] == pytest.approx(2, abs=0.15)


def test_a_mixture_by_hand():
    random = np.random.default_rng(1)
    params = {
        "layers": random.normal(size=(2, 3)) / 20,
        "scale": np.array([1.5, 0.5]),
        "kernel": random.normal(size=(2, 8, 5)),
        "bias": random.normal(size=(2, 5)),
    }
    params = {name: jnp.asarray(value, jnp.float32) for name, value in params.items()}
    vectors = random.normal(size=(3, 7, 4)).astype(np.float32)
    words = np.array([[6, 2], [1, 0]])
    weights = np.asarray(layer_weights(params))
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    found = mix_layers(params, jnp.asarray(vectors), words)
    for probe in range(2):
        for item, (first, second) in enumerate(words):
            mixed = [
                params["scale"][probe] * sum(weights[probe, n] * vectors[n, word] for n in range(3))
                for word in (first, second)
            ]
            logits = np.concatenate(mixed) @ params["kernel"][probe] + params["bias"][probe]
            np.testing.assert_allclose(found[probe, item], logits, rtol=1e-4, atol=1e-5)


def test_every_classifier_has_its_own_weights_of_the_items():
    params = {
        "layers": jnp.zeros((2, 3)),
        "scale": jnp.ones(2),
        "kernel": jnp.zeros((2, 4, 5)),
        "bias": jnp.zeros((2, 5)),
    }
    weights = np.array([[1.0, 0.0], [1.0, 3.0], [0.0, 0.0]], np.float32)
    batch = LabelBatch(np.zeros((3, 1), int), np.array([1, 4, 0]), weights)
    sums, counts = mixing_loss(params, jnp.zeros((3, 1, 4)), batch)
    np.testing.assert_allclose(sums, np.log(5) * np.array([2, 3]), rtol=1e-5)
    np.testing.assert_allclose(counts, [2, 3])
