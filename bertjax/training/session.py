"""A run while a process works on it, as both loops have it: opened, restored, trained, saved."""

import contextlib
import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import jax
from jax.sharding import Mesh

from bertjax.program.config_parser import to_yaml
from bertjax.program.errors import UserError
from bertjax.program.naming import name_arguments
from bertjax.training.batches import read_ahead
from bertjax.training.budget import Clock
from bertjax.training.checkpoint import CheckpointConfig, abstract
from bertjax.training.demand import describe_demand
from bertjax.training.ledger import Ledger
from bertjax.training.loop import Intervals, Loop, Stretch
from bertjax.training.metrics import MetricsWriter, read_metrics
from bertjax.training.processes import is_first
from bertjax.training.progress import Reporter
from bertjax.training.result import Result
from bertjax.training.run_directory import check_run, leave_run, open_run, write_provenance
from bertjax.training.sharding import place_rows
from bertjax.training.signals import StopRequest
from bertjax.training.state import TrainState
from bertjax.training.steps import Step, lower_step


@runtime_checkable
class RunConfig(Protocol):
    """What the configs of both loops say of a run."""

    run: str
    checkpoint: CheckpointConfig
    log_every: int
    most_skipped: int
    resume: bool
    dry_run: bool


class Session:
    """The directory of a run, reports, and its clock; while entered, it is this process's.

    Attributes:
        run: the directory.
        clock: of the run.
        mesh: the devices.
        remembered: what is saved beside every checkpoint, and was beside the restored one.
        continues: whether there was one.
        stop: the request to stop; a KeyboardInterrupt of whoever reports the run is one.
        metrics: writes metrics.jsonl, from `training` on.
    """

    def __init__(
        self,
        config: RunConfig,
        identity: Mapping[str, Any],
        clock: Clock,
        mesh: Mesh,
        reporter: Reporter,
    ) -> None:
        """Opens the directory, or begins it; a dry run only looks at it.

        Args:
            config: of the run.
            identity: what must be the same for a checkpoint to be continued.
            clock: of the run.
            mesh: the devices.
            reporter: reports the run.

        Raises:
            UserError: what `open_run` raises.
        """
        self.run, self.clock, self.mesh = Path(config.run), clock, mesh
        self.remembered: dict[str, Any] = {"identity": dict(identity)}
        self.continues, self.stop, self.notes = False, StopRequest(), list[str]()
        self.metrics: MetricsWriter | None = None
        self._config, self._reporter, self._saved = config, reporter, False
        reporter.expect(clock.total)
        asked = (self.run, config.checkpoint, identity, config.resume)
        self._checkpoints = check_run(*asked) if config.dry_run else open_run(*asked, self.say)
        writes = is_first() and not config.dry_run
        self._ledger = Ledger(self.run, reporter.began, reporter.called, writes)

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.metrics is not None:
                self.metrics.close()
            if not self._saved:
                self._let_go(error)
        finally:
            self._ledger.close(nothing_done=not self._ledger.has_worked and error is None)
            # What the process does next is spent on the next run.
            self._reporter.began = self._reporter.called = time.time()
            leave_run(self.run)

    def _let_go(self, error: BaseException | None) -> None:
        """Waits for what is being saved, as this process may open the run again.

        Of several processes none waits: after an error the others may never come.
        """
        if self._checkpoints is not None and jax.process_count() == 1:
            # A full disk is what the first error says, too.
            with contextlib.suppress(UserError) if error else contextlib.nullcontext():
                self._checkpoints.close()

    # ---------------------------------------------------------------- reports

    def say(self, message: str) -> None:
        """Reports a line."""
        with self._heeding():
            self._reporter.say(message)

    def note(self, *sentences: str) -> None:
        """Reports what is not as it was given; it is in the result, too."""
        self.notes += sentences
        for sentence in sentences:
            self.say(sentence)

    def report(self, clock: float, figures: str) -> None:
        """Reports the figures of a step, at `clock`."""
        with self._heeding():
            self._reporter.report(clock, figures)

    def during(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Says what is done while entered."""
        return self._reporter.during(what)

    @contextlib.contextmanager
    def _heeding(self) -> Iterator[None]:
        """Takes a KeyboardInterrupt within as a request to stop between two steps."""
        try:
            yield
        except KeyboardInterrupt:
            self.stop.received = "SIGINT"

    # ---------------------------------------------------------------- before the loop

    def restore(self, state: TrainState) -> TrainState:
        """Returns the newest state that was saved; in a new or dry run `state` as it is."""
        restored = self._checkpoints and self._checkpoints.restore(abstract(state), self.say)
        if restored:
            self.continues, state = True, restored.state
            self.remembered |= {
                name: value for name, value in restored.notes.items() if name != "identity"
            }
        self._first_step = int(state.step)
        return state

    def has_written(self, split: str) -> bool:
        """Returns whether metrics.jsonl has this split's line at the restored step."""
        lines = read_metrics(self.run / "metrics.jsonl")
        return any((line["split"], line["step"]) == (split, self._first_step) for line in lines)

    @property
    def is_over(self) -> bool:
        """Whether the clock ends the run at the restored state."""
        return self.clock.is_over(self._first_step, self._seconds_before)

    @property
    def _seconds_before(self) -> float:
        return self.remembered.get("seconds", 0.0)

    def compile(
        self, steps: Sequence[tuple[Step, Any, float]], state: TrainState, *others: Callable
    ) -> list[jax.stages.Compiled]:
        """Compiles the steps of a run; a dry run reports what they take.

        Args:
            steps: of every stretch, with one of its batches, and with what its matrix products
                alone take, in seconds.
            state: the first of the run.
            others: are called, as what they compile for is wanted soon.
        """
        started = time.perf_counter()
        self._ledger.turn_to("compile", self._first_step)
        with self.during("compiling"):
            compiled = [
                lower_step(step, state, place_rows(batch, self.mesh), self.mesh).compile()
                for step, batch, _ in steps
            ]
            for other in others:
                other()
        self.say(f"compiled in {time.perf_counter() - started:.1f} s")
        if self._config.dry_run:
            for take_step, (_, _, ideal_seconds) in zip(compiled, steps, strict=True):
                self.say(describe_demand(take_step, ideal_seconds, self.clock))
            self.say("dry run: everything is in place; nothing was trained or written")
        elif self.continues:
            self.say(f"continuing {self.run} from step {self._first_step}")
        return compiled

    # ---------------------------------------------------------------- the loop

    @contextlib.contextmanager
    def training(self, origin: Mapping[str, Any]) -> Iterator[None]:
        """Trains while entered: signals ask the run to stop, and metrics are written.

        Args:
            origin: what stands in run.json beside the versions.
        """
        with self._reporter, self.stop:
            write_provenance(self.run, to_yaml(self._config), origin)
            # A run that was killed before its first checkpoint writes its step 0 again.
            self.metrics = MetricsWriter(self.run, self._first_step if self.continues else -1)
            yield

    def train(
        self,
        state: TrainState,
        stretches: Sequence[Stretch],
        is_due: Callable[[int, float, float], bool],
        validate: Callable[[TrainState], bool] | None,
        agree: Callable[[], None] = lambda: None,
        *,
        begin: Callable[[TrainState], None] | None = None,
        ended: bool = False,
    ) -> tuple[TrainState, bool]:
        """Trains until the clock or `validate` ends it, or a signal comes; all is saved then.

        Args:
            state: the first.
            stretches: of the run, in their order.
            is_due: whether to validate, see `Intervals`.
            validate: see `Loop`; None = there is nothing to validate on.
            agree: see `Loop`.
            begin: is called first with the state of a new run.
            ended: whether `validate` had ended it before.

        Returns:
            The last state, and whether the run is over (not merely stopped).
        """
        self.clock.start(self._seconds_before)
        self._ledger.turn_to("train")
        begin, validate = self._evaluating(begin), self._evaluating(validate)
        if begin and not self.continues:
            begin(state)
        if validate and self.clock.is_over(self._first_step) and not self.has_written("validation"):
            validate(state)
        over = ended
        # Where every stretch began: which rows a step takes depends on it.
        starts = self.remembered.setdefault("starts", [0])
        for number, stretch in enumerate(stretches):
            step = int(state.step)
            if over or self.stop.name is not None:
                break
            if self.clock.now(step) >= stretch.end:
                continue
            # One that the clock has passed over begins with the next; those that come again where
            # the budget was raised will begin anew.
            starts += [step] * (number + 1 - len(starts))
            del starts[number + 1 :]
            if stretch.said:
                self.say(stretch.said)
            state, over = self._train_stretch(
                state, stretch, starts.copy(), is_due, validate, agree
            )
        self.keep(state)
        with self._ledger.spending("save"):
            self._checkpoints.close()
        self._saved = True
        self._ledger.turn_to("evaluate")
        if not over:
            self.say(
                f"{self.stop.name}: saved step {int(state.step)} in {self.run}; the same command"
                " continues from there"
            )
        return state, over

    def _evaluating(
        self, function: Callable[[TrainState], Any] | None
    ) -> Callable[[TrainState], Any] | None:
        """Returns the function with its time in the ledger as evaluation."""
        if function is None:
            return None

        def evaluate(state: TrainState) -> Any:
            with self._ledger.spending("evaluate", int(state.step)):
                return function(state)

        return evaluate

    def _train_stretch(
        self,
        state: TrainState,
        stretch: Stretch,
        starts: list[int],
        is_due: Callable[[int, float, float], bool],
        validate: Callable[[TrainState], bool] | None,
        agree: Callable[[], None],
    ) -> tuple[TrainState, bool]:
        config, ahead = self._config, read_ahead(stretch.batches(starts), int(state.step))
        loop = Loop(
            stretch.take_step,
            (place_rows(batch, self.mesh) for batch in self._ledger.waiting(ahead)),
            self.clock,
            Intervals(config.log_every, is_due, config.checkpoint.every, config.most_skipped),
            stretch.ideal_seconds,
            stretch.end,
            validate or (lambda state: False),
            self.keep,
            self,
            self.metrics,
            agree,
        )
        return loop.run(state, self.stop)

    def keep(self, state: TrainState, cost: float | None = None) -> None:
        """Saves the state, with what is remembered; `cost` says how good it is, lower is better."""
        self.remembered["seconds"] = self.clock.seconds
        with self._ledger.spending("save", int(state.step)):
            self._checkpoints.save(state, copy.deepcopy(self.remembered), cost)

    def result(self, scores: dict[str, Any], stopped: str | None = None) -> Result:
        """Returns what the run has come to."""
        history = read_metrics(self.run / "metrics.jsonl")
        notes = [name_arguments(note) for note in self.notes]
        return Result(scores, history, self.run, notes, stopped)
