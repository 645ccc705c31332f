"""The user's mistakes, and how they are told: a paragraph on stderr, exit code 2."""

import errno
import sys

USER_ERROR_EXIT_CODE = 2


class UserError(ValueError):
    """Something the user can mend: the message names the file, line or field, rule and way out."""


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
