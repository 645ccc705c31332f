"""Labelled texts, and pairs of texts, out of tables: classification and regression.

read_examples(names, config, kind)  -> the examples of some files, with their labels
split_by_hash(examples, shares)     -> train, validation and test of one file
check_labels(train, validation, test)  -> the names of the classes, or what is wrong with them
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bertjax.errors import UserError
from bertjax.tasks.label_counts import MISSING
from bertjax.text import streams
from bertjax.text.records import RecordConfig, check_names, read_records, shown
from bertjax.text.sources import Source, find_sources
from bertjax.wording import nearest

# What text and label are called where nobody says: pairs of GLUE, SNLI, HELP and others; single
# texts; labels.
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("ori_sentence", "new_sentence"),
    ("text_a", "text_b"),
)
TEXTS = ("text", "sentence", "review", "tweet", "comment", "content")
LABELS = ("label", "labels", "gold_label", "label_name", "score", "target", "class")

LabelKind = Literal["class", "number", "set"]
Label = str | float | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class ColumnsConfig(RecordConfig):
    """Which columns (or fields of JSON) hold what.

    Attributes:
        text_column: The text, or the first of a pair; null: recognised by its name ({texts}; of
            pairs {pairs}).
        pair_column: The second text of a pair; with a text_column of its own choice and no
            pair_column a text stands alone.
        label_column: The label; null: recognised by its name ({labels}).
        label_separator: What parts several labels in one cell, for instance `,`.
        label_columns: Columns that hold 0 or 1, each of which is one label that an example may
            have.
        spelling: What becomes of classes that differ in spelling only, such as TRUE and True, or 1
            and 1.0: keep, each is a class, with a warning; merge, they are one, by the name in
            labels or else the most frequent spelling.
        labels: The names of the classes or tags in their order; none: those of the training files.
            What is spelled like a missing value (nan, None, NULL, ...) is a class only where it is
            named here.
    """

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    label_columns: list[str] = dataclasses.field(default_factory=list)
    spelling: Literal["keep", "merge"] = "keep"
    labels: list[str] = dataclasses.field(default_factory=list)


# What is recognised stands in the help as it stands above.
KNOWN_COLUMNS = {
    "texts": ", ".join(TEXTS),
    "pairs": ", ".join("/".join(pair) for pair in PAIRS),
    "labels": ", ".join(LABELS),
}
ColumnsConfig.__doc__ = ColumnsConfig.__doc__.format(**KNOWN_COLUMNS)


class TextExample(NamedTuple):
    """One example.

    place: `file:line`, for messages.
    first, second: The text, or the two of a pair; second is None where there is no pair.
    label: The class; for regression a finite float; for several labels an example their names in
        the order in which they stand there; None in a file that is read without labels.
    record: All that the file has of it, where it is read without labels, for what is written of it.
    """

    place: str
    first: str
    second: str | None
    label: Label
    record: Mapping[str, Any] | None = None


class Splits(NamedTuple):
    """Examples for training, for choosing, and for the one test at the end."""

    train: list[Any]
    validation: list[Any]
    test: list[Any]


class _Fields(NamedTuple):
    first: str
    second: str | None
    label: str | None


def read_examples(
    names: Sequence[str], config: ColumnsConfig, kind: LabelKind, labelled: bool = True
) -> list[TextExample]:
    """The examples of some files, in order.

    Args:
        names: files, folders, globs, `dataset:NAME`; each file's columns are recognised by
            themselves.
        config: which columns hold what.
        kind: one class an example, a number to predict, or a set of labels.
        labelled: False: whatever labels there are stay unread.

    Raises:
        UserError: columns that are not there, or recognised as two things at once or as none; a
            label that is not of its kind, with file and line; what `read_records` raises.
    """
    streams.check_encoding(config.encoding)
    if config.label_columns and kind != "set":
        raise UserError(
            f"label_columns={config.label_columns} give an example any number of labels; "
            f"name the one column that holds the {kind} with {config.option('label_column')}"
        )
    sources = find_sources(
        names, config.encoding, kind=config.format, option=config.option("format")
    )
    examples = [example for source in sources for example in _read(source, config, kind, labelled)]
    if not examples:
        raise UserError(f"{', '.join(names)}: no examples, only the names of columns")
    return examples


def _read(
    source: Source, config: ColumnsConfig, kind: LabelKind, labelled: bool
) -> Iterator[TextExample]:
    first_record = next(read_records(source, config), None)
    if first_record is None:
        return
    fields = _recognise(source.name, list(first_record.values), config, labelled)
    wanted = {fields.first: "text_column"}
    if fields.second is not None:
        wanted[fields.second] = "pair_column"
    if fields.label is not None:
        wanted[fields.label] = "label_column"
    elif labelled:
        wanted |= dict.fromkeys(config.label_columns, "label_columns")
    options = {field: config.option(option) for field, option in wanted.items()}
    records = read_records(source, config, options if labelled else None)
    for number, (place, values) in enumerate(records, 1):
        if labelled and fields.label is not None and kind != "set":
            rest = (values[fields.label] for _, values in records)
            _check_there(place, fields.label, values[fields.label], config, kind, number, rest)
        if not labelled:
            check_names(place, list(values), options)
        yield TextExample(
            place,
            _text(place, values, fields.first, options),
            None if fields.second is None else _text(place, values, fields.second, options),
            _label(place, values, fields.label, config, kind) if labelled else None,
            None if labelled else values,
        )


def _recognise(name: str, present: list[str], config: ColumnsConfig, labelled: bool) -> _Fields:
    """Which fields hold texts and label: as the config says, else by their names."""
    by_name = {field.lower(): field for field in reversed(present)}
    first, second = config.text_column, config.pair_column
    if first is None and second is not None:
        raise UserError(
            f"{name}: pair_column={second!r} is the second text of a pair; "
            f"name the first with {config.option('text_column')}"
        )
    unclear = []
    if first is None:
        pairs = [pair for pair in PAIRS if by_name.keys() >= {*pair}]
        paired = {field for pair in pairs for field in pair}
        single = [(text, None) for text in TEXTS if text in by_name and text not in paired]
        found = [*pairs, *single]
        if len(found) == 1:
            first, second = by_name[found[0][0]], by_name.get(found[0][1])
        else:
            unclear.append(_Unclear("text", found, ("text_column", "pair_column")))
    label = config.label_column
    if not labelled or config.label_columns:
        label = None
    elif label is None:
        found = [(field,) for field in LABELS if field in by_name]
        if len(found) == 1:
            label = by_name[found[0][0]]
        else:
            unclear.append(_Unclear("label", found, ("label_column",)))
    if unclear:
        raise UserError(_describe_unclear(name, present, unclear, config))
    return _Fields(first, second, label)


class _Unclear(NamedTuple):
    """What could not be recognised: what it is, the fields that may be it, the options."""

    what: str
    found: list[tuple[str | None, ...]]
    options: tuple[str, ...]


def _describe_unclear(
    name: str, present: list[str], unclear: list[_Unclear], config: ColumnsConfig
) -> str:
    """One message for all that could not be recognised."""
    asked = " and which the ".join(one.what for one in unclear)
    known = []
    for one in unclear:
        several = " or ".join(" and ".join(filter(None, fields)) for fields in one.found)
        known.append(
            f"{several} may be the {one.what}"
            if one.found
            else f"none of them has a usual name of a {one.what}"
        )
    options = " and ".join(
        config.option(one.options[0])
        + "".join(f" (and {config.option(more)})" for more in one.options[1:])
        for one in unclear
    )
    columns = ", ".join(repr(f"{field:.40}") for field in present[:20])
    header = ""
    if not any(one.found for one in unclear):
        header = f"; a file without a header line takes its names from {config.option('columns')}"
    return (
        f"{name}: which column holds the {asked}? There are: {columns}; {', '.join(known)}; choose"
        f" with {options}{header}"
    )


def _text(place: str, values: Mapping[str, Any], field: str, options: Mapping[str, str]) -> str:
    text = values[field]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise UserError(
            f"{place}: the field {field!r} holds {shown(text)}, not text; name another with "
            f"{options[field]}"
        )
    return text


def _label(
    place: str, values: Mapping[str, Any], field: str | None, config: ColumnsConfig, kind: LabelKind
) -> Label:
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
    """Whether this is no label: nothing, or what tables write for nothing."""
    if isinstance(value, str):
        text = value.strip()
        return text not in config.labels and (not text or text in MISSING)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _check_there(
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
        place: of the example.
        field: that holds the label.
        value: what it holds.
        config: of the file.
        kind: of the label.
        number: of the example, from 1.
        rest: the labels of those behind it.
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
    """The name of a class: text without white space around it, a whole number, true or false."""
    if isinstance(value, str) and value.strip():
        return value.strip()
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise UserError(
        f"{place}: the label ({field!r}) is {shown(value)}; a class is a text or a whole number"
        + ("; to predict numbers is regression" if isinstance(value, float) else "")
        + ("; several labels an example are a multi-label task" if isinstance(value, list) else "")
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
                f"{place}: the labels ({field!r}) are the text {shown(value)}; say what parts them "
                f"with {config.option('label_separator')}, or give a list, or name columns of 0 and"
                f" 1 with {config.option('label_columns')}"
            )
        else:
            value = []
    if not isinstance(value, list):
        raise UserError(f"{place}: the labels ({field!r}) are {shown(value)}, not a list or a text")
    for label in value:
        if label is None or _is_missing(label, config):
            raise UserError(
                f"{place}: among the labels ({field!r}) is {shown(label)}, a missing value; take it"
                f" out, or, where it is a label, name the labels with {config.option('labels')}"
            )
    return tuple(dict.fromkeys(_class(place, field, label) for label in value))


def _is_one(place: str, column: str, value: Any) -> bool:
    # pandas writes 1.0 and True.
    text = str(value).strip().lower()
    if text not in ("0", "1", "0.0", "1.0", "true", "false"):
        raise UserError(f"{place}: the label column {column!r} holds {shown(value)}, not 0 or 1")
    return text in ("1", "1.0", "true")


def split_by_hash(
    examples: Sequence[Any],
    shares: tuple[float, float, float],
    seed: int = 0,
    texts_of: Callable[[Any], Sequence[str | None]] = lambda example: (
        example.first,
        example.second,
    ),
) -> Splits:
    """Train, validation and test of one file, by the hash of the text alone.

    An example goes where its text sends it, whatever stands beside it in the file: the same text
    (but for case and white space) is never in two splits, nor is a pair and its reverse.

    Args:
        examples: in any order.
        shares: of train, validation and test, each at least 0, their sum 1. The splits have about
            these sizes, as chance has it.
        seed: another one gives other splits.
        texts_of: what an example goes by, in any order and where it is not None; for questions
            their context, so that those of one context stay together.

    Raises:
        UserError: shares that are none; a split with a share that no example went to.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"shares={tuple(shares)} must be those of train, validation and test, with the sum 1"
        )
    splits = Splits([], [], [])
    for example in examples:
        place = _place_by_text(texts_of(example), seed)
        number = 0 if place < shares[0] else 1 if place < shares[0] + shares[1] else 2
        # The sum of shares may be a little below 1.
        splits[number if shares[number] else 0].append(example)
    for name, split, share in zip(Splits._fields, splits, shares, strict=True):
        if share and not split:
            raise UserError(
                f"{name} got none of the {len(examples)} examples with a share of {share}; "
                "take a larger share, or files of their own"
            )
    return splits


