"""What the methods of `Model` have in common: arguments that are checked, notes that are told."""

import os
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.config import check_length
from bertjax.program.errors import UserError
from bertjax.program.naming import name_arguments

if TYPE_CHECKING:
    from bertjax.loaded import Model

_PACKAGE = f"{Path(__file__).parents[1]}{os.sep}"


def check_model(other: Any, model: "Model", name: str = "other") -> None:
    """Checks that an argument is a model, as `model` is.

    Raises:
        UserError: it is something else, the name of a folder for instance.
    """
    if not isinstance(other, type(model)):
        raise UserError(f"{name}={other!r:.60} is not a Model; load it first: bertjax.load(...)")


def check_lengths(length: int | None, *models: "Model", least: int = 8) -> None:
    """Checks that all models have positions for sequences of a length; None is that of each.

    Raises:
        UserError: one has not.
    """
    for model in models if length is not None else ():
        check_length(length, model.config.max_length, least)


def listed(names: Any, argument: str) -> list[Any]:
    """Returns the names as a list; one name is a list of one.

    Raises:
        UserError: there is something else among them.
    """
    if isinstance(names, str | Path):
        return [names]
    if isinstance(names, Iterable) and not isinstance(names, bytes | Mapping):
        found = list(names)
        if all(isinstance(name, str | Path) for name in found):
            return found
    raise UserError(f"{argument}={names!r:.60} must be a string, or a list of them")


def warn_of(notes: Sequence[str]) -> None:
    """Warns of what was not read as it was given: a call has no other place for notes.

    The warning is of the line that called the package, through however many of its functions.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith(_PACKAGE):
        level, frame = level + 1, frame.f_back
    for note in notes:
        warnings.warn(name_arguments(note), stacklevel=level)
