"""The end on Ctrl-C or SIGTERM: at once, in one line, with nothing left half-written."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

# EX_TEMPFAIL of sysexits.h: not done, try again. The same command resumes the run.
STOPPED_EXIT_CODE = 75

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_cleanups: list[Callable[[], None]] = []
_resumes = False
_ending = threading.Lock()
_ends_in: int | None = None  # the thread that ends the process


@contextlib.contextmanager
def on_sudden_end(clean: Callable[[], None]) -> Iterator[None]:
    """Calls `clean` before a signal ends the process, while entered."""
    _cleanups.append(clean)
    try:
        yield
    finally:
        _cleanups.remove(clean)


@contextlib.contextmanager
def ending_at_once(resumes: bool = False) -> Iterator[None]:
    """Lets SIGTERM and SIGINT end the process at once, with one line, while entered.

    It raises no exception: what imports jax swallows some, and prints others. XLA compiles
    for minutes, and meanwhile Python delivers no signal to the main thread: another thread reads
    the number that the system writes to a socket. A handler that is set within takes precedence,
    and a signal that is ignored (as by a shell, for a background job) stays ignored.

    Args:
        resumes: whether the same command continues from what is saved; the exit code is then 75
            (otherwise 128 plus the signal's number, as a shell reports it).
    """
    global _resumes
    resumed_before, _resumes = _resumes, resumes
    before = {
        number: signal.signal(number, _end)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    wakeups, tell = socket.socketpair()
    tell.setblocking(False)
    wakeup_before = signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(wakeups,), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # see `hold_back`
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        tell.close()  # which ends the thread
        for number, handler in before.items():
            signal.signal(number, handler)
        _resumes = resumed_before


def hold_back() -> None:
    """Blocks signals until the program that this process becomes enters `ending_at_once`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _watch(wakeups: socket.socket) -> None:
    with wakeups:
        while number := wakeups.recv(1):
            if signal.getsignal(number[0]) is _end:
                _end(number[0], None)


def _end(number: int, frame: FrameType | None) -> None:
    global _ends_in
    if _ends_in == threading.get_ident():  # a second signal: this thread is already ending
        return
    _ending.acquire()  # another thread that has it ends the process while we wait
    _ends_in = threading.get_ident()
    for clean in reversed(_cleanups):
        with contextlib.suppress(Exception):
            clean()
    # Not through `sys.stderr`, which the signal may have met in the middle of a line.
    with contextlib.suppress(OSError):
        clear = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""  # no bar, and the cursor is back
        os.write(2, f"{clear}{_last_words(number)}\n".encode())
    os._exit(STOPPED_EXIT_CODE if _resumes else 128 + number)


def _last_words(number: int) -> str:
    if _resumes:
        return (
            f"{signal.Signals(number).name}: stopped; nothing is lost, the same command continues"
            " from what is saved"
        )
    return "interrupted" if number == signal.SIGINT else "terminated"
