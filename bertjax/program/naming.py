"""What messages call the fields that a user sets: options on a command line, arguments in Python.

Messages are written with options ("pass --max-length 8"). What `bertjax.load`, `Model`,
`bertjax.finetune`, `bertjax.pretrain` and `bertjax.adapt` raise and note in a Python program has
arguments in their place ("pass max_length 8").
"""

import contextlib
import contextvars
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from bertjax.program.argument_types import check_arguments
from bertjax.program.errors import UserError, describe_os_error

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

# An option; not part of a word or of a variable's value, such as XLA_FLAGS=--xla_....
_OPTION = re.compile(r"(?<![\w=-])--([a-z]\w*(?:[.-]\w+)*)")
_IS_COMMAND_LINE = contextvars.ContextVar("is_command_line", default=False)


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """Keeps options in messages while it is entered: the user typed a command."""
    token = _IS_COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _IS_COMMAND_LINE.reset(token)


def name_arguments(message: str) -> str:
    """Returns a message with arguments in place of options, but in commands that are quoted whole,
    and on a command line.
    """
    if _IS_COMMAND_LINE.get():
        return message
    parts = message.split("`")
    parts[::2] = [
        _OPTION.sub(lambda option: option[1].replace("-", "_"), part) for part in parts[::2]
    ]
    return "`".join(parts)


def names_arguments(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Decorates a function of the Python interface so that its errors name arguments; it checks
    those whose types are plain.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        check_arguments(signature, signature.bind(*arguments, **options).arguments)
        try:
            return function(*arguments, **options)
        except UserError as error:
            error.args = (name_arguments(str(error)),)
            raise
        except OSError as error:  # as on a command line
            raise UserError(describe_os_error(error)) from error

    return call
