"""Records from .jsonl, .json, .csv, .tsv, .parquet and data sets of the hub, one at a time.

    read_records(source, config)  -> its records with their places, streamed, in bounded memory

A record is what one row of a table or one JSON object holds: names to values. The documents of
pretraining (`readers`) and the labelled examples of every task are made from the same records.
"""

import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.text import delimiters, streams
from bertjax.text.sources import Source, find_sources
from bertjax.text.surrogates import without_surrogates

# What files of labelled examples can be; conll is for tagged sentences only.
FileFormat = Literal["csv", "tsv", "json", "jsonl", "parquet", "conll"]

# Bytes. Without a buffer pyarrow reads a whole column of a row group at once.
_PARQUET_BUFFER = 1 << 20


_JSON_BETWEEN = re.compile(r"[\s,]*")


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


def find_record_files(names: Sequence[str], config: RecordConfig) -> list[Source]:
    """Returns the sources that `names` stand for, of the given format.

    A remembered format applies to files whose names give no format of records.
    """
    if "format" not in config.remembered:
        return find_sources(
            names,
            config.encoding,
            kind=config.format,
            option=config.option("format"),
            prefix=config.option_prefix,
        )
    sources = find_sources(
        names, config.encoding, otherwise=config.format, prefix=config.option_prefix
    )
    return [
        dataclasses.replace(source, kind=config.format) if source.kind == "txt" else source
        for source in sources
    ]