def _place_by_text(texts: Sequence[str | None], seed: int) -> float:
    """A number in [0, 1) that is the texts' own."""
    folded = sorted(" ".join(text.casefold().split()) for text in texts if text is not None)
    data = json.dumps([seed, *folded]).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "little") / 2**48


def check_labels(
    train: Sequence[TextExample],
    validation: Sequence[TextExample] = (),
    test: Sequence[TextExample] = (),
    labels: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers.

    Args:
        train: examples with classes or with sets of labels.
        validation: examples whose labels must all occur in train.
        test: the same.
        labels: the names, where they are given, in this order; each needs a training example.

    Returns:
        The given names; else those of train, sorted, numbers by their size.

    Raises:
        UserError: a label that train lacks, with its place; a class without a training example;
            fewer than two classes.
    """
    seen = {label: example.place for example in reversed(train) for label in _labels_of(example)}
    if labels is not None:
        if unknown := [label for label in seen if label not in labels]:
            raise UserError(
                f"{seen[unknown[0]]}: the label {unknown[0]!r} is not among labels={list(labels)}"
                f"{nearest(unknown[0], list(labels))}; name it there, or correct it here"
            )
        if empty := [label for label in labels if label not in seen]:
            raise UserError(
                f"empty class: no training example has the label {empty[0]!r} of labels; "
                "add examples of it, or take it off the list"
            )
    for name, examples in (("validation", validation), ("test", test)):
        for example in examples:
            for label in _labels_of(example):
                if label not in seen:
                    raise UserError(
                        f"{example.place}: the label {label!r} is in {name} but in no training "
                        f"example{nearest(label, list(seen))}; add examples of it to train, leave "
                        "this one out, or correct the label"
                    )
    one_each = all(isinstance(example.label, str) for example in train)
    if len(seen) < (2 if one_each else 1):
        only = "".join(f", {label!r}" for label in seen)
        raise UserError(
            f"a single class{only}: there is nothing to tell apart; at least two classes need "
            "training examples (is the label column the right one?)"
            if one_each
            else "no training example has a label (are the label columns the right ones?)"
        )
    return tuple(labels) if labels is not None else tuple(sorted(seen, key=_by_size(seen)))


def _labels_of(example: TextExample) -> tuple[str, ...]:
    return (example.label,) if isinstance(example.label, str) else example.label or ()


def _by_size(labels: Mapping[str, str]) -> Any:
    """The key to sort by: the number, when every label is one, else the name."""
    try:
        numbers = {label: float(label) for label in labels}
    except ValueError:
        return str
    return lambda label: (numbers[label], label)
