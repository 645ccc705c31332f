"""What separates the cells of a table: as given, otherwise as its header line shows."""

import csv
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bertjax.program.errors import UserError
from bertjax.text import streams
from bertjax.text.sources import Source

if TYPE_CHECKING:
    from bertjax.text.record_config import RecordConfig

NAMES = {",": "commas", ";": "semicolons", "|": "bars", "\t": "tabs"}

# For each kind its own, then what is recognised instead.
_OF_KIND = {"csv": (",", ";", "|"), "tsv": ("\t",)}


def quoting_of(source: Source, config: "RecordConfig") -> Literal["none", "double"]:
    """Returns what a quotation mark means in a table."""
    return config.quoting or ("none" if source.kind == "tsv" else "double")


def make_reader(lines: object, delimiter: str, quoting: Literal["none", "double"]) -> "csv._reader":
    """Returns a reader of rows that refuses damaged quoting."""
    style = csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL
    return csv.reader(lines, delimiter=delimiter, quoting=style, strict=True)


def choose_delimiter(source: Source, config: "RecordConfig") -> str:
    """Returns the character that separates the cells of a table.

    A given character is used. Otherwise it is the remembered one, or that of the file's kind,
    unless the header line is a single cell with that, and several cells with exactly one other.

    Raises:
        UserError: the given delimiter is not a single character.
    """
    said = {"tab": "\t", "\\t": "\t"}.get(config.delimiter, config.delimiter)
    if said is not None and (len(said) != 1 or said in '"\r\n'):
        raise UserError(
            f"{config.option('delimiter')} {said!r} must be one character, such as ';' or"
            " '|' in quotation marks, or tab"
        )
    if said is not None and "delimiter" not in config.remembered:
        return said
    usual = said or _OF_KIND[source.kind][0]
    header = next((line for line in streams.lines(source, config) if line.strip()), "")
    others = []
    for delimiter in dict.fromkeys((usual, *_OF_KIND[source.kind])):
        try:
            [names] = make_reader([header], delimiter, quoting_of(source, config))
        except csv.Error:
            continue
        if len(names) > 1:
            if delimiter == usual:
                return usual
            # The first line of a file without a header is no evidence: it holds texts.
            is_header = not config.columns or not {*map(str.strip, names)}.isdisjoint(
                config.columns
            )
            others += [delimiter] * is_header
    return others[0] if len(others) == 1 else usual


def describe_delimiters(sources: Sequence[Source], config: "RecordConfig") -> list[str]:
    """Returns a sentence for every table whose delimiter is not the one its name suggests."""
    notes = []
    for source in sources:
        if source.kind in _OF_KIND:
            delimiter = choose_delimiter(source, config)
            said = config.delimiter is not None and "delimiter" not in config.remembered
            if delimiter != _OF_KIND[source.kind][0] and not said:
                notes.append(
                    f"{source.name}: {NAMES.get(delimiter, repr(delimiter))} separate its cells, as"
                    " its header line shows"
                )
    return notes
