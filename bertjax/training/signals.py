"""A polite end: SIGTERM and SIGINT let the step finish and the state be saved; an own exit code."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType

# EX_TEMPFAIL of sysexits.h: not done, try again. The same command resumes the run.
STOPPED_EXIT_CODE = 75

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ending = threading.Lock()  # by whichever thread hears of the signal first


@contextlib.contextmanager
def stopping_at_once() -> Iterator[None]:
    """While entered, SIGTERM and SIGINT end the process with 75, in a sentence; as a decorator too.

    For all that comes before and after training, where nothing is to be saved. A `StopRequest`
    within has its own way. XLA compiles for minutes, and Python hands no signal to the main thread
    meanwhile: another thread reads the number that the system leaves in a socket.
    """
    before = {number: signal.signal(number, _stop_at_once) for number in _SIGNALS}
    told, tell = socket.socketpair()
    tell.setblocking(False)
    wakeup_before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(told,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        tell.close()  # which ends the thread
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(told: socket.socket) -> None:
    with told:
        while number := told.recv(1):
            if signal.getsignal(number[0]) is _stop_at_once:
                _stop_at_once(number[0], None)


def _stop_at_once(number: int, frame: FrameType | None) -> None:
    if not _ending.acquire(blocking=False):
        return
    print(
        f"{signal.Signals(number).name}: stopped; nothing is lost, the same command goes on from"
        " what is saved",
        file=sys.stderr,
        flush=True,
    )
    os._exit(STOPPED_EXIT_CODE)


class StopRequest:
    """While entered, notes SIGTERM and the first SIGINT in `.name`; a second SIGINT interrupts.

    Attributes:
        heard: the signal that came to this process.
        shared: whether `name` is what it was told, which is the same in all processes
            (`processes.Agreement`), and not what this one heard.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        self.shared = False
        self._told: str | None = None

    @property
    def name(self) -> str | None:
        """The signal to stop for."""
        return self._told if self.shared else self.heard

    def tell(self, name: str) -> None:
        """Says which signal came to any process."""
        self._told = name

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(-1)  # of `stopping_at_once`: it does not hear of these
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.heard is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.heard = signal.Signals(number).name

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
