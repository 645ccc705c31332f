"""The user's mistakes, and how a program tells of them: a paragraph on stderr, exit code 2."""

import errno
import functools
import os
import sys
from collections.abc import Callable

USER_ERROR_EXIT_CODE = 2


class UserError(ValueError):
    """Something the user can mend: the message names the file, line or field, rule and way out."""


def program(main: Callable[[], int | None]) -> Callable[[], None]:
    """Makes a program's entry point of `main`, whose result is the exit code.

    A user's mistake is one paragraph on stderr and exit code 2, never a traceback. A full disk, a
    file that may not be read and the like (`OSError`) are told the same way. Every other exception
    is a bug of ours and keeps its traceback.
    """

    @functools.wraps(main)
    def run() -> None:
        try:
            code = main() or 0
            sys.stdout.flush()  # here and not when Python ends, where nobody handles its error
        except UserError as error:
            code = complain(str(error))
        except BrokenPipeError:
            code = _end_in_closed_pipe()
        except SystemExit as end:
            # argparse's end, or that of rich, which makes 1 of a closed output.
            closed = isinstance(end.__context__, BrokenPipeError) or not _flush()
            code = _end_in_closed_pipe() if closed else end.code
        except OSError as error:
            code = complain(describe_os_error(error))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            code = 130
        sys.exit(code)

    return run


def _flush() -> bool:
    """Whether all output found its way."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _end_in_closed_pipe() -> int:
    """`... | head` closed our output: nothing is wrong."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def complain(message: str) -> int:
    """Prints the message to stderr and returns the exit code of a user's mistake."""
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE


def describe_os_error(error: OSError) -> str:
    """An operating-system error in one sentence with the file it is about."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return (
            f"{where}the disk is full; free some space, or write to another disk, and start again"
        )
    return f"{where}{error.strerror or error}"
