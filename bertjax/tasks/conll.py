"""Sentences with a tag for every token: CoNLL columns, or records with lists of tokens and tags.

read_sentences(names, config)  -> the sentences of some files, entities as IOB2, and how they were
                                  marked
check_tags(train, validation, test)  -> the names of the tags, or what is wrong with them
to_conll(sentences, predicted)  -> CoNLL columns
"""

import dataclasses
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bertjax.errors import UserError
from bertjax.tasks.labelled import TextExample, check_labels
from bertjax.tasks.tagging_schemes import (
    NO_TYPE,
    OUTSIDE,
    Scheme,
    TagError,
    TagReading,
    are_entity_tags,
    recognise_scheme,
)
from bertjax.text import streams
from bertjax.text.records import (
    FileFormat,
    RecordConfig,
    SpelledOptions,
    check_names,
    read_records,
    shown,
)
from bertjax.text.sources import Source, find_sources
from bertjax.wording import nearest

# What tokens and tags are called in records where nobody says.
TOKENS = ("tokens", "words")
TAGS = ("ner_tags", "pos_tags", "tags", "labels")

_COMMENT = re.compile(r"#\s*(?:(?P<key>[\w.:-]+)\s*=(?:\s(?P<value>.*))?|(?:newdoc|newpar)\b.*)")
_NUMBER = re.compile(r"\d+")
_RANGE = re.compile(r"\d+[-.]\d+")
_CONLLU_COLUMNS = 10


@dataclasses.dataclass(frozen=True)
class TaggedConfig(SpelledOptions):
    """How files of tagged sentences are read.

    Attributes:
        token_column: Where the tokens are: in columns a number from 1, in records the name of a
            field; null: the first column, the second where the first counts the tokens (.iob2,
            .conllu), the field tokens or words.
        tag_column: Where the tags are; null: the last column, the third where the first counts the
            tokens, the fourth of .conllu (UPOS), the field ner_tags, pos_tags, tags or labels.
        scheme: How the tags mark entities; null: recognised; none: they mark none, like parts of
            speech, and stay as they are.
        labels: The names of the tags in their order, needed where the tags of records are numbers.
        encoding: The encoding of the text files, a name that Python knows (utf-8, latin-1, utf-16,
            ...).
        errors: What to do with bytes that are not of that encoding: strict stops and names the
            place, replace puts a replacement character, ignore leaves them out.
        format: What the files are, whatever their names end in: conll, or what holds records;
            null: as their names say.
    """

    token_column: int | str | None = None
    tag_column: int | str | None = None
    scheme: Scheme | None = None
    labels: list[str] = dataclasses.field(default_factory=list)
    encoding: str = "utf-8"
    errors: Literal["strict", "replace", "ignore"] = "strict"
    format: FileFormat | None = None


class TaggedSentence(NamedTuple):
    """One sentence.

    place: `file:line` of its first token, for messages.
    tokens: its words.
    tags: one for each; None in a file that is read without tags.
    text: as the file gives it where the tokens are in it one after the other; else the tokens with
        a blank between them.
    offsets: the characters of each token in `text`.
    record: all that a file of records, or the comments above the sentence, have of it, where it is
        read without tags, for what is written of it.
    """

    place: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str
    offsets: tuple[tuple[int, int], ...]
    record: Mapping[str, Any] | None = None


class TaggedFiles(NamedTuple):
    """What there is in some files.

    sentences: with tags in IOB2 where they mark entities.
    readings: how the tags of each file were read, by its name; none of a file without entities.
    notes: what there is to tell of it.
    """

    sentences: list[TaggedSentence]
    readings: dict[str, TagReading]
    notes: list[str]


