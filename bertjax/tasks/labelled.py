"""Labelled texts, and pairs of texts, from tables: classification and regression."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.program.errors import UserError
from bertjax.tasks.columns import ColumnsConfig, recognise_columns
from bertjax.tasks.label_values import Label, LabelKind, check_label_is_there, read_label
from bertjax.text import streams
from bertjax.text.record_config import shown
from bertjax.text.records import find_record_files, read_records, read_whole_records
from bertjax.text.sources import Source


class TextExample(NamedTuple):
    """A labelled text or pair of texts.

    place: `file:line`, for messages.
    first, second: The text, or the pair; second is None for a single text.
    label: The class; for regression a finite float; for several labels per example their names
        in file order; None in a file that is read without labels.
    record: Everything the file has of it, for output.
    """

    place: str
    first: str
    second: str | None
    label: Label
    record: Mapping[str, Any] | None = None


def read_examples(
    names: Sequence[str], config: ColumnsConfig, kind: LabelKind, labelled: bool = True
) -> list[TextExample]:
    """Reads the examples of files, in order.

    Args:
        names: files, folders, globs, `dataset:NAME`; each file's columns are recognised
            separately.
        config: which columns hold what.
        kind: one class per example, a number to predict, or a set of labels.
        labelled: False: labels are not read.

    Raises:
        UserError: with file and line, where columns are missing, have two roles or none, or a label
            is not of its kind; and where `read_records` raises.
    """
    streams.check_encoding(config.encoding)
    if config.label_columns and kind != "set":
        raise UserError(
            f"label_columns={config.label_columns} give an example any number of labels; "
            f"name the one column that holds the {kind} with {config.option('label_column')}"
        )
    examples = [
        example
        for source in find_record_files(names, config)
        for example in _read(source, config, kind, labelled)
    ]
    if not examples:
        raise UserError(f"{', '.join(names)}: no examples, only column names")
    return examples


def _read(
    source: Source, config: ColumnsConfig, kind: LabelKind, labelled: bool
) -> Iterator[TextExample]:
    first_record = next(read_records(source, config), None)
    if first_record is None:
        return
    fields = recognise_columns(
        source, list(first_record.values), config, kind if labelled else None
    )
    wanted = {fields.first: "text_column"}
    if fields.second is not None:
        wanted[fields.second] = "pair_column"
    if fields.label is not None:
        wanted[fields.label] = "label_column"
    elif labelled:
        wanted |= dict.fromkeys(config.label_columns, "label_columns")
    options = {field: config.option(option) for field, option in wanted.items()}
    records = read_whole_records(source, config, options)
    for number, (place, values) in enumerate(records, 1):
        if labelled and fields.label is not None and kind != "set":
            rest = (values[fields.label] for _, values in records)
            check_label_is_there(
                place, fields.label, values[fields.label], config, kind, number, rest
            )
        yield TextExample(
            place,
            _text(place, values, fields.first, options),
            None if fields.second is None else _text(place, values, fields.second, options),
            read_label(place, values, fields.label, config, kind) if labelled else None,
            values,
        )


def _text(place: str, values: Mapping[str, Any], field: str, options: Mapping[str, str]) -> str:
    text = values[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(
            f"{place}: the field {field!r} is {shown(text)}, not text; name another with "
            f"{options[field]}"
        )
    return text
