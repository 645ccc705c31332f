"""How sure a model is of each of its answers, and whether it is right: calibration of any task."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.statistics.intervals import Interval, bootstrap_ratio
from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.scores import BINS, THRESHOLD, confidence_gaps
from bertjax.tasks.tagging import Tagging
from bertjax.tasks.task import Prediction, Task


class Confidences(NamedTuple):
    """What each example adds to the calibration error, the Brier score and the reliability bins.

    An example has one answer; of several labels one for each of them, of a sentence one for each
    word.

    Attributes:
        answers: how many.
        gaps: right answers minus confidence, by bin of the confidence.
        brier: the squared distance of the probabilities from what is right; of a word's tag, whose
            probability alone is known, that of the confidence from 0 or 1.
        counts: answers by bin.
        right: right answers by bin.
    """

    answers: Float[np.ndarray, " n"]
    gaps: Float[np.ndarray, "n bins"]
    brier: Float[np.ndarray, " n"]
    counts: Float[np.ndarray, "n bins"]
    right: Float[np.ndarray, "n bins"]

    def reliability(self) -> tuple[Interval, Interval]:
        """Returns for each bin the share of right answers, and the mean confidence; NaN where it is
        empty.

        Source: Guo et al. 2017, section 2 (reliability diagrams).
        """
        return (
            bootstrap_ratio(self.right, self.counts),
            bootstrap_ratio(self.right - self.gaps, self.counts),
        )

    def describe_bins(self) -> list[dict[str, Any]]:
        """Returns of each bin that is not empty its answers, mean confidence and share of right
        answers, for JSON.
        """
        counts, right, gaps = (one.sum(axis=0) for one in (self.counts, self.right, self.gaps))
        return [
            {
                "answers": int(counts[bin]),
                "confidence": float((right - gaps)[bin] / counts[bin]),
                "right": float(right[bin] / counts[bin]),
            }
            for bin in np.flatnonzero(counts).tolist()
        ]


class _Answers(NamedTuple):
    """Of an example: confidence and rightness of its answers, and its Brier score."""

    confidence: Float[np.ndarray, " answers"]
    right: Float[np.ndarray, " answers"]
    brier: float


def judge_confidences(
    task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> Confidences | None:
    """Returns how sure a model is of its answers; None for a task whose answers have no
    probabilities: regression, and question answering, whose are among the best few spans alone.

    Args:
        task: of the model.
        examples: with labels.
        predictions: of the model for them.
    """
    judge = judge_of(task)
    if judge is None:
        return None
    judged = [judge(task, *both) for both in zip(examples, predictions, strict=True)]
    owners = np.repeat(np.arange(len(judged)), [len(one.right) for one in judged])
    confidence = np.concatenate([one.confidence for one in judged]).astype(float)
    right = np.concatenate([one.right for one in judged]).astype(bool)
    bins, gaps = confidence_gaps(confidence, right)

    def by_bin(values: Float[np.ndarray, " answers"]) -> Float[np.ndarray, "n bins"]:
        sums = np.bincount(owners * BINS + bins, weights=values, minlength=len(judged) * BINS)
        return sums.reshape(len(judged), BINS)

    counts = by_bin(np.ones(len(bins)))
    return Confidences(
        counts.sum(axis=1),
        by_bin(gaps),
        np.array([one.brier for one in judged]),
        counts,
        by_bin(right.astype(float)),
    )


def judge_of(task: Task) -> Any:
    """Returns what judges an answer of a task; None where answers have no probabilities.

    Args:
        task: of the model.
    """
    for kind, judge in (
        (Classification, _judge_class),
        (MultiLabelClassification, _judge_labels),
        (MultipleChoice, _judge_choice),
        (Tagging, _judge_tags),
    ):
        if isinstance(task, kind):
            return judge
    return None


def _judge_class(task: Classification, example: Any, prediction: Prediction) -> _Answers:
    labels = list(prediction["probabilities"])
    return _judge_one(list(prediction["probabilities"].values()), labels.index(example.label))


def _judge_choice(task: MultipleChoice, example: Any, prediction: Prediction) -> _Answers:
    return _judge_one(prediction["probabilities"], example.label)


def _judge_one(probabilities: Sequence[float], gold: int) -> _Answers:
    values = np.array(probabilities)
    wanted = np.arange(len(values)) == gold
    return _Answers(
        values.max(keepdims=True),
        np.array([values.argmax() == gold]),
        float(np.square(values - wanted).sum()),
    )


def _judge_labels(task: MultiLabelClassification, example: Any, prediction: Prediction) -> _Answers:
    values = np.array([prediction["probabilities"][label] for label in task.labels])
    wanted = np.array([label in example.label for label in task.labels])
    right = (values >= THRESHOLD) == wanted
    return _Answers(np.maximum(values, 1 - values), right, float(np.square(values - wanted).sum()))


def _judge_tags(task: Tagging, example: Any, prediction: Prediction) -> _Answers:
    confidence = np.array(prediction["probabilities"])
    right = np.array(
        [
            tag == gold
            for tag, gold in zip(prediction["tags"], task.labels_of(example), strict=True)
        ],
        bool,
    )
    return _Answers(confidence, right, float(np.square(confidence - right).sum()))
