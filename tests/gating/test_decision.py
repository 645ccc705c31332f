"""A requirement is met where examples tell that it holds: seldom of a model that is truly worse."""

import numpy as np
import pytest
from scipy import stats

from bertjax.gating.gate import read_requirements
from bertjax.gating.quantities import Answered, spoil
from bertjax.statistics.bootstrap import Jackknife, draw_samples, find_lower_bound
from bertjax.tasks.classification import Classification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.scoring import slice_examples
from tests.gating.populations import TASK, count_passes, judge, population, true_scores

# Rates of (both, only old, only new, neither) for ham and for spam.
POPULATIONS = {
    "many differences": population(0.3, ham=(0.9, 0.05, 0.03, 0.02), found=(0.7, 0.1, 0.05, 0.15)),
    "few differences": population(0.3, ham=(0.97, 0.01, 0.0, 0.02), found=(0.9, 0.01, 0, 0.09)),
    "rare class": population(0.1, ham=(0.97, 0.01, 0.005, 0.015), found=(0.8, 0.08, 0.02, 0.1)),
}
CASES = [
    ("accuracy >= old - {}", "many differences", 300),
    ("accuracy >= old - {}", "few differences", 300),
    ("macro_f1 >= old - {}", "many differences", 300),
    ("macro_f1 >= old - {}", "rare class", 300),
    ("accuracy >= {}", "rare class", 300),
    ("accuracy >= {}", "few differences", 100),
]


def requirement_at_the_boundary(text, table):
    """The requirement that the new model meets exactly: it is worse by the whole margin."""
    new, old = (true_scores(table, model) for model in (1, 0))
    name = text.split()[0]
    return text.format(repr(float(old[name] - new[name] if "old" in text else new[name])))


@pytest.mark.slow
@pytest.mark.parametrize(("text", "name", "examples"), CASES)
def test_model_that_is_worse_by_the_margin_passes_one_time_in_twenty_at_most(text, name, examples):
    table = POPULATIONS[name]
    passes = count_passes(requirement_at_the_boundary(text, table), table, examples)
    print(f"{text:24} {name:18} {examples} examples: {passes} of 200 pass")
    # More would be seen in one of a thousand runs if the rate were 5 %.
    assert passes <= stats.binom.ppf(0.999, 200, 0.05)


@pytest.mark.slow
def test_equal_model_passes_with_a_margin_that_the_examples_can_tell():
    table = population(0.3, ham=(0.94, 0.02, 0.02, 0.02), found=(0.8, 0.03, 0.03, 0.14))
    assert count_passes("accuracy >= old - 0.04", table, 800, draws=50) >= 45


@pytest.fixture(scope="module")
def gold():
    return np.arange(200) % 2


def spoilt(gold, errors):
    return np.where(np.arange(len(gold)) < errors, 1 - gold, gold)


def test_models_with_the_same_answers_may_differ_in_three_unseen_ones(gold):
    decision = judge("accuracy >= old - 0.015", gold, gold, gold)
    assert not decision.met
    assert (decision.margin, decision.bound) == (pytest.approx(0.015), pytest.approx(0))
    assert "too few to be certain" in decision.why
    assert judge("accuracy >= old - 0.016", gold, gold, gold).met


def test_no_error_seen_is_not_no_error(gold):
    # The rule of three: 3 of 200.
    assert not judge("accuracy >= 0.986", gold, gold, gold).met
    assert judge("accuracy >= 0.984", gold, gold, gold).met


def test_error_in_the_rarest_of_many_classes_is_among_those_that_are_tried():
    labels = tuple(f"{number:02}" for number in range(40))
    task, gold = Classification(labels), [*range(39)] * 20 + [39, 39]
    examples = [TextExample(f"f:{n}", "x", None, labels[one]) for n, one in enumerate(gold)]
    predictions = [
        {"label": one, "probability": 1.0, "probabilities": dict.fromkeys(labels, 0.0) | {one: 1.0}}
        for one in (labels[number] for number in gold)
    ]
    spoiled = list(spoil(Answered(task, examples, predictions, slice_examples(examples), {})))
    assert len(spoiled) == 24
    # One of its two is taken for one more of another class, which has 20.
    expected = (38 + 2 / 3 + 40 / 41) / 40
    assert min(one["macro_f1"] for one in spoiled) == pytest.approx(expected)


def test_point_estimate_is_not_enough(gold):
    new, old = spoilt(gold, 11), spoilt(gold, 10)
    decision = judge("accuracy >= old - 0.01", gold, old, new)
    assert decision.margin == pytest.approx(0.005)
    assert decision.bound < 0
    assert not decision.met
    decision = judge("accuracy >= old - 0.01", gold, old, spoilt(gold, 40))
    assert decision.margin == pytest.approx(-0.14)
    assert decision.why == "it is missed by 0.14"
    assert decision.new == {"accuracy": pytest.approx(0.8)}
    assert decision.old == {"accuracy": pytest.approx(0.95)}


def test_undefined_score_is_not_met():
    gold = np.zeros(30, int)
    decision = judge("mcc >= 0", gold, gold, gold)
    assert not decision.met
    assert decision.why == "a side of it is not defined on these examples"
    assert decision.to_json()["margin"] is None


def test_sizes_are_compared_as_they_are():
    from bertjax.gating.decision import decide
    from bertjax.gating.quantities import Measured

    def size(number):
        return Measured({"bytes": number}, {"bytes": np.full(5, number)}, [], {})

    for text, old, met in (
        ("bytes <= old", 100.0, True),
        ("bytes < old", 100.0, False),
        ("bytes < 1.01 * old", 100.0, True),
        ("bytes <= 0.5 * old", 199.0, False),
    ):
        [requirement] = read_requirements(TASK, [text], speed_texts=0)
        decision = decide(requirement, size(100.0), size(old))
        assert (decision.met, decision.bound) == (met, None), text


def bound_of_mean(values, confidence=0.95):
    samples = draw_samples(len(values), 4000)
    resampled = np.concatenate([values[drawn].mean(axis=1) for drawn in samples])
    without = np.array([np.delete(values, number).mean() for number in range(len(values))])
    jackknife = Jackknife(without, len(values))
    return find_lower_bound(values.mean(), resampled, [jackknife], confidence)


def test_lower_bound_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(3).normal(5, 2, 400)
    expected = values.mean() - 1.645 * values.std() / 20
    assert bound_of_mean(values) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("errors", [8, 13])
def test_lower_bound_of_a_few_errors_is_nearly_the_exact_one(errors):
    values = (np.arange(1000) >= errors).astype(float)
    exact = 1 - stats.beta.ppf(0.95, errors + 1, 1000 - errors)  # Clopper & Pearson 1934
    percentile = 1 - stats.binom.ppf(0.95, 1000, errors / 1000) / 1000
    assert bound_of_mean(values) == pytest.approx(exact, abs=0.0013)
    assert bound_of_mean(values) < percentile
