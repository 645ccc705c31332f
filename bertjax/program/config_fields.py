"""The fields of a config, those of the dataclasses in it included, and the kinds of values."""

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any


def flat_fields(config_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted name and the type of every field, those of nested dataclasses included."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from flat_fields(hint, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hint


def own_default(field: dataclasses.Field, hint: Any) -> Any:
    """Returns the default of a section that is not as its class makes it; None where it is."""
    factory = field.default_factory
    return None if factory in (dataclasses.MISSING, hint) else factory()


def kinds_of(hint: Any) -> list[Any]:
    """Returns the members of a union; of another type itself."""
    united = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if united else [hint]
