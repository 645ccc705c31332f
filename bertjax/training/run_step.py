"""The step of a run, pretraining or fine-tuning, from the fields that both configs have."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import optax

from bertjax.training.execution import compute_dtype
from bertjax.training.optimizer import OptimizerConfig
from bertjax.training.steps import Objective, Step, make_train_step


@runtime_checkable
class StepConfig(Protocol):
    """The fields of a run's config that decide what a step computes."""

    optimizer: OptimizerConfig
    seed: int
    batch_size: int
    accumulation: int
    dtype: str
    attention: str
    log_every: int
    most_skipped: int


def make_run_step(
    config: StepConfig,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    total: float,
    *,
    average_decay: float = 0.0,
) -> Step:
    """Returns the function that `jax.jit` compiles for the training of a run.

    Args:
        config: of the run.
        objective: what is minimised.
        optimizer: of `make_optimizer`, at learning rate 1.
        schedule: the factor of the learning rate as a function of the clock.
        total: the clock's value at the end of the run.
        average_decay: of a moving average of the weights; 0 = none.
    """
    return make_train_step(
        objective,
        optimizer,
        lambda now: config.optimizer.learning_rate * schedule(now),
        config.seed,
        total=total,
        average_decay=average_decay,
        microbatches=config.accumulation,
        clip_norm=config.optimizer.clip_norm,
        log_every=config.log_every,
        most_skipped=config.most_skipped,
    )


def identity_of_step(config: StepConfig) -> dict[str, Any]:
    """Returns what must be the same for a checkpoint to be continued, of these fields.

    The learning rate may differ: who continues a run may lower it.
    """
    optimizer = dataclasses.asdict(config.optimizer)
    del optimizer["learning_rate"]
    return {
        "seed": config.seed,
        "batch_size": config.batch_size,
        "optimizer": optimizer,
        "dtype": jnp.dtype(compute_dtype(config.dtype)).name,
        "attention": config.attention,
    }
