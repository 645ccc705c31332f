"""The columns of a table that hold texts and labels: as options say, else by their names."""

import dataclasses
from collections.abc import Sequence
from typing import Literal, NamedTuple

from bertjax.program.errors import UserError
from bertjax.text.record_config import RecordConfig
from bertjax.text.sources import Source

# The usual names of texts and labels: pairs in GLUE, SNLI, HELP and others; single texts;
# labels.
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


@dataclasses.dataclass(frozen=True)
class ColumnsConfig(RecordConfig):
    """Which columns (or fields of JSON) hold what.

    Attributes:
        text_column: The text, or the first of a pair; null: recognised by its name ({texts}; for
            pairs {pairs}).
        pair_column: The second text of a pair; if text_column is given and this is not, texts
            are single.
        label_column: The label; null: recognised by its name ({labels}).
        label_separator: What separates several labels in one cell, for instance `,`.
        label_columns: Columns that hold 0 or 1, each a label that an example may have.
        spelling: What to do with classes that differ only in spelling, such as TRUE and True, or 1
            and 1.0: keep, each is a class, with a warning; merge, they are one class, named as in
            labels or else by the most frequent spelling.
        labels: The names of the classes or tags in order; none: those of the training files.
            What is written like a missing value (nan, None, NULL, ...) is a class only where it is
            named here.
    """

    text_column: str | None = None
    pair_column: str | None = None
    label_column: str | None = None
    label_separator: str | None = None
    label_columns: list[str] = dataclasses.field(default_factory=list)
    spelling: Literal["keep", "merge"] = "keep"
    labels: list[str] = dataclasses.field(default_factory=list)


# The names that are recognised appear in the help as above.
KNOWN_COLUMNS = {
    "texts": ", ".join(TEXTS),
    "pairs": ", ".join("/".join(pair) for pair in PAIRS),
    "labels": ", ".join(LABELS),
}
ColumnsConfig.__doc__ = ColumnsConfig.__doc__.format(**KNOWN_COLUMNS)


class ColumnNames(NamedTuple):
    """The fields that hold a text, or a pair of texts, and the label; None without one.

    Attributes:
        first: of the text, or of the first one.
        second: of the second text.
        label: of the label.
    """

    first: str
    second: str | None
    label: str | None


def recognise_columns(
    source: Source, present: list[str], config: ColumnsConfig, kind: str | None
) -> ColumnNames:
    """Finds the fields of texts and label: as the config says, else by their names.

    Args:
        source: the records' source, for messages.
        present: the fields of the first record.
        config: what the user says about them.
        kind: the labels' (`label_values.LabelKind`); None where there are none to find.

    Raises:
        UserError: a field may have two roles, or none has a role; names the options that choose.
    """
    first, second = config.text_column, config.pair_column
    if first is None and second is not None:
        raise UserError(
            f"{source.name}: pair_column={second!r} is the second text of a pair; "
            f"name the first with {config.option('text_column')}"
        )
    unclear = []
    if first is None:
        recognised = _find_texts(present, config, pairs=True)
        if isinstance(recognised, _Unclear):
            unclear.append(recognised)
        else:
            first, second = recognised
    label = config.label_column
    if kind is None or config.label_columns:
        label = None
    elif label is None:
        labels = [(field,) for field in _called(LABELS, present)]
        if len(labels) == 1:
            label = labels[0][0]
        else:
            choice = config.option("label_column")
            if kind == "set":
                choice += f" (or, where each label has a column, {config.option('label_columns')})"
            unclear.append(_Unclear("label", labels, choice))
    if unclear:
        raise UserError(_describe_unclear(source, present, unclear, config))
    return ColumnNames(first, second, label)


def recognise_texts(
    source: Source, present: Sequence[str], config: RecordConfig, *, pairs: bool
) -> tuple[str, str | None]:
    """Finds the field that by its name is the text, or the two of a pair.

    Args:
        source: the records' source, for messages.
        present: the names of all fields.
        config: how the file is read.
        pairs: whether there may be a second text.

    Raises:
        UserError: no field, or more than one, may be it.
    """
    texts = _find_texts(present, config, pairs=pairs)
    if isinstance(texts, _Unclear):
        raise UserError(_describe_unclear(source, present, [texts], config))
    return texts


def _find_texts(
    present: Sequence[str], config: RecordConfig, *, pairs: bool
) -> "tuple[str, str | None] | _Unclear":
    """Does `recognise_texts`, or returns what is unclear; ignores case."""
    both = [
        (first, second)
        for pair in PAIRS
        for first in _called(pair[:1], present)
        for second in _called(pair[1:], present)
    ]
    paired = {field for pair in both for field in pair}
    candidates = [*both, *((text, None) for text in _called(TEXTS, present) if text not in paired)]
    if len(candidates) == 1 and (pairs or not both):
        return candidates[0]
    choice = config.option("text_column") + f" (and {config.option('pair_column')})" * pairs
    return _Unclear("text", candidates, choice)


def _called(names: Sequence[str], present: Sequence[str]) -> list[str]:
    """Returns the fields with one of these names, in the order of the names."""
    return [field for name in names for field in present if field.lower() == name]


class _Unclear(NamedTuple):
    """A role that could not be recognised, the fields that may have it, how to choose."""

    what: str
    candidates: Sequence[tuple[str | None, ...]]
    choice: str


def _describe_unclear(
    source: Source, present: Sequence[str], unclear: list[_Unclear], config: RecordConfig
) -> str:
    """Makes one message about everything that could not be recognised."""
    asked = " and which the ".join(doubt.what for doubt in unclear)
    known = []
    for doubt in unclear:
        several = " or ".join(" and ".join(filter(None, fields)) for fields in doubt.candidates)
        known.append(
            f"{several} may be the {doubt.what}"
            if doubt.candidates
            else f"none of them has a usual name for a {doubt.what}"
        )
    choices = " and ".join(doubt.choice for doubt in unclear)
    columns = ", ".join(repr(f"{field:.40}") for field in present[:20])
    header = ""
    if source.kind in ("csv", "tsv") and not any(doubt.candidates for doubt in unclear):
        header = f"; a file without a header line takes its names from {config.option('columns')}"
    return (
        f"{source.name}: which column holds the {asked}? There are: {columns}; {', '.join(known)};"
        f" choose with {choices}{header}"
    )
