"""The order of an epoch's rows."""

import numpy as np
import pytest

from bertjax.training.permutation import FEW, permute

# (length, seed) -> what grain 0.2.18's `index_shuffle(place, length - 1, seed, rounds=4)` gives for
# the places 0, 1, length // 2, length - 2, length - 1.
GRAIN = {
    (3, 0): [0, 2, 2, 2, 1],
    (97, 1): [35, 7, 0, 33, 56],
    (4095, 4294967295): [2949, 781, 2919, 1489, 33],
    (4096, 7): [1941, 3435, 923, 701, 2561],
    (30000, 77): [10361, 26913, 1388, 13085, 29781],
    (65536, 5): [41228, 58065, 11573, 26767, 5420],
    (70001, 6): [23400, 53710, 48673, 8629, 13751],
    (1000003, 8): [74999, 288191, 511742, 742580, 558829],
    (4294967296, 9): [819913837, 699187588, 2983518421, 2807900826, 2737664999],
}


@pytest.mark.parametrize(("length", "seed"), GRAIN)
def test_numbers_are_those_that_runs_began_with(length, seed):
    """A run continues with the rows that it had not seen, whatever version began it."""
    places = np.array([0, 1, length // 2, length - 2, length - 1])
    assert permute(places, length, seed).tolist() == GRAIN[length, seed]


@pytest.mark.parametrize("length", [1, 2, 97, FEW - 1, FEW, 65535, 65536, 65537, 131073, 262145])
def test_every_number_comes_once(length):
    """Also at one more than a power of two, where the block needs another bit (grain: 65537)."""
    numbers = permute(np.arange(length), length, seed=3)
    assert numbers.dtype == np.int64
    np.testing.assert_array_equal(np.sort(numbers), np.arange(length))


def test_places_may_be_asked_for_in_any_order_and_number():
    for length in (97, 30000):
        whole = permute(np.arange(length), length, seed=3)
        places = np.array([5, 96, 5, 0])
        np.testing.assert_array_equal(permute(places, length, seed=3), whole[places])
        assert permute(places[:0], length, seed=3).tolist() == []


def test_seeds_give_other_orders():
    orders = {tuple(permute(np.arange(97), 97, seed)) for seed in range(20)}
    assert len(orders) == 20
    assert tuple(range(97)) not in orders
