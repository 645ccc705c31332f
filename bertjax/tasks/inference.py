"""A model's outputs for any number of units, packed into batches of one shape."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from bertjax.numerics.placement import ROW_AXES, count_sharers, repeatable_options, target_platform
from bertjax.objectives.losses import Total
from bertjax.tasks.task import Task
from bertjax.tasks.units import (
    LENGTH_STEP,
    Layout,
    Unit,
    check_units,
    count_rows,
    make_task_batch,
    places_of,
)
from bertjax.text.packing import Places
from bertjax.text.workers import count_cores
from bertjax.types import TaskBatch

# Places of a batch, padding included (a CPU is faster when a batch stays in its caches), and the
# shortest row: attention is cheap up to there.
BATCH_TOKENS, CPU_BATCH_TOKENS, SHORTEST_ROW = 4096, 1280, 64


class Outputs(NamedTuple):
    """What a model makes of units.

    Attributes:
        logits: of every unit in their order: for each of its sequences, or for each of its tokens.
        loss: of all of them.
    """

    logits: list[Float[np.ndarray, "places ..."]]
    loss: Total


class Inference:
    """Runs a model on units. One object compiles once for each layout it meets.

    Args:
        model: the class that the task names.
        task: whose loss and kind of output are wanted.
        pad_id: of [PAD].
        mesh: of the devices that share the rows out; without one jax's first device has them all.
    """

    def __init__(self, model: Any, task: Task, pad_id: int, mesh: Mesh | None = None) -> None:
        self._task, self._pad_id = task, pad_id
        self.model, self.mesh = model, mesh

        def forward(variables: Any, batch: TaskBatch, layout: Layout) -> tuple[Any, Total]:
            logits = model.apply(variables, *batch[:5]).logits
            return logits, task.loss(logits, batch, layout)

        platform = mesh.devices.flat[0].platform if mesh else target_platform()
        self._forward = jax.jit(
            forward, static_argnums=2, compiler_options=repeatable_options(platform)
        )

    def run(
        self,
        variables: Any,
        units: Sequence[Unit],
        progress: Callable[[int], None] = lambda done: None,
    ) -> Outputs:
        """The outputs of all units.

        Args:
            variables: the model's collections ("params", and "batch_stats" where it has them).
            units: any number.
            progress: is called with the number of units done since the call before.

        Raises:
            UserError: units of another model's tokenizer, or too long ones (`check_units`).
        """
        check_units(units, self.model.config)
        if not units:
            return Outputs([], Total(np.float32(0), np.float32(0)))
        variables = jax.device_put(variables)  # once, and not with every batch
        layout = self._layout(units)
        places = places_of(units, layout)
        order = np.argsort(places.row, kind="stable")
        chunks = places.row[order] // layout.rows
        logits: list[Any] = [None] * len(units)
        loss = Total(np.float64(0), np.float64(0))
        for chunk in range(int(chunks.max()) + 1):
            numbers = order[chunks == chunk]
            here = Places(*(values[numbers] for values in places))
            here = here._replace(row=here.row - chunk * layout.rows)
            batch = make_task_batch(
                [units[number] for number in numbers], here, layout, self._pad_id
            )
            output, part = jax.device_get(self._take(variables, batch, layout))
            loss = Total(loss.sum + part.sum, loss.count + part.count)
            slots = here.slot * layout.slots_per_unit
            for number, row, start, slot in zip(numbers, here.row, here.start, slots, strict=True):
                unit = units[number]
                if self._task.per_token:
                    logits[number] = output[row, start : start + unit.length]
                else:
                    logits[number] = output[row, slot : slot + len(unit.sequences)]
            progress(len(numbers))
        return Outputs(logits, loss)

    def _take(self, variables: Any, batch: TaskBatch, layout: Layout) -> tuple[Any, Total]:
        if self.mesh is None or self.mesh.size == 1:
            return self._forward(variables, batch, layout)
        placed = jax.device_put(batch, NamedSharding(self.mesh, PartitionSpec(ROW_AXES)))
        with jax.set_mesh(self.mesh):
            return self._forward(variables, placed, layout)

    def _layout(self, units: Sequence[Unit]) -> Layout:
        lengths = np.array([unit.length for unit in units])
        total, longest, shortest = int(lengths.sum()), int(lengths.max()), int(lengths.min())
        length = max(longest, min(SHORTEST_ROW, total))
        length = -(-length // LENGTH_STEP) * LENGTH_STEP
        per_unit = max(len(unit.sequences) for unit in units)
        units_per_row = length // shortest
        needed = count_rows(lengths, length, units_per_row)
        # As many rows in every batch, so that the last one is as full as the others.
        on_cpu = jax.default_backend() == "cpu"
        most = CPU_BATCH_TOKENS if on_cpu else BATCH_TOKENS
        batches = -(-needed // max(1, most // length))
        rows = -(-needed // batches)
        sharers = 1 if self.mesh is None else count_sharers(self.mesh)
        rows = -(-rows // sharers) * sharers
        cores = count_cores()
        if on_cpu and sharers == 1 and rows > cores:
            # XLA shares rows out among the cores: as many for each, with the least padding.
            most = -(-rows // cores) * cores
            choices = range(most, most // 2, -cores)
            rows = min(choices, key=lambda number: -(-needed // number) * number)
        return Layout(rows, length, units_per_row * per_unit, per_unit)
