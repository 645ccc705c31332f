"""The config of a program: a dataclass, read from YAML files and the command line."""

import argparse
import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jsonargparse
import yaml

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

Config = TypeVar("Config")

# The largest whole number of a field; seeds go as far.
_MOST = 2**32 - 1
# Fields of a section that a message names.
_MOST_NAMED = 4


class _UnknownKeyError(UserError):
    """No such field."""


def parse(
    config_class: type[Config],
    description: str,
    arguments: Sequence[str],
    listing: str = "--help",
    program: str | None = None,
) -> Config:
    """Reads `--config FILE.yaml`, then `--field.subfield value`, into a `config_class`.

    Flags win over the file. Lists are given as separate words (`--input a.txt b.txt`); in an option
    `-` and `_` are the same, and a switch needs no `true` after it. The docstring of each dataclass
    (its `Attributes:`) is the help text.

    Args:
        config_class: of the config.
        description: of the program, for --help.
        arguments: the words of the command line.
        listing: what lists the fields, for messages.
        program: its name, for --help.

    Raises:
        UserError: an unknown key (with its nearest neighbour), a value of the wrong type, a missing
            one, no such file.
    """
    words = list(arguments)
    hints = dict(flat_fields(config_class))
    parser = _make_parser(config_class, description, hints, program)
    if "--help" in words or "-h" in words:
        parser.parse_args(["--help"])
    try:
        paths, given = _split_words(words, hints)
        texts: dict[str, str] = {}
        for path in paths:
            texts |= _read_file(path, config_class, hints)
    except _UnknownKeyError as error:
        raise UserError(f"{error} ({listing} lists them all)") from None
    texts |= given
    missing = [f"--{name}" for name in _required(config_class) if name not in texts]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing ({listing}"
            " tells what can be given)"
        )
    try:
        namespace = parser.parse_args([f"--{name}={text}" for name, text in texts.items()])
    except jsonargparse.ArgumentError as error:
        raise UserError(_explain(str(error), texts, hints)) from None
    for name in texts:
        _check_number(name, namespace[name])
    return _build(config_class, namespace)


def to_yaml(config: Any) -> str:
    """The resolved config as YAML that `--config` reads back."""
    return yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)


def flat_fields(config_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and the type of every field, those of nested dataclasses included."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from flat_fields(hint, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, hint


def _required(config_class: type) -> list[str]:
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(config_class)
        if field.default is missing and field.default_factory is missing
    ]


def _build(config_class: type[Config], namespace: jsonargparse.Namespace) -> Config:
    hints = typing.get_type_hints(config_class)
    values = {}
    for field in dataclasses.fields(config_class):
        value = namespace[field.name]
        nested = dataclasses.is_dataclass(hints[field.name])
        values[field.name] = _build(hints[field.name], value) if nested else value
    return config_class(**values)


# -------------------------------------------------------------------- what is given


