"""Intervals hold what they promise; two models are told apart only when they differ."""

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.significance import compare_paired

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def values():
    return np.random.default_rng(3).normal(5.0, 2.0, size=400)


def test_interval_of_the_difference_is_that_of_the_normal_distribution(values):
    zeros = np.zeros(400)
    low, high = compare_paired(zeros, values).interval
    margin = 1.96 * values.std() / 20
    # A quantile of 10,000 draws is off by less than a twentieth of the margin.
    assert low == pytest.approx(values.mean() - margin, abs=0.05 * margin)
    assert high == pytest.approx(values.mean() + margin, abs=0.05 * margin)
    wide = compare_paired(zeros, values, level=0.01).interval
    assert wide.low < low < high < wide.high
    assert compare_paired(zeros, values, seed=8).interval != (low, high)


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


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1, 0], [1, 0, 1], "A has the scores of 2 examples, B of 3; .* the same examples"),
        ([1, np.nan], [1, 0], "not finite"),
        ([1], [0], "1 example: too few to compare"),
    ],
)
def test_scores_that_cannot_be_compared_are_told(a, b, message):
    with pytest.raises(UserError, match=message):
        compare_paired(np.array(a), np.array(b))
