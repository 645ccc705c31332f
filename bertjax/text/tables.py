"""Records of .csv and .tsv files: header lines, columns, delimiters and quotation marks."""

import csv
from collections.abc import Iterator, Mapping

from bertjax.program.errors import UserError
from bertjax.text import delimiters, streams
from bertjax.text.record_config import Record, RecordConfig, check_names, shown
from bertjax.text.sources import Source


def read_table(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    """Yields rows of CSV as in RFC 4180, of TSV as in its media type: a tab always separates, a
    quotation mark is an ordinary character.
    """
    csv.field_size_limit(streams.MAXIMUM_LINE)
    quoting = delimiters.quoting_of(source, config)
    delimiter = delimiters.choose_delimiter(source, config)
    lines = (line + "\n" for line in streams.lines(source, config))
    rows = delimiters.make_reader(lines, delimiter, quoting)
    names = list(config.columns)
    if names:
        _check_header(source.name, names, fields)
    start, begun = 1, False
    counts = {"rows": 0, "wider": 0}
    try:
        for row in rows:
            place, start = f"{source.name}:{start}", rows.line_num + 1
            if not row:
                continue
            first, begun = not begun, True
            # A first line that contains one of the given names is a header after all.
            if not names or (first and not set(map(str.strip, row)).isdisjoint(names)):
                names = [name.strip() for name in row]
                _check_delimiter(place, names, source, config, delimiter)
                _check_quoting(place, names, config, quoting)
                _check_header(place, names, fields)
            elif [cell.strip() for cell in row] == config.columns:
                continue  # where files with such a line were concatenated
            elif len(row) < len(names) or (
                len(row) > len(names) and config.extra_columns == "refuse"
            ):
                _check_delimiter(place, row, source, config, delimiter)
                raise UserError(_wrong_columns(place, len(row), names, config, quoting, delimiter))
            else:
                counts["rows"] += 1
                counts["wider"] += any(cell.strip() for cell in row[len(names) :])
                yield Record(place, dict(zip(names, row, strict=False)))
        if counts["wider"] and counts["wider"] == counts["rows"] > 1:
            raise UserError(
                f"{source.name}: every row has more cells than there are column names, as when the"
                " first column, of row numbers or names, has none; name all columns, so that each"
                f" cell goes to its own ({config.option('columns')}, without the header)"
            )
    except csv.Error as error:
        raise UserError(
            f"{source.name}:{start}: not {source.kind.upper()} ({error}); "
            "is a quotation mark left open?"
        ) from None


def _check_delimiter(
    place: str, cells: list[str], source: Source, config: RecordConfig, delimiter: str
) -> None:
    """Refuses a row of a single cell in which another character seems to separate cells."""
    for other, name in delimiters.NAMES.items():
        if len(cells) == 1 and other in cells[0] and other != delimiter:
            kind = {",": "csv", "\t": "tsv"}.get(other)
            way_out = f"say so: {config.option('delimiter')} '{other}'"
            if kind not in (None, source.kind):
                option = config.option("format")
                way_out = f"call the file .{kind}, or say what it is: {option} {kind}"
            raise UserError(
                f"{place}: one column, {shown(cells[0])}; {name} separate its cells, and"
                f" {delimiters.NAMES.get(delimiter, repr(delimiter))} separate those of"
                f" {'.' + source.kind if config.delimiter is None else 'this file'}: {way_out}"
            )


def _check_quoting(place: str, names: list[str], config: RecordConfig, quoting: str) -> None:
    """Refuses names in quotation marks unless quoting says they are part of them."""
    marked = [name for name in names if is_quoted(name)]
    if marked and quoting == "none" and config.quoting is None:
        raise UserError(
            f"{place}: the name {marked[0]} is in quotation marks, which are ordinary characters in"
            f" .tsv; {quoting_way_out(config)} (none: they belong to the texts)"
        )


def is_quoted(cell: str) -> bool:
    """Returns whether the cell begins and ends with a quotation mark."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _check_header(place: str, names: list[str], fields: Mapping[str, str] | None) -> None:
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise UserError(f"{place}: two columns have the name {twice[0]!r}; rename one of them")
    check_names(place, names, fields)


def _wrong_columns(
    place: str,
    count: int,
    names: list[str],
    config: RecordConfig,
    quoting: str,
    delimiter: str,
) -> str:
    expected = "columns names" if config.columns else "the header has"
    way_out = (
        "put a text that contains the delimiter in quotation marks"
        if quoting == "double"
        else "a tab or a line end inside a text is not possible in .tsv: remove it, write the file"
        f" as .csv, or, if quotation marks enclose such texts, give {config.option('quoting')}"
        " double"
        if delimiter == "\t"
        else f"a {delimiter!r} inside a text needs quotation marks around it"
        if delimiter != ","
        else "a comma inside a text needs quotation marks around it"
    )
    if count > len(names):
        way_out += f"; {config.option('extra_columns')} ignore skips the extra cells"
    return f"{place}: {count} columns where {expected} {len(names)}; {way_out}"


def quoting_way_out(config: RecordConfig) -> str:
    """Says what to do where quotation marks bound the cells of a .tsv file."""
    return f"where they are the bounds of cells, give {config.option('quoting')} double"
