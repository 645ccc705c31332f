"""What a person sees of a run: one live line on a terminal, plain lines anywhere else."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class RunProgress:
    """Tells of a run on stderr: a bar with the newest figures on a terminal, else plain lines."""

    def __init__(self, total: float) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live = sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%  {task.fields[figures]}"),
            console=self.console,
            disable=not self._live,
        )
        self._task = self._bar.add_task("training", total=total, figures="compiling")

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def report(self, clock: float, figures: str) -> None:
        """Moves the bar to `clock` and shows the figures beside it."""
        self._bar.update(self._task, completed=clock, figures=figures)
        if not self._live:
            self.console.print(figures)

    def say(self, message: str) -> None:
        """Prints a line that stays."""
        self.console.print(message)


def describe_duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `5 h 12 min`."""
    seconds = round(max(0.0, seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