def _split_words(words: list[str], hints: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """The files that `--config` names, and the text given for each field."""
    paths: list[str] = []
    texts: dict[str, str] = {}
    index = 0
    while index < len(words):
        word = words[index]
        option, equals, text = word.partition("=")
        if not option.startswith("--"):
            raise UserError(f"{word!r} belongs to no option; a value stands behind its --option")
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
            texts[name] = values[0] if whole else json.dumps(values)
        elif not values and hints[name] is bool:
            texts[name] = "true"
        elif len(values) == 1:
            texts[name] = values[0]
        else:
            more = f", not {' '.join(values)!r}" if values else ""
            raise UserError(f"{option} takes one value{more}; it must be {_rule(hints[name])}")
    return paths, texts


def _read_file(path: str, config_class: type, hints: dict[str, Any]) -> dict[str, str]:
    """The text that a YAML file gives for each field, as a flag would."""
    if not Path(path).is_file():
        there = "is a directory; name a file in it" if Path(path).is_dir() else "no such file"
        raise UserError(f"--config {path}: {there}")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        raise UserError(f"--config {path}: holds no field; leave it out, or give one (seed: 1)")
    if not isinstance(content, dict):
        raise UserError(
            f"--config {path}: a config is a mapping of field names to values, this file holds"
            f" {content!r:.60}"
        )
    return dict(_flatten_content(content, config_class, hints))


def _flatten_content(
    content: dict[Any, Any], config_class: type, hints: dict[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
    own = typing.get_type_hints(config_class)
    for key, value in content.items():
        name = f"{prefix}{key}"
        section = own.get(key)
        if dataclasses.is_dataclass(section) and isinstance(value, dict | None):
            # A section that is left empty gives nothing.
            yield from _flatten_content(value or {}, section, hints, f"{name}.")
        else:
            _check_name(name, hints, value)
            yield name, _to_text(name, value, hints[name])


def _check_name(name: str, hints: dict[str, Any], value: Any) -> None:
    """Refuses what is no field; `value` is what was given for it."""
    if name in hints:
        return
    inner = [field for field in hints if field.startswith(f"{name}.")]
    if inner:
        some = ", ".join(inner[:_MOST_NAMED]) + (", ..." if len(inner) > _MOST_NAMED else "")
        raise UserError(f"{name}={value} is no value for a section; give its fields: {some}")
    raise _UnknownKeyError(f"unknown key {name}{nearest_field(name, hints)}")


def nearest_field(name: str, fields: Collection[str]) -> str:
    """As `nearest` among fields and sections, where both parts of a dotted name are near.

    A section alone would outweigh the rest: mesh.expert is none of mesh.fsdp.
    """
    section, _, leaf = name.rpartition(".")
    known = {*fields, *(field.rpartition(".")[0] for field in fields)}
    likely = []
    for one in sorted(known):
        other, _, end = one.rpartition(".")
        if nearest(leaf, [end]) and (not section or leaf == end or nearest(section, [other])):
            likely.append(one)
    near = difflib.get_close_matches(name, likely, n=1, cutoff=0)
    return f"; did you mean {near[0]!r}?" if near else ""


def _to_text(name: str, value: Any, hint: Any) -> str:
    """A value of YAML as one would give it behind an option.

    Raises:
        UserError: YAML reads as something else what must be text (no, 1e3, nothing).
    """
    kinds = _kinds(hint)
    if value is None and type(None) not in kinds:
        raise UserError(f"{name} is empty; it must be {_rule(hint)}")
    if str in kinds and isinstance(value, bool | int | float):
        raise UserError(f"{name}={json.dumps(value)} must be {_rule(hint)}; put it in quotes")
    if typing.get_origin(hint) is list and not isinstance(value, list):
        value = [value]
    return value if isinstance(value, str) else json.dumps(value, default=str)


# -------------------------------------------------------------------- what is wrong with it


def _check_number(name: str, value: Any) -> None:
    """Refuses what no field can mean: NaN, infinity, and counts beyond what numpy and jax hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{name}={value} must be a finite number")
    if isinstance(value, int) and abs(value) > _MOST:
        rule = f"at most {_MOST:,}" if value > 0 else f"at least {-_MOST:,}"
        raise UserError(f"{name}={value} must be {rule}")


def _explain(message: str, texts: dict[str, str], hints: dict[str, Any]) -> str:
    """jsonargparse's complaint in our words: the field, the value, the rule."""
    found = re.search(r'Parser key "([\w.]+)"', message)
    if not found or found[1] not in hints:
        return " ".join(message.split())
    name = found[1]
    choices = [value for kind in _kinds(hints[name]) for value in typing.get_args(kind)]
    near = nearest(texts[name], choices) if all(isinstance(one, str) for one in choices) else ""
    return f"{name}={texts[name]} must be {_rule(hints[name])}{near}"


def _kinds(hint: Any) -> list[Any]:
    """The members of a union; of another type itself."""
    united = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if united else [hint]


def _rule(hint: Any) -> str:
    """What a value of this type is, in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    said = []
    for kind in _kinds(hint):
        if typing.get_origin(kind) is Literal:
            said.append(f"one of {', '.join(map(str, typing.get_args(kind)))}")
        elif typing.get_origin(kind) is list:
            said.append(f"a list, each of it {_rule(typing.get_args(kind)[0])}")
        else:
            said.append("null" if kind is type(None) else words.get(kind, "a mapping"))
    return " or ".join(said)


# -------------------------------------------------------------------- --help


def _make_parser(
    config_class: type, description: str, hints: dict[str, Any], program: str | None
) -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [--config FILE.yaml] [--option VALUE ...]",
        description=description,
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="any of the fields below, with _ where an option has -; flags win over it",
    )
    _add_fields(parser, config_class, hints)
    return parser


def _add_fields(
    parser: jsonargparse.ArgumentParser, config_class: type, hints: dict[str, Any], prefix: str = ""
) -> None:
    """Adds the fields of a dataclass as a group, then those of the dataclasses in it."""
    documents = [one.__doc__ or "" for one in config_class.__mro__ if dataclasses.is_dataclass(one)]
    group = parser.add_argument_group(documents[0].partition("\n")[0].rstrip("."))
    own = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(own[field.name]):
            continue
        hint, default = own[field.name], field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = default is dataclasses.MISSING
        known = "" if required else f" (default: {_shown(default)})"
        said = next(filter(None, (_attribute(text, field.name) for text in documents)), "")
        group.add_argument(
            f"--{prefix}{field.name}",
            type=hint,
            metavar=_metavar(hint),
            help=f"{said}{' (required)' if required or default == '' else known}".replace(
                "%", "%%"
            ),
            **({} if required else {"default": default}),
        )
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(own[field.name]):
            _add_fields(parser, own[field.name], hints, f"{prefix}{field.name}.")


def _attribute(document: str, name: str) -> str:
    """What a docstring's `Attributes:` say of one."""
    import docstring_parser

    for one in docstring_parser.parse(document).params:
        if one.arg_name == name:
            return " ".join((one.description or "").split())
    return ""


def _metavar(hint: Any) -> str:
    kinds = [kind for kind in _kinds(hint) if kind is not type(None)]
    if typing.get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kinds[0]))) + "}"
    if typing.get_origin(kinds[0]) is list:
        return f"{_metavar(typing.get_args(kinds[0])[0])} ..."
    names = {int: "N", float: "X", bool: "{true,false}", str: "TEXT"}
    return names.get(kinds[0], "JSON")


def _shown(default: Any) -> str:
    """A default as one would give it."""
    if isinstance(default, list):
        return " ".join(map(str, default)) or "none"
    return default if isinstance(default, str) else json.dumps(default, default=str)


class _HelpFormatter(argparse.HelpFormatter):
    """Keeps paragraphs and what is set in as they are; options as one types them, with hyphens."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part
            if part.startswith(" ")
            else super(_HelpFormatter, self)._fill_text(part, width, "")
            for part in text.strip("\n").split("\n\n")
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0].replace('_', '-')} {action.metavar}"
