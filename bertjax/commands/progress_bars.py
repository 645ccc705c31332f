"""Live progress on stderr, one bar a stage."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from bertjax.program.ending import on_sudden_end

# Redraws a second; more costs time and shows nothing.
_REDRAWS = 5


@contextlib.contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int | None], None]]:
    """Gives a function `report(stage, done, total)` that keeps a bar for each stage on a terminal.

    Elsewhere nothing is shown. A stage without a total (None) shows that something happens, and how
    much has. No bar is full before its stage is over, and none is left behind, however it ends.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with (
        Progress(
            *columns,
            console=Console(stderr=True),
            refresh_per_second=_REDRAWS,
            transient=True,
            disable=not sys.stderr.isatty(),
        ) as progress,
        on_sudden_end(progress.stop),
    ):
        stages: dict[str, int] = {}
        drawn = 0.0

        def report(stage: str, done: int, total: int | None) -> None:
            nonlocal drawn
            if stage not in stages:
                for earlier in stages.values():
                    progress.update(earlier, total=1, completed=1)
                    progress.stop_task(earlier)
                stages[stage] = progress.add_task(stage, total=total)
            elif time.monotonic() - drawn < 1 / _REDRAWS:
                return
            drawn = time.monotonic()
            # Totals are estimates: a file may have more characters than a first look told.
            progress.update(stages[stage], completed=done, total=total and max(total, done + 1))

        yield report
