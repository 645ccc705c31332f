"""The label in a cell or a field of JSON: a class, a number, or a set of labels."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from bertjax.program.errors import UserError
from bertjax.tasks.columns import ColumnsConfig
from bertjax.tasks.label_counts import MISSING
from bertjax.text.record_config import shown

LabelKind = Literal["class", "number", "set"]
Label = str | float | tuple[str, ...] | None


def read_label(
    place: str, values: Mapping[str, Any], field: str | None, config: ColumnsConfig, kind: LabelKind
) -> Label:
    """Reads the label of a record.

    Args:
        place: the record's, for messages.
        values: the record.
        field: the field with the label; None: the config's `label_columns` have it.
        config: how labels are written.
        kind: the label's.

    Raises:
        UserError: the label is not of its kind.
    """
    if field is None:
        columns = config.label_columns
        return tuple(column for column in columns if _is_one(place, column, values[column]))
    value = values[field]
    if kind == "set":
        return _set(place, field, value, config)
    if kind == "number":
        return _number(place, field, value, config.option("label_column"))
    return _class(place, field, value)


def _is_missing(value: Any, config: ColumnsConfig) -> bool:
    """Returns whether this is no label: empty, or what tables write for a missing value."""
    if isinstance(value, str):
        text = value.strip()
        return text not in config.labels and (not text or text in MISSING)
    return value is None or (isinstance(value, float) and math.isnan(value))


def check_label_is_there(
    place: str,
    field: str,
    value: Any,
    config: ColumnsConfig,
    kind: LabelKind,
    number: int,
    rest: Iterator[Any],
) -> None:
    """Refuses an example without a label, and says how many there are.

    Args:
        place: the example's.
        field: the field with the label.
        value: the field's value.
        config: the file's.
        kind: the label's.
        number: the example's, from 1.
        rest: the labels of the examples after it.
    """
    if not _is_missing(value, config):
        return
    behind = [_is_missing(other, config) for other in rest]
    named = isinstance(value, str) and value.strip()
    what = f"missing ({shown(value)})" if named else "empty"
    way_out = ""
    if named and kind == "class":
        option = config.option("labels")
        way_out = f", or, where {value.strip()!r} is a class, name all classes with {option}"
    raise UserError(
        f"{place}: the label ({field!r}) is {what}, of {1 + sum(behind):,} of"
        f" {number + len(behind):,} examples; fill it in, or leave these examples out{way_out}"
    )


def _class(place: str, field: str, value: Any) -> str:
    """Reads a class's name: text without white space around it, a whole number, true or false."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise UserError(
        f"{place}: the label ({field!r}) is {shown(value)}; a class is a text or a whole number"
        + ("; predicting numbers is regression" if isinstance(value, float) else "")
        + ("; several labels per example are a multi-label task" if isinstance(value, list) else "")
    )


def _number(place: str, field: str, value: Any, option: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(
            f"{place}: the label ({field!r}) is {shown(value)}, not a finite number; "
            f"name another column with {option}"
        )
    return number


def _set(place: str, field: str, value: Any, config: ColumnsConfig) -> tuple[str, ...]:
    separator = config.label_separator
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, str):
        if separator:
            value = [part for part in value.split(separator) if part.strip()]
        elif value.strip():
            raise UserError(
                f"{place}: the labels ({field!r}) are the text {shown(value)}; say what separates"
                f" them with {config.option('label_separator')}, or give a list, or name columns of"
                f" 0 and 1 with {config.option('label_columns')}"
            )
        else:
            value = []
    if not isinstance(value, list):
        raise UserError(f"{place}: the labels ({field!r}) are {shown(value)}, not a list or a text")
    for label in value:
        if label is None or _is_missing(label, config):
            raise UserError(
                f"{place}: among the labels ({field!r}) is {shown(label)}, a missing value; remove"
                f" it, or, if it is a label, name the labels with {config.option('labels')}"
            )
    return tuple(dict.fromkeys(_class(place, field, label) for label in value))


def _is_one(place: str, column: str, value: Any) -> bool:
    # pandas writes 1.0 and True.
    text = str(value).strip().lower()
    if text not in ("0", "1", "0.0", "1.0", "true", "false"):
        raise UserError(f"{place}: the label column {column!r} has {shown(value)}, not 0 or 1")
    return text in ("1", "1.0", "true")
