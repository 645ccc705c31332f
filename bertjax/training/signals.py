"""A polite end: SIGTERM and SIGINT let the step finish and the state be saved; an own exit code."""

import signal
from types import FrameType, TracebackType

# EX_TEMPFAIL of sysexits.h: not done, try again. The same command resumes the run.
STOPPED_EXIT_CODE = 75


class StopRequest:
    """While entered, notes SIGTERM and the first SIGINT in `.name`; a second SIGINT interrupts."""

    def __init__(self) -> None:
        self.name: str | None = None

    def __enter__(self) -> "StopRequest":
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
