"""How the labelled files of a model are read, saved with its weights.

`bertjax_data.json` in a model directory has the fields of `DataConfig` that fine-tuning was given,
or decided, about columns, delimiters, quoting, schemes and spelling. Other libraries ignore it.
Encodings are not among them: they belong to a file, not to a task.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax.program.errors import UserError
from bertjax.program.outputs import write_json
from bertjax.tasks.data_config import CommandDataConfig, DataConfig

FILE_NAME = "bertjax_data.json"

# What is remembered, in the order in which it is shown.
REMEMBERED = (
    "text_column", "pair_column", "label_column", "label_columns", "label_separator", "columns",
    "delimiter", "quoting", "extra_columns", "format", "token_column", "tag_column", "scheme",
    "spelling", "labels",
)  # fmt: skip
# Options that exclude each other: a given one cancels those remembered.
_LABEL_FIELDS = ("label_column", "label_columns")


def to_fields(config: DataConfig) -> dict[str, Any]:
    """Returns the fields of a config to remember: those that differ from the defaults."""
    default = DataConfig()
    return {
        name: getattr(config, name)
        for name in REMEMBERED
        if getattr(config, name) != getattr(default, name)
    }


def remember(directory: Path, config: DataConfig) -> None:
    """Saves the config in a model directory."""
    write_fields(directory, to_fields(config))


def write_fields(directory: Path, fields: Mapping[str, Any]) -> None:
    """Saves what `recall` returned for another directory, or `to_fields` for a config."""
    write_json(directory / FILE_NAME, fields)


def recall(directory: Path | str) -> dict[str, Any]:
    """Returns what a model directory remembers; nothing where it has no such file.

    Raises:
        UserError: the file is damaged, or has unknown fields.
    """
    file = Path(directory) / FILE_NAME
    if not file.is_file():
        return {}
    way_out = "correct it, or remove it and give the options again"
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: damaged, not JSON ({error}); {way_out}") from None
    if not isinstance(fields, dict) or (
        unknown := [field for field in fields if field not in REMEMBERED]
    ):
        what = unknown[0] if isinstance(fields, dict) else fields
        raise UserError(f"{file}: has {what!r}, which is not an option for reading data; {way_out}")
    return fields


def join(remembered: Mapping[str, Any], given: Mapping[str, Any]) -> CommandDataConfig:
    """Merges what is remembered with the options that were given.

    Args:
        remembered: the result of `recall`.
        given: the user's options, None where not given; an empty text cancels what is remembered.
    """
    said = {name: value for name, value in given.items() if value is not None}
    held = dict(remembered)
    if any(name in said for name in _LABEL_FIELDS):
        for name in _LABEL_FIELDS:
            held.pop(name, None)
    fields = {**held, **said}
    defaults = vars(CommandDataConfig())
    return CommandDataConfig(
        **{name: defaults[name] if value == "" else value for name, value in fields.items()},
        remembered=frozenset(held.keys() - said.keys()),
    )


def describe(remembered: Mapping[str, Any], config: DataConfig, where: Path | str) -> list[str]:
    """Returns a sentence about what is used of what is remembered."""
    held = [
        f"{name}={value}" for name, value in remembered.items() if getattr(config, name) == value
    ]
    if not held:
        return []
    return [f"files are read as {where} was fitted ({FILE_NAME}): {', '.join(held)}"]
