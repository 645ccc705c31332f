"""Texts and pairs of texts: what classification and regression have in common."""

import abc
import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped

from bertjax.tasks.labelled import TextExample
from bertjax.tasks.prediction_tables import join_rows
from bertjax.tasks.task import (
    Encoded,
    Prediction,
    frame_texts,
    name_lines,
    write_records,
)
from bertjax.tasks.units import Unit
from bertjax.text.lines import separate_pair
from bertjax.text.tokenizer import Tokenizer

# Each example's label as the loss takes it, and its weight there; 0 where there is no label.
Targets = tuple[Sequence[Shaped[np.ndarray, "..."]], Sequence[float]]


class TextTask(abc.ABC):
    """A task with a label for each text or pair of texts; the half that all of them share."""

    per_token = False
    score_scale = 1.0

    def examples_of_lines(
        self, lines: Sequence[str], places: Sequence[str] | None = None
    ) -> list[TextExample]:
        """Reads a text per line, or two tab-separated texts; no labels."""
        examples = []
        for place, line in name_lines(lines, places):
            text = separate_pair(place, line)
            first, second = (text, None) if isinstance(text, str) else text
            examples.append(TextExample(place, first, second, None))
        return examples

    def encode(
        self,
        examples: Sequence[TextExample],
        tokenizer: Tokenizer,
        max_length: int,
        *,
        training: bool,
    ) -> Encoded:
        """Makes a unit of one sequence per example."""
        labels, weights = self._targets(examples, training=training)
        texts = [(example.first, example.second) for example in examples]
        sequences, notes = frame_texts(tokenizer, texts, max_length)
        units = [
            Unit(number, (sequence,), np.asarray(label)[None], np.array([weight], np.float32))
            for number, (sequence, label, weight) in enumerate(
                zip(sequences, labels, weights, strict=True)
            )
        ]
        return Encoded(units, notes)

    def decode(
        self,
        examples: Sequence[TextExample],
        units: Sequence[Unit],
        outputs: Sequence[Float[np.ndarray, "1 C"]],
    ) -> list[Prediction]:
        """Returns a prediction per example."""
        return [self._predict(output[0]) for output in outputs]

    def write_predictions(
        self, directory: Path, examples: Sequence[TextExample], predictions: Sequence[Prediction]
    ) -> None:
        """Writes `predictions.jsonl`, with texts and labels, and `predictions.tsv`.

        The table has the columns of GLUE: index, prediction.
        """
        beside = [
            {"gold": example.label, **prediction}
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        write_records(directory / "predictions.jsonl", join_rows(examples, beside)[0])
        with (directory / "predictions.tsv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerow(["index", "prediction"])
            for number, prediction in enumerate(predictions):
                answer = prediction.get("label", prediction.get("labels", prediction.get("value")))
                table.writerow([number, ",".join(answer) if isinstance(answer, list) else answer])

    @abc.abstractmethod
    def _targets(self, examples: Sequence[TextExample], *, training: bool) -> Targets:
        """Returns the examples' targets; where there is no label, any of weight 0."""

    @abc.abstractmethod
    def _predict(self, logits: Float[np.ndarray, " C"]) -> Prediction:
        """Returns what the logits of an example predict."""
