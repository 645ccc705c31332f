"""The config of a program: a dataclass, read from YAML files and the command line."""

import dataclasses
import difflib
import json
import math
import os
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from bertjax.program.config_fields import flat_fields, kinds_of, own_default
from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

Config = TypeVar("Config")

# The largest integer a field may have; seeds go that far.
_MOST = 2**32 - 1
# How many fields of a section a message names.
_MOST_NAMED = 4


class _UnknownKeyError(UserError):
    """A key that is no field of the config."""


def parse(
    config_class: type[Config],
    description: str,
    arguments: Sequence[str],
    listing: str = "--help",
    program: str | None = None,
) -> Config:
    """Reads `--config FILE.yaml`, then `--field.subfield value`, into a `config_class`.

    Options take precedence over the file. Lists are given as separate words (`--input a.txt
    b.txt`); in an option `-` and `_` are the same, and a switch needs no `true` after it. The
    docstring of each dataclass (its `Attributes:`) is the help text.

    Args:
        config_class: the config.
        description: what the program does, for --help.
        arguments: the command line's words.
        listing: the command that lists the fields, for messages.
        program: the program's name, for --help.

    Raises:
        UserError: an unknown key (with its nearest neighbour), a value of the wrong type, a missing
            value, a missing file.
    """
    words = list(arguments)
    hints = dict(flat_fields(config_class))
    if "--help" in words or "-h" in words:
        from bertjax.program.config_help import show_help

        show_help(config_class, description, program)
    try:
        paths, given = _split_words(words, hints)
        values: dict[str, Any] = {}
        for path in paths:
            values |= _read_file(path, config_class, hints)
    except _UnknownKeyError as error:
        raise UserError(f"{error} ({listing} lists them all)") from None
    values |= given
    missing = [f"--{name}" for name in _required(config_class) if name not in values]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing ({listing}"
            " lists the fields)"
        )
    typed = {name: _read_value(name, value, hints[name]) for name, value in values.items()}
    return _build(config_class, typed)


def make_config(config_class: type[Config], fields: Mapping[str, Any]) -> Config:
    """Makes a config from the fields that a Python program names.

    Args:
        config_class: the config.
        fields: named as in a file, where a section is a mapping or its dataclass; with dots
            ("budget.epochs"); or by the last part alone, where no other field has it ("epochs").

    Raises:
        UserError: an unknown field (with its nearest neighbour), a value of the wrong type.
    """
    hints = dict(flat_fields(config_class))
    own = {field.name for field in dataclasses.fields(config_class)}
    values: dict[str, Any] = {}
    for name, value in fields.items():
        ends = [field for field in hints if field.endswith(f".{name}")]
        if name not in own and len(ends) > 1:
            raise UserError(f"{name} may be {' or '.join(ends)}; name one of them with its section")
        nested = dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value
        full = ends[0] if ends and name not in own else name
        for part in reversed(full.split(".")):
            nested = {part: nested}
        values |= dict(_flatten_content(nested, config_class, hints))
    typed = {name: _read_value(name, value, hints[name]) for name, value in values.items()}
    return _build(config_class, typed)


def to_yaml(config: Any) -> str:
    """Returns the resolved config as YAML that `--config` can read."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def _required(config_class: type) -> list[str]:
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(config_class)
        if field.default is missing and field.default_factory is missing
    ]


def _build(
    config_class: type[Config],
    values: Mapping[str, Any],
    prefix: str = "",
    default: Config | None = None,
) -> Config:
    """Makes the config from values by dotted name; every other field is as in `default`."""
    hints = typing.get_type_hints(config_class)
    fields = {}
    for field in dataclasses.fields(config_class):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        if name in values:
            fields[field.name] = values[name]
        elif any(given.startswith(f"{name}.") for given in values):
            fields[field.name] = _build(hint, values, f"{name}.", own_default(field, hint))
    return config_class(**fields) if default is None else dataclasses.replace(default, **fields)


# -------------------------------------------------------------------- what is given


def _split_words(words: list[str], hints: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Returns the files that `--config` names, and the text, or list of texts, for each field."""
    paths: list[str] = []
    given: dict[str, Any] = {}
    index = 0
    while index < len(words):
        word = words[index]
        option, equals, text = word.partition("=")
        if not option.startswith("--"):
            raise UserError(f"{word!r} belongs to no option; a value follows its --option")
        name = option[2:].replace("-", "_")
        values = [text] if equals else []
        index += 1
        while not equals and index < len(words) and not words[index].startswith("--"):
            values.append(words[index])
            index += 1
        if name == "config":
            if len(values) != 1:
                raise UserError("--config takes one file: --config FILE.yaml")
            paths += values
            continue
        _check_name(name, hints, " ".join(values))
        if typing.get_origin(hints[name]) is list:
            whole = len(values) == 1 and values[0].startswith("[")
            given[name] = values[0] if whole else values
        elif not values and hints[name] is bool:
            given[name] = "true"
        elif len(values) == 1:
            given[name] = values[0]
        else:
            more = f", not {' '.join(values)!r}" if values else ""
            raise UserError(f"{option} takes one value{more}; it must be {_rule(hints[name])}")
    return paths, given


