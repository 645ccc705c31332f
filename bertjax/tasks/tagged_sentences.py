"""Sentences with a tag for every token, and how files of them are read."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bertjax.tasks.tagging_schemes import Scheme
from bertjax.text.record_config import FileFormat, SpelledOptions


@dataclasses.dataclass(frozen=True)
class TaggedConfig(SpelledOptions):
    """How files of tagged sentences are read.

    Attributes:
        token_column: Where the tokens are: a column number from 1, or in records the name of a
            field; null: the first column, the second where the first counts the tokens (.iob2,
            .conllu), the field tokens or words.
        tag_column: Where the tags are; null: the last column, the third where the first counts the
            tokens, the fourth of .conllu (UPOS), the field ner_tags, pos_tags, tags or labels.
        scheme: How the tags mark entities; null: recognised; none: they mark none, as with parts of
            speech, and stay as they are.
        labels: The names of the tags in order, needed where the tags of records are numbers.
        encoding: The encoding of the text files, a name that Python knows (utf-8, latin-1, utf-16,
            ...).
        errors: What to do with bytes that are invalid in that encoding: strict stops and names the
            place, replace inserts a replacement character, ignore skips them.
        format: What the files are, whatever their suffix: conll, or a format of records;
            null: as the suffix says.
    """

    token_column: int | str | None = None
    tag_column: int | str | None = None
    scheme: Scheme | None = None
    labels: list[str] = dataclasses.field(default_factory=list)
    encoding: str = "utf-8"
    errors: Literal["strict", "replace", "ignore"] = "strict"
    format: FileFormat | None = None


class TaggedSentence(NamedTuple):
    """A sentence with a tag for every token.

    place: `file:line` of its first token, for messages.
    tokens: its words.
    tags: one for each; None in a file that is read without tags.
    text: as in the file, if the tokens are in it one after the other; else the tokens with a
        space between them.
    offsets: the characters of each token in `text`.
    record: everything that a file of records, or the comments above the sentence, have of it, if
        it is read without tags, for output.
    """

    place: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str
    offsets: tuple[tuple[int, int], ...]
    record: Mapping[str, Any] | None = None


class PlacedSentence(NamedTuple):
    """A sentence, and the place of each of its tokens."""

    sentence: TaggedSentence
    places: list[str]


def place_tokens(
    place: str, tokens: Sequence[str], tags: Sequence[str] | None, text: str | None
) -> TaggedSentence:
    """Makes a sentence of tokens, with the characters of each in its text.

    Args:
        place: the sentence's, for messages.
        tokens: all of them.
        tags: one for each; None where none are read.
        text: as in the file. If it is None, or not the tokens with white space between them, the
            text is the tokens with a space between them.
    """
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
    """Finds each token's characters; None unless only white space separates the tokens."""
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
    """Makes a sentence without tags from a line of words, separated by white space."""
    words = list(re.finditer(r"\S+", line))
    offsets = tuple(word.span() for word in words)
    return TaggedSentence(place, tuple(word[0] for word in words), None, line, offsets)
