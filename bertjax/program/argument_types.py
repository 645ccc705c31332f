"""Types of arguments that a Python program gives, checked where they are plain."""

import collections.abc
import inspect
import numbers
import os
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest, with_article

# Annotation -> the class of values that it admits, and what messages call them.
_KINDS: dict[Any, tuple[type, str]] = {
    int: (numbers.Integral, "a whole number"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a string"),
    Path: (os.PathLike, "a path"),
    types.NoneType: (types.NoneType, "None"),
}


def check_arguments(signature: inspect.Signature, arguments: Mapping[str, Any]) -> None:
    """Checks arguments whose annotation is a class, a function, a choice or a union of those; all
    whole numbers count something, and none is below 0.

    Args:
        signature: of the function that is called.
        arguments: by the names of its parameters.

    Raises:
        UserError: one is of another type, or below 0.
    """
    for name, value in arguments.items():
        annotation = signature.parameters[name].annotation
        if get_origin(annotation) is Literal:
            _check_choice(name, value, get_args(annotation))
            continue
        kinds = list(_kinds(annotation))
        if isinstance(value, int) and value < 0 and _KINDS[int] in kinds:
            raise UserError(f"{name}={value} must be 0 or more")
        if None in kinds or any(_is_of(value, kind) for kind, _ in kinds):
            continue
        raise UserError(
            f"{name}={value!r:.60} must be {' or '.join(described for _, described in kinds)}"
        )


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = nearest(value, list(choices)) if isinstance(value, str) else ""
        raise UserError(f"{name}={value!r:.60} must be one of {', '.join(choices)}{near}")


def _kinds(annotation: Any) -> Iterator[tuple[type, str] | None]:
    """Yields class and description of each kind that is admitted; None of what is not plain."""
    if get_origin(annotation) in (types.UnionType, Union):
        for inner in get_args(annotation):
            yield from _kinds(inner)
    elif get_origin(annotation) is collections.abc.Callable:
        yield Callable, "a function"
    elif annotation in _KINDS:
        yield _KINDS[annotation]
    elif isinstance(annotation, type) and annotation not in (Any, inspect.Parameter.empty):
        yield annotation, with_article(annotation.__name__)
    else:
        yield None


def _is_of(value: Any, kind: type) -> bool:
    """Returns whether the value is of the kind; True and False are no numbers."""
    return isinstance(value, kind) and not (
        isinstance(value, bool) and kind in (numbers.Integral, numbers.Real)
    )
