"""Intervals hold what they promise; two models are told apart only when they differ."""

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.significance import bootstrap_interval, compare_paired, compare_resampled

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def values():
    return np.random.default_rng(3).normal(5.0, 2.0, size=400)


def test_interval_of_a_mean_is_that_of_the_normal_distribution(values):
    low, high = bootstrap_interval(lambda numbers: values[numbers].mean(), len(values))
    margin = 1.96 * values.std() / 20
    # A quantile of 1000 draws is off by less than a tenth of the margin.
    assert low == pytest.approx(values.mean() - margin, abs=0.15 * margin)
    assert high == pytest.approx(values.mean() + margin, abs=0.15 * margin)
    wide = bootstrap_interval(lambda numbers: values[numbers].mean(), 400, confidence=0.99)
    assert wide.low < low < high < wide.high


def test_interval_is_the_same_vectorized_in_chunks_and_for_the_same_seed(values, monkeypatch):
    one = bootstrap_interval(lambda numbers: values[numbers].mean(), 400, seed=7)
    monkeypatch.setattr("bertjax.tasks.significance._CHUNK", 3 * 400)
    shapes = []

    def means(numbers):
        shapes.append(numbers.shape)
        return values[numbers].mean(axis=-1)

    many = bootstrap_interval(means, 400, seed=7, vectorized=True)
    assert many == pytest.approx(one)
    assert max(shapes) <= (3, 400)
    assert bootstrap_interval(means, 400, seed=8, vectorized=True) != many


def test_interval_passes_over_draws_whose_score_is_not_defined():
    # A third of the draws, 0.9**10, leave example 0 out.
    def score(numbers):
        return float(numbers.mean()) if 0 in numbers else None

    interval = bootstrap_interval(score, 10)
    assert 0 < interval.low < interval.high < 9


@pytest.mark.parametrize(("size", "score"), [(1, 0.5), (10, None), (10, np.nan)])
def test_interval_that_is_not_defined_is_none(size, score):
    assert bootstrap_interval(lambda numbers: score, size) is None


def outcomes(both, only_a, only_b, neither):
    a = [1] * (both + only_a) + [0] * (only_b + neither)
    b = [1] * both + [0] * only_a + [1] * only_b + [0] * neither
    return np.array(a), np.array(b)


@pytest.mark.parametrize(
    ("table", "p_value", "verdict"),
    [
        ((50, 1, 9, 40), 2 * (1 + 10) / 2**10, "better"),
        ((50, 9, 1, 40), 2 * (1 + 10) / 2**10, "worse"),
        ((50, 2, 5, 40), 2 * (1 + 7 + 21) / 2**7, "cannot be told apart"),
        ((50, 0, 0, 40), 1.0, "cannot be told apart"),
    ],
)
def test_right_and_wrong_are_compared_by_the_exact_binomial(table, p_value, verdict):
    comparison = compare_paired(*outcomes(*table))
    assert comparison.test == "McNemar exact"
    assert comparison.p_value == pytest.approx(p_value)
    assert comparison.verdict == verdict
    assert comparison.difference == pytest.approx((table[2] - table[1]) / sum(table))
    assert comparison.interval.low <= comparison.difference <= comparison.interval.high


def test_scores_are_compared_by_the_paired_bootstrap(values):
    noise = np.random.default_rng(4).normal(size=400)
    better = compare_paired(values, values + 0.2 + noise)
    assert (better.test, better.verdict) == ("paired bootstrap", "better")
    assert better.p_value < 0.01
    assert better.interval.low > 0
    worse = compare_paired(values + 0.2 + noise, values)
    assert worse.verdict == "worse"
    assert worse.difference == pytest.approx(-better.difference)
    same = compare_paired(values, values + noise - noise.mean())
    assert same.verdict == "cannot be told apart"
    assert same.p_value > 0.9
    assert compare_paired(values, values).p_value == 1


def test_equally_good_models_are_called_different_as_rarely_as_level_says():
    rng = np.random.default_rng(5)
    different = sum(
        compare_paired(*rng.normal(size=(2, 60)), resamples=300).verdict != "cannot be told apart"
        for _ in range(200)
    )
    # 10 expected of 200; a binomial count stays below this bound but for once in 10,000.
    assert 1 <= different <= 23


def test_score_of_all_examples_is_compared_on_the_same_draws():
    counts_a = np.tile([[1, 3, 2], [2, 2, 3]], (40, 1))
    counts_b = np.tile([[2, 3, 2], [2, 2, 3]], (40, 1))

    def f1(counts, numbers):
        right, found, wanted = np.moveaxis(counts[numbers].sum(axis=-2), -1, 0)
        return 2 * right / (found + wanted)

    comparison = compare_resampled(
        lambda numbers: f1(counts_b, numbers) - f1(counts_a, numbers), 80, resamples=500
    )
    assert comparison.difference == pytest.approx(8 / 10 - 6 / 10)
    assert comparison.verdict == "better"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 0], [1, 0, 1], "A has the scores of 2 examples, B of 3; .* the same examples"),
        ([1, np.nan], [1, 0], "not finite"),
        ([1], [0], "1 examples are too few"),
    ],
)
def test_scores_that_cannot_be_compared_are_told(a, b, message):
    with pytest.raises(UserError, match=message):
        compare_paired(np.array(a), np.array(b))
