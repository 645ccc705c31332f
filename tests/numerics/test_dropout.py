"""Dropout: the right rate, no pattern, and every row's mask its own affair."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.numerics.dropout import draw_kept, drop_out

# Compiled, as eager calls would compile every operation for itself.
draw = jax.jit(draw_kept, static_argnums=(2, 3))
drop = jax.jit(drop_out, static_argnums=1)

KEY = jax.random.key(7)
ROWS = jnp.arange(40)
SHAPE = (61, 67)  # a row's; odd, so that no power of two hides a pattern


@pytest.fixture(scope="module")
def kept():
    return np.asarray(draw(KEY, ROWS, SHAPE, 0.5))


def correlation(first, second):
    """Of two arrays of booleans with mean one half, in standard errors."""
    first, second = first.ravel() - 0.5, second.ravel() - 0.5
    return 4 * (first * second).sum() / math.sqrt(first.size)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_is_as_asked(rate):
    kept = np.asarray(draw(KEY, ROWS, SHAPE, rate))
    bound = 5 * math.sqrt(rate * (1 - rate) / kept.size)
    assert kept.mean() == pytest.approx(1 - rate, abs=bound)
    # Every row, column and line for itself: none is favoured.
    for axes in itertools.combinations(range(3), 2):
        count = math.prod(kept.shape[axis] for axis in axes)
        assert np.abs(kept.mean(axes) - 1 + rate).max() < 6 * math.sqrt(rate * (1 - rate) / count)


def test_rate_0_keeps_everything():
    assert np.asarray(draw(KEY, ROWS[:3], (7, 8), 0.0)).all()


def test_mask_is_a_function_of_key_and_row(kept):
    again = draw(KEY, ROWS, SHAPE, 0.5)
    np.testing.assert_array_equal(kept, again)
    for other in (draw(jax.random.key(8), ROWS, SHAPE, 0.5), kept[::-1]):
        assert abs(correlation(kept, np.asarray(other))) < 5


def test_rows_mask_does_not_depend_on_its_batch(kept):
    some = jnp.array([17, 3, 39])
    np.testing.assert_array_equal(draw(KEY, some, SHAPE, 0.5), kept[some])
    np.testing.assert_array_equal(draw(KEY, some[1:2], SHAPE, 0.5), kept[3:4])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 16])
def test_neighbours_are_not_correlated(kept, axis, distance):
    first = np.take(kept, range(kept.shape[axis] - distance), axis)
    second = np.take(kept, range(distance, kept.shape[axis]), axis)
    assert abs(correlation(first, second)) < 5


def test_pairs_of_rows_are_not_correlated(kept):
    flat = kept.reshape(len(kept), -1) * 2.0 - 1
    scores = flat @ flat.T / math.sqrt(flat.shape[1])
    scores = scores[np.triu_indices(len(kept), 1)]
    assert np.abs(scores).max() < 5.5  # of 780 pairs
    assert scores.std() == pytest.approx(1, abs=0.15)


def test_keys_of_following_steps_are_not_correlated(kept):
    steps = [draw(jax.random.fold_in(KEY, step), ROWS, SHAPE, 0.5) for step in range(4)]
    for first, second in itertools.combinations([kept, *map(np.asarray, steps)], 2):
        assert abs(correlation(first, second)) < 5


def test_kept_values_are_scaled_up_and_the_rest_is_0():
    values = jax.random.normal(jax.random.key(0), (3, 4, 7))
    kept = np.asarray(draw(KEY, jnp.arange(3), (4, 7), 0.25))
    dropped = drop(values, 0.25, KEY, jnp.arange(3))
    np.testing.assert_allclose(dropped, np.where(kept, values / 0.75, 0), rtol=1e-5)
    assert 0 < kept.sum() < kept.size


def test_flat_values_are_dropped_row_by_row():
    values = jnp.ones((3 * 7, 8))
    kept = np.asarray(draw(KEY, jnp.array([4, 9, 2]), (7, 8), 0.5)).reshape(21, 8)
    dropped = drop(values, 0.5, KEY, jnp.array([4, 9, 2]))
    np.testing.assert_array_equal(np.asarray(dropped) != 0, kept)


def test_mean_of_bfloat16_stays():
    """The factor 1.111 would be 1.109 in bfloat16, and every mean 0.16 % too small."""
    values = jax.random.uniform(KEY, (40, 61 * 67), minval=1, maxval=2).astype(jnp.bfloat16)
    dropped = np.asarray(drop(values, 0.1, KEY, ROWS), np.float64)
    kept = dropped != 0
    ratio = dropped[kept].sum() / np.asarray(values, np.float64)[kept].sum()
    assert abs(ratio - 1 / 0.9) < 1e-4


def test_dtype_stays():
    assert drop(jnp.ones((3, 8), jnp.bfloat16), 0.5, KEY, jnp.arange(3)).dtype == jnp.bfloat16
