"""Classification of a text or a pair of texts: one label each, or any number of labels each."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.objectives import losses
from bertjax.objectives.losses import Total
from bertjax.tasks import scores
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.resampling import Resampler, classification_resampler, multilabel_resampler
from bertjax.tasks.task import Prediction, softmax
from bertjax.tasks.texts import Targets, TextTask
from bertjax.tasks.units import Layout
from bertjax.types import TaskBatch


class LabelPrediction(NamedTuple):
    """The class of a text, its probability, and that of every class.

    Attributes:
        label: the likeliest.
        probability: of the label.
        probabilities: by label; they sum to 1.
    """

    label: str
    probability: float
    probabilities: dict[str, float]


class Classification(TextTask):
    """One label for every text or pair of texts (`tasks.task.Task`).

    Args:
        labels: the names, in the order of their numbers.
        class_weights: weight of each label's examples in the loss; all 1 when omitted.
        smoothing: share of the target that is spread evenly over the labels.

    Source: Devlin et al. 2019, section 4.1; google-research/bert `run_classifier`.
    """

    name = "classification"
    main_score = "accuracy"
    score_names = ("accuracy", "macro_f1", "micro_f1", "mcc", "roc_auc", "calibration_error")
    prediction = LabelPrediction
    outcome_name = "accuracy"

    def __init__(
        self,
        labels: Sequence[str],
        class_weights: Float[np.ndarray, " C"] | None = None,
        smoothing: float = 0.0,
    ) -> None:
        self.labels = tuple(labels)
        self._weights = np.ones(len(labels)) if class_weights is None else class_weights
        self._smoothing = smoothing
        self._numbers = {label: number for number, label in enumerate(labels)}

    def model_fields(self) -> Mapping[str, Any]:
        """Returns the labels."""
        return {"id2label": self.labels, "problem_type": "single_label_classification"}

    def _targets(self, examples: Sequence[TextExample], *, training: bool) -> Targets:
        """Returns the class number, int32 [1], per example."""
        numbers = [self._numbers.get(example.label, -1) for example in examples]
        weights = [
            0.0 if number < 0 else self._weights[number] if training else 1.0 for number in numbers
        ]
        return np.array(numbers, np.int32), weights

    def loss(self, logits: Float[Array, "B K C"], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the cross-entropy in nats."""
        return losses.cross_entropy(logits, batch.labels, batch.weights, self._smoothing)

    def _predict(self, logits: Float[np.ndarray, " C"]) -> Prediction:
        """Returns `{"label", "probability", "probabilities": {label: probability}}`."""
        probabilities = softmax(logits)
        best = int(probabilities.argmax())
        return {
            "label": self.labels[best],
            "probability": float(probabilities[best]),
            "probabilities": _by_label(self.labels, probabilities),
        }

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> dict[str, Any]:
        """Computes accuracy, F1, MCC, ROC-AUC, confusion matrix, calibration error."""
        gold, probabilities = self._known(examples), _probabilities(self.labels, predictions)
        return {
            **scores.classification_scores(gold, probabilities, self.labels),
            "calibration_error": scores.calibration_error(gold, probabilities),
        }

    def resampler(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> Resampler:
        """Makes the `score` of resamples."""
        gold, probabilities = self._known(examples), _probabilities(self.labels, predictions)
        return classification_resampler(gold, probabilities)

    def outcomes(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Returns 1 where the label is right, else 0."""
        return np.array(
            [
                float(example.label == prediction["label"])
                for example, prediction in zip(examples, predictions, strict=True)
            ]
        )

    def _known(self, examples: Sequence[TextExample]) -> Int[np.ndarray, " examples"]:
        return np.array([self._numbers[example.label] for example in examples], np.int64)


class LabelsPrediction(NamedTuple):
    """The labels of a text, those of a probability of at least 1/2, and all probabilities.

    Attributes:
        labels: in the model's order.
        probabilities: by label, each for itself.
    """

    labels: list[str]
    probabilities: dict[str, float]


class MultiLabelClassification(TextTask):
    """Any number of labels for every text or pair of texts (`tasks.task.Task`).

    Args:
        labels: the names, in the order of their numbers.
        smoothing: the share by which labels move towards 1/2.
    """

    name = "multi-label"
    main_score = "micro_f1"
    score_names = ("accuracy", "macro_f1", "micro_f1", "roc_auc")
    prediction = LabelsPrediction
    outcome_name = "exact match"

    def __init__(self, labels: Sequence[str], smoothing: float = 0.0) -> None:
        self.labels = tuple(labels)
        self._smoothing = smoothing

    def model_fields(self) -> Mapping[str, Any]:
        """Returns the labels."""
        return {"id2label": self.labels, "problem_type": "multi_label_classification"}

    def _targets(self, examples: Sequence[TextExample], *, training: bool) -> Targets:
        """Returns 1 for every label that applies, float32 [1, C], per example."""
        applies = [self._applies(example) for example in examples]
        known = [example.label is not None for example in examples]
        return applies, known

    def loss(self, logits: Float[Array, "B K C"], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the binary cross-entropy in nats, averaged over the labels."""
        return losses.binary_cross_entropy(logits, batch.labels, batch.weights, self._smoothing)

    def _predict(self, logits: Float[np.ndarray, " C"]) -> Prediction:
        """Returns `{"labels": those of at least 1/2, "probabilities": {...}}`."""
        probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
        by_label = _by_label(self.labels, probabilities)
        chosen = [label for label, value in by_label.items() if value >= scores.THRESHOLD]
        return {"labels": chosen, "probabilities": by_label}

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> dict[str, Any]:
        """Computes exact matches, F1, ROC-AUC."""
        gold = np.array([self._applies(example) for example in examples], bool)
        probabilities = _probabilities(self.labels, predictions)
        return scores.multilabel_scores(gold, probabilities, self.labels)

    def resampler(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> Resampler:
        """Makes the `score` of resamples."""
        gold = np.array([self._applies(example) for example in examples], bool)
        return multilabel_resampler(gold, _probabilities(self.labels, predictions))

    def outcomes(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Returns 1 where the set of labels is right, else 0."""
        return np.array(
            [
                float(set(example.label) == set(prediction["labels"]))
                for example, prediction in zip(examples, predictions, strict=True)
            ]
        )

    def _applies(self, example: TextExample) -> Float[np.ndarray, " C"]:
        return np.array([label in (example.label or ()) for label in self.labels], np.float32)


def _by_label(labels: Sequence[str], probabilities: Float[np.ndarray, " C"]) -> dict[str, float]:
    return {
        label: float(probability) for label, probability in zip(labels, probabilities, strict=True)
    }


def _probabilities(
    labels: Sequence[str], predictions: Sequence[Prediction]
) -> Float[np.ndarray, "examples C"]:
    rows = [[prediction["probabilities"][label] for label in labels] for prediction in predictions]
    return np.array(rows).reshape(len(predictions), len(labels))
