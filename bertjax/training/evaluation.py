"""Evaluation on held-out rows: the scores of a model, and the unigram baseline beside them."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Integer

from bertjax.numerics.placement import repeatable_options
from bertjax.objectives.masking import Vocabulary
from bertjax.objectives.pretraining import make_eval_step, unigram_log_probs
from bertjax.objectives.replaced_tokens import GeneratorAndDiscriminator, make_detection_eval_step
from bertjax.program.errors import UserError
from bertjax.training.batches import FittingRows, RowSource, evaluation_batches
from bertjax.training.budget import Clock
from bertjax.training.sharding import REPLICATED, place_rows, rows_here

# What a gain is, in nats, unless given.
MIN_GAIN = 0.005
# How often, unless given: in steps, or with a budget in minutes by the clock.
STEPS_BETWEEN = 500
FIRST_SECONDS, SECONDS_BETWEEN, MOST_EVALUATIONS = 15.0, 30.0, 20
SHARE_OF_TIME = 0.05


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation on held-out documents: 15 % of the tokens masked, the same ones every time.

    Attributes:
        every: steps between two evaluations; one more comes at the end. When not given, 500, or
            with budget.minutes by the clock: the first after a quarter of a minute, then each half
            a minute, or each twentieth of the run where that is longer; less often where they would
            take more than about a twentieth of the time
        rows: how many rows of the validation split to use; 0 = all. The test uses all of its split
        batch_size: rows at a time
        at_start: also before the first step, on validation and test: what there is to gain or lose
        patience: evaluations in a row without a gain after which the run stops; 0 = never
        min_gain: nats of validation loss below the last gain that are a gain; 0.005 when not given
    """

    every: int | None = None
    rows: int = 2048
    batch_size: int = 64
    at_start: bool = False
    patience: int = 0
    min_gain: float | None = None

    def __post_init__(self) -> None:
        least = {"every": 1, "rows": 0, "batch_size": 1, "patience": 0, "min_gain": 0}
        for name in least:
            if getattr(self, name) is not None and getattr(self, name) < least[name]:
                raise UserError(
                    f"evaluation.{name}={getattr(self, name)} must be at least {least[name]}"
                )
        if self.min_gain is not None and not self.patience:
            raise UserError(
                f"evaluation.min_gain={self.min_gain} has no effect without evaluation.patience;"
                " give both, or leave it out"
            )


class DueEvaluations:
    """Says after which steps of a run an evaluation comes; it is asked after every one, in order.

    By the clock one comes when its time has, and so many steps after the last as keep evaluations
    at a twentieth of the time. What they cost is counted in steps, as all processes see it alike.

    Args:
        config: how often.
        clock: of the run.
        cost: of an evaluation, in steps (see `cost_in_steps`).
    """

    def __init__(self, config: EvaluationConfig, clock: Clock, cost: float) -> None:
        self._every, self._clock = config.every, clock
        self._between = max(SECONDS_BETWEEN, clock.total / MOST_EVALUATIONS)
        self._steps_between = cost / SHARE_OF_TIME
        self._comes, self._last = False, -math.inf

    def __call__(self, step: int, seconds_before: float, seconds: float) -> bool:
        """Returns whether an evaluation comes after a step.

        Args:
            step: the number of steps with this one.
            seconds_before: of training, before the step.
            seconds: of training, after it.
        """
        if self._every is not None or not self._clock.in_seconds:
            return step % (self._every or STEPS_BETWEEN) == 0
        self._comes |= self._number_until(seconds) > self._number_until(seconds_before)
        if not self._comes or step - self._last < self._steps_between:
            return False
        self._comes, self._last = False, step
        return True

    def _number_until(self, seconds: float) -> int:
        return 0 if seconds < FIRST_SECONDS else 1 + int((seconds - FIRST_SECONDS) / self._between)


def cost_in_steps(tokens: int, tokens_of_a_step: int, model: Any) -> float:
    """Returns how many training steps an evaluation takes as long as, about.

    A step is three times as much work on a token as an evaluation, which has nothing to
    differentiate, but asks a discriminator twice.

    Args:
        tokens: that are evaluated.
        tokens_of_a_step: that it learns from.
        model: what is evaluated, see `make_evaluation`.
    """
    times = 2 if isinstance(model, GeneratorAndDiscriminator) else 1
    return times * tokens / (3 * tokens_of_a_step)


def make_evaluation(
    config: EvaluationConfig,
    model: Any,
    vocabulary: Vocabulary,
    token_counts: Integer[np.ndarray, " V"],
    mesh: Mesh,
) -> Callable[..., tuple[dict[str, float], float]]:
    """Makes a function of (params, rows, limit) that returns the scores and their seconds.

    It looks at the first `limit` rows, at all of them where that is 0. For rows of other text it
    takes their `token_counts`, too.

    Args:
        config: how many rows at a time.
        model: of the class that is pretrained, or a `GeneratorAndDiscriminator`.
        vocabulary: of the rows' tokenizer.
        token_counts: how often each token occurs in the training rows, for the unigram baseline.
        mesh: the devices.
    """
    has_generator = isinstance(model, GeneratorAndDiscriminator)
    make_step = make_detection_eval_step if has_generator else make_eval_step

    def step(params: Any, batch: Any, log_probs: Any) -> Any:
        return make_step(model, vocabulary, log_probs)(params, batch)

    score = jax.jit(
        step,
        out_shardings=NamedSharding(mesh, REPLICATED),
        compiler_options=repeatable_options(mesh.devices.flat[0].platform),
    )
    here = rows_here(mesh, config.batch_size)
    add = functools.partial(jax.tree.map, np.add)

    def evaluate(
        params: Any,
        rows: RowSource,
        limit: int,
        token_counts: Integer[np.ndarray, " V"] = token_counts,
    ) -> tuple[dict[str, float], float]:
        started = time.perf_counter()
        log_probs = np.asarray(unigram_log_probs(token_counts, vocabulary))
        fitting = FittingRows(rows, model.config)
        batches = evaluation_batches(fitting, config.batch_size, limit, here)
        with jax.set_mesh(mesh):
            parts = (
                jax.device_get(score(params, place_rows(batch, mesh), log_probs))
                for batch in batches
            )
            total = functools.reduce(add, parts)
        return total.summarize(), time.perf_counter() - started

    return evaluate
