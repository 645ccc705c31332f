"""The loop that pretraining and fine-tuning share: step, log, evaluate, save, until it is over."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from bertjax.program.errors import UserError
from bertjax.training.budget import Clock
from bertjax.training.metrics import MetricsWriter
from bertjax.training.progress import Reporter, Stopwatch, describe_training, read_window
from bertjax.training.signals import StopRequest
from bertjax.training.state import TrainState
from bertjax.training.steps import StepReport


class Intervals(NamedTuple):
    """After how many steps each thing is done, and how many bad steps in a row are too many.

    `evaluate` says it of (step, seconds of training before it, seconds after it).
    """

    log: int
    evaluate: Callable[[int, float, float], bool]
    checkpoint: int
    most_skipped: int


class Stretch(NamedTuple):
    """Steps of one kind: the whole run, or a phase of it.

    Attributes:
        take_step: (state, batch, clock) -> (state, report), compiled.
        batches: of the first step of every stretch up to this one, returns those of the run, by the
            number of the step.
        ideal_seconds: what a step's matrix products alone take.
        end: the clock's value at which the next stretch begins.
        said: is reported when it begins, or goes on.
    """

    take_step: Callable[[TrainState, Any, Any], tuple[TrainState, StepReport]]
    batches: Callable[[list[int]], Any]
    ideal_seconds: float
    end: float = math.inf
    said: str = ""


class Loop(NamedTuple):
    """One sitting of a run, or of a stretch of it.

    Attributes:
        take_step: (state, batch, clock) -> (state, report), compiled.
        batches: from the state's step on, on the devices.
        clock: of the run; it has been started.
        intervals: see there.
        ideal_seconds: what a step's matrix products alone take.
        until: the clock's value at which the stretch ends.
        validate: is called with the state after every so many steps and at the end; returns whether
            to stop early.
        keep: is called with the state to save it.
        progress: reports each line of the log.
        metrics: writes it.
        agree: is called before the first and after every step, so that several processes go by one
            clock and stop at one step (`processes.Agreement`).
    """

    take_step: Callable[[TrainState, Any, Any], tuple[TrainState, StepReport]]
    batches: Iterator[Any]
    clock: Clock
    intervals: Intervals
    ideal_seconds: float
    until: float
    validate: Callable[[TrainState], bool]
    keep: Callable[[TrainState], None]
    progress: Reporter
    metrics: MetricsWriter
    agree: Callable[[], None] = lambda: None

    def run(self, state: TrainState, stop: StopRequest) -> tuple[TrainState, bool]:
        """Trains until the clock or `validate` ends it, the stretch ends, or a signal comes.

        Returns:
            The last state, and whether the run is over.

        Raises:
            UserError: loss or gradient were not finite in too many steps in a row.
        """
        every, step = self.intervals, int(state.step)
        first_step, stopwatch = step, Stopwatch()
        self.agree()
        over = self.clock.is_over(step)
        seconds = self.clock.seconds
        while not over and stop.name is None and self.clock.now(step) < self.until:
            now = np.float32(self.clock.now(step))
            state, report = self.take_step(state, next(self.batches), now)
            step += 1
            if step % every.log == 0:
                self._check(step, report)
                steps = min(every.log, step - first_step)
                values, timing = read_window(
                    state, report, stopwatch.lap(), steps, self.ideal_seconds
                )
                self.metrics.write(step, "train", values, timing)
                left = self.clock.seconds_left(step, timing["seconds_a_step"])
                self.progress.report(
                    self.clock.now(step), describe_training(step, values, timing, left)
                )
            over = self.clock.is_over(step)
            before, seconds = seconds, self.clock.seconds
            if over or every.evaluate(step, before, seconds):
                self._check(step, report)
                jax.block_until_ready(state)
                stopwatch.pause()
                with self.progress.during(f"step {step}: validation"):
                    over |= self.validate(state)
                stopwatch.resume()
            if over or step % every.checkpoint == 0:
                self.keep(state)
            self.agree()
        return state, over

    def _check(self, step: int, report: StepReport) -> None:
        skipped = int(report.skipped_in_a_row)
        if skipped >= self.intervals.most_skipped:
            raise UserError(
                f"step {step}: loss or gradient was not finite in {skipped} steps in a row, of"
                " which nothing is saved. Lower optimizer.learning_rate, or set"
                " optimizer.clip_norm, and start in a new --run directory"
            )
