"""Texts and pairs of texts, as the commands that study attention read them."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING

from bertjax.commands.screen import read_lines
from bertjax.errors import UserError

if TYPE_CHECKING:
    from bertjax.analysis.encoding import EncodedText
    from bertjax.text.tokenizer import Tokenizer

# What can be read, for the help.
KINDS = (
    ".txt files (a text a line, the two of a pair parted by a tab), or .csv, .tsv, .json, .jsonl,"
    " .parquet (one or two of their columns), each also .gz"
)


def add_columns(parser: argparse.ArgumentParser) -> None:
    """Adds how a table's columns are called, and `add_encoding`."""
    parser.add_argument(
        "--text-column",
        metavar="NAME",
        default="text",
        help="of tables: the text, or the first of a pair (default: %(default)s)",
    )
    parser.add_argument(
        "--pair-column",
        metavar="NAME",
        help="of tables: the second of a pair (default: texts stand alone)",
    )
    add_encoding(parser)


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Adds what messages about bytes that are not of the encoding name as the way out."""
    parser.add_argument(
        "--encoding", default="utf-8", help="of the text files (default: %(default)s)"
    )
    parser.add_argument(
        "--errors",
        choices=["strict", "replace", "ignore"],
        default="strict",
        help="what to do with bytes that are not of that encoding (default: %(default)s)",
    )


@contextlib.contextmanager
def standard_input() -> Iterator[IO[str]]:
    """The lines of standard input that are not empty, as a file that can be read twice."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n") as file:
        for line in read_lines("a text a line, the two of a pair parted by a tab"):
            file.write(line + "\n")
        yield file


def read_texts(
    options: argparse.Namespace, files: Sequence[str], lines: IO[str] | None = None
) -> Iterator[tuple[str, str | tuple[str, str]]]:
    """Every text that is not empty, with its place.

    Args:
        options: with those of `add_columns`.
        files: of the kinds in `KINDS`.
        lines: what to read instead (see `standard_input`).
    """
    from bertjax.text import streams
    from bertjax.text.records import RecordConfig, read_records, shown
    from bertjax.text.sources import find_sources

    if lines is not None:
        lines.seek(0)
        for number, line in enumerate(lines, start=1):
            yield part_pair(f"standard input, text {number}", line.removesuffix("\n"))
        return
    streams.check_encoding(options.encoding)
    config = RecordConfig(encoding=options.encoding, errors=options.errors)
    columns = {options.text_column: "--text-column"}
    if options.pair_column is not None:
        columns[options.pair_column] = "--pair-column"
    for source in find_sources(files, options.encoding):
        if source.kind == "txt":
            for number, line in enumerate(streams.lines(source, config), start=1):
                if line.strip():
                    yield part_pair(f"{source.name}:{number}", line)
            continue
        for place, values in read_records(source, config, columns):
            texts = [values[column] or "" for column in columns]
            for column, text in zip(columns, texts, strict=True):
                if not isinstance(text, str):
                    raise UserError(
                        f"{place}: the field {column!r} holds {shown(text)}, not text; name another"
                        f" with {columns[column]}"
                    )
            if any(text.strip() for text in texts):
                yield place, texts[0] if len(texts) == 1 else (texts[0], texts[1])


def part_pair(place: str, line: str) -> tuple[str, str | tuple[str, str]]:
    """A line's text, or the two of a pair, behind its place; a tab at its end parts nothing."""
    parts = line.strip().split("\t")
    if len(parts) > 2:
        raise UserError(
            f"{place}: {len(parts) - 1} tabs; one tab parts the two of a pair, and a text has none"
        )
    return place, parts[0] if len(parts) == 1 else (parts[0], parts[1])


def encode_argument(
    tokenizer: "Tokenizer", text: str, max_length: int, place: str = "the text"
) -> "EncodedText":
    """A text of the command line, or a pair parted by a tab, as the model sees it."""
    from bertjax.analysis.encoding import encode_texts

    place, parts = part_pair(place, text)
    return encode_texts(tokenizer, [parts], max_length, places=[place])[0]
