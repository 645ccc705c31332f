"""Files of sentences with a tag for every token: CoNLL columns read and written, records read."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bertjax.program.errors import UserError
from bertjax.tasks.tagged_records import read_tagged_records
from bertjax.tasks.tagged_sentences import (
    PlacedSentence,
    TaggedConfig,
    TaggedSentence,
    place_tokens,
)
from bertjax.tasks.tagging_schemes import (
    OUTSIDE,
    Scheme,
    TagError,
    TagReading,
    recognise_scheme,
)
from bertjax.text import streams
from bertjax.text.sources import Source, find_sources

_COMMENT = re.compile(r"#\s*(?:(?P<key>[\w.:-]+)\s*=(?:\s(?P<value>.*))?|(?:newdoc|newpar)\b.*)")
_NUMBER = re.compile(r"\d+")
_RANGE = re.compile(r"\d+[-.]\d+")
_CONLLU_COLUMNS = 10


class TaggedFiles(NamedTuple):
    """The sentences of files.

    sentences: with tags in IOB2 where they mark entities.
    readings: how the tags of each file were read, by file name; none for a file without entities.
    notes: what the user should know.
    """

    sentences: list[TaggedSentence]
    readings: dict[str, TagReading]
    notes: list[str]


class _Row(NamedTuple):
    line: int
    cells: list[str]


class _Block(NamedTuple):
    """The rows between two blank lines, and what the comments above them name."""

    rows: list[_Row]
    named: dict[str, str]


def read_sentences(
    names: Sequence[str], config: TaggedConfig, labelled: bool = True
) -> TaggedFiles:
    """Reads the sentences of files, in order.

    Args:
        names: .jsonl, .json and .parquet files and `dataset:NAME` contain records; files of any
            other name contain CoNLL columns, separated by tabs or spaces.
        config: how they are read; recognition treats each file by itself.
        labelled: False: tags are not read.

    Raises:
        UserError: with file and line, where rows differ in their number of columns, tags in number
            from tokens, or tags from the scheme; where some files mark entities and others do not;
            and where the readers raise.
    """
    streams.check_encoding(config.encoding)
    sentences: list[TaggedSentence] = []
    readings: dict[str, TagReading] = {}
    notes = []
    kind = "txt" if config.format in ("conll", "csv", "tsv") else config.format
    otherwise = "txt"
    if "format" in config.remembered:  # for files with no known suffix
        kind, otherwise = None, kind
    for source in find_sources(
        names, config.encoding, otherwise=otherwise, kind=kind, prefix=config.option_prefix
    ):
        in_columns = source.kind in ("txt", "csv", "tsv")
        read = _read_columns if in_columns else read_tagged_records
        placed = list(read(source, config, labelled))
        if not labelled:
            sentences += [sentence for sentence, _ in placed]
        elif placed:
            reading, converted, lone = _convert(placed, config.scheme)
            sentences += converted
            if lone:
                notes.append(
                    f"{source.name}: {lone:,} tags continue an entity that was not begun, which"
                    f" {reading.scheme} does not have; they are read as its beginning"
                )
            if any(tag != OUTSIDE for sentence in converted for tag in sentence.tags):
                readings[source.name] = reading
    if not sentences:
        raise UserError(f"{', '.join(names)}: no sentences")
    _check_readings(readings)
    return TaggedFiles(sentences, readings, notes)


def _check_readings(readings: dict[str, TagReading]) -> None:
    """Refuses files if some mark entities and others do not."""
    kinds = {reading.scheme == "none": name for name, reading in readings.items()}
    if len(kinds) > 1:
        entities = readings[kinds[False]]
        raise UserError(
            f"{kinds[True]}: its tags seem to mark no entities, and those of {kinds[False]} do"
            f" ({entities.describe()}); name the scheme of all files"
        )


def describe_readings(readings: dict[str, TagReading]) -> list[str]:
    """Returns a sentence for each way in which tags were read."""
    by_reading: dict[TagReading, list[str]] = {}
    for name, reading in readings.items():
        by_reading.setdefault(reading, []).append(name)
    return [
        f"tags of {', '.join(names)} are read as {reading.describe()}"
        for reading, names in by_reading.items()
    ]


def _convert(
    placed: list[PlacedSentence], scheme: Scheme | None
) -> tuple[TagReading, list[TaggedSentence], int]:
    """Returns the tags' reading, the sentences in IOB2, and the number of tags not begun."""
    try:
        reading = recognise_scheme([sentence.tags for sentence, _ in placed], scheme)
        converted = [
            sentence._replace(tags=reading.to_iob2(sentence.tags)) for sentence, _ in placed
        ]
        return reading, converted, sum(reading.count_lone(sentence.tags) for sentence, _ in placed)
    except TagError as error:
        place = next(
            place
            for sentence, places in placed
            for tag, place in zip(sentence.tags, places, strict=True)
            if tag == error.tag
        )
        raise UserError(f"{place}: {error}") from None


