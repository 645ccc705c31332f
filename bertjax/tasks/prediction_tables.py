"""Predictions with their inputs: a row per example, with everything from its file."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.program.outputs import write_whole
from bertjax.program.strict_json import to_json
from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.squad import Question
from bertjax.tasks.tagged_sentences import TaggedSentence
from bertjax.tasks.task import Prediction

SUFFIXES = (".jsonl", ".csv", ".tsv", ".parquet")
# The prefix of an input's column whose name a field of the prediction has, too.
_RENAMED = "input_"


def input_of(example: Any) -> dict[str, Any]:
    """Returns the input of a prediction: every column of its record, else its texts."""
    record = getattr(example, "record", None)
    if isinstance(example, TaggedSentence):
        return {"text": example.text, "tokens": list(example.tokens), **(record or {})}
    if record is not None:
        return {name: _plain(value) for name, value in record.items()}
    if isinstance(example, Question):
        return {"question": example.question, "context": example.context}
    if isinstance(example, ChoiceQuestion):
        return {"context": example.context, "choices": list(example.choices)}
    if example.second is None:
        return {"text": example.first}
    return {"sentence1": example.first, "sentence2": example.second}


def join_rows(
    examples: Sequence[Any], predictions: Sequence[Prediction]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Makes a row per example: its columns, then the prediction's fields; returns notes, too.

    A column with the name of one of these fields is renamed.
    """
    rows, renamed = [], {}
    for example, prediction in zip(examples, predictions, strict=True):
        given = {}
        for name, value in input_of(example).items():
            if name in prediction:
                name = renamed.setdefault(name, _RENAMED + name)
            given[name] = value
        rows.append({**given, **prediction})
    notes = [
        f"the input's column {old!r} is renamed {new!r}, because the predictions have {old!r}"
        " themselves"
        for old, new in renamed.items()
    ]
    return rows, notes


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Writes a file of one of `SUFFIXES`; returns notes.

    In tables, the probabilities of classes are columns of their own (`probabilities.CLASS`), and
    anything else that is not a single value is JSON.
    """
    if path.suffix == ".jsonl":
        write_whole(path, "".join(to_json(row) + "\n" for row in rows))
        return []
    flat = [dict(_flatten(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    if path.suffix == ".parquet":
        write_whole(path, _to_parquet(flat, names))
        return []
    text = io.StringIO()
    delimiter = "\t" if path.suffix == ".tsv" else ","
    table = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    table.writerow(names)
    for row in flat:
        table.writerow([_cell(row.get(name)) for name in names])
    write_whole(path, text.getvalue())
    quoted = path.suffix == ".tsv" and '"' in text.getvalue()
    return [
        f"{path}: cells with tabs, line ends or quotation marks are in quotation marks; read it"
        " with --quoting double"
    ] * quoted


def _flatten(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    cells = []
    for name, value in row.items():
        if isinstance(value, Mapping) and name == "probabilities":
            cells += [(f"{name}.{key}", part) for key, part in value.items()]
        else:
            whole = isinstance(value, Mapping | list | tuple)
            cells.append((name, to_json(value) if whole else value))
    return cells


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else to_json(value)


def _plain(value: Any) -> Any:
    """Returns a value that JSON can hold: dates, bytes and decimals of Parquet become text."""
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value)


def _to_parquet(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # of several types, as JSON may have
            columns[name] = pa.array([None if value is None else _cell(value) for value in values])
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()