def read_records(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """Yields the records of one source in order.

    Args:
        source: A source of any kind but plain text and corpus.
        config: How it is read.
        fields: The fields that every record must have, each with the option that chooses it; from
            Parquet nothing else is read. None: all fields.

    Raises:
        UserError: as soon as the bad place is reached: a record without one of the fields, damaged
            JSON, CSV, Parquet or gzip data, a row with more or fewer columns than the header,
            bytes of another encoding, a line beyond `streams.MAXIMUM_LINE`; columns for a format
            that names its fields itself.
    """
    if source.kind not in _READERS:
        raise UserError(
            f"{source.name}: plain text has no fields; "
            "records come as .jsonl, .json, .csv, .tsv or .parquet"
        )
    if source.kind not in ("csv", "tsv"):
        if config.columns and "columns" not in config.remembered:
            raise UserError(
                f"{source.name}: columns={config.columns} names the columns of .csv and .tsv files "
                f"without a header line; {source.kind} names its fields itself"
            )
        if config.delimiter is not None and "delimiter" not in config.remembered:
            raise UserError(
                f"{source.name}: {config.option('delimiter')} {config.delimiter!r} is for .csv and"
                f" .tsv files, and {source.kind} has no cells; leave it out"
            )
    return _READERS[source.kind](source, config, fields)


def read_whole_records(
    source: Source, config: RecordConfig, fields: Mapping[str, str]
) -> Iterator[Record]:
    """Yields the records with all of their fields, not only the required ones."""
    if source.kind != "parquet":
        yield from read_records(source, config, fields)
        return
    for number, record in enumerate(read_records(source, config)):
        if number == 0:
            check_names(source.name, list(record.values), fields)
        yield record


def quoting_way_out(config: RecordConfig) -> str:
    """Says what to do where quotation marks bound the cells of a .tsv file."""
    return f"where they are the bounds of cells, give {config.option('quoting')} double"


def shown(value: Any) -> str:
    """Returns a value as messages show it: on one line, not too long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_jsonl(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    for number, line in enumerate(streams.lines(source, config), 1):
        if line and not line.isspace():
            place = f"{source.name}:{number}"
            try:
                value = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"{place}: not JSON ({error}); .jsonl holds one object per line"
                ) from None
            value = without_surrogates(source.name, number, value, line, config)
            yield _record(place, value, fields)


def _read_json(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    """Yields the objects of an array, or of a sequence, read piece by piece: only one object is
    in memory at a time.
    """
    decoder = json.JSONDecoder()
    buffer, line, wanted = "", 1, 0
    array: Literal["none", "open", "closed"] = "none"
    for piece in itertools.chain(streams.pieces(source, config), [None]):
        buffer += piece or ""
        # An object that is not complete yet is tried again only when twice as much has been read:
        # linear time.
        if piece is not None and len(buffer) < wanted:
            continue
        position = 0
        while True:
            gap = _JSON_BETWEEN.match(buffer, position)
            line += gap[0].count("\n")
            position = gap.end()
            if position == len(buffer):
                wanted = 0
                break
            place = f"{source.name}:{line}"
            if array == "closed":
                raise UserError(f"{place}: text after the end of the array")
            if (buffer[position], array) in (("[", "none"), ("]", "open")):
                array = "open" if array == "none" else "closed"
                position += 1
                continue
            try:
                value, end = decoder.raw_decode(buffer, position)
            except RecursionError:
                raise UserError(f"{place}: not a record (JSON nested too deeply)") from None
            except json.JSONDecodeError as error:
                if piece is None or _is_malformed(error):
                    line += buffer.count("\n", position, error.pos)
                    raise UserError(
                        f"{source.name}:{line}: not JSON ({error.msg}); "
                        ".json holds an array of objects, or objects one after the other"
                    ) from None
                wanted = 2 * (len(buffer) - position)
                if wanted > 2 * streams.MAXIMUM_LINE:
                    raise UserError(
                        f"{place}: an object of more than {streams.MAXIMUM_LINE >> 20} million "
                        "characters; make several documents of it"
                    ) from None
                break
            value = without_surrogates(source.name, line, value, buffer[position:end], config)
            yield _record(place, value, fields)
            line += buffer.count("\n", position, end)
            position = end
        buffer = buffer[position:]
    if array == "open":
        raise UserError(f"{source.name}:{line}: the array does not end; the file is cut off")


def _is_malformed(error: json.JSONDecodeError) -> bool:
    """Returns whether more text could not complete it: the decoder stopped well before the end of
    its input.
    """
    return not error.msg.startswith("Unterminated") and error.pos < len(error.doc) - 16


def _record(place: str, value: Any, fields: Mapping[str, str] | None) -> Record:
    """Returns a JSON value as a record, which is an object with all the fields."""
    if not isinstance(value, dict):
        wanted = "".join(f" with the field {name!r}" for name in list(fields or ())[:1])
        raise UserError(f"{place}: a record is an object{wanted}, this is {shown(value)}")
    check_names(place, list(value), fields, "field")
    return Record(place, value)


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


def _read_table(
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


def _read_parquet(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with streams.open_seekable(source) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=_PARQUET_BUFFER)
            check_names(source.name, table.schema_arrow.names, fields)
            columns = None if fields is None else list(fields)
            number = itertools.count(1)
            # Small batches: a column of long documents must not be loaded whole.
            for batch in table.iter_batches(batch_size=256, columns=columns):
                for values in batch.to_pylist():
                    yield Record(f"{source.name} record {next(number)}", values)
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{source.name}: damaged Parquet file ({_first_line(error)})") from None


def _read_dataset(
    source: Source, config: RecordConfig, fields: Mapping[str, str] | None
) -> Iterator[Record]:
    """Streams records from the hub; nothing is kept on disk."""
    import datasets

    path, split = source.location.split("@")
    name, *configs = re.fullmatch(r"([^/]+/[^/]+|[^/]+)(?:/(.+))?", path).groups()
    try:
        records = datasets.load_dataset(name, *filter(None, configs), split=split, streaming=True)
        for number, values in enumerate(records, 1):
            yield _record(f"{source.name} record {number}", values, fields)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source.name}: the data set cannot be read "
            f"({type(error).__name__}: {_first_line(error)}); "
            "check its name and that the hub can be reached, or give files"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0][:200]


_READERS = {
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_table,
    "tsv": _read_table,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
}
