"""The command line of the programs in `train/`: a dataclass is the config, from YAML and flags."""

import dataclasses
import json
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jsonargparse
import yaml

from bertjax.config import nearest
from bertjax.errors import UserError

Config = TypeVar("Config")


def parse(
    config_class: type[Config], description: str, arguments: Sequence[str] | None = None
) -> Config:
    """Reads `--config FILE.yaml`, then `--field.subfield value`, into a `config_class`.

    Flags win over the file. Lists are given as separate words (`--input a.txt b.txt`); in an option
    `-` and `_` are the same, and a switch needs no `true` after it. The docstring of each dataclass
    (its `Attributes:`) is the help text.

    Raises:
        UserError: an unknown key (with its nearest neighbour), a value of the wrong type, no such
            file.
    """
    arguments = [_underscore(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = jsonargparse.ArgumentParser(
        description=description, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--config",
        action="config",
        help="a YAML file with any of the fields below; flags win over it",
    )
    parser.add_class_arguments(config_class)
    fields = dict(flat_fields(config_class))
    paths, flags = _split_config_files(arguments)
    for path in paths:
        _require_config(path)
    # What comes later wins, so the files come first.
    files = [f"--config={path}" for path in paths]
    try:
        namespace = parser.parse_args(files + _join_values(flags, fields))
        namespace.pop("config")
        return config_class(**_build(config_class, namespace))
    except jsonargparse.ArgumentError as error:
        raise UserError(_explain(str(error), list(fields))) from None


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


def _underscore(word: str) -> str:
    """An option as its field is named: `--vocab-size=V` and `--vocab_size=V` are the same."""
    name, equals, value = word.partition("=")
    return (
        name.replace("-", "_").replace("__", "--", 1) + equals + value
        if name.startswith("--")
        else word
    )


def _build(config_class: type, namespace: jsonargparse.Namespace) -> dict[str, Any]:
    hints = typing.get_type_hints(config_class)
    values = {}
    for field in dataclasses.fields(config_class):
        value = namespace[field.name]
        nested = dataclasses.is_dataclass(hints[field.name])
        values[field.name] = (
            hints[field.name](**_build(hints[field.name], value)) if nested else value
        )
    return values


def _join_values(arguments: list[str], fields: dict[str, Any]) -> list[str]:
    """Turns `--input a b` into `--input=["a", "b"]`, and `--overwrite` alone into `=true`."""
    joined: list[str] = []
    words = iter(enumerate(arguments))
    for index, word in words:
        name, equals, value = word.partition("=")
        if fields.get(name[2:]) is bool and not equals:
            alone = index + 1 == len(arguments) or arguments[index + 1].startswith("--")
            joined.append(f"{word}=true" if alone else word)
            continue
        if not name.startswith("--") or typing.get_origin(fields.get(name[2:])) is not list:
            joined.append(word)
            continue
        values = [value] if equals else []
        while (
            not equals and index + 1 < len(arguments) and not arguments[index + 1].startswith("--")
        ):
            index, word = next(words)
            values.append(word)
        if len(values) == 1 and values[0].startswith("["):
            joined.append(f"{name}={values[0]}")
        else:
            joined.append(f"{name}={json.dumps(values)}")
    return joined


def _split_config_files(arguments: list[str]) -> tuple[list[str], list[str]]:
    """The files that `--config` names, and the other words."""
    paths, others = [], []
    words = iter(arguments)
    for word in words:
        if word == "--config":
            paths.append(next(words, ""))
        elif word.startswith("--config="):
            paths.append(word.removeprefix("--config="))
        else:
            others.append(word)
    return paths, others


def _require_config(path: str) -> None:
    if not Path(path).is_file():
        raise UserError(f"--config {path}: no such file")
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"--config {path}: a config is a mapping of field names to values, this file holds"
            f" {content!r:.60}"
        )


def _explain(message: str, names: list[str]) -> str:
    """jsonargparse's complaint in our words: the key, the rule, the nearest neighbour."""
    message = " ".join(message.split())
    for pattern in (
        r"unrecognized arguments: --(?P<key>[\w.\-]+)",
        r"Group '(?P<group>[\w.]+)' does not accept option '(?P<key>[\w.]+)'",
        r"Option '(?P<key>[\w.]+)' is not accepted",
    ):
        if found := re.search(pattern, message):
            group = found.groupdict().get("group")
            key = f"{group}.{found['key']}" if group else found["key"]
            return f"unknown key {key}{nearest(key, names)} (--help lists them all)"
    if found := re.search(r'Parser key "([\w.]+)": (.*)', message):
        rule = re.sub(r"<class '(\w+)'>", r"\1", found[2]).replace("typing.Literal", "one of ")
        if value := re.search(r"Given value: (.*)$", rule):
            wanted = [
                kind for kind in re.findall(r"- Expected an? (\w+)", rule) if kind != "NoneType"
            ]
            rule = f"Expected a {' or '.join(wanted)}. Got value: {value[1]}"
        return f"{found[1]}: {rule}"
    return message