class _Placed(NamedTuple):
    """A sentence, and the place of each of its tokens."""

    sentence: TaggedSentence
    places: list[str]


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
    """The sentences of some files, in order.

    Args:
        names: .jsonl, .json and .parquet files and `dataset:NAME` hold records; files of any other
            name hold CoNLL columns, parted by tabs or blanks.
        config: how they are read; what is recognised is recognised of each file by itself.
        labelled: False: whatever tags there are stay unread.

    Raises:
        UserError: rows of different numbers of columns, another number of tags than of tokens, tags
            that are not of the scheme, with file and line; files of which some mark entities and
            others not; what the readers raise.
    """
    streams.check_encoding(config.encoding)
    sentences: list[TaggedSentence] = []
    readings: dict[str, TagReading] = {}
    notes = []
    kind = "txt" if config.format in ("conll", "csv", "tsv") else config.format
    for source in find_sources(names, config.encoding, otherwise="txt", kind=kind):
        in_columns = source.kind in ("txt", "csv", "tsv")
        read = _read_columns if in_columns else _read_records
        found = list(read(source, config, labelled))
        if not labelled:
            sentences += [sentence for sentence, _ in found]
        elif found:
            reading, converted, lone = _convert(found, config.scheme)
            sentences += converted
            if lone:
                notes.append(
                    f"{source.name}: {lone:,} tags continue an entity that nothing began, which"
                    f" {reading.scheme} does not have; they are read as its beginning"
                )
            if any(tag != OUTSIDE for sentence in converted for tag in sentence.tags):
                readings[source.name] = reading
    if not sentences:
        raise UserError(f"{', '.join(names)}: no sentences")
    _check_readings(readings)
    return TaggedFiles(sentences, readings, notes)


def _check_readings(readings: dict[str, TagReading]) -> None:
    """Refuses files of which some mark entities and others not."""
    kinds = {reading.scheme == "none": name for name, reading in readings.items()}
    if len(kinds) > 1:
        entities = readings[kinds[False]]
        raise UserError(
            f"{kinds[True]}: its tags mark no entities, as it seems, and those of {kinds[False]} do"
            f" ({entities.describe()}); name the scheme of all files"
        )


def describe_readings(readings: dict[str, TagReading]) -> list[str]:
    """A sentence for each way in which tags were read."""
    by_reading: dict[TagReading, list[str]] = {}
    for name, reading in readings.items():
        by_reading.setdefault(reading, []).append(name)
    return [
        f"tags of {', '.join(names)} are read as {reading.describe()}"
        for reading, names in by_reading.items()
    ]


def _convert(
    found: list[_Placed], scheme: Scheme | None
) -> tuple[TagReading, list[TaggedSentence], int]:
    """How the tags are read, the sentences with IOB2 tags, and how many tags nothing began."""
    try:
        reading = recognise_scheme([sentence.tags for sentence, _ in found], scheme)
        converted = [
            sentence._replace(tags=reading.to_iob2(sentence.tags)) for sentence, _ in found
        ]
        return reading, converted, sum(reading.count_lone(sentence.tags) for sentence, _ in found)
    except TagError as error:
        place = next(
            place
            for sentence, places in found
            for tag, place in zip(sentence.tags, places, strict=True)
            if tag == error.tag
        )
        raise UserError(f"{place}: {error}") from None


def _read_columns(source: Source, config: TaggedConfig, labelled: bool) -> Iterator[_Placed]:
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
    tag = _column(source.name, "tag_column", config.tag_column, width, last)
    if labelled and token == tag:
        raise UserError(
            f"{source.name}:{rows[0].line}: column {token} would be token and tag; "
            "a file with tags has a column for each"
        )
    for block in blocks:
        # A range is a word of several tokens, which have rows of their own.
        rows = [row for row in block.rows if not (counted and _RANGE.fullmatch(row.cells[0]))]
        if not rows:
            raise UserError(
                f"{source.name}:{block.rows[0].line}: a sentence without a word, only the row"
                f" {block.rows[0].cells[0]}; give it the rows of its words, or take it out"
            )
        places = [f"{source.name}:{row.line}" for row in rows]
        sentence = _sentence(
            places[0],
            [row.cells[token - 1] for row in rows],
            [row.cells[tag - 1] for row in rows] if labelled else None,
            block.named.get("text"),
        )
        if not labelled and block.named:
            sentence = sentence._replace(record={**block.named, "text": sentence.text})
        yield _Placed(sentence, places)


