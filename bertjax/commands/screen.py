"""Printing that commands share: JSON, tables of fields, notes, progress."""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bertjax.program.stages import Stage, StageProgress
from bertjax.program.strict_json import to_json

if TYPE_CHECKING:
    from rich.console import Console


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON, for programs to read (default: no)"
    )


def console() -> "Console":
    """Returns rich's console for standard output; it takes brackets as text."""
    from rich.console import Console

    return Console(highlight=False, markup=False, soft_wrap=True)


_FREE_COLUMNS = 4


@contextlib.contextmanager
def stage_bars() -> Iterator[StageProgress]:
    """Shows a bar for each stage in turn, `3 of 7: probes`; gives the function that reports them.

    The bars are those of `count_on`.
    """
    shown: Stage | None = None
    move_on: Callable[..., None]
    with contextlib.ExitStack() as bar:

        def report(stage: Stage, done: float) -> None:
            nonlocal shown, move_on
            if stage != shown:
                bar.close()
                what = f"{stage.number} of {stage.stages}: {stage.name}"
                shown, move_on = stage, bar.enter_context(count_on(what, stage.total))
            move_on(done)

        yield report


@contextlib.contextmanager
def count_on(what: str, total: float) -> Iterator[Callable[..., None]]:
    """Shows a bar on stderr if that is a terminal; gives the function that advances it.

    Elsewhere that function's second argument, where it has one, is a line on stderr: what was done.
    The bar is gone when the work is over, or has failed, or was interrupted.
    """
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    on_terminal = sys.stderr.isatty()
    # Lines are cut at the terminal's width: one that wraps could not be taken back. And what takes
    # minutes to its first step has no time that is left, but one that has gone by.
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        TimeElapsedColumn(),
        console=_bar_console(),
        transient=True,
        disable=not on_terminal,
    ) as bar:
        task = bar.add_task(what, total=total)

        def move_on(done: float, said: str = "") -> None:
            bar.advance(task, done)
            if said and not on_terminal:
                print(said, file=sys.stderr, flush=True)

        yield move_on


def _bar_console() -> "Console":
    """Returns rich's console for a bar."""
    from rich.console import Console, ConsoleDimensions

    class NarrowerConsole(Console):
        """Leaves columns free for the ^C that a terminal shows, so that it begins no new line."""

        @property
        def size(self) -> ConsoleDimensions:
            width, height = super().size
            return ConsoleDimensions(max(1, width - _FREE_COLUMNS), height)

    return NarrowerConsole(stderr=True, highlight=False, markup=False)


def tell(notes: Iterable[str]) -> None:
    """Prints notes on stderr, a line for each."""
    for note in notes:
        print(note, file=sys.stderr)


def print_json(value: Any) -> None:
    """Prints it indented, letters of all alphabets as they are."""
    print(to_json(value, indent=2))


def print_fields(fields: Mapping[str, Any], indent: str = "") -> None:
    """Prints an object, a field a line, objects within it indented."""
    from rich.text import Text

    out = console()
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if isinstance(value, Mapping):
            out.print(Text(f"{indent}{name}", "cyan"))
            print_fields(value, f"{indent}  ")
        else:
            out.print(Text.assemble((f"{indent}{name:<{width}}  ", "cyan"), _show(value)))


def _show(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_show, value)) or "none"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
