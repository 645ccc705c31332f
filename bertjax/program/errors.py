"""The user's mistakes, and how they are reported: one paragraph, exit code 2."""

import errno
import sys

USER_ERROR_EXIT_CODE = 2


class UserError(ValueError):
    """A mistake the user can fix: the message names the file, line or field, rule and way out."""


def complain(message: str) -> int:
    """Prints the message to standard error and returns the exit code of a user's mistake."""
    print(f"error: {message}", file=sys.stderr)
    return USER_ERROR_EXIT_CODE


def describe_os_error(error: OSError) -> str:
    """Describes an operating-system error in one sentence, with the file it is about."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return (
            f"{where}the disk is full; free some space, or write to another disk, and start again"
        )
    return f"{where}{error.strerror or error}"
