"""Where the wall-clock time of a run goes: what every process that worked on it did, and when.

A line of `ledger.jsonl` is a moment at which an activity begins; it lasts until the next line:

    {"at": 1767225600.25, "activity": "train", "step": 500}

    import    from the start of the process until the run is asked for
    load      rows, tokenizer, weights, the newest checkpoint
    compile   the programs of the run, and what proves them
    train     steps, the wait for their rows among them ("waited" of the line after it)
    evaluate  on held-out data, and the test
    save      checkpoints, as long as training stands still for it
    end       the process has closed the run
    killed    the last sign of life of a process that did not

The sign of life is the file's own time of modification, which a thread renews.
"""

import contextlib
import itertools
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from bertjax.program.strict_json import to_json
from bertjax.training.metrics import read_metrics

Activity = Literal["import", "load", "compile", "train", "evaluate", "save", "end", "killed"]

LEDGER_NAME = "ledger.jsonl"
# Seconds between two signs of life: so much of the time of a process that is killed may be missed.
PULSE_SECONDS = 0.1
_BEGINS: Activity = "import"
_ENDS = ("end", "killed")
# What time goes into, in the order in which it is shown.
_SPENT = ("import", "load", "compile", "train", "wait", "evaluate", "save", "lost", "down")


class Ledger:
    """The ledger of a run while a process works on it, which is always at one activity.

    Processes that write nothing (of several, all but the first) have one that does nothing.
    """

    def __init__(self, run: Path, began: float, called: float, writes: bool = True) -> None:
        """Opens the ledger, or begins it.

        Args:
            run: its directory, which this process holds.
            began: when the process started, in seconds of the epoch.
            called: when it asked for the run.
            writes: whether this process writes.
        """
        self._path, self._writes = run / LEDGER_NAME, writes
        self._waited, self._step = 0.0, 0
        self._activity: Activity = _BEGINS
        # Seconds of the epoch that no correction of the system's clock moves.
        self._epoch = time.time() - time.monotonic()
        self._stopped = threading.Event()
        if not writes:
            return
        if not self._path.exists():
            self._path.touch()
        lines, alive = read_metrics(self._path), self._path.stat().st_mtime
        # A process that is killed may leave half a line.
        self._had = self._path.read_bytes().rfind(b"\n") + 1
        os.truncate(self._path, self._had)
        if lines and lines[-1]["activity"] not in _ENDS:
            self._append("killed", alive)
        # A process may have started before the one before it ended, or on a machine whose clock is
        # behind: no time is counted twice.
        ended = alive if lines else began
        self._append(_BEGINS, max(began, ended))
        self._append("load", max(called, ended))
        self._pulse = threading.Thread(target=self._live, name="ledger", daemon=True)
        self._pulse.start()

    @property
    def has_worked(self) -> bool:
        """Whether more was done than to look at what there is."""
        return self._activity not in (_BEGINS, "load")

    def turn_to(self, activity: Activity, step: int | None = None) -> None:
        """Ends one activity and begins another, at a step of the run (default: as before)."""
        self._step = self._step if step is None else step
        self._append(activity, self._epoch + time.monotonic())

    @contextlib.contextmanager
    def spending(self, activity: Activity, step: int | None = None) -> Iterator[None]:
        """Is at an activity while entered, and then at the one before again."""
        before = self._activity
        self.turn_to(activity, step)
        try:
            yield
        finally:
            self.turn_to(before)

    def waiting(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches; the time until each is there is a wait."""
        waited = time.monotonic()
        for batch in batches:
            self._waited += time.monotonic() - waited
            yield batch
            waited = time.monotonic()

    def close(self, *, nothing_done: bool = False) -> None:
        """Ends the sitting; `nothing_done`: there was nothing to do, and no trace is left of it."""
        if not self._writes or self._stopped.is_set():
            return
        self._stopped.set()
        self._pulse.join()
        if nothing_done:
            os.truncate(self._path, self._had)
        else:
            self.turn_to("end")

    def _append(self, activity: Activity, at: float) -> None:
        self._activity = activity
        if not self._writes:
            return
        line = {"at": round(at, 3), "activity": activity, "step": self._step}
        if self._waited:
            line["waited"], self._waited = round(self._waited, 3), 0.0
        with self._path.open("a", encoding="utf-8") as file:
            file.write(to_json(line) + "\n")

    def _live(self) -> None:
        while not self._stopped.wait(PULSE_SECONDS):
            with contextlib.suppress(OSError):  # of a directory that was removed
                os.utime(self._path)


class _Span(NamedTuple):
    activity: str
    seconds: float
    waited: float
    step: int


def read_ledger(run: Path) -> dict[str, Any]:
    """Returns what the wall-clock time of a run went into; nothing where there is no ledger.

    Returns:
        `wall_seconds`, from the start of the first process to the end of the last; `goodput`, the
        share of it that was training that counted; `sittings`, how often a process opened the run,
        and `killed`, how often one did not close it; and `seconds` by activity, which add
        up to `wall_seconds`: those of the lines, and

            wait   for rows, while training
            lost   what was done after a checkpoint, and had to be done again
            down   between two processes
    """
    path = run / LEDGER_NAME
    lines = read_metrics(path)
    if not lines:
        return {}
    if lines[-1]["activity"] not in _ENDS:
        lines.append({"at": path.stat().st_mtime, "activity": "alive", "step": 0})
    seconds: Counter[str] = Counter()
    for span in _mark_lost(_spans_of(lines)):
        seconds[span.activity] += span.seconds - span.waited
        seconds["wait"] += span.waited
    wall = lines[-1]["at"] - lines[0]["at"]
    names = [line["activity"] for line in lines]
    return {
        "wall_seconds": round(wall, 1),
        "goodput": round(seconds["train"] / wall, 4) if wall else 0.0,
        "sittings": names.count(_BEGINS),
        "killed": names.count("killed"),
        "seconds": {name: round(seconds[name], 1) for name in _SPENT if seconds[name]},
    }


def _spans_of(lines: list[dict[str, Any]]) -> list[_Span]:
    """Returns what was done from each line to the next; after an end comes a time without any."""
    return [
        _Span(
            "down" if line["activity"] in _ENDS else line["activity"],
            after["at"] - line["at"],
            after.get("waited", 0.0),
            line["step"],
        )
        for line, after in itertools.pairwise(lines)
    ]


def _mark_lost(spans: list[_Span]) -> list[_Span]:
    """Renames what a later process, which continued from an earlier step, had to do again."""
    marked: list[_Span] = []
    continued = math.inf
    for span in reversed(spans):
        if span.activity == "compile":
            continued = min(continued, span.step)
        again = span.step >= continued if span.activity == "train" else span.step > continued
        is_work = span.activity in ("train", "evaluate", "save")
        marked.append(span._replace(activity="lost", waited=0.0) if again and is_work else span)
    return marked[::-1]
