"""Documents out of files, folders, data sets and the embedded corpus, one at a time.

    list_sources(config)            -> what there is to read, checked before any work starts
    read_documents(source, config)  -> its documents, streamed, in bounded memory

What a document is: in `.txt` what stands between two blank lines (or the whole file), in every
other format one record. A document of more than `MAXIMUM_DOCUMENT` characters is cut at a line's
end, so that no document fills the memory.
"""

import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from bertjax.config import nearest
from bertjax.errors import UserError
from bertjax.text import streams
from bertjax.text.sources import Source, find_sources

# Characters. A longer document is cut at a line's end: nothing learned from text needs more context
# than this.
MAXIMUM_DOCUMENT = 1 << 20

# Bytes. Without a buffer pyarrow reads a whole column of a row group at once.
_PARQUET_BUFFER = 1 << 20

_JSON_BETWEEN = re.compile(r"[\s,]*")


@dataclasses.dataclass
class ReaderConfig:
    """Where the text comes from and how it is read.

    Attributes:
        input: What to read: files (.txt .jsonl .json .csv .tsv .parquet, each also .gz), folders
            (their files of these kinds, at any depth, in the order of their names), globs in
            quotes, dataset:ORG/NAME[/CONFIG][@SPLIT] for a data set of the Hugging Face hub (split
            train unless named), corpus:python or corpus:python+numpy,jax for the documentation of
            Python (and of installed packages).
        text_column: The field or column that holds the text, in every format but .txt.
        encoding: The encoding of the text files, a name that Python knows (utf-8, latin-1, utf-16,
            ...).
        errors: What to do with bytes that are not of that encoding: strict stops and names the
            place, replace puts a replacement character, ignore leaves them out.
        sentence_per_line: Every line of the .txt files is one sentence and a blank line ends a
            document, the format of Google's BERT.
        document_separator: What ends a document in a .txt file: a blank-line, or only the end of
            the file (a document of more than 1048576 characters is cut at a line's end).
        unwrap_lines: Join the lines of a .txt file up to the next blank line into one paragraph,
            for text wrapped at a fixed width.
    """

    input: list[str]
    text_column: str = "text"
    encoding: str = "utf-8"
    errors: Literal["strict", "replace", "ignore"] = "strict"
    sentence_per_line: bool = False
    document_separator: Literal["blank-line", "file"] = "blank-line"
    unwrap_lines: bool = False


class Document(NamedTuple):
    """One document.

    source: The name of the source it comes from.
    number: Its number in there, from 0.
    text: Its paragraphs or lines, parted by "\\n".
    """

    source: str
    number: int
    text: str


def list_sources(config: ReaderConfig) -> list[Source]:
    """Everything that `config.input` names, in a fixed order, each once, checked as far as that is
    possible without reading it.

    Raises:
        UserError: no such file (with its nearest neighbour), a folder or a glob without text, an
            empty or binary file, a suffix that no reader knows, an unknown encoding, options that
            do not fit together.
    """
    streams.check_encoding(config.encoding)
    if config.sentence_per_line and config.unwrap_lines:
        raise UserError(
            "sentence_per_line and unwrap_lines exclude each other: "
            "a line is a sentence, or a piece of a paragraph"
        )
    if not config.input:
        raise UserError(
            "input is empty; name at least one file, folder, glob, dataset:NAME or corpus:python"
        )
    sources = find_sources(config.input, config.encoding)
    if config.sentence_per_line:
        for source in sources:
            if source.kind != "txt":
                raise UserError(
                    f"{source.name}: sentence_per_line is a format of .txt files, "
                    f"this is {source.kind}"
                )
    return sources


def read_documents(source: Source, config: ReaderConfig) -> Iterator[Document]:
    """The documents of one source in its order; empty ones are left out. The same source always
    gives the same documents.

    Raises:
        UserError: as soon as the bad place is reached, with file and line: bytes of another
            encoding, a line beyond `streams.MAXIMUM_LINE`, a record without the text column,
            damaged JSON, CSV, Parquet or gzip data.
    """
    texts = _READERS[source.kind](source, config)
    pieces = (piece for text in texts for piece in _cut(text) if piece and not piece.isspace())
    for number, text in enumerate(pieces):
        yield Document(source.name, number, text)


def _cut(text: str) -> Iterator[str]:
    """Pieces of at most MAXIMUM_DOCUMENT characters that end at a line's end; only a longer line
    stands alone.
    """
    start = 0
    while len(text) - start > MAXIMUM_DOCUMENT:
        end = text.rfind("\n", start, start + MAXIMUM_DOCUMENT)
        end = text.find("\n", start + MAXIMUM_DOCUMENT) if end <= start else end
        if end < 0:
            break
        yield text[start:end]
        start = end + 1
    yield text[start:] if start else text


def _read_txt(source: Source, config: ReaderConfig) -> Iterator[str]:
    lines: list[str] = []
    paragraph: list[str] = []
    size = 0

    def end_paragraph() -> None:
        if paragraph:
            lines.append(" ".join(paragraph))
            paragraph.clear()

    for line in streams.lines(source, config):
        blank = not line or line.isspace()
        if blank:
            end_paragraph()
        elif config.unwrap_lines:
            paragraph.append(line.strip())
        else:
            lines.append(line)
        size += len(line) + 1
        # The check on the size keeps memory bounded in a file without blank lines.
        if (blank and config.document_separator == "blank-line") or size > MAXIMUM_DOCUMENT:
            end_paragraph()
            if lines:
                yield "\n".join(lines)
                lines.clear()
            size = 0
    end_paragraph()
    if lines:
        yield "\n".join(lines)


