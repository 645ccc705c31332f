"""Regression: a number for every text or pair of texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from bertjax.objectives import losses
from bertjax.objectives.losses import Total
from bertjax.tasks import scores
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.resampling import Resampler
from bertjax.tasks.task import Prediction
from bertjax.tasks.texts import Targets, TextTask
from bertjax.tasks.units import Layout
from bertjax.types import TaskBatch


class NumberPrediction(NamedTuple):
    """The number of a text.

    Attributes:
        value: in the unit of the labels.
    """

    value: float


class Regression(TextTask):
    """A number for every text or pair of texts (`tasks.task.Task`).

    Args:
        label: the name of the number.

    Source: google-research/bert `run_classifier` (STS-B); `transformers` problem_type "regression".
    """

    name = "regression"
    main_score = "pearson"
    score_names = ("pearson", "spearman", "mse")
    prediction = NumberPrediction
    outcome_name = "-squared error"

    def __init__(self, label: str = "score") -> None:
        self._label = label

    def model_fields(self) -> Mapping[str, Any]:
        """Returns one label, the name of the number."""
        return {"id2label": (self._label,), "problem_type": "regression"}

    def _targets(self, examples: Sequence[TextExample], *, training: bool) -> Targets:
        """Returns the number, float32 [1], per example."""
        known = [example.label is not None for example in examples]
        numbers = [
            example.label if is_known else 0.0
            for example, is_known in zip(examples, known, strict=True)
        ]
        return np.array(numbers, np.float32), known

    def loss(self, logits: Float[Array, "B K 1"], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the squared error."""
        return losses.squared_error(logits[..., 0], batch.labels, batch.weights)

    def _predict(self, logits: Float[np.ndarray, " 1"]) -> Prediction:
        """Returns `{"value": number}`."""
        return {"value": float(logits[0])}

    def score(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> dict[str, Any]:
        """Computes Pearson's and Spearman's correlation, and the mean squared error."""
        known, said = self._both(examples, predictions)
        return scores.regression_scores(known, said)

    def resampler(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> Resampler:
        """Makes the `score` of resamples."""
        known, said = self._both(examples, predictions)
        return lambda drawn: scores.regression_scores(known[drawn], said[drawn])

    def outcomes(
        self, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Returns minus the squared error."""
        known, said = self._both(examples, predictions)
        return -np.square(known - said)

    @staticmethod
    def _both(
        examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        known = np.array([float(example.label) for example in examples])
        return known, np.array([prediction["value"] for prediction in predictions])