def _read_file(path: str, config_class: type, hints: dict[str, Any]) -> dict[str, Any]:
    """Returns the value that a YAML file gives for each field."""
    if not Path(path).is_file():
        there = "is a directory; name a file in it" if Path(path).is_dir() else "no such file"
        raise UserError(f"--config {path}: {there}")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        raise UserError(f"--config {path}: has no fields; leave it out, or give one (seed: 1)")
    if not isinstance(content, dict):
        raise UserError(
            f"--config {path}: a config is a mapping of field names to values, this file holds"
            f" {content!r:.60}"
        )
    return dict(_flatten_content(content, config_class, hints))


def _flatten_content(
    content: Mapping[Any, Any], config_class: type, hints: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    own = typing.get_type_hints(config_class)
    for key, value in content.items():
        name = f"{prefix}{key}"
        section = own.get(key)
        if dataclasses.is_dataclass(section) and isinstance(value, dict | None):
            # An empty section gives nothing.
            yield from _flatten_content(value or {}, section, hints, f"{name}.")
        else:
            _check_name(name, hints, value)
            _check_kind(name, value, hints[name])
            yield name, value


def _check_name(name: str, hints: dict[str, Any], value: Any) -> None:
    """Raises a `UserError` where the name is no field; `value` is what was given for it."""
    if name in hints:
        return
    inner = [field for field in hints if field.startswith(f"{name}.")]
    if inner:
        some = ", ".join(inner[:_MOST_NAMED]) + (", ..." if len(inner) > _MOST_NAMED else "")
        raise UserError(f"{name}={value} is no value for a section; give its fields: {some}")
    raise _UnknownKeyError(f"unknown key {name}{nearest_field(name, hints)}")


def nearest_field(name: str, fields: Collection[str]) -> str:
    """Returns `nearest` among fields and sections where both parts of a dotted name are close.

    A section alone would outweigh the rest: mesh.expert is not a misspelt mesh.fsdp.
    """
    section, _, leaf = name.rpartition(".")
    known = {*fields, *(field.rpartition(".")[0] for field in fields)}
    likely = []
    for option in sorted(known):
        other, _, end = option.rpartition(".")
        if nearest(leaf, [end]) and (not section or leaf == end or nearest(section, [other])):
            likely.append(option)
    near = difflib.get_close_matches(name, likely, n=1, cutoff=0)
    return f"; did you mean {near[0]!r}?" if near else ""


def _check_kind(name: str, value: Any, hint: Any) -> None:
    """Refuses an empty value, and text that YAML reads as something else (no, 1e3)."""
    kinds = kinds_of(hint)
    if value is None and type(None) not in kinds:
        raise UserError(f"{name} is empty; it must be {_rule(hint)}")
    if str in kinds and isinstance(value, bool | int | float) and type(value) not in kinds:
        raise UserError(f"{name}={json.dumps(value)} must be {_rule(hint)}; put it in quotes")


# -------------------------------------------------------------------- values


def _read_value(name: str, value: Any, hint: Any) -> Any:
    """Returns a value converted to the type of its field.

    Args:
        name: the field's, for messages.
        value: text is read as an option's, anything else is as YAML read it.
        hint: the field's type.

    Raises:
        UserError: it is not of this type; it is NaN, infinite, or beyond what numpy and jax hold.
    """
    try:
        converted = _convert(value, hint)
    except ValueError:
        shown = value if isinstance(value, str) else json.dumps(value, default=str)
        choices = [choice for kind in kinds_of(hint) for choice in typing.get_args(kind)]
        near = nearest(shown, choices) if all(isinstance(choice, str) for choice in choices) else ""
        raise UserError(f"{name}={shown} must be {_rule(hint)}{near}") from None
    if isinstance(converted, float) and not math.isfinite(converted):
        raise UserError(f"{name}={converted} must be a finite number")
    if isinstance(converted, int) and abs(converted) > _MOST:
        rule = f"at most {_MOST:,}" if converted > 0 else f"at least {-_MOST:,}"
        raise UserError(f"{name}={converted} must be {rule}")
    return converted


def _convert(value: Any, hint: Any) -> Any:
    """Returns the value as the first type of the hint that fits, text last; raises otherwise."""
    for kind in sorted(kinds_of(hint), key=lambda kind: kind is str):
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        read = value if kind is str or origin is Literal else _read_text(value)
        if kind is str and isinstance(value, os.PathLike):
            read = os.fspath(value)
        if origin is list and not isinstance(read, Mapping | None):
            items = read if isinstance(read, list | tuple) else [value]
            return [_convert(item, inner[0]) for item in items]
        if origin is dict and isinstance(read, Mapping):
            return {str(key): _convert(item, inner[1]) for key, item in read.items()}
        if kind is float and isinstance(read, str) and not read.strip("+-").isalpha():
            read = float(read)  # YAML 1.1 knows no 1e-4
        if kind is float and type(read) is int:
            read = float(read)
        if kind is Any or type(read) is kind or (origin is Literal and read in inner):
            return read
    raise ValueError


def _read_text(value: Any) -> Any:
    """Returns what YAML reads a text as; `value` itself where that fails or it is no text."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value


def _rule(hint: Any) -> str:
    """Returns what a value of this type must be, in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    said = []
    for kind in kinds_of(hint):
        if typing.get_origin(kind) is Literal:
            said.append(f"one of {', '.join(map(str, typing.get_args(kind)))}")
        elif typing.get_origin(kind) is list:
            said.append(f"a list, each item {_rule(typing.get_args(kind)[0])}")
        else:
            said.append("null" if kind is type(None) else words.get(kind, "a mapping"))
    return " or ".join(said)
