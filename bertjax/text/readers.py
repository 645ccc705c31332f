"""Documents from files, folders, data sets and the embedded corpus, one at a time.

    list_sources(config)                  -> what to read, checked before any work starts
    read_documents(source, config, note)  -> its documents, streamed, in bounded memory

What a document is: in `.txt` the text between two blank lines (or a line, or the whole file), in
every other format one record. A document of more than `MAXIMUM_DOCUMENT` characters is cut at a
line's end, so that none fills the memory, and a note says how many were.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar, Literal, NamedTuple

from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.text import delimiters, streams
from bertjax.text.record_config import RecordConfig, shown
from bertjax.text.records import read_records
from bertjax.text.sources import Kind, Source, find_sources

# Characters. A longer document is cut at a line's end: nothing learned from text needs more
# context.
MAXIMUM_DOCUMENT = 1 << 20


@dataclasses.dataclass
class DocumentConfig:
    """Where the text comes from, and what a document is.

    Attributes:
        input: What to read: files (.txt .jsonl .json .csv .tsv .parquet, each also .gz), folders
            (their files of these kinds, at any depth, sorted by name), globs in
            quotes, dataset:ORG/NAME[/CONFIG][@SPLIT] for a data set of the Hugging Face hub (split
            train unless named), corpus:python or corpus:python+numpy,jax for the documentation of
            Python (and of installed packages).
        text_column: The field or column that holds the text, in every format but .txt.
        encoding: The encoding of the text files, a name that Python knows (utf-8, latin-1, utf-16,
            ...).
        errors: What to do with bytes that are invalid in that encoding: strict stops and names the
            place, replace inserts a replacement character, ignore skips them.
        document_separator: What ends a document in a .txt file: a blank-line, every line, or only
            the end of the file, as with novels (a document of more than 1048576 characters is cut
            at a line's end).
    """

    input: list[str]
    text_column: str = "text"
    encoding: str = "utf-8"
    errors: Literal["strict", "replace", "ignore"] = "strict"
    document_separator: Literal["blank-line", "line", "file"] = "blank-line"
    # What the lines of a document are is decided by those that look for sentences.
    sentence_per_line: ClassVar[bool] = False
    unwrap_lines: ClassVar[bool] = False


@dataclasses.dataclass
class ReaderConfig(DocumentConfig):
    """Where the text comes from and how it is read.

    Attributes:
        sentence_per_line: Every line of the .txt files is a sentence and a blank line ends a
            document, the format of Google's BERT.
        unwrap_lines: Join the lines of a .txt file up to the next blank line into one paragraph,
            for text wrapped at a fixed width.
    """

    sentence_per_line: bool = False
    unwrap_lines: bool = False


class Piece(NamedTuple):
    """A document, or a piece of a long one.

    text: Of any length, also empty.
    begins: Whether it is the first piece of its document.
    """

    text: str
    begins: bool


class Document(NamedTuple):
    """One document.

    source: The name of the source it comes from.
    number: Its number in that source, from 0.
    text: Its paragraphs or lines, separated by "\\n".
    """

    source: str
    number: int
    text: str


def list_sources(config: DocumentConfig) -> list[Source]:
    """Lists everything that `config.input` names, in a fixed order, each once, checked as far as
    possible without reading it.

    Raises:
        UserError: no such file (with its nearest neighbour), a folder or a glob without text, an
            empty or binary file, a suffix that no reader knows, an unknown encoding, options that
            contradict each other.
    """
    streams.check_encoding(config.encoding)
    if config.sentence_per_line and config.unwrap_lines:
        raise UserError(
            "sentence_per_line and unwrap_lines exclude each other: "
            "a line is a sentence, or a piece of a paragraph"
        )
    if config.document_separator == "line" and (config.sentence_per_line or config.unwrap_lines):
        raise UserError(
            "document_separator=line makes a document of every line, so sentence_per_line and"
            " unwrap_lines mean nothing; leave them out"
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
    _check_effect(config, {source.kind for source in sources})
    return sources


def _check_effect(config: DocumentConfig, kinds: set[Kind]) -> None:
    """Refuses an option that applies to no kind of input that there is."""
    encoded = {"txt", "jsonl", "json", "csv", "tsv"}
    only = {
        "document_separator": {"txt"},
        "unwrap_lines": {"txt"},
        "text_column": set(_READERS) - {"txt", "corpus"},
        "encoding": encoded,
        "errors": encoded,
    }
    defaults = {field.name: field.default for field in dataclasses.fields(ReaderConfig)}
    for name, has_effect in only.items():
        if getattr(config, name) != defaults[name] and not kinds & has_effect:
            raise UserError(
                f"{name}={getattr(config, name)} has no effect on this input"
                f" ({', '.join(sorted(kinds))}): it is for {', '.join(sorted(has_effect))}; leave"
                " it out"
            )


def read_documents(
    source: Source, config: DocumentConfig, note: Callable[[str], None]
) -> Iterator[Document]:
    """Yields the documents of one source in order, except empty ones. The same source always
    gives the same documents.

    Args:
        source: One of `list_sources`.
        config: How it is read.
        note: Called at the end with how many documents were cut, if any, and at the start with what
            separates the cells of a table, where its name suggests something else.

    Raises:
        UserError: as soon as the bad place is reached, with file and line: bytes of another
            encoding, a line beyond `streams.MAXIMUM_LINE`, a record without the text column,
            damaged JSON, CSV, Parquet or gzip data.
    """
    for sentence in delimiters.describe_delimiters([source], _record_config(config)):
        note(sentence)
    number = long = further = 0
    pieces_of_document = 0
    for text, begins in _READERS[source.kind](source, config):
        pieces_of_document *= not begins
        if text and not text.isspace():
            yield Document(source.name, number, text)
            number += 1
            pieces_of_document += 1
            long += pieces_of_document == 2
            further += pieces_of_document > 1
    if long:
        note(
            f"{source.name}: {counted(long, 'document')} of more than {MAXIMUM_DOCUMENT:,}"
            f" characters, read as {long + further:,} documents, one after the other (cut at a"
            " line's end); to cut elsewhere, make several documents of each"
        )


def _cut(text: str) -> Iterator[Piece]:
    """Yields pieces of at most MAXIMUM_DOCUMENT characters that end at a line end, except a longer
    line, which is a piece of its own.
    """
    start = 0
    while len(text) - start > MAXIMUM_DOCUMENT:
        end = text.rfind("\n", start, start + MAXIMUM_DOCUMENT)
        end = text.find("\n", start + MAXIMUM_DOCUMENT) if end <= start else end
        if end < 0:
            break
        yield Piece(text[start:end], begins=not start)
        start = end + 1
    yield Piece(text[start:], begins=not start)


def _read_txt(source: Source, config: DocumentConfig) -> Iterator[Piece]:
    lines: list[str] = []
    paragraph: list[str] = []
    size = 0
    by_line = config.document_separator == "line"
    begins = True

    def end_paragraph() -> None:
        if paragraph:
            lines.append(" ".join(paragraph))
            paragraph.clear()

    for line in streams.lines(source, config):
        blank = not line or line.isspace()
        # Memory stays bounded in a file without blank lines.
        if size + len(line) > MAXIMUM_DOCUMENT:
            end_paragraph()
            if lines:
                yield Piece("\n".join(lines), begins)
                lines.clear()
                begins = False
            size = 0
        if blank:
            end_paragraph()
        elif config.unwrap_lines:
            paragraph.append(line.strip())
        else:
            lines.append(line)
        size += len(line) + 1
        if blank if config.document_separator == "blank-line" else by_line:
            end_paragraph()
            if lines:
                yield Piece("\n".join(lines), begins)
                lines.clear()
            begins = True
            size = 0
    end_paragraph()
    if lines:
        yield Piece("\n".join(lines), begins)


def _record_config(config: DocumentConfig) -> RecordConfig:
    return RecordConfig(encoding=config.encoding, errors=config.errors)


def _read_records(source: Source, config: DocumentConfig) -> Iterator[Piece]:
    """Yields the text of every record; null is an empty document."""
    column = config.text_column
    for place, values in read_records(source, _record_config(config), {column: "--text-column"}):
        text = values[column]
        if text is not None and not isinstance(text, str):
            raise UserError(
                f"{place}: the field {column!r} is {shown(text)}, not text; "
                "name another with --text-column"
            )
        yield from _cut(text or "")


def _read_corpus(source: Source, config: DocumentConfig) -> Iterator[Piece]:
    from bertjax.text.corpora import python_documentation

    for text in python_documentation(source.packages):
        yield from _cut(text)


_READERS = {
    "txt": _read_txt,
    "jsonl": _read_records,
    "json": _read_records,
    "csv": _read_records,
    "tsv": _read_records,
    "parquet": _read_records,
    "dataset": _read_records,
    "corpus": _read_corpus,
}
