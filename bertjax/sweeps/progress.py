"""What a user sees of a sweep: one live line on a terminal, plain lines anywhere else."""

import sys
from collections import Counter

from optuna.trial import TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bertjax.sweeps.report import best_of, describe_values, make_rows, rank_rows
from bertjax.sweeps.study import Claim, Study
from bertjax.sweeps.trial import End, Score, TrialRun
from bertjax.training.progress import LiveReporter, describe_duration


class SweepProgress(LiveReporter):
    """Reports of a sweep on standard error: a bar of the trials, and a line per start and end."""

    def __init__(self, trials: int, score: Score) -> None:
        console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=console,
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        super().__init__(console, self._bar)
        self._score = score
        self._task = self._bar.add_task("trials", total=trials, figures="")
        self._said = self._trials = trials

    def begun(self, claim: Claim) -> None:
        """Reports that a trial begins or continues."""
        verb = "continues" if claim.continued else "begins"
        self.say(f"trial {claim.trial.number} {verb}: {describe_values(claim.values)}")

    def ended(self, run: TrialRun, end: End) -> None:
        """Reports how a trial ended."""
        score = "" if end.score is None else f"{self._score.name} {end.score:.4f}"
        said = {
            "complete": f"ended with {score}",
            "pruned": "pruned",
            "failed": f"failed: {end.message}",
            "stopped": "stopped, to be continued",
        }[end.state]
        self.say(f"trial {run.number} {said} ({describe_duration(run.seconds)})")

    def show(self, study: Study) -> None:
        """Moves the bar; without a terminal, prints the same whenever a trial has ended."""
        trials = study.trials()
        counts = Counter(trial.state for trial in trials)
        ended = [
            counts[state] for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        ]
        name, direction = self._score
        best = best_of(rank_rows(make_rows(trials, name), name, direction))
        figures = f"{counts[TrialState.RUNNING]} running"
        for count, word in zip(ended[1:], ("pruned", "failed"), strict=True):
            figures += f", {count} {word}" if count else ""
        if best:
            figures += f"; best {name} {best[name]:.4f} (trial {best['trial']})"
        self._bar.update(self._task, completed=sum(ended), figures=figures)
        if not sys.stderr.isatty() and sum(ended) > self._said:
            self.say(f"{sum(ended)} of {self._trials} trials ended, {figures}")
        self._said = sum(ended)
