"""Scores of thousands of bootstrap resamples, from what each example adds to them.

A resampler is made once from all examples and their predictions; then it computes the scores of
any draw, given the numbers of the examples in it (with repetitions). They are those of
`tasks.scores`, which remains the definition: a test compares them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.tasks import scores

# From the numbers of the drawn examples to the scores that are one number; None: undefined.
Resampler = Callable[[np.ndarray], dict[str, float | None]]


class _Ratios(NamedTuple):
    """Precision, recall and F1; 0 / 0 is 0."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray


def classification_resampler(
    gold: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N C"]
) -> Resampler:
    """Resamples `scores.classification_scores`, and the calibration error."""
    classes = probabilities.shape[1]
    cells = gold * classes + probabilities.argmax(axis=-1)
    areas = [_Area(gold == number, probabilities[:, number]) for number in range(classes)]
    bins, gaps = scores.calibration_gaps(gold, probabilities)

    def resample(drawn: np.ndarray) -> dict[str, float | None]:
        matrix = np.bincount(cells[drawn], minlength=classes**2).reshape(classes, classes)
        right, given, wanted = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
        accuracy = float(right.sum() / len(drawn))
        area = [curve.of(drawn) for curve in (areas[1:] if classes == 2 else areas)]
        return {
            "accuracy": accuracy,
            "macro_f1": _macro(right, given, wanted),
            "micro_f1": accuracy,
            "mcc": _matthews(right, given, wanted) if (wanted > 0).sum() > 1 else None,
            "roc_auc": scores.mean_of(area),
            "calibration_error": scores.sum_of_gaps(bins[drawn], gaps[drawn]),
        }

    return resample


def multilabel_resampler(
    gold: Bool[np.ndarray, "N C"], probabilities: Float[np.ndarray, "N C"]
) -> Resampler:
    """Resamples `scores.multilabel_scores`."""
    predicted = probabilities >= scores.THRESHOLD
    counts = np.stack([gold & predicted, predicted, gold], axis=1).astype(np.int64)
    exact = (gold == predicted).all(axis=1)
    areas = [_Area(gold[:, at], probabilities[:, at]) for at in range(gold.shape[1])]

    def resample(drawn: np.ndarray) -> dict[str, float | None]:
        sums = counts[drawn].sum(axis=0)
        return {
            "accuracy": float(exact[drawn].mean()),
            "macro_f1": float(_ratios(*sums).f1.mean()),
            "micro_f1": float(_ratios(*sums.sum(axis=1)).f1),
            "roc_auc": scores.mean_of([area.of(drawn) for area in areas]),
        }

    return resample


def entity_resampler(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> Resampler:
    """Resamples `scores.entity_scores`: right, predicted and gold entities by sentence and type."""
    entities = [
        (scores.entities_of(wanted), scores.entities_of(given))
        for wanted, given in zip(gold, predicted, strict=True)
    ]
    types = sorted({entity[0] for both in entities for side in both for entity in side})
    numbers = {name: number for number, name in enumerate(types)}
    counts = np.zeros((len(entities), 3, len(types)), np.int32)
    for row, (wanted, given) in zip(counts, entities, strict=True):
        for kind, some in enumerate((wanted & given, given, wanted)):
            for entity in some:
                row[kind, numbers[entity[0]]] += 1

    def resample(drawn: np.ndarray) -> dict[str, float | None]:
        sums = _sum_rows(counts, drawn)
        if not sums.any():
            return dict.fromkeys(("precision", "recall", "f1", "macro_f1"))
        total = _ratios(*sums.sum(axis=1))
        return {
            **{name: float(value) for name, value in total._asdict().items()},
            "macro_f1": _macro(*sums),
        }

    return resample


def tag_resampler(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Resampler:
    """Resamples `scores.tag_scores`: right, predicted and gold words by sentence and tag."""
    tags = sorted({tag for side in (gold, predicted) for sentence in side for tag in sentence})
    numbers = {tag: number for number, tag in enumerate(tags)}
    counts = np.zeros((len(gold), 3, len(tags)), np.int32)
    for row, wanted, given in zip(counts, gold, predicted, strict=True):
        for right, said in zip(wanted, given, strict=True):
            row[0, numbers[right]] += right == said
            row[1, numbers[said]] += 1
            row[2, numbers[right]] += 1

    def resample(drawn: np.ndarray) -> dict[str, float | None]:
        right, given, wanted = _sum_rows(counts, drawn)
        return {
            "accuracy": float(right.sum() / wanted.sum()),
            "macro_f1": _macro(right, given, wanted),
        }

    return resample


class _Area:
    """The area under the ROC curve of any draw, as the share of correctly ordered pairs."""

    def __init__(self, gold: Bool[np.ndarray, " N"], values: Float[np.ndarray, " N"]) -> None:
        self._gold = gold
        distinct, self._places = np.unique(values, return_inverse=True)
        self._size = len(distinct)

    def of(self, drawn: np.ndarray) -> float | None:
        """Returns the area; None where all drawn examples are on one side."""
        gold, places = self._gold[drawn], self._places[drawn]
        yes = np.bincount(places[gold], minlength=self._size).astype(float)
        no = np.bincount(places[~gold], minlength=self._size).astype(float)
        pairs = yes.sum() * no.sum()
        below = np.cumsum(no) - no / 2  # equal values count half
        return float((yes * below).sum() / pairs) if pairs else None


def _sum_rows(counts: Int[np.ndarray, "N 3 C"], drawn: np.ndarray) -> Int[np.ndarray, "3 C"]:
    times = np.bincount(drawn, minlength=len(counts)).astype(np.int64)
    return np.tensordot(times, counts, axes=1)


def _ratios(right: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> _Ratios:
    return _Ratios(
        right / np.maximum(given, 1),
        right / np.maximum(wanted, 1),
        2 * right / np.maximum(given + wanted, 1),
    )


def _macro(right: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> float:
    """Returns the mean F1 of what occurs."""
    return float(_ratios(right, given, wanted).f1[given + wanted > 0].mean())


def _matthews(right: np.ndarray, given: np.ndarray, wanted: np.ndarray) -> float:
    """Returns Matthews' correlation (Gorodkin 2004, for any number of classes); 0 / 0 is 0."""
    right, given, wanted = right.astype(float), given.astype(float), wanted.astype(float)
    total = wanted.sum()
    above = right.sum() * total - given @ wanted
    below = np.sqrt((total**2 - given @ given) * (total**2 - wanted @ wanted))
    return float(above / below) if below else 0.0
