"""How a program begins and ends: its streams, its signals, its exit code."""

import codecs
import functools
import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bertjax.program.cuda_plugin import leave_cuda_out
from bertjax.program.ending import ending_at_once, hold_back
from bertjax.program.errors import UserError, complain, describe_os_error
from bertjax.program.naming import command_line

_begun: list[Any] = []


def begin(resumes: bool = False, huge_pages: bool = False) -> None:
    """Does what a program needs first, before the imports that take seconds.

    Args:
        resumes: whether the same command continues from what is saved, see `ending_at_once`.
        huge_pages: whether it computes for minutes, see `restart_with_huge_pages`.
    """
    if _begun:
        return
    _mend_streams()  # before anything takes the number of a closed one
    ending = ending_at_once(resumes)
    ending.__enter__()
    _begun.append(ending)  # held until the process ends
    leave_cuda_out()
    if huge_pages:
        from bertjax.program.huge_pages import restart_with_huge_pages

        restart_with_huge_pages(hold_back)


def began_at() -> float:
    """Returns when this process was started, in seconds of the epoch; now where that is unknown.

    A restart in place, as `restart_with_huge_pages` makes, does not count.
    """
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except OSError:
        return time.time()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # field 22 of proc(5), from 1
    return time.time() - (uptime - started)


def _mend_streams() -> None:
    """Keeps streams that are closed, or cannot encode every character, from causing tracebacks.

    No file that is opened later takes the number of a closed stream. Printing to a closed standard
    output is an error, as anywhere; what a closed or full standard error does not take is dropped.
    A character that the terminal's encoding lacks is printed as its escape.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            place = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if name != "stdin":
                setattr(sys, name, os.fdopen(place, "w", encoding="utf-8", closefd=False))
    sys.stdout.reconfigure(errors=_ESCAPE)
    lossy = io.BufferedWriter(_LossyFile(sys.stderr.fileno(), "w", closefd=False))
    encoding = sys.stderr.encoding
    sys.stderr = io.TextIOWrapper(lossy, encoding, _ESCAPE, write_through=True, line_buffering=True)


class _LossyFile(io.FileIO):
    """A file that takes everything and keeps what it can: messages are no reason to end."""

    def write(self, data: Any) -> int:
        """Writes, and says that all was written."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """Escapes characters that an encoding lacks as JSON does (and everyone reads): `\\u00e9`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    halves = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    codes = (halves[place : place + 2].hex() for place in range(0, len(halves), 2))
    return "".join(f"\\u{code}" for code in codes), error.end


_ESCAPE = "bertjax.escape"
codecs.register_error(_ESCAPE, _escape)


def program(main: Callable[[], int | None]) -> Callable[[], None]:
    """Makes a program's entry point from `main`, whose result is the exit code.

    A user's mistake is one paragraph on standard error and exit code 2, never a traceback. A full
    disk, an unreadable file and the like (`OSError`) are reported the same way. Any other exception
    is a bug of ours and keeps its traceback.
    """

    @functools.wraps(main)
    def run() -> None:
        failure = None
        try:
            with command_line():
                code = main() or 0
        except UserError as error:
            code = complain(str(error))
        except BrokenPipeError:
            code = _end_in_closed_pipe()
        except SystemExit as end:
            # argparse exits this way, and so does rich, which exits with 1 on a closed output.
            closed = isinstance(end.__context__, BrokenPipeError)
            code = _end_in_closed_pipe() if closed else end.code
        except OSError as error:
            code, failure = None, error
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        try:  # here, not when Python exits, where nobody handles the error
            sys.stdout.flush()
        except BrokenPipeError:
            code = _end_in_closed_pipe()
        except OSError as error:
            _let_go_of_output()
            error.filename, failure = "standard output", error
        sys.exit(complain(describe_os_error(failure)) if failure else code)

    return run


def _let_go_of_output() -> None:
    """Discards what could not be written, so that Python does not try again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _end_in_closed_pipe() -> int:
    """Ends quietly after `... | head` closed our output: nothing is wrong."""
    _let_go_of_output()
    return 0
