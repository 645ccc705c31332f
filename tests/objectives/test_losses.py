"""Losses as (sum, count), against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.objectives.losses import Total, accuracy, cross_entropy


@pytest.fixture
def places():
    """Logits [3, 5, 99], labels and weights, one of which is 0 and one of which is no 0 or 1."""
    rng = np.random.default_rng(0)
    logits, labels = 5 * rng.normal(size=(3, 5, 99)), rng.integers(0, 99, (3, 5))
    labels[0, :3] = logits[0, :3].argmax(-1)  # some right ones
    weights = np.ones((3, 5), np.float32)
    weights[0, 0], weights[1, 3], weights[2, 4] = 0, 0, 0.5
    return jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.asarray(weights)


def test_cross_entropy_equals_float64(places):
    logits, labels, weights = (np.asarray(x, np.float64) for x in places)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_probs, labels[..., None].astype(int), -1)[..., 0]
    total = cross_entropy(*places)
    assert float(total.sum) == pytest.approx(-(picked * weights).sum(), rel=1e-6)
    assert float(total.count) == 12.5


def test_accuracy_counts_the_largest_logit(places):
    logits, labels, weights = (np.asarray(x) for x in places)
    right = (logits.argmax(-1) == labels) * weights
    total = accuracy(*places)
    assert float(total.sum) == right.sum() >= 2  # of the three right ones one has weight 0
    assert float(total.count) == 12.5


@pytest.mark.parametrize("label", [-1, 99, 2**30])
def test_label_with_weight_0_is_ignored_whatever_it_is(places, label):
    logits, labels, weights = places
    spoilt = labels.at[1, 3].set(label)
    for function in (cross_entropy, accuracy):
        assert function(logits, spoilt, weights) == function(logits, labels, weights)
    gradient = jax.grad(lambda logits: cross_entropy(logits, spoilt, weights).sum)(logits)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[1, 3] == 0).all()
    assert np.abs(gradient[1, 2]).max() > 0


def test_label_0_counts_like_any_other(places):
    logits, _, weights = places
    total = cross_entropy(logits, jnp.zeros((3, 5), jnp.int32), weights)
    assert float(total.count) == 12.5
    assert float(total.sum) > 0


def test_huge_logits_do_not_overflow():
    logits = jnp.array([[1e30, 0.0, -1e30]])
    total = cross_entropy(logits, jnp.array([0]), jnp.array([1.0]))
    assert float(total.sum) == 0


def test_totals_of_parts_add_up_to_the_whole(places):
    whole = cross_entropy(*places)
    parts = [cross_entropy(*(x[rows] for x in places)) for rows in (slice(0, 1), slice(1, 3))]
    added = jax.tree.map(jnp.add, *parts)
    np.testing.assert_allclose(added, whole, rtol=1e-6)
    assert float(added.mean()) == pytest.approx(float(whole.sum) / 12.5)
    # The mean of the means is another number, which is why sums and counts travel.
    means = np.mean([float(part.mean()) for part in parts])
    assert abs(means - float(whole.mean())) > 1e-3


def test_mean_of_nothing_is_0():
    assert float(Total(jnp.float32(0), jnp.float32(0)).mean()) == 0
