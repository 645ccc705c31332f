"""Multiple choice: the best of several continuations or answers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bertjax.objectives import losses
from bertjax.objectives.losses import Total
from bertjax.program.errors import UserError
from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.resampling import Resampler
from bertjax.tasks.task import (
    Encoded,
    Prediction,
    frame_texts,
    name_lines,
    softmax,
    write_records,
)
from bertjax.tasks.units import Layout, Unit
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import TaskBatch


class ChoicePrediction(NamedTuple):
    """The number of a choice, from 0, and the probability of every choice.

    Attributes:
        choice: the likeliest.
        probabilities: by choice; they sum to 1.
    """

    choice: int
    probabilities: list[float]


class MultipleChoice:
    """The best of a question's choices (`tasks.task.Task`): all of them are in one row.

    Args:
        smoothing: share of the target that is spread evenly over the choices.

    Source: Devlin et al. 2019, section 4.4 (SWAG).
    """

    name = "multiple-choice"
    per_token = False
    main_score = "accuracy"
    score_names = ("accuracy",)
    prediction = ChoicePrediction
    score_scale = 1.0
    outcome_name = "accuracy"

    def __init__(self, smoothing: float = 0.0) -> None:
        self._smoothing = smoothing

    def model_fields(self) -> Mapping[str, Any]:
        """Returns nothing: choices have no labels."""
        return {}

    def examples_of_lines(
        self, lines: Sequence[str], places: Sequence[str] | None = None
    ) -> list[ChoiceQuestion]:
        """Reads a question per line: the context and each choice, tab-separated."""
        return [_question_of_line(*named) for named in name_lines(lines, places)]

    def encode(
        self,
        examples: Sequence[ChoiceQuestion],
        tokenizer: Tokenizer,
        max_length: int,
        *,
        training: bool,
    ) -> Encoded:
        """Makes a unit per question, labelled 1 for the right choice, else 0, int32 [choices]."""
        texts = [(example.context, choice) for example in examples for choice in example.choices]
        framed, notes = frame_texts(tokenizer, texts, max_length)
        sequences = iter(framed)
        units = []
        for number, example in enumerate(examples):
            choices = len(example.choices)
            labels = (np.arange(choices) == example.label).astype(np.int32)
            # The weight counts questions: 1 at the right choice.
            units.append(
                Unit(
                    number,
                    tuple(next(sequences) for _ in range(choices)),
                    labels,
                    labels.astype(np.float32),
                )
            )
        return Encoded(units, notes)

    def loss(self, logits: Float[Array, "B K"], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the cross-entropy among the choices of each question, in nats."""
        slots = jnp.arange(layout.slots)
        in_use = (batch.sequence_ids[:, :, None] == slots + 1).any(axis=1)
        questions = jnp.where(in_use, slots // layout.slots_per_unit, -1)
        return losses.choice_cross_entropy(logits, questions, batch.weights, self._smoothing)

    def decode(
        self,
        examples: Sequence[ChoiceQuestion],
        units: Sequence[Unit],
        outputs: Sequence[Float[np.ndarray, " choices"]],
    ) -> list[Prediction]:
        """Returns `{"choice": number from 0, "probabilities": [...]}` per question."""
        predictions = []
        for output in outputs:
            probabilities = softmax(output)
            predictions.append(
                {"choice": int(output.argmax()), "probabilities": probabilities.tolist()}
            )
        return predictions

    def score(
        self, examples: Sequence[ChoiceQuestion], predictions: Sequence[Prediction]
    ) -> dict[str, Any]:
        """Computes the accuracy."""
        right = self.outcomes(examples, predictions)
        return {"accuracy": float(right.mean()), "questions": len(right)}

    def resampler(
        self, examples: Sequence[ChoiceQuestion], predictions: Sequence[Prediction]
    ) -> Resampler:
        """Makes the `score` of resamples."""
        right = self.outcomes(examples, predictions)
        return lambda drawn: {"accuracy": float(right[drawn].mean())}

    def outcomes(
        self, examples: Sequence[ChoiceQuestion], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Returns 1 where the right choice was made, else 0."""
        return np.array(
            [
                float(example.label == prediction["choice"])
                for example, prediction in zip(examples, predictions, strict=True)
            ]
        )

    def write_predictions(
        self,
        directory: Path,
        examples: Sequence[ChoiceQuestion],
        predictions: Sequence[Prediction],
    ) -> None:
        """Writes `predictions.jsonl`."""
        records = (
            {
                "context": example.context,
                "choices": list(example.choices),
                "gold": example.label,
                **prediction,
            }
            for example, prediction in zip(examples, predictions, strict=True)
        )
        write_records(directory / "predictions.jsonl", records)


def _question_of_line(place: str, line: str) -> ChoiceQuestion:
    context, *choices = [cell.strip() for cell in line.strip().split("\t")]
    if len(choices) < 2:
        raise UserError(
            f"{place}: {len(choices)} choices; give the context and at least two choices,"
            " tab-separated"
        )
    return ChoiceQuestion(place, context, tuple(choices), None)
