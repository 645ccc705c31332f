"""A model's outputs for the units of a task, packed into rows, and their loss."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from bertjax.architectures import is_exported
from bertjax.inference.batches import Batching, Place, run_batches
from bertjax.inference.shapes import Shape, Shapes
from bertjax.numerics.placement import repeatable_options, target_platform
from bertjax.objectives.losses import Total
from bertjax.program.errors import UserError
from bertjax.tasks.scoring import Predicted
from bertjax.tasks.task import Task
from bertjax.tasks.units import Layout, Unit, check_units, make_task_batch
from bertjax.text.packing import Places
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import TaskBatch

# Places of a batch, padding included; a CPU is faster when a batch stays in its caches.
BATCH_TOKENS, CPU_BATCH_TOKENS = 4096, 1280
# Units a row, at most.
UNITS_PER_ROW = 16

# What is wrong where a number of an output is NaN or infinite.
NOT_FINITE = "the model's output is not finite; `bertjax verify` it"


class Outputs(NamedTuple):
    """The outputs of a model for units.

    Attributes:
        logits: of every unit in their order: for each of its sequences, or for each of its tokens.
        loss: of all of them.
    """

    logits: list[Float[np.ndarray, "places ..."]]
    loss: Total


class Inference:
    """Runs a model on units. One object compiles once for each shape, of which there are few.

    Args:
        model: the class that the task names.
        task: whose loss and kind of output are wanted.
        pad_id: of [PAD].
        mesh: the devices that share the rows; without it jax's first device has them all.
    """

    def __init__(self, model: Any, task: Task, pad_id: int, mesh: Mesh | None = None) -> None:
        self._task, self._pad_id = task, pad_id
        self.model, self.mesh = model, mesh

        def forward(slots_per_unit: int, variables: Any, batch: TaskBatch) -> tuple[Any, Total]:
            logits = model.apply(variables, *batch[:5]).logits
            if self._is_exported:
                logits, batch = jax.tree.map(jnp.asarray, (logits, batch))
            slots = batch.example_starts.shape[1]
            layout = Layout(*batch.token_ids.shape, slots, slots_per_unit)
            return logits, task.loss(logits, batch, layout)

        self._platform = mesh.devices.flat[0].platform if mesh else target_platform()
        # An exported model is no program of jax, and takes a text a row.
        self._is_exported = is_exported(model)
        self._forward = forward
        if not self._is_exported:
            self._forward = jax.jit(
                forward, static_argnums=0, compiler_options=repeatable_options(self._platform)
            )

    def run(
        self,
        variables: Any,
        units: Sequence[Unit],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Outputs:
        """Returns the outputs of all units.

        Args:
            variables: the model's collections ("params", and "batch_stats" where it has them).
            units: any number.
            progress: is called with the number of units done since the call before.

        Raises:
            UserError: units of another model's tokenizer, or too long ones (`check_units`).
        """
        check_units(units, self.model.config)
        logits: list[Any] = [None] * len(units)
        loss = Total(np.float32(0), np.float32(0))
        most = max((len(unit.sequences) for unit in units), default=1)
        slots_per_unit = 1 << (most - 1).bit_length()
        forward, batching = self.forward(slots_per_unit), self.batching(slots_per_unit)
        for done in run_batches(forward, variables, units, batching, mesh=self.mesh):
            for number, output in zip(done.numbers, done.outputs, strict=True):
                logits[number] = output
            part = done.whole[1]
            loss = Total(loss.sum + np.float64(part.sum), loss.count + np.float64(part.count))
            progress(len(done.numbers))
        return Outputs(logits, loss)

    def forward(self, slots_per_unit: int = 1) -> Callable[[Any, TaskBatch], tuple[Any, Total]]:
        """Returns the compiled forward pass for batches of `batching`: their logits and loss.

        Args:
            slots_per_unit: sequences of a unit, at most.
        """
        return functools.partial(self._forward, slots_per_unit)

    def batching(self, slots_per_unit: int = 1) -> Batching[Unit]:
        """Returns how units of so many sequences at most become rows, and all shapes of these.

        Args:
            slots_per_unit: sequences of a unit, at most.
        """
        budget = CPU_BATCH_TOKENS if self._platform == "cpu" else BATCH_TOKENS

        def make(units: Sequence[Unit], places: Places, shape: Shape) -> TaskBatch:
            return make_task_batch(units, places, Layout(*shape, slots_per_unit), self._pad_id)

        def take(output: tuple[Any, Total], unit: Unit, place: Place) -> np.ndarray:
            row, slot, start = place
            if self._task.per_token:
                return output[0][row, start : start + unit.length]
            slot *= slots_per_unit
            return output[0][row, slot : slot + len(unit.sequences)]

        shapes = Shapes(
            self.model.config.max_length * slots_per_unit,
            lambda length: budget // length,
            slots=lambda length: (UNITS_PER_ROW * slots_per_unit,),
            between=False,
            mesh=self.mesh,
        )
        in_a_row = 1 if self._is_exported else UNITS_PER_ROW
        return Batching(shapes, lambda unit: unit.length, make, take, items_per_row=in_a_row)


@functools.lru_cache(maxsize=32)
def make_inference(model: Any, task: Any, pad_id: int, mesh: Mesh | None = None) -> Inference:
    """Returns the `Inference` of a model and task, the same one for equal arguments.

    Args:
        model: the module, as of `Inference`.
        task: its task.
        pad_id: the tokenizer's.
        mesh: the devices; None for jax's first one.
    """
    return Inference(model, task, pad_id, mesh)


def predict_examples(
    inference: Inference,
    variables: Any,
    task: Task,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    max_length: int,
    progress: Callable[[float], None] = lambda done: None,
) -> Predicted:
    """Predicts every example.

    Args:
        inference: of the model.
        variables: the model's collections.
        task: of the model.
        examples: as the task's reader gives them.
        tokenizer: of the model.
        max_length: longest sequence in tokens.
        progress: is called with the number of examples done since the call before, parts of one
            where an example is several units.

    Raises:
        UserError: an output is NaN or infinite.
    """
    started = time.perf_counter()
    encoded = task.encode(examples, tokenizer, max_length, training=False)
    share = len(examples) / max(1, len(encoded.units))
    outputs = inference.run(variables, encoded.units, lambda done: progress(done * share))
    check_finite(outputs.logits)
    predictions = task.decode(examples, encoded.units, outputs.logits)
    loss = float(outputs.loss.mean())
    return Predicted(predictions, loss, encoded.notes, time.perf_counter() - started)


def check_finite(outputs: Iterable[np.ndarray]) -> None:
    """Checks that outputs are numbers.

    Args:
        outputs: of any shapes.

    Raises:
        UserError: one is NaN or infinite.
    """
    if not all(np.isfinite(output).all() for output in outputs):
        raise UserError(NOT_FINITE)
