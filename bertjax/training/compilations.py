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
    """

    def __init__(self) -> None:
        self.total = 0
        self._marks: list[int] = []

    def mark(self) -> None:
        """Notes how many there were up to now."""
        self._marks.append(self.total)

    def between_marks(self) -> int | None:
        """Returns how many there were from the first mark to the last; None without two of them."""
        return self._marks[-1] - self._marks[0] if len(self._marks) > 1 else None


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