def _read_jsonl(source: Source, config: ReaderConfig) -> Iterator[str]:
    for number, line in enumerate(streams.lines(source, config), 1):
        if line and not line.isspace():
            place = f"{source.name}:{number}"
            try:
                record = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise UserError(
                    f"{place}: not JSON ({error}); .jsonl holds one object a line"
                ) from None
            yield _text_of(record, config, place)


def _read_json(source: Source, config: ReaderConfig) -> Iterator[str]:
    """The objects of an array, or one after the other, read piece by piece: only one object is in
    memory at a time.
    """
    decoder = json.JSONDecoder()
    buffer, line, wanted = "", 1, 0
    array: Literal["none", "open", "closed"] = "none"
    for piece in itertools.chain(streams.pieces(source, config), [None]):
        buffer += piece or ""
        # An object that has not come to its end is tried again only when twice as much is there:
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
                record, end = decoder.raw_decode(buffer, position)
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
            yield _text_of(record, config, place)
            line += buffer.count("\n", position, end)
            position = end
        buffer = buffer[position:]
    if array == "open":
        raise UserError(f"{source.name}:{line}: the array does not end; the file is cut off")


def _is_malformed(error: json.JSONDecodeError) -> bool:
    """Whether more text could not mend it: the decoder stopped well before the end of what it was
    given.
    """
    return not error.msg.startswith("Unterminated") and error.pos < len(error.doc) - 16


def _text_of(record: Any, config: ReaderConfig, place: str) -> str:
    """The text of one JSON record; null is an empty document."""
    if not isinstance(record, dict):
        raise UserError(
            f"{place}: a record is an object with the field {config.text_column!r}, "
            f"this is {json.dumps(record):.60}"
        )
    if config.text_column not in record:
        raise _no_column(place, config.text_column, list(record), "field")
    text = record[config.text_column]
    if text is not None and not isinstance(text, str):
        raise UserError(
            f"{place}: the field {config.text_column!r} holds {json.dumps(text):.60}, not text; "
            "name another with --text-column"
        )
    return text or ""


def _no_column(place: str, wanted: str, present: list[str], what: str = "column") -> UserError:
    names = ", ".join(map(repr, present[:20])) or "none"
    return UserError(
        f"{place}: no {what} {wanted!r}{nearest(wanted, present)}; "
        f"there are: {names} (choose with --text-column)"
    )


def _read_table(source: Source, config: ReaderConfig) -> Iterator[str]:
    """CSV as RFC 4180 has it; TSV as its media type has it: a tab always parts, a quotation mark is
    a character like any.
    """
    csv.field_size_limit(streams.MAXIMUM_LINE)
    lines = (line + "\n" for line in streams.lines(source, config))
    rows = csv.reader(
        lines,
        delimiter="\t" if source.kind == "tsv" else ",",
        quoting=csv.QUOTE_NONE if source.kind == "tsv" else csv.QUOTE_MINIMAL,
        strict=True,
    )
    header: list[str] | None = None
    start = 1
    try:
        for row in rows:
            place, start = f"{source.name}:{start}", rows.line_num + 1
            if not row:
                continue
            if header is None:
                header = [name.strip() for name in row]
                if config.text_column not in header:
                    raise _no_column(place, config.text_column, header)
                column = header.index(config.text_column)
            elif len(row) != len(header):
                raise UserError(
                    f"{place}: {len(row)} columns where the header has {len(header)}; "
                    "a text that holds the delimiter is quoted in .csv and cannot stand in .tsv"
                )
            else:
                yield row[column]
    except csv.Error as error:
        raise UserError(
            f"{source.name}:{start}: not {source.kind.upper()} ({error}); "
            "is a quotation mark left open?"
        ) from None


def _read_parquet(source: Source, config: ReaderConfig) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with streams.open_seekable(source) as stream:
        try:
            table = pq.ParquetFile(stream, buffer_size=_PARQUET_BUFFER)
            if config.text_column not in table.schema_arrow.names:
                raise _no_column(source.name, config.text_column, table.schema_arrow.names)
            kind = table.schema_arrow.field(config.text_column).type
            if not (
                pa.types.is_string(kind)
                or pa.types.is_large_string(kind)
                or pa.types.is_dictionary(kind)
            ):
                raise UserError(
                    f"{source.name}: the column {config.text_column!r} holds {kind}, not text; "
                    "name another with --text-column"
                )
            # Small batches: a column of long documents must not come into memory whole.
            for batch in table.iter_batches(batch_size=256, columns=[config.text_column]):
                yield from (text or "" for text in batch.column(0).to_pylist())
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{source.name}: damaged Parquet file ({_first_line(error)})") from None


def _read_dataset(source: Source, config: ReaderConfig) -> Iterator[str]:
    """Streamed from the hub: nothing is kept on the disk."""
    import datasets

    path, split = source.location.split("@")
    name, *configs = re.fullmatch(r"([^/]+/[^/]+|[^/]+)(?:/(.+))?", path).groups()
    try:
        records = datasets.load_dataset(name, *filter(None, configs), split=split, streaming=True)
        for number, record in enumerate(records, 1):
            yield _text_of(record, config, f"{source.name} record {number}")
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{source.name}: the data set cannot be read "
            f"({type(error).__name__}: {_first_line(error)}); "
            "check its name and that the hub can be reached, or give files"
        ) from None


def _read_corpus(source: Source, config: ReaderConfig) -> Iterator[str]:
    from bertjax.text.corpora import python_documentation

    return (document.text for document in python_documentation(source.packages))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no reason given").splitlines()[0][:200]


_READERS = {
    "txt": _read_txt,
    "jsonl": _read_jsonl,
    "json": _read_json,
    "csv": _read_table,
    "tsv": _read_table,
    "parquet": _read_parquet,
    "dataset": _read_dataset,
    "corpus": _read_corpus,
}