def _read_columns(source: Source, config: TaggedConfig, labelled: bool) -> Iterator[PlacedSentence]:
    blocks = _blocks(source, config)
    rows = [row for block in blocks for row in block.rows]
    if not rows:
        return
    width = len(rows[0].cells)
    for row in rows:
        if len(row.cells) != width:
            raise UserError(
                f"{source.name}:{row.line}: {len(row.cells)} columns where line {rows[0].line} has "
                f"{width}; every line is a token with its tag, and a blank line ends a sentence"
            )
    counted = _are_counted(blocks, width)
    token = _column(source.name, "token_column", config.token_column, width, 2 if counted else 1)
    last = width if not counted else 4 if width == _CONLLU_COLUMNS else 3
    tag = _column(source.name, "tag_column", config.tag_column, width, last) if labelled else None
    if token == tag:
        raise UserError(
            f"{source.name}:{rows[0].line}: column {token} would be both token and tag; "
            "they need a column each"
        )
    for block in blocks:
        # A range is a word of several tokens, each with its own row.
        rows = [row for row in block.rows if not (counted and _RANGE.fullmatch(row.cells[0]))]
        if not rows:
            raise UserError(
                f"{source.name}:{block.rows[0].line}: a sentence without a word, only the row"
                f" {block.rows[0].cells[0]}; add the rows of its words, or remove it"
            )
        places = [f"{source.name}:{row.line}" for row in rows]
        sentence = place_tokens(
            places[0],
            [row.cells[token - 1] for row in rows],
            None if tag is None else [row.cells[tag - 1] for row in rows],
            block.named.get("text"),
        )
        if block.named:
            sentence = sentence._replace(record={**block.named, "text": sentence.text})
        yield PlacedSentence(sentence, places)


def _blocks(source: Source, config: TaggedConfig) -> list[_Block]:
    """Yields the sentences of a file as rows, without comments and -DOCSTART- lines."""
    lines = [line.strip(" \t") for line in streams.lines(source, config)]
    tabs = Counter("\t" in line for line in lines if line and not line.startswith("# "))
    by_tab = tabs[True] > tabs[False]
    blocks = [_Block([], {})]
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("-DOCSTART-"):
            if blocks[-1].rows:
                blocks.append(_Block([], {}))
        elif not blocks[-1].rows and (comment := _comment(line, by_tab)):
            if comment["key"]:
                blocks[-1].named[comment["key"]] = comment["value"] or ""
        else:
            cells = line.split("\t") if by_tab and "\t" in line else re.split("[ \t]+", line)
            # Two tabs are one and a stray one: no cell is empty.
            blocks[-1].rows.append(_Row(number, [cell for c in cells if (cell := c.strip(" "))]))
    return blocks if blocks[-1].rows else blocks[:-1]


def _comment(line: str, by_tab: bool) -> re.Match | None:
    """Reads a line as a comment. A token may also begin with #: it has a tag beside it."""
    if "\t" in line or not line.startswith("#"):
        return None
    free = re.fullmatch(r"# (?P<key>)(?P<value>.*)", line) if by_tab else None
    return _COMMENT.fullmatch(line) or free


def _are_counted(blocks: Sequence[_Block], width: int) -> bool:
    """Returns whether the first column counts each sentence's tokens, and two more follow."""
    if width < 3:
        return False
    for block in blocks:
        numbers = [row.cells[0] for row in block.rows if not _RANGE.fullmatch(row.cells[0])]
        if numbers != [str(number) for number in range(1, len(numbers) + 1)]:
            return False
    return True


def _column(file: str, name: str, chosen: int | str | None, width: int, otherwise: int) -> int:
    if chosen is None:
        return otherwise
    if not _NUMBER.fullmatch(str(chosen)) or not 1 <= int(chosen) <= width:
        raise UserError(f"{file}: {name}={chosen!r} must be a column's number, 1 to {width}")
    return int(chosen)


def to_conll(sentences: Sequence[TaggedSentence], predicted: Sequence[Sequence[str]]) -> str:
    """Writes CoNLL columns: token, known tag if any, and predicted tag, tab-separated; a blank
    line after each sentence.
    """
    lines = []
    for sentence, tags in zip(sentences, predicted, strict=True):
        columns = [sentence.tokens, tags]
        if sentence.tags is not None:
            columns.insert(1, sentence.tags)
        lines += ["\t".join(row) for row in zip(*columns, strict=True)]
        lines.append("")
    return "".join(f"{line}\n" for line in lines)
