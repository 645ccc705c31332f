"""No figure stands alone: its bootstrap interval, and the same figure of a random control."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

RESAMPLES = 1000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """Figures with their percentile bootstrap intervals; all of the same shape.

    Attributes:
        value: of the whole sample.
        low, high: the ends of the 95 % interval.
    """

    value: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


class Figures(NamedTuple):
    """Figures of a model beside those of the same shape with random weights."""

    model: Interval
    control: Interval

    @property
    def distinguishable(self) -> Bool[np.ndarray, "..."]:
        """Where the model's figure lies outside its control's interval."""
        value = self.model.value
        return (value < self.control.low) | (value > self.control.high)

    def to_json(self) -> dict[str, Any]:
        """Nested lists of each part; a figure that is not defined is null."""
        parts = {
            "value": self.model.value,
            "low": self.model.low,
            "high": self.model.high,
            "control": self.control.value,
            "control_low": self.control.low,
            "control_high": self.control.high,
        }
        undefined = {name: _to_lists(part) for name, part in parts.items()}
        return undefined | {"distinguishable": self.distinguishable.tolist()}


def bootstrap_ratio(
    sums: Float[np.ndarray, "texts ..."], counts: Float[np.ndarray, "texts ..."], seed: int = 0
) -> Interval:
    """sum of sums / sum of counts, with the interval from drawing texts anew, with replacement.

    A mean over tokens, or an accuracy, is such a ratio; the text is what is drawn, because the
    tokens of one text are not independent.

    Args:
        sums: of each text.
        counts: of each text, of the same shape as `sums` or one that broadcasts to it.
        seed: of the draws.

    Returns:
        NaN where the counts are all 0.

    Source: Efron & Tibshirani 1993, chapter 13 (percentile interval).
    """
    texts = sums.shape[0]
    counts = np.broadcast_to(counts, sums.shape)
    flat = [np.asarray(part, np.float64).reshape(texts, -1) for part in (sums, counts)]
    draws = np.random.default_rng(seed).multinomial(texts, np.full(texts, 1 / texts), RESAMPLES)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = flat[0].sum(axis=0) / flat[1].sum(axis=0)
        resampled = (draws @ flat[0]) / (draws @ flat[1])
    tail = 100 * (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return Interval(*(part.reshape(sums.shape[1:]) for part in (value, low, high)))


def _to_lists(values: Float[np.ndarray, "..."]) -> Any:
    return np.where(np.isnan(values), None, np.asarray(values, object)).tolist()
