"""What every supervised task is to the programs that train, use and score it."""

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

# What the model made of one example, as a line of predictions.jsonl has it.
Prediction = dict[str, Any]


class Encoded(NamedTuple):
    """Examples as units, and a sentence for everything that was cut or left out."""

    units: list[Unit]
    notes: list[str]


@runtime_checkable
class Task(Protocol):
    """A supervised task: read -> encode -> loss -> decode -> score.

    Attributes:
        name: as the option `task` has it.
        per_token: whether the model's output is wanted for every token, not for every sequence.
        main_score: the score that says which checkpoint is best; higher is better.
        score_names: the scores that can say so; each is one number, or None.
        score_scale: what a score is at its best: 1, or 100 where they are in percent.
        outcome_name: what `outcomes` are.
    """

    name: ClassVar[str]
    per_token: ClassVar[bool]
    main_score: ClassVar[str]
    score_names: ClassVar[tuple[str, ...]]
    score_scale: ClassVar[float]
    outcome_name: ClassVar[str]

    def model_fields(self) -> Mapping[str, Any]:
        """The fields of `BertConfig` that the task decides (its labels)."""
        ...

    def examples_of_lines(
        self, lines: Sequence[str], places: Sequence[str] | None = None
    ) -> list[Any]:
        """Examples without labels, one a line.

        Args:
            lines: each of one text, or of several with tabs between them.
            places: what messages call each line (see `name_lines`).

        Raises:
            UserError: the task cannot take them so.
        """
        ...

    def encode(
        self, examples: Sequence[Any], tokenizer: Tokenizer, max_length: int, *, training: bool
    ) -> Encoded:
        """The examples as units of at most `max_length` tokens a sequence.

        Args:
            examples: as the task's reader gives them; those without a label are encoded, too, with
                weight 0.
            tokenizer: of the model.
            max_length: longest sequence in tokens.
            training: whether they are learned from: examples that cannot be are left out, and class
                weights apply.
        """
        ...

    def loss(self, logits: Float[Array, "B ..."], batch: TaskBatch, layout: Layout) -> Total:
        """The sum over what is asked in the batch, and its weight `batch.weights.sum()`."""
        ...

    def decode(
        self,
        examples: Sequence[Any],
        units: Sequence[Unit],
        outputs: Sequence[Float[np.ndarray, "places ..."]],
    ) -> list[Prediction]:
        """What the model says of every example, from the logits of its units."""
        ...

    def score(self, examples: Sequence[Any], predictions: Sequence[Prediction]) -> dict[str, Any]:
        """The scores of the field; `main_score` is among them."""
        ...

    def resampler(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> Callable[[Int[np.ndarray, " M"]], dict[str, Any]]:
        """What gives the scores of a draw of these examples, quickly, by their numbers: those of
        `score` that are one number.
        """
        ...

    def outcomes(
        self, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """How good each prediction is, for paired comparisons; higher is better."""
        ...

    def write_predictions(
        self, directory: Path, examples: Sequence[Any], predictions: Sequence[Prediction]
    ) -> None:
        """Writes them in the formats of the field, `predictions.*`."""
        ...


def frame_texts(
    tokenizer: Tokenizer, texts: Sequence[tuple[str, str | None]], max_length: int
) -> tuple[list[TokenSequence], list[str]]:
    """`frame` of every text or pair of texts, and a sentence for what is not as it was given."""
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
    """Probabilities in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes JSON lines."""
    with path.open("w", encoding="utf-8") as lines:
        for record in records:
            lines.write(to_json(record) + "\n")


def name_lines(lines: Sequence[str], places: Sequence[str] | None) -> Iterable[tuple[str, str]]:
    """Returns each line behind its place: line 1, line 2, ... where no places are given."""
    return zip(places or [f"line {n}" for n in range(1, len(lines) + 1)], lines, strict=True)
