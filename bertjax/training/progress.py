"""What a person sees of a run: one live line on a terminal, plain lines anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import jax
from rich.console import Console, Group
from rich.live import Live
from rich.progress import Progress
from rich.progress_bar import ProgressBar
from rich.text import Text

from bertjax.objectives.replaced_tokens import DISCRIMINATOR_WEIGHT
from bertjax.program.ending import on_sudden_end
from bertjax.program.entry import began_at
from bertjax.program.naming import name_arguments
from bertjax.training.processes import is_first
from bertjax.training.state import TrainState
from bertjax.training.steps import StepReport


class Reporter:
    """A listener to a run: its lines, and how far it is. This one passes the lines on, if to any.

    Attributes:
        began: when what is spent on the run began, in seconds of the epoch: the process, where it
            is there for the run alone.
        called: when the run was asked for.
    """

    def __init__(self, pass_on: Callable[[str], None] | None = None) -> None:
        """Listens from now on.

        Args:
            pass_on: called with every line.
        """
        self._pass_on = pass_on
        self.began = self.called = time.time()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def expect(self, total: float) -> None:
        """Says what the clock shows at the end."""

    def report(self, clock: float, figures: str) -> None:
        """Reports the figures of a step, at `clock`."""
        self.say(figures)

    def say(self, message: str) -> None:
        """Reports a line."""
        if self._pass_on is not None and is_first():
            self._pass_on(name_arguments(message))

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Says what is done while entered."""
        yield


class LiveReporter(Reporter):
    """Reports on stderr: lines that stay, and under them a display that is gone when all ends."""

    def __init__(self, console: Console, display: Live | Progress | None) -> None:
        """Shows nothing yet.

        Args:
            console: of stderr.
            display: what is shown while entered; None: lines only.
        """
        super().__init__()
        self._console, self._display = console, display
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> "LiveReporter":
        if self._display:
            self._ending.enter_context(self._display)
            self._ending.enter_context(on_sudden_end(self._display.stop))
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.close()

    def say(self, message: str) -> None:
        """Prints a line that stays."""
        self._console.print(message, soft_wrap=True, markup=False)


class RunProgress(LiveReporter):
    """Reports a run on stderr: lines that stay, and on a terminal a bar under them.

    The bar is gone when the run ends, however it does. Of several processes the first
    alone reports.
    """

    def __init__(self, total: float = 1.0) -> None:
        console = Console(stderr=True, highlight=False, quiet=not is_first())
        self._bar = ProgressBar(total=total)
        shows = sys.stderr.isatty() and is_first()
        live = Live(self._bar, console=console, transient=True) if shows else None
        super().__init__(console, live)
        self.began = began_at()

    def expect(self, total: float) -> None:
        """Sets the end of the bar."""
        self._bar.total = total

    def report(self, clock: float, figures: str) -> None:
        """Prints the figures, which stay, and moves the bar to `clock`."""
        self._bar.update(min(clock, self._bar.total))
        self.say(figures)

    @contextlib.contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Shows on a terminal, over the bar, what is done while entered."""
        if not self._display:
            yield
        elif not self._display.is_started:
            with self._console.status(what) as status, on_sudden_end(status.stop):
                yield
        else:
            self._display.update(Group(Text(what), self._bar))
            try:
                yield
            finally:
                self._display.update(self._bar)


def describe_duration(seconds: float) -> str:
    """Describes a duration: `42 s`, `3 min 20 s`, `5 h 12 min`, `8 d 13 h`."""
    seconds = round(max(0.0, seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 2 * 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86400:,} d {seconds % 86400 // 3600} h"


class Stopwatch:
    """Seconds of training between two reports, pauses left out."""

    def __init__(self) -> None:
        self._since = self._paused_at = time.perf_counter()

    def lap(self) -> float:
        """Returns the seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds

    def pause(self) -> None:
        """Stops counting: what follows is left out."""
        self._paused_at = time.perf_counter()

    def resume(self) -> None:
        """Counts again."""
        self._since += time.perf_counter() - self._paused_at


def read_window(
    state: TrainState,
    report: StepReport,
    seconds: float,
    steps: int,
    ideal_seconds_a_step: float,
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the values and the timing of one line of the log.

    Args:
        state: whose window the values are of; it may have begun before the process did.
        report: of the last step.
        seconds: since the last line, or since the process began to train.
        steps: taken in those seconds.
        ideal_seconds_a_step: what its matrix products alone would take.
    """
    window, report, skipped = jax.device_get((state.window, report, state.skipped))
    means = {f"{name}_loss": float(total.mean()) for name, total in window.totals.items()}
    values = {
        "loss": float(report.window_loss),
        **(means if len(means) > 1 else {}),
        "gradient_norm": float(report.gradient_norm),
        "learning_rate": float(report.learning_rate),
        "tokens": float(window.tokens),
        "skipped": int(skipped),
    }
    timing = {
        "tokens_per_second": float(window.tokens / window.steps) * steps / seconds,
        "share_of_matmul_rate": ideal_seconds_a_step * steps / seconds,
        "seconds_a_step": seconds / steps,
    }
    return values, timing


def describe_training(
    step: int, values: dict[str, float], timing: dict[str, float], seconds_left: float
) -> str:
    """Returns the figures of a step in one line."""
    terms = ", ".join(
        f"{name.removesuffix('_loss')} {value:.3f}"
        for name, value in values.items()
        if name.endswith("_loss")
    )
    share = timing["share_of_matmul_rate"]
    rate = f"{share:.0%} of matmul rate"
    if share > 1:
        rate = "over 100% of matmul rate (measured while the machine was busy)"
    return (
        f"step {step}  loss {values['loss']:.3f} {f'({terms})' if terms else ''}  "
        f"{timing['tokens_per_second']:,.0f} tokens/s  "
        f"{rate}  "
        f"{describe_duration(seconds_left)} left"
    )


def describe_scores(scores: dict[str, float]) -> str:
    """Describes an evaluation in one line, figures beside baselines; no NSP without pairs.

    The figures of masked words are a generator's where there is a discriminator.
    """
    said = (
        f"loss {scores['mlm_loss']:.3f} (unigram baseline {scores['unigram_loss']:.3f}), "
        f"masked accuracy {scores['mlm_accuracy']:.1%} "
        f"(baseline {scores['unigram_accuracy']:.1%})"
    )
    if "replaced_loss" in scores:
        return (
            f"loss {scores['loss']:.3f} = the generator's + {DISCRIMINATOR_WEIGHT:g} x"
            f" {scores['by_frequency_loss']:.3f} on tokens drawn by frequency; on the generator's"
            f" {scores['replaced_loss']:.3f} (baseline of their share {scores['share_loss']:.3f}),"
            f" found {scores['replaced_accuracy']:.1%} of the {scores['replaced_share']:.1%}"
            f" replaced and {scores['original_accuracy']:.1%} of the others; generator: {said}"
        )
    return f"{said}, NSP accuracy {scores['nsp_accuracy']:.1%}" if scores["examples"] else said
