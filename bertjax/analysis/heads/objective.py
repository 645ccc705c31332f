"""What a model is good for, as a function of the gates of its heads: a loss and a score.

masked_language_objective(whole, texts)        -> masked tokens of raw texts
task_objective(whole, task, examples, length)  -> labelled examples of any supervised task
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.rows import make_inputs
from bertjax.inference.batches import Batching, Place, run, take_row
from bertjax.inference.shapes import Shape, Shapes
from bertjax.loaded import Model
from bertjax.model.probe_points import Edit
from bertjax.objectives.losses import Total, cross_entropy
from bertjax.objectives.masking import MaskingConfig, Vocabulary, mask_tokens
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.statistics.drawn_units import number_units
from bertjax.tasks.task import Task
from bertjax.tasks.units import Layout, Unit, check_units, make_task_batch
from bertjax.text.packing import Places
from bertjax.types import MaskedTokens, RowBatch, TaskBatch

# Tokens of a batch, and bytes of its attention maps.
_BATCH_TOKENS, _BATCH_BYTES = 2048, 32 << 20

# (parameters, a batch, gates of each of its rows) -> the loss of each row, and what the score needs
# of it.
RowLosses = Callable[[Any, Any, Float[Array, "B L N"]], tuple[Total, Array]]


# A text and its number, which its masks depend on.
NumberedText = tuple[int, EncodedText]


class MaskedText(NamedTuple):
    """A text with masks.

    Attributes:
        text: what the model reads.
        positions: which tokens it must restore.
        labels: what was there.
    """

    text: EncodedText
    positions: Int[np.ndarray, " P"]
    labels: Int[np.ndarray, " P"]


class Measured(NamedTuple):
    """How good a model is with some gates.

    Attributes:
        sums: of the loss over what is asked of each example.
        counts: how much is asked of each example.
        score: over all examples; higher is better; NaN where the task has none for them.
    """

    sums: Float[np.ndarray, " examples"]
    counts: Float[np.ndarray, " examples"]
    score: float

    @property
    def loss(self) -> float:
        """The mean over everything that is asked."""
        return float(self.sums.sum() / self.counts.sum())


class Objective:
    """Loss and score of a model on some examples, with any parameters and any gates.

    Attributes:
        config: the shape of the model.
        examples: their number.
        units: what a bootstrap draws: which unit each example is of (see
            `drawn_units.number_units`).
        score_name: what the score is.
        loss_name: what the loss is.
    """

    def __init__(
        self,
        whole: Model,
        items: Sequence[Any],
        batching: Batching[Any],
        units: Int[np.ndarray, " examples"],
        row_losses: RowLosses,
        score: Callable[[Sequence[np.ndarray]], float],
        score_name: str,
        loss_name: str,
    ) -> None:
        """Takes what `masked_language_objective` and `task_objective` make.

        Args:
            whole: the model.
            items: the examples.
            batching: how they become rows, one each; of the output each takes its row.
            units: of every example.
            row_losses: see `RowLosses`.
            score: of what `row_losses` gave for every example.
            score_name, loss_name: what they are.
        """
        self.config, self._mesh = whole.config, whole.mesh
        self.score_name, self.loss_name = score_name, loss_name
        self.examples, self.units, self._score = len(items), units, score
        self._items, self._batching = items, batching

        def total(gates: Float[Array, "B L N"], params: Any, rows: Any) -> Float[Array, ""]:
            # Rows know nothing of each other.
            return jax.vmap(Total.mean)(row_losses(params, rows, gates)[0]).sum()

        self._losses, self._gradients = jax.jit(row_losses), jax.jit(jax.grad(total))

    @property
    def open_gates(self) -> Float[np.ndarray, "L N"]:
        """All heads as they are."""
        shape = self.config.num_hidden_layers, self.config.num_attention_heads
        return np.ones(shape, np.float32)

    def measure(self, params: Any, head_gates: Float[np.ndarray, "L N"] | None = None) -> Measured:
        """Loss and score.

        Args:
            params: of the model, its own or a control's.
            head_gates: each head's output is multiplied by its gate; ones when left out.
        """
        gates = self.open_gates if head_gates is None else head_gates
        losses = run(
            lambda params, rows: self._losses(params, rows, _for_each_row(gates, rows)),
            params, self._items, self._batching, mesh=self._mesh,
        )  # fmt: skip
        totals, outputs = zip(*losses, strict=True)
        sums, counts = np.array(totals, np.float64).T
        return Measured(sums, counts, self._score(outputs))

    def differentiate(
        self,
        params: Any,
        head_gates: Float[np.ndarray, "L N"] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float[np.ndarray, "examples L N"]:
        """Computes the derivative of each example's mean loss with respect to every gate.

        Args:
            params: of the model, its own or a control's.
            head_gates: where; ones when left out.
            progress: called with the number of examples done since the last call.
        """
        gates = self.open_gates if head_gates is None else head_gates
        gradients = run(
            lambda params, rows: self._gradients(_for_each_row(gates, rows), params, rows),
            params, self._items, self._batching, mesh=self._mesh, progress=progress,
        )  # fmt: skip
        return np.array([*gradients], np.float64)


def masked_language_objective(
    whole: Model, texts: Sequence[EncodedText], seed: int = 0
) -> Objective:
    """Makes the loss at masked tokens: 15 % of each text's, the same at every call.

    Args:
        whole: a BertForMaskedLM or BertForPreTraining.
        texts: encoded by its tokenizer.
        seed: of the masks.

    Raises:
        UserError: the model has no masked-LM head, or there is no text, or none with a known word.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """
    if not whole.restores_words:
        raise UserError(
            f"{with_article(whole.architecture)} has no masked-LM head; measure it on labelled"
            " files (--data)"
        )
    if not texts:
        raise UserError("there is no text to measure the model on")
    model, vocabulary = whole.module, Vocabulary.of(whole.tokenizer)
    mask = jax.jit(
        lambda batch: mask_tokens(jax.random.key(seed), batch, MaskingConfig(), vocabulary)
    )

    def take(masked: MaskedTokens, numbered: NumberedText, place: Place) -> MaskedText:
        text, row = numbered[1], take_row(masked, numbered, place)
        used = row.weights > 0
        ids = row.token_ids[: len(text.token_ids)]
        return MaskedText(text._replace(token_ids=ids), row.positions[used], row.labels[used])

    def make(some: Sequence[MaskedText], places: Places, shape: Shape) -> tuple[Any, ...]:
        rows, length, _ = shape
        ids, types, sequence_ids = make_inputs(
            whole.config, [masked.text for masked in some], rows, length, whole.tokenizer.pad_id
        )
        positions, labels = np.zeros((2, rows, MaskingConfig().slots(length)), np.int32)
        weights = np.zeros(positions.shape, np.float32)
        for row, masked in enumerate(some):
            number = len(masked.positions)
            positions[row, :number], labels[row, :number] = masked.positions, masked.labels
            weights[row, :number] = 1
        return MaskedTokens(ids, positions, labels, weights), types, sequence_ids

    numbering = batch_for_masking(whole, take)
    masked_texts = [
        *run(lambda _, batch: mask(batch), None, enumerate(texts), numbering, mesh=whole.mesh)
    ]
    if not any(len(masked.positions) for masked in masked_texts):
        raise nothing_to_mask()
    batching = Batching(numbering.shapes, lambda masked: len(masked.text.token_ids), make, take_row)

    def row_losses(params: Any, rows: Any, gates: Float[Array, "B L N"]) -> tuple[Total, Array]:
        masked, types, sequence_ids = rows
        output = model.apply(
            {"params": params},
            masked.token_ids,
            types,
            sequence_ids,
            masked_positions=masked.positions,
            edit=_gate_rows(gates),
        )
        logits = output.mlm_logits if hasattr(output, "mlm_logits") else output.logits
        right = (logits.argmax(axis=-1) == masked.labels) * masked.weights
        totals = jax.vmap(cross_entropy)(logits, masked.labels, masked.weights)
        return totals, jnp.stack([right.sum(axis=1), masked.weights.sum(axis=1)], axis=1)

    def score(outputs: Sequence[np.ndarray]) -> float:
        right, all_masked = np.sum(outputs, axis=0, dtype=np.float64)
        return float(right / max(all_masked, 1))

    units = number_units(text.source for text in texts)
    return Objective(
        whole, masked_texts, batching, units, row_losses, score,
        "masked-token accuracy", "masked-LM loss (nats)",
    )  # fmt: skip


def task_objective(whole: Model, task: Task, examples: Sequence[Any], max_length: int) -> Objective:
    """Loss and main score of a supervised task.

    Args:
        whole: of the class that the task names.
        task: of the model.
        examples: with labels, as the task's reader gives them.
        max_length: longest sequence in tokens.

    Returns:
        An objective whose examples are the task's units (a question on a long text has several).

    Raises:
        UserError: there is no example.
    """
    if not examples:
        raise UserError("there is no example to measure the model on")
    units = task.encode(examples, whole.tokenizer, max_length, training=False).units
    check_units(units, whole.config)
    model, per_unit = whole.module, max(len(unit.sequences) for unit in units)

    def make(some: Sequence[Unit], places: Places, shape: Shape) -> TaskBatch:
        layout = Layout(shape.rows, shape.length, per_unit, per_unit)
        return make_task_batch(some, places, layout, whole.tokenizer.pad_id)

    shapes = shapes_of_rows(whole, per_unit)
    batching = Batching(shapes, lambda unit: unit.length, make, take_row)

    def row_losses(
        params: Any, rows: TaskBatch, gates: Float[Array, "B L N"]
    ) -> tuple[Total, Array]:
        logits = model.apply({"params": params}, *rows[:5], edit=_gate_rows(gates)).logits
        layout = Layout(1, rows.token_ids.shape[1], per_unit, per_unit)

        def loss(logits: Array, row: TaskBatch) -> Total:
            return task.loss(logits[None], TaskBatch(*(part[None] for part in row)), layout)

        return jax.vmap(loss)(logits, rows), logits

    def score(outputs: Sequence[np.ndarray]) -> float:
        logits = [
            output[: unit.length if task.per_token else len(unit.sequences)]
            for unit, output in zip(units, outputs, strict=True)
        ]
        predictions = task.decode(examples, units, logits)
        main = task.score(examples, predictions)[task.main_score]
        return math.nan if main is None else float(main)

    drawn = number_units(unit.example for unit in units)
    return Objective(
        whole, units, batching, drawn, row_losses, score, task.main_score, "loss (nats)"
    )


def batch_for_masking(
    whole: Model, take: Callable[[Any, NumberedText, Place], Any]
) -> Batching[NumberedText]:
    """Returns how texts become rows for `mask_tokens`; masks depend on a text's number."""

    def make(numbered: Sequence[NumberedText], places: Places, shape: Shape) -> RowBatch:
        rows, length, _ = shape
        texts = [text for _, text in numbered]
        inputs = make_inputs(whole.config, texts, rows, length, whole.tokenizer.pad_id)
        nothing, numbers = np.zeros((rows, 1), np.int32), np.zeros(rows, np.uint32)
        numbers[: len(texts)] = [number for number, _ in numbered]
        return RowBatch(*inputs, nothing, nothing, nothing, numbers, np.zeros_like(numbers))

    return Batching(shapes_of_rows(whole), lambda numbered: len(numbered[1].token_ids), make, take)


def shapes_of_rows(whole: Model, sequences: int = 1) -> Shapes:
    """Returns shapes of batches with a text, or so many, in each row, for a forward pass and
    back.
    """
    config = whole.config
    heads = config.num_hidden_layers * config.num_attention_heads

    def fits(length: int) -> int:
        return min(_BATCH_TOKENS // length, _BATCH_BYTES // (4 * heads * length**2))

    return Shapes(config.max_length * sequences, fits, mesh=whole.mesh)


def _for_each_row(gates: Float[np.ndarray, "L N"], rows: Any) -> Float[np.ndarray, "B L N"]:
    return np.broadcast_to(gates, (len(jax.tree.leaves(rows)[0]), *gates.shape))


def _gate_rows(gates: Float[Array, "B L N"]) -> dict[str, Edit]:
    """The edit that multiplies each head's output in each row by its gate (see `gate_heads`)."""
    return {"context": Edit(scale=gates.swapaxes(0, 1)[:, :, None, :, None])}


def nothing_to_mask() -> UserError:
    """Returns what to raise where no token of the texts can be masked."""
    return UserError(
        "no token of the texts can be masked: the vocabulary knows none of their words (all are"
        " [UNK]); take texts in the model's language"
    )
