"""How often XLA compiles: after the first epoch it should not any more."""

import contextlib
from collections.abc import Iterator

import jax

# What jax reports at the end of every compilation by XLA.
_EVENT = "/jax/core/compile/backend_compile_duration"


class Compilations:
    """Counts the compilations of this process.

    Attributes:
        total: since it was made.
        marks: (step, total) as `mark` was called.
    """

    def __init__(self) -> None:
        self.total = 0
        self.marks: list[tuple[int, int]] = []

    def mark(self, step: int) -> None:
        """Notes how many there were up to this step."""
        self.marks.append((step, self.total))

    def since_first_mark(self) -> int:
        """How many there were after the first mark."""
        return self.marks[-1][1] - self.marks[0][1] if self.marks else 0


@contextlib.contextmanager
def count_compilations() -> Iterator[Compilations]:
    """Counts while it is entered."""
    counted = Compilations()

    def note(event: str, duration: float, **details: object) -> None:
        counted.total += event == _EVENT

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield counted
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
