"""Progress of work that has several stages, one after the other."""

from collections.abc import Callable
from typing import NamedTuple


class Stage(NamedTuple):
    """A stage of the work.

    Attributes:
        name: what is done.
        total: what its progress adds up to.
        number: which stage it is, from 1.
        stages: how many there are.
    """

    name: str
    total: float
    number: int
    stages: int


# Is called with a stage and what was done since the call before; with 0 when the stage begins.
StageProgress = Callable[[Stage, float], None]


def ignore_stages(stage: Stage, done: float) -> None:
    """Does nothing, for callers who do not ask for progress."""


class Stages:
    """Stages of which each begins when the one before is over.

    Args:
        number: how many there are.
        progress: is called as the work proceeds.
    """

    def __init__(self, number: int, progress: StageProgress = ignore_stages) -> None:
        self._number, self._progress, self._begun = number, progress, 0

    def begin(self, name: str, total: float) -> Callable[[float], None]:
        """Begins the next stage; returns the function that takes what was done since its call."""
        self._begun += 1
        stage = Stage(name, total, self._begun, self._number)
        self._progress(stage, 0)
        return lambda done: self._progress(stage, done)
