"""Labelled rows of a Python program: read exactly as the same rows in a file are.

    read_given(name, config, {"train": [{"text": "good film", "label": "pos"}, ...]})

A split is rows (dicts in any order that stays, a dict of columns, a `datasets.Dataset`, a frame of
pandas) or files. Rows are written as JSON lines, questions with answers in the format of SQuAD, and
read by the readers of files: there is one meaning of a row, one set of checks, one fingerprint.
"""

import contextlib
import dataclasses
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.tasks.data_config import IN_MEMORY, DataConfig, TaskName
from bertjax.tasks.reading import TaskData, read_task_data, read_task_examples
from bertjax.text.given_texts import check_text


def read_given(name: TaskName, config: DataConfig, splits: Mapping[str, Any]) -> TaskData:
    """Reads splits that are rows or files, and makes the task that they ask for.

    Args:
        name: of the task.
        config: how they are read.
        splits: train, and validation and test where they are given: a path or a list of paths, or
            rows.

    Returns:
        The data; in its config a split of rows is called `memory:train` or the like.

    Raises:
        UserError: what `read_task_data` raises, of rows with their numbers; what is neither rows
            nor files.
    """
    with _written(name, config, splits) as (files, before):
        data = read_task_data(name, dataclasses.replace(config, **files))
    placed = {
        split: _unplace(getattr(data, split), before) for split in ("train", "validation", "test")
    }
    named = {
        split: [IN_MEMORY + split if path.startswith(before) else path for path in paths]
        for split, paths in files.items()
    }
    notes = [_name_rows(note, before) for note in data.notes]
    return data._replace(**placed, notes=notes, config=dataclasses.replace(data.config, **named))


def read_given_examples(
    name: TaskName, config: DataConfig, data: Any, *, with_labels: bool = True
) -> tuple[list[Any], list[str], list[str]]:
    """Reads examples that are rows or files for a task that there is.

    Args:
        name: of the task.
        config: how they are read.
        data: a path or a list of paths, or rows.
        with_labels: whether they have labels.

    Returns:
        The examples, a sentence for everything in them that was mended, and the names of the files.

    Raises:
        UserError: what `read_task_examples` raises, of rows with their numbers; no data.
    """
    if data is None:
        raise UserError("data=None is neither rows nor files; give labelled examples")
    with _written(name, config, {"data": data}) as (files, before):
        paths = files["data"]
        examples, notes = read_task_examples(name, paths, config, with_labels=with_labels)
    names = [IN_MEMORY + "data" if path.startswith(before) else path for path in paths]
    return _unplace(examples, before), [_name_rows(note, before) for note in notes], names


@contextlib.contextmanager
def _written(
    name: TaskName, config: DataConfig, splits: Mapping[str, Any]
) -> Iterator[tuple[dict[str, list[str]], str]]:
    """Yields the files of all splits, those of rows in a folder for as long; what their names begin
    with, which errors do not have.
    """
    files = {split: _paths(data) for split, data in splits.items() if data is not None}
    with tempfile.TemporaryDirectory(prefix="bertjax-") as folder:
        for split in [split for split, paths in files.items() if paths is None]:
            if config.format is not None:
                raise UserError(
                    f"format={config.format} is what files are, and {split} is given as rows; leave"
                    " it out"
                )
            records = _to_records(split, splits[split])
            path = Path(folder) / f"{split}.json{'l' * (name != 'question-answering')}"
            if name == "question-answering":
                path.write_text(to_json(_as_squad(split, records)), encoding="utf-8")
            else:
                lines = "".join(to_json(record) + "\n" for record in records)
                path.write_text(lines, encoding="utf-8")
            files[split] = [str(path)]
        before = f"{folder}{os.sep}"
        try:
            yield files, before
        except UserError as error:
            raise UserError(_name_rows(str(error), before)) from None


def _name_rows(message: str, before: str) -> str:
    """Returns a message about files whose names begin with `before` as one about rows."""
    line = re.compile(re.escape(before) + r"(\w+)\.jsonl?(:\d+)?")
    return line.sub(lambda at: f"{at[1]} row {at[2][1:]}" if at[2] else at[1], message)


def _unplace(examples: Sequence[Any], before: str) -> list[Any]:
    return [example._replace(place=_name_rows(example.place, before)) for example in examples]


