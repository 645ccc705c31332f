"""Bootstrap intervals against closed forms, and what is not defined."""

import json
import warnings

import numpy as np
import pytest

from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_interval_of_two_texts_is_exact():
    # Resamples of (0, 1) have the mean 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    found = bootstrap_ratio(np.array([0.0, 1.0]), np.ones(2))
    assert found == Interval(0.5, 0, 1)
    assert bootstrap_ratio(np.full(7, 3.0), np.full(7, 4.0)) == Interval(0.75, 0.75, 0.75)


def test_one_text_has_no_interval_and_tells_nothing_apart():
    found = bootstrap_ratio(np.array([[3.0, 1.0], [9.0, 2.0]]), np.array([[4.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_array_equal(found.value, [0.75, 1.5])
    np.testing.assert_array_equal(found.low, [np.nan, 1])  # of the first figure one text counts
    one = bootstrap_ratio(np.array([5.0]), np.array([2.0]))
    assert np.isnan([one.low, one.high]).all()
    assert not Figures(Interval(np.array(9.0), *one[1:]), one).distinguishable


def test_interval_of_a_ratio_is_that_of_the_closed_form():
    """Linearised: the variance of r = S / C is sum((s - r c)^2) / C^2 (Cochran 1977, 6.4)."""
    random = np.random.default_rng(3)
    counts = random.integers(1, 30, (800, 1)).astype(float)
    sums = random.binomial(counts.astype(int), [[0.1, 0.5, 0.8]]).astype(float)
    found = bootstrap_ratio(sums, counts)
    ratio = sums.sum(axis=0) / counts.sum()
    error = np.sqrt(((sums - ratio * counts) ** 2).sum(axis=0)) / counts.sum()
    np.testing.assert_allclose(found.value, ratio)
    # 1000 resamples place the ends within 0.085 errors (one standard deviation).
    np.testing.assert_allclose((found.low - ratio) / error, -1.96, atol=0.35)
    np.testing.assert_allclose((found.high - ratio) / error, 1.96, atol=0.35)


def test_interval_covers_the_truth_as_often_as_it_says():
    random = np.random.default_rng(5)
    sums = random.normal(2, 1, (60, 1000))
    found = bootstrap_ratio(sums, np.ones((60, 1)))
    covered = ((found.low <= 2) & (found.high >= 2)).mean()
    # One set of draws serves all figures; at 60 texts a percentile interval covers 94.4 %.
    assert 0.92 < covered < 0.97


def test_texts_are_drawn_and_not_their_tokens():
    """Ten texts whose 1000 tokens all agree tell of ten, not of ten thousand."""
    sums = np.where(np.arange(10) < 5, 1000.0, 0.0)
    found = bootstrap_ratio(sums, np.full(10, 1000.0))
    assert found.low <= 0.3
    assert found.high >= 0.7


def test_figures_of_any_shape_follow_from_the_seed():
    random = np.random.default_rng(0)
    sums, counts = random.random((30, 2, 3)), random.random((30, 2, 3))
    intervals = bootstrap_ratio(sums, counts, seed=4)
    for part, again in zip(bootstrap_ratio(sums, counts, seed=4), intervals, strict=True):
        assert part.shape == (2, 3)
        np.testing.assert_array_equal(part, again)
    assert not np.allclose(bootstrap_ratio(sums, counts, seed=5).low, intervals.low, rtol=1e-12)


def test_figure_without_counts_is_not_defined():
    sums = np.array([[1.0, 0.0, np.nan], [2.0, 0.0, 5.0], [3.0, 0.0, 5.0]])
    counts = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    found = bootstrap_ratio(sums, counts)
    assert found.value[0] == 2
    for part in found:
        assert np.isnan(part).tolist() == [False, True, False]
        # Only the resamples that have a text with a count tell of the third figure.
        assert part[2] == 5
    assert 1 <= found.low[0] < 2 < found.high[0] <= 3


def test_no_text_gives_nothing():
    found = bootstrap_ratio(np.zeros((0, 2, 3)), np.zeros((0, 2, 3)))
    assert all(part.shape == (2, 3) and np.isnan(part).all() for part in found)


def test_figure_inside_the_interval_of_its_control_is_not_distinguishable():
    nan = np.nan
    model = Interval(*np.array([[0.5, 0.5, 0.5, 0.2, nan, 0.5]] * 3))
    low, high = np.array([[0.1, 0.6, 0.5, 0.3, 0.1, nan], [0.4, 0.7, 0.5, 0.9, 0.2, nan]])
    control = Interval((low + high) / 2, low, high)
    figures = Figures(model, control)
    assert figures.distinguishable.tolist() == [True, True, False, True, False, False]
    as_json = json.loads(json.dumps(figures.to_json(), allow_nan=False))
    assert as_json.keys() == {
        "value", "low", "high", "control", "control_low", "control_high", "distinguishable",
    }  # fmt: skip
    assert as_json["value"] == [0.5, 0.5, 0.5, 0.2, None, 0.5]
    assert as_json["control_high"][-1] is None
    single = Figures(Interval(*np.ones(3)), Interval(*np.full(3, nan))).to_json()
    assert (single["value"], single["control"], single["distinguishable"]) == (1, None, False)