def _blocks(source: Source, config: TaggedConfig) -> list[_Block]:
    """The sentences of a file as rows, without comments and -DOCSTART- lines."""
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
            # Two tabs are one with a stray one beside it: no cell is empty.
            blocks[-1].rows.append(_Row(number, [cell for c in cells if (cell := c.strip(" "))]))
    return blocks if blocks[-1].rows else blocks[:-1]


def _comment(line: str, by_tab: bool) -> re.Match | None:
    """The line as a comment. A token may begin with #, too: it has a tag beside it."""
    if "\t" in line or not line.startswith("#"):
        return None
    free = re.fullmatch(r"# (?P<key>)(?P<value>.*)", line) if by_tab else None
    return _COMMENT.fullmatch(line) or free


def _are_counted(blocks: Sequence[_Block], width: int) -> bool:
    """Whether the first column counts the tokens of every sentence, and two more follow."""
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


def _read_records(source: Source, config: TaggedConfig, labelled: bool) -> Iterator[_Placed]:
    record_config = RecordConfig(
        encoding=config.encoding, errors=config.errors, format=config.format
    )
    first_record = next(read_records(source, record_config), None)
    if first_record is None:
        return
    present = list(first_record.values)
    options = {name: config.option(name) for name in ("token_column", "tag_column")}
    token = _field(source.name, config.token_column, present, TOKENS, options["token_column"])
    fields = {token: options["token_column"]}
    tag = None
    if labelled:
        tag = _field(source.name, config.tag_column, present, TAGS, options["tag_column"])
        fields[tag] = options["tag_column"]
    if "text" in present:
        fields.setdefault("text", options["token_column"])
    for place, values in read_records(source, record_config, fields if labelled else None):
        if not labelled:
            check_names(place, list(values), fields)
        tokens = _tokens(place, token, values[token])
        tags = None if tag is None else _tags(place, tag, values[tag], tokens, config)
        text = values.get("text")
        sentence = _sentence(place, tokens, tags, text if isinstance(text, str) else None)
        sentence = sentence._replace(record=None if labelled else values)
        yield _Placed(sentence, [place] * len(tokens))


def _field(
    file: str, chosen: int | str | None, present: list[str], known: tuple[str, ...], option: str
) -> str:
    if chosen is not None:
        return str(chosen)
    found = [field for field in known if field in present]
    if len(found) != 1:
        kind = "token" if known is TOKENS else "tag"
        several = f"{' or '.join(found)} may be it" if found else f"none is called {known[0]}"
        raise UserError(
            f"{file}: which field holds the {kind}s? There are: "
            f"{', '.join(map(repr, present[:20]))}; {several}; choose with {option}"
        )
    return found[0]


