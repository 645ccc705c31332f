"""Samples of a bootstrap, whose interval is scipy's to the last digits."""

import numpy as np
import pytest
from scipy import stats

from bertjax.statistics import bootstrap
from bertjax.statistics.bootstrap import (
    Jackknife,
    count_draws,
    draw_samples,
    find_ends,
    find_lower_bound,
)

VALUES = np.random.default_rng(3).normal(5.0, 2.0, size=37)


def draw_all(**options):
    return np.concatenate([*draw_samples(len(VALUES), **options)])


@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_interval_of_a_mean_is_scipys(confidence):
    means = VALUES[draw_all(resamples=200, seed=4)].mean(axis=1)
    reference = stats.bootstrap(
        (VALUES,),
        np.mean,
        n_resamples=200,
        confidence_level=confidence,
        method="percentile",
        rng=4,
    ).confidence_interval
    assert find_ends(means, confidence) == pytest.approx(tuple(reference), rel=1e-12)


def test_samples_do_not_depend_on_how_many_are_drawn_at_a_time(monkeypatch):
    whole = draw_all(resamples=50, seed=4)
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 37 * 7)
    assert [len(some) for some in draw_samples(37, 50, seed=4)] == [7] * 7 + [1]
    np.testing.assert_array_equal(draw_all(resamples=50, seed=4), whole)
    assert (draw_all(resamples=50, seed=5) != whole).any()


def test_sums_by_counts_are_those_of_the_drawn_units():
    samples = draw_all(resamples=50)
    times = count_draws(samples)
    assert (times.sum(axis=1) == 37).all()
    np.testing.assert_allclose(times @ VALUES, VALUES[samples].sum(axis=1), rtol=1e-12)


def test_undefined_samples_leave_the_others_their_interval():
    resampled = np.stack([np.arange(101.0), np.full(101, np.nan), np.arange(101.0)], axis=1)
    resampled[:1, 2] = np.nan
    low, high = find_ends(resampled)
    np.testing.assert_allclose(low, [2.5, np.nan, 3.475])
    np.testing.assert_allclose(high, [97.5, np.nan, 97.525])


def leave_out(values, figure):
    figures = [figure(np.delete(values, number)) for number in range(len(values))]
    return Jackknife(np.array(figures), len(values))


@pytest.mark.parametrize(
    "figure", [np.mean, np.std, lambda values, axis=-1: -np.exp(values).mean(axis)]
)
def test_lower_bound_is_scipys(figure):
    resampled = figure(VALUES[draw_all(resamples=400, seed=4)], axis=-1)
    reference = stats.bootstrap(
        (VALUES,), figure, n_resamples=400, method="BCa", alternative="greater", rng=4
    ).confidence_interval.low
    bound = find_lower_bound(figure(VALUES), resampled, [leave_out(VALUES, figure)])
    assert bound == pytest.approx(reference, rel=1e-9)
    assert bound != pytest.approx(np.quantile(resampled, 0.05), rel=1e-6)  # the plain percentile


def test_lower_bound_from_two_samples_is_scipys():
    others = np.random.default_rng(5).exponential(size=23)
    result = stats.bootstrap(
        (VALUES, others), lambda a, b, axis=-1: a.mean(axis) / b.mean(axis), n_resamples=400,
        method="BCa", alternative="greater", rng=4,
    )  # fmt: skip
    of_values = leave_out(VALUES, lambda some: some.mean() / others.mean())
    of_others = leave_out(others, lambda some: VALUES.mean() / some.mean())
    bound = find_lower_bound(
        VALUES.mean() / others.mean(), result.bootstrap_distribution, [of_values, of_others]
    )
    assert bound == pytest.approx(result.confidence_interval.low, rel=1e-9)


def test_lower_bound_of_what_is_mostly_undefined_is_undefined():
    figures = np.arange(10.0)
    figures[:5] = np.nan
    assert np.isnan(find_lower_bound(4.0, figures, []))
    assert np.isnan(find_lower_bound(np.nan, np.arange(10.0), []))
    figures[4] = 4.0
    assert find_lower_bound(4.0, figures, []) >= 4
    assert find_lower_bound(2.0, np.full(9, 2.0), [Jackknife(np.full(3, 2.0), 3)]) == 2
