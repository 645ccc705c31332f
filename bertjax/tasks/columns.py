"""Which columns of a table hold texts and labels: as options say, else by their names."""

import dataclasses
from typing import Literal, NamedTuple

from bertjax.errors import UserError
from bertjax.text.records import RecordConfig

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


@dataclasses.dataclass(frozen=True)
class ColumnsConfig(RecordConfig):
    """Which columns (or fields of JSON) hold what.

    Attributes:
        text_column: The text, or the first of a pair; null: recognised by its name ({texts}; of
            pairs {pairs}).
        pair_column: The second text of a pair; with a text_column of its own choice and no
            pair_column a text stands alone.
        label_column: The label; null: recognised by its name ({labels}).
        label_separator: What separates several labels in one cell, for instance `,`.
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


class ColumnNames(NamedTuple):
    """The fields that hold a text, or the two of a pair, and the label; None without one."""

    first: str
    second: str | None
    label: str | None


def recognise_columns(
    name: str, present: list[str], config: ColumnsConfig, labelled: bool
) -> ColumnNames:
    """Which fields hold texts and label: as the config says, else by their names.

    Args:
        name: of the file, for messages.
        present: the fields of its first record.
        config: what is said of them.
        labelled: whether there are labels to find.

    Raises:
        UserError: fields that may be two things at once, or none, with the options that choose.
    """
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
    return ColumnNames(first, second, label)


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
