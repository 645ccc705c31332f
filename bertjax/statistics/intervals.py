"""Every figure has company: its bootstrap interval, and the same figure of a random control."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bertjax.statistics.bootstrap import count_draws, draw_samples, find_ends


class Interval(NamedTuple):
    """Figures with their percentile bootstrap intervals; all of the same shape.

    Attributes:
        value: the figure of the whole sample.
        low, high: the ends of the 95 % interval.
    """

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


class Figures(NamedTuple):
    """Figures of a model, and those of the same shape with random weights.

    Attributes:
        model: of the model.
        control: of the random control.
    """

    model: Interval
    control: Interval

    @property
    def distinguishable(self) -> Bool[np.ndarray, "..."]:
        """Where the model's figure is outside its control's interval."""
        value = self.model.value
        return (value < self.control.low) | (value > self.control.high)

    def to_json(self) -> dict[str, Any]:
        """Returns nested lists of each part; an undefined figure is null."""
        parts = {
            "value": self.model.value,
            "low": self.model.low,
            "high": self.model.high,
            "control": self.control.value,
            "control_low": self.control.low,
            "control_high": self.control.high,
        }
        lists = {name: _to_lists(part) for name, part in parts.items()}
        return lists | {"distinguishable": self.distinguishable.tolist()}


def bootstrap_ratio(
    sums: Float[np.ndarray, "texts ..."], counts: Float[np.ndarray, "texts ..."], seed: int = 0
) -> Interval:
    """Divides the sum of sums by the sum of counts, with the interval from resampling texts.

    A mean over tokens, or an accuracy, is such a ratio; whole texts are drawn, because the tokens
    of a text are not independent.

    Args:
        sums: each text's sum.
        counts: each text's count, of the same shape as `sums` or one that broadcasts to it.
        seed: the draws' seed.

    Returns:
        NaN where the counts are all 0; ends that are NaN where fewer than two texts count, because
        nothing is known of their variation, so that nothing is distinguishable by them. What
        `sums` holds where a text's count is 0 does not matter, and a resample in which all counts
        are 0 is left out.

    Source: Efron & Tibshirani 1993, chapter 13 (percentile interval).
    """
    texts, shape = sums.shape[0], sums.shape[1:]
    if not texts:
        return Interval(*np.full((3, *shape), np.nan))
    counts = np.broadcast_to(counts, sums.shape).astype(np.float64).reshape(texts, -1)
    sums = np.where(counts == 0, 0, np.asarray(sums, np.float64).reshape(texts, -1))
    resampled = [
        _divide(times @ sums, times @ counts)
        for times in map(count_draws, draw_samples(texts, seed=seed))
    ]
    value = _divide(sums.sum(axis=0), counts.sum(axis=0))
    ends = np.where((counts != 0).sum(axis=0) < 2, np.nan, find_ends(np.concatenate(resampled)))
    return Interval(*(part.reshape(shape) for part in (value, *ends)))


def _divide(
    sums: Float[np.ndarray, "*shape"], counts: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Returns sums / counts, NaN where a count is 0."""
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts != 0)


def _to_lists(values: Float[np.ndarray, "..."]) -> Any:
    return np.where(np.isnan(values), None, np.asarray(values, object)).tolist()
