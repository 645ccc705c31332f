"""One trial of a sweep: the program as a process of its own, followed by its metrics.jsonl."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.program.outputs import write_whole
from bertjax.program.wording import nearest
from bertjax.sweeps.space import Recipe
from bertjax.sweeps.study import Claim, Lock
from bertjax.tasks.scoring import LESS_IS_BETTER
from bertjax.training.metrics import read_metrics
from bertjax.training.processes import environment_alone

# The suffixes of figures' names, by direction.
_LOWER_IS_BETTER = (*LESS_IS_BETTER, "perplexity")
_HIGHER_IS_BETTER = ("accuracy", "f1", "mcc", "auc", "pearson", "spearman", "exact", "exact_match")
_HIGHER_IS_BETTER += ("precision", "recall")


class Score(NamedTuple):
    """The validation figure that trials are judged by.

    Attributes:
        name: its name in the validation lines of metrics.jsonl.
        direction: minimize or maximize.
    """

    name: str
    direction: Literal["minimize", "maximize"]

    def of_lines(self, lines: Sequence[Mapping[str, Any]]) -> list[float]:
        """Returns its values, nan where undefined."""
        values = [line.get(self.name) for line in lines]
        return [float("nan") if value is None else float(value) for value in values]

    def judge(self, lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
        """Returns the line that a run is judged by: that of its kept checkpoint, else its best.

        Returns:
            None where no line has the score.
        """
        signed = [
            -value if self.direction == "minimize" else value for value in self.of_lines(lines)
        ]
        defined = [
            (value, line) for value, line in zip(signed, lines, strict=True) if value == value
        ]
        kept = [line for _, line in defined if line.get("kept")]
        best = max(defined, key=lambda scored: scored[0], default=(None, None))[1]
        return kept[-1] if kept else best


def make_score(name: str, direction: str) -> Score:
    """Makes the score of a name; `auto` knows its direction.

    Raises:
        UserError: the direction is not known.
    """
    if direction != "auto":
        return Score(name, direction)
    if name.endswith(_LOWER_IS_BETTER):
        return Score(name, "minimize")
    if name.endswith(_HIGHER_IS_BETTER):
        return Score(name, "maximize")
    raise UserError(f"score={name!r} has no known direction; give --direction minimize or maximize")


class End(NamedTuple):
    """How a trial ended.

    Attributes:
        state: complete; pruned; failed; or stopped, to be continued.
        score: that of a complete trial.
        message: that of a failed trial, without what is its own, such as its run directory.
    """

    state: Literal["complete", "pruned", "failed", "stopped"]
    score: float | None = None
    message: str = ""


class TrialRun:
    """A trial that runs, or waits until a program of an earlier sweep releases its directory.

    Attributes:
        claim: the trial's.
        number: the trial's.
        run: its run directory; its log and its config are beside it.
        seconds: how long the program ran, over all sessions.
    """

    def __init__(
        self,
        claim: Claim,
        directory: Path,
        words: Sequence[str],
        recipe: Recipe,
        score: Score,
        environment: Mapping[str, str],
    ) -> None:
        self.claim = claim
        self.number = claim.trial.number
        self.run = directory / "trials" / f"{self.number:04}"
        self._config = self.run.with_suffix(".yaml")
        self._log = self.run.with_suffix(".log")
        self._program_lock = Lock(directory / "locks" / f"{self.number:04}.program")
        self._program_file = directory / "locks" / f"{self.number:04}.process"
        self._command = [sys.executable, *words, "--config", str(self._config)]
        self._command += ["--run", str(self.run)]
        self._environment = {**environment_alone(), **environment}
        self._recipe, self._score = recipe, score
        self._lines: list[Mapping[str, Any]] = []
        self._reported = claim.reported
        self._seconds_before = self.seconds = claim.trial.user_attrs.get("seconds", 0.0)
        self._process: subprocess.Popen | None = None
        self._asked_to_end: Literal["pruned", "stopped"] | None = None
        self._orphan_told = False

    def look(self) -> End | None:
        """Advances the trial as far as possible now; returns how it ended, once it has.

        Raises:
            OSError: the program cannot be started.
        """
        if self._process is None:
            if not self._program_lock.take():
                self._end_orphan()
                return End("stopped") if self._asked_to_end == "stopped" else None
            self._report()
            if self.claim.trial.should_prune():
                self._program_lock.release()
                return End("pruned")
            try:
                write_whole(self._config, self._recipe.to_yaml(self.claim.values))
            except UserError as error:  # values that contradict each other
                self._program_lock.release()
                return End("failed", None, str(error))
            self._start()
        code = self._process.poll()  # before the lines, so that the last ones are read, too
        news = self._report()
        if code is None:
            if news and self._asked_to_end is None and self.claim.trial.should_prune():
                self._ask_to_end("pruned")
            return None
        self._note_seconds()
        return self._judge(code)

    def stop(self) -> None:
        """Asks the program to save and end; `look` returns when it has."""
        if self._asked_to_end is None:
            self._ask_to_end("stopped")

    def _ask_to_end(self, reason: Literal["pruned", "stopped"]) -> None:
        self._asked_to_end = reason
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def _start(self) -> None:
        self._started = time.monotonic()
        self._program_file.unlink(missing_ok=True)  # its number may be another process's by now
        with self._log.open("ab") as log:
            log.write(f"$ {shlex.join(self._command)}\n".encode())
            log.flush()
            self._log_begins = log.tell()
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for the sweep, which passes it on once
                pass_fds=[self._program_lock.descriptor],
            )
        self._program_file.write_text(f"{self._process.pid} {socket.gethostname()}")
        self._program_lock.release()  # the program keeps it, even if we are killed

    def _end_orphan(self) -> None:
        """Asks a program that an earlier sweep left behind to save and end, once."""
        if self._orphan_told or not self._program_file.exists():
            return
        pid, _, host = self._program_file.read_text().partition(" ")
        if host == socket.gethostname() and pid.isdigit():
            self._orphan_told = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGTERM)

    def _report(self) -> bool:
        """Passes new validation lines to the study; returns whether there were any."""
        lines = read_metrics(self.run / "metrics.jsonl")
        self._lines = [line for line in lines if line["split"] == "validation"]
        values = self._score.of_lines(self._lines)
        # The n-th validation is compared with the n-th of others: steps may differ in size.
        news = range(self._reported, len(values))
        for index in news:
            self.claim.trial.report(values[index], index + 1)
            self._note_seconds()
        self._reported += len(news)
        return len(news) > 0

    def _note_seconds(self) -> None:
        if self._process is not None:
            self.seconds = round(self._seconds_before + time.monotonic() - self._started, 1)
            self.claim.trial.set_user_attr("seconds", self.seconds)

    def _judge(self, code: int) -> End:
        line = self._score.judge(self._lines)
        if code == 0 and line is not None:
            for name in ("step", "loss", "standard_error"):
                self.claim.trial.set_user_attr(name, line.get(name))
            return End("complete", float(line[self._score.name]))
        if code in (STOPPED_EXIT_CODE, -signal.SIGTERM):
            return End(self._asked_to_end or "stopped")
        return End("failed", None, self._complaint(code))

    def _complaint(self, code: int) -> str:
        if code == 0:
            known = sorted(
                {name for line in self._lines for name in line} - {"step", "split", "timing"}
            )
            if not known:
                return "the run has no validation, so there is nothing to judge it by"
            return (
                f"score={self._score.name!r} is in no validation line"
                f"{nearest(self._score.name, known)} (there are {', '.join(known)})"
            )
        if code < 0:
            return f"ended by {signal.Signals(-code).name}" + (
                ", which the system sends when memory runs out" if code == -signal.SIGKILL else ""
            )
        with self._log.open("rb") as log:
            log.seek(self._log_begins)
            lines = log.read().decode(errors="replace").strip().splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        said = (errors or lines or [f"exit code {code}"])[-1]
        return said.replace(str(self.run), "RUN")
