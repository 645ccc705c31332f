"""`dtype: auto` of a run on CPUs: bfloat16 where this machine is faster in it, proven on its steps.

An accelerator has units for bfloat16, and so do some processors (AVX512-BF16, AMX), where a step
takes less than half of the time (docs/performance.md); on the others it is slower.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from bertjax.config import BertConfig
from bertjax.program.wording import counted
from bertjax.training.execution import compute_dtype
from bertjax.training.metrics import measure_matmul_rate
from bertjax.training.processes import anywhere
from bertjax.training.run_directory import read_identity
from bertjax.training.run_step import StepConfig
from bertjax.training.sharding import place_rows
from bertjax.training.state import TrainState
from bertjax.training.steps import Step, lower_step

Config = TypeVar("Config", bound=StepConfig)

AUTO, NARROW, WIDE = "auto", "bfloat16", "float32"
# How much faster products have to be in bfloat16: a step has other things to do as well.
LEAST_GAIN = 1.5
# Beside other work a step of a model 128 wide gained as much (docs/performance.md). That was not
# measured on a free machine, nor in a short run, to which the proof is a second compilation.
LEAST_WIDTH = 192
# Steps whose losses are compared, and how far they may be from each other, as a share: in bfloat16
# a number has 8 bits, and the loss is a mean over hundreds of tokens.
COMPARED_STEPS, MOST_APART = 3, 0.01


class ImpreciseError(Exception):
    """The first steps in bfloat16 do not agree with those in float32."""


def settle_dtype(config: Config, bert_config: BertConfig, mesh: Mesh) -> tuple[Config, str]:
    """Returns the config with a definite dtype, and what there is to say of it.

    A run that was begun keeps its dtype. Otherwise auto is bfloat16 on accelerators, and on CPUs
    where products of matrices are at least `LEAST_GAIN` as fast in it, here and now.

    Args:
        config: of the run.
        bert_config: of the model.
        mesh: the devices.
    """
    if config.dtype != AUTO:
        return config, ""
    begun = read_identity(Path(config.run), config.checkpoint).get("dtype")
    platform = mesh.devices.flat[0].platform
    said, dtype = "", begun or jnp.dtype(compute_dtype(AUTO, platform)).name
    if not begun and platform == "cpu" and bert_config.hidden_size >= LEAST_WIDTH:
        narrow, wide = measure_rates(mesh)
        # Where several processes train, the slowest decides for all.
        if not anywhere(narrow < LEAST_GAIN * wide):
            dtype = NARROW
            said = (
                f"products run at {narrow / 1e9:,.0f} GFLOP/s in bfloat16 here, and at"
                f" {wide / 1e9:,.0f} in float32: training in bfloat16 (dtype=float32 for the other)"
            )
    return dataclasses.replace(config, dtype=dtype), said


@functools.cache  # the seeds of a run, and the trials of a sweep, are to have one dtype
def measure_rates(mesh: Mesh) -> tuple[float, float]:
    """Returns the rates of matrix products in bfloat16 and in float32, in FLOP/s."""
    return measure_matmul_rate(mesh, NARROW), measure_matmul_rate(mesh, WIDE)


def prove_agreement(
    narrow: jax.stages.Compiled, wide: Step, state: TrainState, batches: Any, mesh: Mesh
) -> str:
    """Takes the first steps in both dtypes from copies of the state; says how far they agree.

    Args:
        narrow: the step in bfloat16.
        wide: the same in float32, not compiled yet.
        state: the first of the run; it stays as it is.
        batches: of the run.
        mesh: the devices.

    Raises:
        ImpreciseError: a loss differs by more than `MOST_APART` of it, or is not finite.
    """
    drawn = [place_rows(batches[step], mesh) for step in range(COMPARED_STEPS)]
    compiled = lower_step(wide, state, drawn[0], mesh).compile()
    losses = np.array([_take_steps(step, state, drawn) for step in (narrow, compiled)])
    apart = np.abs(losses[0] / losses[1] - 1).max()
    said = (
        f"the losses of the first {counted(COMPARED_STEPS, 'step')} in both differ by {apart:.1e}"
    )
    if not apart <= MOST_APART:
        raise ImpreciseError(f"{said} of them: training in float32")
    return f"{said} of them"


def _take_steps(
    step: jax.stages.Compiled, state: TrainState, batches: Sequence[Any]
) -> list[float]:
    state = jax.tree.map(jnp.copy, state)  # a step takes the memory of the state before it
    losses = []
    for number, batch in enumerate(batches):
        state, report = step(state, batch, np.float32(number))
        losses.append(float(report.loss))
    return losses
