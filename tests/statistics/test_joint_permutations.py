"""Permutation tests: statistics against scipy and closed forms, p-values that hold their level."""

import itertools

import numpy as np
import pytest
from scipy import stats

from bertjax.statistics.permutation import (
    adjust_p_values,
    draw_splits,
    energy_coefficient,
    number_energy,
    point_energy,
    share_distance,
)

RANDOM = np.random.default_rng(3)
FIRST, SECOND = 7, 11
NUMBERS = RANDOM.integers(0, 9, FIRST + SECOND).astype(float)  # with ties


def test_splits_begin_with_the_one_as_it_is_and_keep_their_sizes():
    splits = draw_splits(FIRST, SECOND, 50, seed=1)
    assert splits.shape == (FIRST + SECOND, 51)
    assert splits[:, 0].tolist() == [True] * FIRST + [False] * SECOND
    assert (splits.sum(axis=0) == FIRST).all()
    assert len(np.unique(splits, axis=1).T) > 45
    np.testing.assert_array_equal(splits, draw_splits(FIRST, SECOND, 50, seed=1))
    assert (splits != draw_splits(FIRST, SECOND, 50, seed=2)).any()


def test_energy_of_numbers_is_scipys():
    splits = draw_splits(FIRST, SECOND, 20)
    for own, value in zip(splits.T, number_energy(NUMBERS, splits), strict=True):
        distance = stats.energy_distance(NUMBERS[own], NUMBERS[~own])
        weight = FIRST * SECOND / (FIRST + SECOND)
        assert value == pytest.approx(distance**2 * weight, rel=1e-9)


def test_energy_of_points_is_that_of_their_numbers_and_of_a_double_sum():
    splits = draw_splits(FIRST, SECOND, 300)  # more than are computed together
    np.testing.assert_allclose(
        point_energy(NUMBERS[:, None], splits), number_energy(NUMBERS, splits), rtol=1e-3
    )
    points = RANDOM.normal(size=(FIRST + SECOND, 3))
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    own = splits[:, 5]
    energy = (
        2 * distances[own][:, ~own].mean()
        - distances[own][:, own].mean()
        - distances[~own][:, ~own].mean()
    )
    expected = energy * FIRST * SECOND / (FIRST + SECOND)
    assert point_energy(points, splits)[5] == pytest.approx(expected, rel=1e-3)


def test_distance_of_labels_is_pearsons_chi_square():
    labels = RANDOM.integers(0, 3, FIRST + SECOND)
    shares = np.eye(4)[labels]  # of the fourth label there is none
    splits = draw_splits(FIRST, SECOND, 5)
    for own, value in zip(splits.T, share_distance(shares, splits), strict=True):
        table = [np.bincount(labels[one], minlength=3) for one in (own, ~own)]
        found = stats.chi2_contingency(table, correction=False).statistic
        assert value == pytest.approx(found / len(labels), rel=1e-9)


def test_units_without_a_value_are_left_out():
    values = np.where(np.arange(FIRST + SECOND) % 4 == 1, np.nan, NUMBERS)
    known = ~np.isnan(values)
    splits = draw_splits(FIRST, SECOND, 20)
    np.testing.assert_allclose(
        number_energy(values, splits), number_energy(values[known], splits[known])
    )


def test_p_value_is_exact_where_all_splits_are_there():
    numbers = NUMBERS[:8]
    chosen = [(0, 1, 2, 3), *(one for one in itertools.combinations(range(8), 4) if one[3] > 3)]
    splits = np.array([np.isin(np.arange(8), one) for one in chosen]).T
    exact = stats.permutation_test(
        (numbers[:4], numbers[4:]),
        stats.energy_distance,
        n_resamples=np.inf,
        alternative="greater",
    )
    p_values = adjust_p_values(number_energy(numbers, splits)[None])
    assert splits.shape[1] == 70
    assert p_values.alone[0] == pytest.approx(exact.pvalue)
    assert p_values.adjusted[0] == p_values.alone[0]


def test_adjustment_knows_what_tests_have_in_common():
    drawn = RANDOM.normal(size=(4, 2001))
    drawn[:, 0] = np.quantile(drawn[0], 0.98)
    same = adjust_p_values(np.stack([drawn[0]] * 4))
    np.testing.assert_array_equal(same.adjusted, same.alone)
    apart = adjust_p_values(drawn)
    assert apart.adjusted.min() == pytest.approx(1 - (1 - apart.alone.min()) ** 4, abs=0.02)
    # The clearest first, then one of those that are left.
    clear = adjust_p_values(np.stack([drawn[0], np.append(99, drawn[1][1:])]))
    assert clear.adjusted[1] < 0.005
    assert clear.adjusted[0] == pytest.approx(clear.alone[0])


@pytest.mark.parametrize("ties", [False, True])
def test_false_alarms_of_all_tests_together_are_at_most_the_level(ties):
    alarms = 0
    for seed in range(400):
        values = np.random.default_rng(seed).normal(size=(20, 3))
        values = values.round() if ties else values
        splits = draw_splits(9, 11, 99, seed)
        tests = [number_energy(own, splits) for own in values.T]
        tests += [point_energy(values, splits), share_distance(values > 1, splits)]
        alarms += (adjust_p_values(np.stack(tests)).adjusted <= 0.1).any()
    assert 0.02 * 400 < alarms <= stats.binom.ppf(0.999, 400, 0.1)


def test_coefficient_is_from_nothing_to_one():
    assert energy_coefficient(np.zeros((5, 2)), np.tile([3.0, 4.0], (4, 1))) == pytest.approx(1)
    assert energy_coefficient(np.zeros((5, 2)), np.zeros((4, 2))) == 0
    near, far = (
        energy_coefficient(RANDOM.normal(size=(300, 2)), RANDOM.normal(shift, size=(300, 2)))
        for shift in (0, 1)
    )
    assert near < 0.02 < 0.1 < far < 0.5
