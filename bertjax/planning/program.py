"""A training step compiled for devices that may be absent: its memory, its communication."""

import time
from typing import Any, NamedTuple

import jax
import jaxlib
import numpy as np
from jax.sharding import Mesh, NamedSharding

from bertjax.planning.absent_devices import assume_cudnn, quiet
from bertjax.planning.collectives import Collective, read_collectives
from bertjax.program.errors import UserError
from bertjax.training.sharding import ROWS
from bertjax.training.state import TrainState
from bertjax.training.steps import Step, lower_step
from bertjax.types import RowBatch

# The form of rows in a prepared directory (bertjax.text.rows): (is it [T] or [K] or [], type).
_COLUMNS = RowBatch(
    token_ids=("T", np.int32),
    token_type_ids=("T", np.uint8),
    sequence_ids=("T", np.uint8),
    position_ids=("T", np.uint16),
    example_starts=("K", np.uint16),
    next_sentence_labels=("K", np.int8),
    row_numbers=("", np.uint32),
    epochs=("", np.uint32),
)


class Memory(NamedTuple):
    """Bytes on each device during a step.

    Attributes:
        parameters: the model's.
        average: the moving average of the parameters; 0 in a run without one.
        optimizer: the optimizer's moments.
        batch: the rows of a step, columns too that the program does not read (token types, in
            families that have none).
        other: what else is constant: step counts and, on a TPU, the padding of array tiles.
        results: those that do not replace an argument.
        temporaries: activations kept for the backward pass, gradients, scratch space.
        code: the program.
    """

    parameters: int
    average: int
    optimizer: int
    batch: int
    other: int
    results: int
    temporaries: int
    code: int

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum(self)


class CompiledStep(NamedTuple):
    """What the compiler reports about a step.

    Attributes:
        memory: on each device; None where the step does not fit.
        collectives: those of a step on each device; None where they cannot be read.
        seconds: how long it took to trace, lower and compile.
        once_flops: XLA's count, which takes every loop as one iteration.
        refusal: the compiler's reason why it does not fit.
        unread: why the collectives cannot be read.
    """

    memory: Memory | None
    collectives: list[Collective] | None
    seconds: float
    once_flops: float
    refusal: str = ""
    unread: str = ""


def describe_batch(rows: int, length: int, examples: int, mesh: Mesh) -> RowBatch:
    """Describes a batch of `rows` rows of `length` tokens: shapes, types and shardings only."""
    sharding = NamedSharding(mesh, ROWS)
    widths = {"T": (length,), "K": (examples,), "": ()}
    return RowBatch(
        *(
            jax.ShapeDtypeStruct((rows, *widths[axis]), dtype, sharding=sharding)
            for axis, dtype in _COLUMNS
        )
    )


def compile_step(step: Step, state: TrainState, batch: RowBatch, mesh: Mesh) -> CompiledStep:
    """Compiles the step for the mesh, and reads what it needs.

    Args:
        step: from `training.steps.make_train_step`.
        state: from `training.state.describe_state`.
        batch: from `describe_batch`.
        mesh: the mesh of both.
    """
    started = time.perf_counter()
    with assume_cudnn():
        lowered = lower_step(step, state, batch, mesh)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "suitable version of ptxas" in str(error):
            raise UserError(
                "CUDA's assembler, ptxas, is not installed: pip install 'bertjax[plan-gpu]'"
            ) from None
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0].rpartition("CompileTimeHbmOom: ")[2]
        return CompiledStep(None, [], time.perf_counter() - started, 0.0, reason)
    seconds = time.perf_counter() - started
    collectives, unread = None, ""
    try:
        with quiet():
            text = compiled.as_text()
        collectives = read_collectives(text, mesh.devices.size)
    except jax.errors.JaxRuntimeError as error:
        unread = (
            f"jaxlib {jaxlib.__version__} cannot read the compiled program"
            f" ({str(error).splitlines()[0]}); matching versions of jax and libtpu may"
        )
    except ValueError as error:
        unread = str(error)
    return CompiledStep(
        measure_memory(compiled.memory_analysis(), state, batch),
        collectives,
        seconds,
        (compiled.cost_analysis() or {}).get("flops", 0.0),
        unread=unread,
    )


def bytes_on_a_device(tree: Any) -> int:
    """Returns the bytes of every leaf's part on one device."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def measure_memory(analysis: Any, state: TrainState, batch: RowBatch) -> Memory:
    """Returns the memory of a step, by the compiler's account of its program."""
    parts = state.params, state.average, state.optimizer_state, batch
    known = [bytes_on_a_device(part) for part in parts]
    return Memory(
        *known,
        max(0, analysis.argument_size_in_bytes - sum(known)),
        analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        analysis.temp_size_in_bytes,
        analysis.generated_code_size_in_bytes,
    )
