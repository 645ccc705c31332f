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
from bertjax.analysis.explain.answers import WholeModel
from bertjax.config import BertConfig
from bertjax.objectives.losses import Total, cross_entropy
from bertjax.objectives.masking import MaskingConfig, Vocabulary, mask_tokens
from bertjax.program.errors import UserError
from bertjax.statistics.drawn_units import number_units
from bertjax.tasks.task import Task
from bertjax.tasks.units import Layout, Unit, check_units, make_task_batch, places_of
from bertjax.types import RowBatch, TaskBatch

# Rows are padded to a power of two of at least this, so that few shapes are compiled.
_SHORTEST = 16
# Tokens of a batch, and bytes of its attention maps.
_BATCH_TOKENS, _BATCH_BYTES = 2048, 32 << 20

RowLoss = Callable[[Any, Any, Float[Array, "L N"]], tuple[Total, Array]]


class RowsOfExamples(NamedTuple):
    """A batch: one example a row, filled up with copies of its first.

    Attributes:
        numbers: which example each row is; fewer than rows where it is filled up.
        rows: arrays that all lead with the axis of rows.
    """

    numbers: Int[np.ndarray, " examples"]
    rows: Any


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
        config: BertConfig,
        batches: Sequence[RowsOfExamples],
        units: Int[np.ndarray, " examples"],
        row_loss: RowLoss,
        score: Callable[[Sequence[np.ndarray]], float],
        score_name: str,
        loss_name: str,
    ) -> None:
        """Takes what `masked_language_objective` and `task_objective` make.

        Args:
            config: the shape of the model.
            batches: of all examples.
            units: of every example.
            row_loss: (parameters, a row without its leading axis, gates) -> loss, and what the
                score needs of the row.
            score: of what `row_loss` gave for every example.
            score_name, loss_name: what they are.
        """
        self.config, self.score_name, self.loss_name = config, score_name, loss_name
        self.examples = sum(len(batch.numbers) for batch in batches)
        self.units, self._batches, self._score = units, batches, score

        def mean_loss(gates: Float[Array, "L N"], params: Any, row: Any) -> Float[Array, ""]:
            return row_loss(params, row, gates)[0].mean()

        each_row = (None, 0, None)
        self._losses = jax.jit(jax.vmap(row_loss, each_row))
        self._gradients = jax.jit(jax.vmap(jax.grad(mean_loss), (None, None, 0)))

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
        sums, counts = np.zeros((2, self.examples))
        outputs: list[Any] = [None] * self.examples
        for numbers, rows in self._batches:
            total, output = jax.device_get(self._losses(params, rows, gates))
            sums[numbers] = total.sum[: len(numbers)]
            counts[numbers] = total.count[: len(numbers)]
            for row, number in enumerate(numbers):
                outputs[number] = output[row]
        return Measured(sums, counts, self._score(outputs))

    def differentiate(
        self,
        params: Any,
        head_gates: Float[np.ndarray, "L N"] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Float[np.ndarray, "examples L N"]:
        """The derivative of each example's mean loss with respect to every gate.

        Args:
            params: of the model, its own or a control's.
            head_gates: where; ones when left out.
            progress: is called with the number of examples done since the call before.
        """
        gates = self.open_gates if head_gates is None else head_gates
        gradients = np.zeros((self.examples, *gates.shape))
        for numbers, rows in self._batches:
            found = np.asarray(self._gradients(gates, params, rows))
            gradients[numbers] = found[: len(numbers)]
            progress(len(numbers))
        return gradients


def masked_language_objective(
    whole: WholeModel, texts: Sequence[EncodedText], seed: int = 0
) -> Objective:
    """The loss at masked tokens: 15 % of each text's, the same ones at every call.

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
            f"a {whole.architecture} has no masked-LM head; measure it on labelled files (--data)"
        )
    if not texts:
        raise UserError("there is no text to measure the model on")
    model, vocabulary = whole.model, Vocabulary.of(whole.tokenizer)
    mask = jax.jit(
        lambda batch: mask_tokens(jax.random.key(seed), batch, MaskingConfig(), vocabulary)
    )
    lengths = [len(text.token_ids) for text in texts]
    batches = []
    for numbers, rows, length in group_rows(lengths, whole.config):
        some = [texts[number] for number in fill_rows(numbers, rows)]
        ids, types, sequence_ids = make_inputs(
            whole.config, some, rows, length, whole.tokenizer.pad_id
        )
        nothing = np.zeros((rows, 1), np.int32)
        keys = np.array(fill_rows(numbers, rows), np.uint32), np.zeros(rows, np.uint32)
        masked = jax.device_get(
            mask(RowBatch(ids, types, sequence_ids, nothing, nothing, nothing, *keys))
        )
        batches.append(RowsOfExamples(np.array(numbers), (masked, types, sequence_ids)))
    if not any(batch.rows[0].weights.any() for batch in batches):
        raise nothing_to_mask()

    def row_loss(params: Any, row: Any, gates: Float[Array, "L N"]) -> tuple[Total, Array]:
        masked, types, sequence_ids = jax.tree.map(lambda part: part[None], row)
        output = model.apply(
            {"params": params},
            masked.token_ids,
            types,
            sequence_ids,
            masked_positions=masked.positions,
            head_gates=gates,
        )
        logits = output.mlm_logits if hasattr(output, "mlm_logits") else output.logits
        right = (logits.argmax(axis=-1) == masked.labels) * masked.weights
        total = cross_entropy(logits, masked.labels, masked.weights)
        return total, jnp.stack([right.sum(), masked.weights.sum()])

    def score(outputs: Sequence[np.ndarray]) -> float:
        right, all_masked = np.sum(outputs, axis=0, dtype=np.float64)
        return float(right / max(all_masked, 1))

    units = number_units(text.source for text in texts)
    return Objective(
        whole.config, batches, units, row_loss, score,
        "masked-token accuracy", "masked-LM loss (nats)",
    )  # fmt: skip


def task_objective(
    whole: WholeModel, task: Task, examples: Sequence[Any], max_length: int
) -> Objective:
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
    model, per_unit = whole.model, max(len(unit.sequences) for unit in units)
    batches = []
    for numbers, rows, length in group_rows([unit.length for unit in units], whole.config):
        layout = Layout(rows, length, per_unit, per_unit)
        some: list[Unit] = [units[number] for number in fill_rows(numbers, rows)]
        places = places_of(some, layout, packing=False)
        batch = make_task_batch(some, places, layout, whole.tokenizer.pad_id)
        batches.append(RowsOfExamples(np.array(numbers), batch))

    def row_loss(params: Any, row: TaskBatch, gates: Float[Array, "L N"]) -> tuple[Total, Array]:
        batch = TaskBatch(*(part[None] for part in row))
        logits = model.apply({"params": params}, *batch[:5], head_gates=gates).logits
        layout = Layout(1, batch.token_ids.shape[1], per_unit, per_unit)
        return task.loss(logits, batch, layout), logits[0]

    def score(outputs: Sequence[np.ndarray]) -> float:
        logits = [
            output[: unit.length if task.per_token else len(unit.sequences)]
            for unit, output in zip(units, outputs, strict=True)
        ]
        predictions = task.decode(examples, units, logits)
        found = task.score(examples, predictions)[task.main_score]
        return math.nan if found is None else float(found)

    drawn = number_units(unit.example for unit in units)
    return Objective(whole.config, batches, drawn, row_loss, score, task.main_score, "loss (nats)")


def group_rows(lengths: Sequence[int], config: BertConfig) -> list[tuple[list[int], int, int]]:
    """(numbers of examples of like length, rows, padded length) of every batch."""
    by_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        padded = max(_SHORTEST, 1 << (length - 1).bit_length())
        # Units of several sequences are longer than the model has positions.
        longest = max(config.max_position_embeddings, length)
        by_length.setdefault(min(padded, longest), []).append(number)
    batches = []
    for length, numbers in sorted(by_length.items()):
        maps = 4 * config.num_hidden_layers * config.num_attention_heads * length**2
        most = max(1, min(_BATCH_TOKENS // length, _BATCH_BYTES // maps, len(numbers)))
        batches += [
            (numbers[start : start + most], most, length) for start in range(0, len(numbers), most)
        ]
    return batches


def nothing_to_mask() -> UserError:
    """Returns what to raise where no token of the texts can be masked."""
    return UserError(
        "no token of the texts can be masked: the vocabulary knows none of their words (all are"
        " [UNK]); take texts in the model's language"
    )


def fill_rows(numbers: Sequence[int], rows: int) -> list[int]:
    """The numbers, with copies of the first behind them up to so many rows."""
    return [*numbers, *[numbers[0]] * (rows - len(numbers))]
