"""The interface of a supervised task to the programs that train, use and score it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.objectives.losses import Total
from bertjax.program.strict_json import to_json
from bertjax.tasks.units import Layout, Unit
from bertjax.text.framing import TokenSequence, frame
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import TaskBatch

# A prediction for one example, as in a line of predictions.jsonl.
Prediction = dict[str, Any]


class Encoded(NamedTuple):
    """Examples as units, and a sentence for everything that was cut or left out.

    Attributes:
        units: of all examples.
        notes: the sentences.
    """

    units: list[Unit]
    notes: list[str]


@runtime_checkable
class Task(Protocol):
    """A supervised task: read -> encode -> loss -> decode -> score.

    Attributes:
        name: its value in the option `task`.
        per_token: whether the model has an output for every token, not for every sequence.
        main_score: the score that chooses the best checkpoint; higher is better.
        score_names: the scores that can choose it; each is a number, or None.
        score_scale: the best value of a score: 1, or 100 for percent.
        outcome_name: the name of `outcomes`.
        prediction: what a Python program gets in place of a `Prediction`, of the same fields.
    """

    name: ClassVar[str]
    per_token: ClassVar[bool]
    main_score: ClassVar[str]
    score_names: ClassVar[tuple[str, ...]]
    score_scale: ClassVar[float]
    outcome_name: ClassVar[str]
    prediction: ClassVar[Callable[..., Any]]

    def model_fields(self) -> Mapping[str, Any]:
        """Returns the fields of `BertConfig` that the task decides (its labels)."""
        ...

    def examples_of_lines(
        self, lines: Sequence[str], places: Sequence[str] | None = None
    ) -> list[Any]:
        """Makes examples without labels, one per line.

        Args:
            lines: each a text, or several tab-separated texts.
            places: names of the lines in messages (see `name_lines`).

        Raises:
            UserError: the task cannot take them in this form.
        """
        ...

    def encode(
        self, examples: Sequence[Any], tokenizer: Tokenizer, max_length: int, *, training: bool
    ) -> Encoded:
        """Encodes the examples as units of at most `max_length` tokens per sequence.

        Args:
            examples: as the task's reader returns them; those without a label are also encoded,
                with weight 0.
            tokenizer: the model's.
            max_length: the longest sequence in tokens.
            training: whether to learn from them: examples that cannot be learned from are left out,
                and class weights apply.
        """
        ...

    def loss(self, logits: Float[Array, "B ..."], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the loss, summed over the targets, and its weight `batch.weights.sum()`.

        Args:
            logits: of the model.
            batch: rows with their targets.
            layout: of the rows.
        """
        ...

    def decode(
        self,
        examples: Sequence[Any],
        units: Sequence[Unit],
        outputs: Sequence[Float[np.ndarray, "places ..."]],
    ) -> list[Prediction]:
        """Makes the prediction of every example from the logits of its units.

        Args:
            examples: in their order.
            units: of all of them, as `encode` makes them.
            outputs: the logits of each unit.
        """
        ...

    def score(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """Computes the field's scores, among them `main_score`.

        Args:
            examples: with labels.
            predictions: of them, in their order.
        """
        ...

    def resampler(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> Callable[[Int[np.ndarray, " M"]], dict[str, Any]]:
        """Returns a function that quickly computes the scores of a resample of these examples, by
        their numbers: those of `score` that are one number.

        Args:
            examples: with labels.
            predictions: of them, in their order.
        """
        ...

    def outcomes(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Scores each prediction, for paired comparisons; higher is better.

        Args:
            examples: with labels.
            predictions: of them, in their order.
        """
        ...

    def write_predictions(
        self, directory: Path, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> None:
        """Writes predictions in the formats of the field, `predictions.*`.

        Args:
            directory: which has to be there.
            examples: with or without labels.
            predictions: of them, in their order.
        """
        ...


def frame_texts(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str | None]], max_length: int
) -> tuple[list[TokenSequence], list[str]]:
    """Frames every text or pair of texts, and returns a sentence for what was changed."""
    firsts = tokenizer.encode_batch([first for first, _ in texts])
    seconds = tokenizer.encode_batch([second or "" for _, second in texts])
    framed = [
        frame(tokenizer, first, None if pair[1] is None else second, max_length)
        for pair, first, second in zip(texts, firsts, seconds, strict=True)
    ]
    notes = tokenizer.describe_readings(texts)
    if cut := sum(cut for _, cut in framed):
        notes.append(
            f"{cut:,} of {len(texts):,} texts are longer than {max_length} tokens and were cut"
        )
    return [sequence for sequence, _ in framed], notes


def softmax(logits: Float[np.ndarray, "*places C"]) -> Float[np.ndarray, "*places C"]:
    """Returns probabilities in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines."""
    with path.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(to_json(record) + "\n")


def name_lines(lines: Sequence[str], places: Sequence[str] | None) -> Iterable[tuple[str, str]]:
    """Pairs each line with its place: line 1, line 2, ... where no places are given."""
    return zip(places or [f"line {n}" for n in range(1, len(lines) + 1)], lines, strict=True)
