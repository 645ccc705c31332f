"""Permutation tests of whether two samples are of one distribution, many of them at once.

All tests look at the same random splits of the units into two groups, so that their p-values can be
adjusted together: the probability that any test of samples of one distribution is called a
difference is at most the level, whatever the tests have in common. Any function of the units and a
split may be tested; where units can be exchanged, every p-value is exact.

Source: Phipson & Smyth 2010 (the split as it is counts among the permutations); Westfall & Young
    1993, algorithm 2.8 (step-down by the least p-value).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# Splits whose statistics are computed together.
_TOGETHER = 256
# Statistics that differ by less, in shares of their size, are equal but for rounding.
_ROUNDING = 1e-6

Splits = Bool[np.ndarray, "units splits"]
Statistics = Float[np.ndarray, " splits"]


class PValues(NamedTuple):
    """The p-values of several tests.

    Attributes:
        alone: of each test by itself.
        adjusted: for all of them together; one at or below a level is called a difference.
    """

    alone: Float[np.ndarray, " tests"]
    adjusted: Float[np.ndarray, " tests"]


def draw_splits(first: int, second: int, permutations: int, seed: int = 0) -> Splits:
    """Draws random splits of the units into a first group and the rest.

    Args:
        first: units of the first sample.
        second: units of the second one, which stand behind those of the first.
        permutations: how many random splits.
        seed: the same seed gives the same splits.

    Returns:
        True for the units of the first group; column 0 is the split as it is.
    """
    random = np.random.default_rng(seed)
    own = np.arange(first + second) < first
    drawn = random.permuted(np.broadcast_to(own, (permutations, len(own))), axis=1)
    return np.concatenate([own[None], drawn]).T


def number_energy(values: Float[np.ndarray, " units"], splits: Splits) -> Statistics:
    """Returns the energy distance between the groups' numbers, for each split.

    It is twice the integral of the squared difference of both distribution functions, here times
    n1 n2 / (n1 + n2), since splits may differ in how many numbers they know.

    Args:
        values: a number for each unit; NaN where it is not known.
        splits: of `draw_splits`.

    Source: Székely & Rizzo 2013, section 2 (on a line: Cramér's distance).
    """
    values, splits = _known(values, splits)
    order = np.argsort(values, kind="stable")
    gaps = np.diff(values[order])

    def compute(own: Float[np.ndarray, "units some"]) -> Statistics:
        ones, others = _counts(own)
        shares = np.cumsum(own, axis=0)[:-1] / ones
        rest = np.cumsum(1 - own, axis=0)[:-1] / others
        return 2 * gaps @ (shares - rest) ** 2 * ones * others / (ones + others)

    return _in_parts(splits[order], compute)


def point_energy(points: Float[np.ndarray, "units numbers"], splits: Splits) -> Statistics:
    """Returns the energy distance between the groups' points, for each split, as `number_energy`.

    Args:
        points: of each unit; NaN where they are not known.
        splits: of `draw_splits`.
    """
    points, splits = _known(points, splits)
    centred = -_distances(points)
    centred -= centred.mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)

    def compute(own: Float[np.ndarray, "units some"]) -> Statistics:
        ones, others = _counts(own)
        own = own.astype(np.float32)
        sums = np.einsum("ns,ns->s", own, centred @ own, dtype=np.float64)
        return sums * (ones + others) / (ones * others)

    return _in_parts(splits, compute)


def share_distance(shares: Float[np.ndarray, "units labels"], splits: Splits) -> Statistics:
    """Returns how far the groups' mean shares of labels are apart, for each split.

    Where each unit has one label, it is Pearson's chi-square over the number of units.

    Args:
        shares: of each unit for each label; NaN where they are not known.
        splits: of `draw_splits`.
    """
    shares, splits = _known(shares, splits)
    all_sums = shares.sum(axis=0)
    shares, all_sums = shares[:, all_sums > 0], all_sums[all_sums > 0]

    def compute(own: Float[np.ndarray, "units some"]) -> Statistics:
        ones, others = _counts(own)
        sums = shares.T @ own
        differences = sums / ones - (all_sums[:, None] - sums) / others
        squares = (differences**2 / (all_sums / len(shares))[:, None]).sum(axis=0)
        return squares * ones * others / (ones + others) ** 2

    return _in_parts(splits, compute)


def energy_coefficient(
    first: Float[np.ndarray, "n numbers"], second: Float[np.ndarray, "m numbers"]
) -> float:
    """Returns how far two samples of points are apart, from 0 (alike) to 1 (nothing in common).

    It is the energy distance over twice the mean distance between the samples, whose expectation
    is 0 for samples of one distribution: negative values are 0 here.

    Args:
        first: a sample of at least two points.
        second: another.

    Source: Székely & Rizzo 2013, section 3 (coefficient of inhomogeneity), with U-statistics.
    """
    n, m = len(first), len(second)
    distances = _distances(np.concatenate([first, second])).astype(np.float64)
    between = distances[:n, n:].mean()
    within = [distances[:n, :n].sum() / (n * (n - 1)), distances[n:, n:].sum() / (m * (m - 1))]
    return float(max(0.0, 1 - sum(within) / (2 * between))) if between else 0.0


def adjust_p_values(statistics: Float[np.ndarray, "tests splits"]) -> PValues:
    """Returns the p-values of tests whose large statistics mean a difference.

    Args:
        statistics: of each test for the same splits, of which the first is the one as it is.
    """
    splits = statistics.shape[1]
    p_values = np.empty(statistics.shape)
    for own, row in zip(p_values, statistics, strict=True):
        below = np.searchsorted(np.sort(row), row - _ROUNDING * np.abs(row), side="left")
        own[:] = (splits - below) / splits
    order = np.argsort(p_values[:, 0], kind="stable")
    # The least p-value of a test and of all that are less clear, for each split.
    least = np.minimum.accumulate(p_values[order][::-1], axis=0)[::-1]
    stepped = (least <= p_values[order, :1] + 0.5 / splits).mean(axis=1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.maximum.accumulate(stepped)
    return PValues(p_values[:, 0].copy(), adjusted)


def _known(values: np.ndarray, splits: Splits) -> tuple[np.ndarray, Splits]:
    """Returns the values that are known, float64, and what the splits say of them."""
    values = np.asarray(values, np.float64)
    known = ~np.isnan(values.reshape(len(values), -1)).any(axis=1)
    return values[known], splits[known]


def _counts(own: Float[np.ndarray, "units some"]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the units in each group of each split; 1 for none, whose sums are 0."""
    ones = own.sum(axis=0)
    return np.maximum(ones, 1), np.maximum(len(own) - ones, 1)


def _distances(points: Float[np.ndarray, "units numbers"]) -> Float[np.ndarray, "units units"]:
    """Returns the Euclidean distances between all points, float32."""
    points = np.asarray(points, np.float64)
    points = points - points.mean(axis=0)
    lengths = (points**2).sum(axis=1)
    squares = lengths[:, None] + lengths - 2 * points @ points.T
    np.fill_diagonal(squares, 0)
    return np.sqrt(np.maximum(squares, 0)).astype(np.float32)


def _in_parts(splits: Splits, compute: Callable[[np.ndarray], Statistics]) -> Statistics:
    """Computes the statistics of some splits at a time."""
    starts = range(0, splits.shape[1], _TOGETHER)
    parts = [compute(splits[:, at : at + _TOGETHER].astype(np.float64)) for at in starts]
    return np.concatenate(parts)
