"""What the methods of `Model` have in common: arguments that are checked, notes that are told."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.program.errors import UserError
from bertjax.program.naming import name_arguments

if TYPE_CHECKING:
    from bertjax.loaded import Model


def check_model(other: Any, model: "Model", name: str = "other") -> None:
    """Checks that an argument is a model, as `model` is.

    Raises:
        UserError: it is something else, the name of a folder for instance.
    """
    if not isinstance(other, type(model)):
        raise UserError(f"{name}={other!r:.60} is not a Model; load it first: bertjax.load(...)")


def listed(names: Any) -> list[Any]:
    """Returns the names as a list; one name is a list of one."""
    return [names] if isinstance(names, str | Path) else list(names)


def warn_of(notes: Sequence[str], stacklevel: int = 4) -> None:
    """Warns of what was not read as it was given: a call has no other place for notes."""
    for note in notes:
        warnings.warn(name_arguments(note), stacklevel=stacklevel)