def _tokens(place: str, field: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{place}: {field!r} is {shown(value)}, not a list of at least one token")
    for token in value:
        if not isinstance(token, str) or not token or re.search(r"^\s*$|[\t\n]", token):
            raise UserError(
                f"{place}: the token {shown(token)} of {field!r} is not a text without tabs and "
                "line ends; take it out, with its tag"
            )
    return value


def _tags(
    place: str, field: str, value: Any, tokens: Sequence[str], config: TaggedConfig
) -> list[str]:
    if not isinstance(value, list) or len(value) != len(tokens):
        many = f"{len(value)} tags" if isinstance(value, list) else f"{shown(value)}"
        raise UserError(
            f"{place}: {many} ({field!r}) for {len(tokens)} tokens; every token has one tag"
        )
    return [_tag(place, field, tag, config) for tag in value]


def _tag(place: str, field: str, tag: Any, config: TaggedConfig) -> str:
    labels = config.labels
    if isinstance(tag, str) and tag.strip():
        return tag.strip()
    if not isinstance(tag, int) or isinstance(tag, bool):
        raise UserError(f"{place}: {field!r} holds {shown(tag)}; a tag is a text or a number")
    if not labels:
        raise UserError(
            f"{place}: the tags ({field!r}) are numbers; give their names with"
            f" {config.option('labels')}, in order"
        )
    if not 0 <= tag < len(labels):
        raise UserError(
            f"{place}: the tag {tag} has no name among the {len(labels)} labels (from 0)"
        )
    return labels[tag]


def _sentence(
    place: str, tokens: Sequence[str], tags: Sequence[str] | None, text: str | None
) -> TaggedSentence:
    offsets = None if text is None else _align(tokens, text)
    if offsets is None:
        text = " ".join(tokens)
        ends = itertools.accumulate(len(token) + 1 for token in tokens)
        offsets = tuple(
            (end - len(token) - 1, end - 1) for token, end in zip(tokens, ends, strict=True)
        )
    return TaggedSentence(
        place, tuple(tokens), None if tags is None else tuple(tags), text, offsets
    )


def _align(tokens: Sequence[str], text: str) -> tuple[tuple[int, int], ...] | None:
    """The characters of each token; None unless the text is the tokens with white space between."""
    offsets = []
    position = 0
    for token in tokens:
        start = text.find(token, position)
        if start < 0 or text[position:start].strip():
            return None
        position = start + len(token)
        offsets.append((start, position))
    return None if text[position:].strip() else tuple(offsets)


def sentence_of_line(place: str, line: str) -> TaggedSentence:
    """A sentence without tags, of words with white space between them; its text is the line."""
    words = list(re.finditer(r"\S+", line))
    offsets = tuple(word.span() for word in words)
    return TaggedSentence(place, tuple(word[0] for word in words), None, line, offsets)


def check_tags(
    train: Sequence[TaggedSentence],
    validation: Sequence[TaggedSentence] = (),
    test: Sequence[TaggedSentence] = (),
    labels: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """The names of the tags, in the order of their numbers.

    Returns:
        The given labels; else of entities O and then B- and I- of each type of train, by name; of
        other tags those of train, sorted.

    Raises:
        UserError: a type or tag that train lacks, with its place; one that is not among the given
            labels; files some of which mark entities and others not.
    """
    splits = (train, validation, test)
    every = {tag for split in splits for sentence in split for tag in sentence.tags}
    if every == {OUTSIDE}:
        raise UserError(
            "every tag is O: no sentence marks an entity, and there is nothing to learn (is the"
            " tag column the right one?)"
        )
    entities = are_entity_tags(every)

    def kinds(sentence: TaggedSentence) -> TextExample:
        found = sentence.tags
        if entities:
            found = tuple(tag[2:] for tag in found if tag != OUTSIDE)
        return TextExample(sentence.place, sentence.text, None, tuple(dict.fromkeys(found)))

    names = check_labels(*([kinds(sentence) for sentence in split] for split in splits))
    if entities and names == (NO_TYPE,):
        names = (OUTSIDE, "B", "I")
    elif entities:
        names = (OUTSIDE, *(f"{letter}-{name}" for name in names for letter in "BI"))
    if labels is None:
        return names
    reading = read_label_names(labels)
    for split in splits:
        for sentence in split:
            for tag in reading.from_iob2(sentence.tags):
                if tag not in labels:
                    raise UserError(
                        f"{sentence.place}: the tag {tag!r} is not among labels={list(labels)}"
                        f"{nearest(tag, list(labels))}; name it there (entities are IOB2: B-TYPE, "
                        "I-TYPE, O), or correct it in this sentence"
                    )
    return tuple(labels)


def read_label_names(labels: Sequence[str]) -> TagReading:
    """How the names of a model's tags mark entities."""
    try:
        reading = recognise_scheme([labels])
    except TagError:
        return TagReading("none", "TYPE")
    if reading.is_weak or all(label.upper() == OUTSIDE for label in labels):
        return TagReading("none", "TYPE")
    # B- and I- alone: as names in some order they do not tell IOB1 from IOB2.
    return reading._replace(scheme="IOB2") if reading.scheme == "IOB1" else reading


def to_conll(sentences: Sequence[TaggedSentence], predicted: Sequence[Sequence[str]]) -> str:
    """CoNLL columns: token, its tag where it is known, and the predicted tag, parted by tabs; a
    blank line behind each sentence.
    """
    lines = []
    for sentence, tags in zip(sentences, predicted, strict=True):
        columns = [sentence.tokens, tags]
        if sentence.tags is not None:
            columns.insert(1, sentence.tags)
        lines += ["\t".join(row) for row in zip(*columns, strict=True)]
        lines.append("")
    return "".join(f"{line}\n" for line in lines)
