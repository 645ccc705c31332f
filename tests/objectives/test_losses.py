"""Losses as (sum, count), against float64."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.objectives.losses import (
    Total,
    accuracy,
    binary_cross_entropy,
    choice_cross_entropy,
    cross_entropy,
    span_cross_entropy,
    squared_error,
    squared_log_normalizers,
)


@pytest.fixture
def places():
    """Logits [3, 5, 99], labels and weights, one of which is 0 and one of which is no 0 or 1."""
    rng = np.random.default_rng(0)
    logits, labels = 5 * rng.normal(size=(3, 5, 99)), rng.integers(0, 99, (3, 5))
    labels[0, :3] = logits[0, :3].argmax(-1)  # some right ones
    weights = np.ones((3, 5), np.float32)
    weights[0, 0], weights[1, 3], weights[2, 4] = 0, 0, 0.5
    return jnp.asarray(logits, jnp.float32), jnp.asarray(labels), jnp.asarray(weights)


def test_square_of_the_log_of_the_denominator_equals_float64(places):
    logits, _, weights = (np.asarray(part, np.float64) for part in places)
    expected = (np.log(np.exp(logits).sum(-1)) ** 2 * weights).sum()
    total = squared_log_normalizers(places[0], places[2])
    assert float(total.sum) == pytest.approx(expected, rel=1e-6)
    assert float(total.count) == weights.sum()


def test_cross_entropy_equals_float64(places):
    logits, labels, weights = (np.asarray(x, np.float64) for x in places)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_probs, labels[..., None].astype(int), -1)[..., 0]
    total = cross_entropy(*places)
    assert float(total.sum) == pytest.approx(-(picked * weights).sum(), rel=1e-5)
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
    np.testing.assert_allclose(added, whole, rtol=1e-5)
    assert float(added.mean()) == pytest.approx(float(whole.sum) / 12.5)
    # The mean of the means is another number, which is why sums and counts travel.
    means = np.mean([float(part.mean()) for part in parts])
    assert abs(means - float(whole.mean())) > 1e-3


def test_mean_of_nothing_is_0():
    assert float(Total(jnp.float32(0), jnp.float32(0)).mean()) == 0


# ------------------------------------------------------------------------------ supervised tasks


def test_smoothed_cross_entropy_is_that_of_the_smoothed_target(places):
    logits, labels, weights = (np.asarray(x, np.float64) for x in places)
    target = np.eye(99)[labels.astype(int)] * 0.8 + 0.2 / 99
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -((target * log_probs).sum(-1) * weights).sum()
    assert float(cross_entropy(*places, smoothing=0.2).sum) == pytest.approx(expected, rel=1e-5)


def test_binary_cross_entropy_is_the_mean_over_classes():
    rng = np.random.default_rng(1)
    logits, labels = 3 * rng.normal(size=(3, 5, 7)), rng.integers(0, 2, (3, 5, 7))
    weights = rng.random((3, 5))
    probs = 1 / (1 + np.exp(-logits))
    for smoothing in (0.0, 0.2):
        target = labels * (1 - smoothing) + smoothing / 2
        losses = -(target * np.log(probs) + (1 - target) * np.log(1 - probs)).mean(-1)
        total = binary_cross_entropy(
            *(jnp.asarray(x, jnp.float32) for x in (logits, labels, weights)), smoothing
        )
        assert float(total.sum) == pytest.approx((losses * weights).sum(), rel=1e-5)
        assert float(total.count) == pytest.approx(weights.sum(), rel=1e-5)


def test_squared_error_weighs_its_places():
    values = [jnp.array(x, jnp.float32) for x in ([1, 2, 9], [0, 4, 0], [1, 0.5, 0])]
    assert jax.tree.map(float, squared_error(*values)) == (3, 1.5)


def test_span_loss_of_a_packed_example_is_its_own():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(1, 9, 2)).astype(np.float32)
    sequence_ids = np.array([[1, 1, 1, 1, 2, 2, 2, 0, 0]])
    starts, spans = np.array([[0, 4, 0]]), np.array([[[1, 3], [2, 2], [0, 0]]])
    weights = np.array([[1, 1, 0]], np.float32)

    def alone(own, first, last):
        log_probs = own - np.log(np.exp(own.astype(np.float64)).sum(0))
        return -(log_probs[first, 0] + log_probs[last, 1]) / 2

    expected = alone(logits[0, :4], 1, 3) + alone(logits[0, 4:7], 2, 2)
    arguments = [jnp.asarray(x) for x in (logits, spans, sequence_ids, starts, weights)]
    total = span_cross_entropy(*arguments)
    assert jax.tree.map(float, total) == (pytest.approx(expected, rel=1e-5), 2)
    gradient = jax.grad(lambda logits: span_cross_entropy(logits, *arguments[1:]).sum)(logits)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[0, 7:]).max() == 0


def test_choice_loss_compares_the_choices_of_a_question():
    scores = jnp.array([[1.0, 2.0, 5.0, 3.0, 9.0]])
    questions, right = jnp.array([[0, 0, 1, 1, -1]]), jnp.array([[0.0, 1.0, 0.0, 1.0, 0.0]])

    def alone(scores, right):
        scores = np.array(scores, np.float64)
        return np.log(np.exp(scores).sum()) - scores[right]

    total = choice_cross_entropy(scores, questions, right)
    expected = alone([1, 2], 1) + alone([5, 3], 1)
    assert jax.tree.map(float, total) == (pytest.approx(expected, rel=1e-5), 2)
    smoothed = choice_cross_entropy(scores, questions, right, 0.1)
    expected += 0.1 * ((2 - 1.5) + (3 - 4))
    assert float(smoothed.sum) == pytest.approx(expected, rel=1e-5)


def test_mean_is_by_the_weight_however_small_it_is():
    assert Total(jnp.float32(0.3), jnp.float32(0.2)).mean() == pytest.approx(1.5)
    assert Total(jnp.float32(0), jnp.float32(0)).mean() == 0


def test_label_is_picked_alike_on_accelerators(monkeypatch):
    """By comparison there, by a gather on a CPU: the same numbers, gradients included."""
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.normal(size=(3, 5, 11)), jnp.float32)
    labels = jnp.asarray(random.integers(-1, 12, (3, 5)))  # two of them out of range
    weights = jnp.asarray((labels >= 0) & (labels < 11), jnp.float32)

    def both(logits):
        return jax.value_and_grad(lambda x: cross_entropy(x, labels, weights, 0.1).mean())(logits)

    here = both(logits)
    monkeypatch.setattr("bertjax.objectives.losses.target_platform", lambda: "gpu")
    there = both(logits)
    chex.assert_trees_all_close(here, there, rtol=1e-6, atol=1e-7)
