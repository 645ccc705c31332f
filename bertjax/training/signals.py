"""A polite end of training: SIGTERM and SIGINT let the step finish and the state be saved."""

import signal
import threading
from types import FrameType

from bertjax.program.ending import SIGNALS


class StopRequest:
    """While entered, notes SIGTERM and the first SIGINT in `.name`; a second SIGINT interrupts.

    Outside the main thread, to which signals come, it receives none.

    Attributes:
        received: the signal that came to this process.
        shared: whether `name` is what the processes agreed on (`processes.Agreement`), and not
            what this one received.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self.shared = False
        self._agreed: str | None = None

    @property
    def name(self) -> str | None:
        """The signal to stop for."""
        return self._agreed if self.shared else self.received

    def agree(self, name: str) -> None:
        """Sets the signal that came to any process."""
        self._agreed = name

    def __enter__(self) -> "StopRequest":
        self._previous = {}
        if threading.current_thread() is not threading.main_thread():
            return self
        self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        self._wakeup = signal.set_wakeup_fd(-1)  # of `ending_at_once`: it does not see these
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._previous:
            signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
