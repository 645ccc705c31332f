"""A record, and how files of records are read."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest

# What files of labelled examples can be; conll is for tagged sentences only.
FileFormat = Literal["csv", "tsv", "json", "jsonl", "parquet", "conll"]


class SpelledOptions:
    """A config whose options messages name as its program spells them."""

    # What precedes a field's name in the program that was called.
    option_prefix: ClassVar[str] = "--"
    # The fields whose values come from a model's memory and were not given.
    remembered: ClassVar[frozenset[str]] = frozenset()

    def option(self, name: str) -> str:
        """Returns a field as the option that it is."""
        return self.option_prefix + name.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class RecordConfig(SpelledOptions):
    """How files of records are read.

    Attributes:
        encoding: The encoding of the text files, a name that Python knows (utf-8, latin-1, utf-16,
            ...).
        errors: What to do with bytes that are invalid in that encoding: strict stops and names the
            place, replace inserts a replacement character, ignore skips them.
        columns: The names of the columns of .csv and .tsv files without a header line, in order;
            empty: the first line names them.
        delimiter: What separates the cells of .csv and .tsv files: one character, such as ; or |,
            or tab; null: commas in .csv and tabs in .tsv, or semicolons or bars in .csv where they
            alone separate the names in the header line.
        quoting: What a quotation mark is in .csv and .tsv: none, an ordinary character; double, the
            bounds of a cell that may contain delimiters and line ends (RFC 4180); null, none in
            .tsv and double in .csv.
        extra_columns: What to do with cells of a row after the last named column:
            refuse, or ignore.
        format: What the files are, whatever their suffix; null: as the suffix says.
    """

    encoding: str = "utf-8"
    errors: Literal["strict", "replace", "ignore"] = "strict"
    columns: list[str] = dataclasses.field(default_factory=list)
    delimiter: str | None = None
    quoting: Literal["none", "double"] | None = None
    extra_columns: Literal["refuse", "ignore"] = "refuse"
    format: FileFormat | None = None


class Record(NamedTuple):
    """One record.

    place: Where it is, for messages: `file:line`, or `file record N` where there are no lines.
    values: Its values by name; always text in .csv and .tsv.
    """

    place: str
    values: Mapping[str, Any]


def check_names(
    place: str, present: list[str], fields: Mapping[str, str] | None, what: str = "column"
) -> None:
    """Raises a UserError that names every required field that is missing.

    Args:
        place: the record's place.
        present: the names of its fields.
        fields: the required fields, each with the option that chooses it.
        what: what messages call a field.
    """
    missing = {name: option for name, option in (fields or {}).items() if name not in present}
    if not missing:
        return
    names = ", ".join(map(repr, present[:20])) or "none"
    wanted = " and ".join(f"no {what} {name!r}{nearest(name, present)}" for name in missing)
    options = " and ".join(dict.fromkeys(missing.values()))
    raise UserError(f"{place}: {wanted}; there are: {names} (choose with {options})")


def shown(value: Any) -> str:
    """Returns a value as messages show it: on one line, not too long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