def _paths(data: Any) -> list[str] | None:
    """Returns the files that a split is; None where it is rows."""
    if isinstance(data, str | os.PathLike):
        return [os.fspath(data)]
    is_list = isinstance(data, list | tuple) and data
    if is_list and all(isinstance(path, str | os.PathLike) for path in data):
        return [os.fspath(path) for path in data]
    return None


def _to_records(split: str, data: Any) -> list[dict[str, Any]]:
    """Returns the rows as dicts of what JSON has."""
    names = {}
    if hasattr(data, "features"):  # a `datasets.Dataset`, which may number its classes
        names = {field: _class_names(kind) for field, kind in data.features.items()}
        rows: Iterable[Any] = data
    elif hasattr(data, "columns") and hasattr(data, "to_dict"):  # a frame, of which NaN is no value
        if twice := list(data.columns[data.columns.duplicated()]):
            raise UserError(f"{split}: two columns are called {twice[0]}; rename one of them")
        rows = data.astype(object).where(data.notna(), None).to_dict("records")
    elif isinstance(data, Mapping):
        for field, column in data.items():
            if hasattr(column, "features"):
                raise UserError(
                    f"{split} is several data sets; give one of them, {split}[{field!r}]"
                )
            if isinstance(column, str | bytes) or not isinstance(column, Sized):
                raise UserError(
                    f"{split}: its column {field} is {column!r:.60}; a dict has columns, each a"
                    " list, and one row stands in a list of its own"
                )
        sizes = {field: len(column) for field, column in data.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(f"{split}: columns have different lengths: {sizes}")
        rows = [dict(zip(data, values, strict=True)) for values in zip(*data.values(), strict=True)]
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes):
        rows = data
    else:
        raise UserError(
            f"{split}={data!r:.60} is neither rows (a list of dicts, a dict of columns, a data set,"
            " a frame) nor the path of a file"
        )
    records = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise UserError(f"{split} row {number}: a row is a dict of fields, this is {row!r:.60}")
        try:
            fields = {str(field): _plain(value, names.get(field)) for field, value in row.items()}
        except UserError as error:
            raise UserError(f"{split} row {number}: {error}") from None
        records.append(fields)
    if not records:
        raise UserError(f"{split} has no rows")
    return records


def _class_names(kind: Any) -> Sequence[str] | None:
    """Returns the names of the numbered classes of a column, or of the items of its lists."""
    inner = getattr(kind, "feature", kind)
    return getattr(inner, "names", None)


def _plain(value: Any, names: Sequence[str] | None) -> Any:
    """Returns a value as JSON has it; the number of a class by its name."""
    if hasattr(value, "tolist"):  # numpy's
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(field): _plain(inner, None) for field, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, names) for inner in value]
    if names is not None and type(value) is int:
        return names[value] if value >= 0 else None  # -1 is no label
    if isinstance(value, str | bytes):
        return check_text(value)
    if isinstance(value, float) and math.isinf(value):
        raise UserError(f"{value} is not a finite number; correct it, or leave the row out")
    return value if isinstance(value, int | float | None) else str(value)


def _as_squad(split: str, records: list[dict[str, Any]]) -> dict[str, Any]:
    """Puts rows of question, context and answers into SQuAD's format; articles stay as they are.

    Answers are a list of `text` and `answer_start`, or both as lists, as on the hub.
    """
    articles = []
    for number, record in enumerate(records, 1):
        if "paragraphs" in record:
            articles.append(record)
            continue
        answers = record.get("answers", [])
        if isinstance(answers, dict):
            texts, starts = answers.get("text", []), answers.get("answer_start", [])
            if len(texts) != len(starts):
                raise UserError(
                    f"{split} row {number}: its answers have {counted(len(texts), 'text')} and"
                    f" {counted(len(starts), 'answer_start')}; each text has its start in the"
                    " context"
                )
            answers = [
                {"text": text, "answer_start": start}
                for text, start in zip(texts, starts, strict=True)
            ]
        entry = {"id": record.get("id", str(number)), "question": record.get("question")}
        entry |= {"answers": answers}
        if record.get("is_impossible") is not None:
            entry["is_impossible"] = record["is_impossible"]
        paragraph = {"context": record.get("context"), "qas": [entry]}
        articles.append({"title": record.get("title", ""), "paragraphs": [paragraph]})
    return {"data": articles}
