"""Treebanks in CoNLL-U: sentences whose words depend on each other, and how a model sees them."""

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from bertjax.analysis.capture.encoding import EncodedText, encode_words
from bertjax.program.errors import UserError
from bertjax.text import streams
from bertjax.text.sources import find_sources
from bertjax.text.splits import Split, document_split
from bertjax.text.tokenizer import Tokenizer

PUNCTUATION = "PUNCT"
_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")


class Sentence(NamedTuple):
    """A sentence as a tree over its syntactic words.

    Attributes:
        place: `file:line` of its first word, for messages.
        words: W of them.
        heads: the number, from 0, of the word that each depends on; -1 for the root, of which
            there is one.
        relations: of each word to its head, with subtypes as in the file (`nsubj:pass`).
        upos: universal parts of speech.
        xpos: the language's own tags; `_` where the file has none.
    """

    place: str
    words: tuple[str, ...]
    heads: Int[np.ndarray, " W"]
    relations: tuple[str, ...]
    upos: tuple[str, ...]
    xpos: tuple[str, ...]

    @property
    def punctuation(self) -> Bool[np.ndarray, " W"]:
        """Returns which words are punctuation by their universal part of speech."""
        return np.array([tag == PUNCTUATION for tag in self.upos])


class Treebank(NamedTuple):
    """The sentences of CoNLL-U files.

    Attributes:
        sentences: in order.
        multiword_tokens: how many surface tokens (`4-5  don't`) there were; their parts count.
        empty_nodes: how many words that nobody wrote (`8.1`) were left out.
    """

    sentences: tuple[Sentence, ...]
    multiword_tokens: int
    empty_nodes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """Returns notes on how they were read."""
        notes = (
            (
                self.multiword_tokens,
                "multi-word tokens count as the syntactic words they consist of",
            ),
            (self.empty_nodes, "empty nodes are left out"),
        )
        return tuple(f"{number:,} {what}" for number, what in notes if number)


class EncodedTreebank(NamedTuple):
    """Sentences that a model has positions for; words 1 ... W of each encoding are its words.

    Attributes:
        sentences: those that are not too long.
        encoded: the encoding of each.
        notes: how many were left out.
    """

    sentences: tuple[Sentence, ...]
    encoded: tuple[EncodedText, ...]
    notes: tuple[str, ...]

    def select(self, numbers: Sequence[int] | Int[np.ndarray, " n"]) -> "EncodedTreebank":
        """Returns the sentences of these numbers."""
        return EncodedTreebank(
            tuple(self.sentences[number] for number in numbers),
            tuple(self.encoded[number] for number in numbers),
            self.notes,
        )


def read_treebank(
    files: str | Path | Sequence[str | Path],
    encoding: str = "utf-8",
    errors: Literal["strict", "replace", "ignore"] = "strict",
) -> Treebank:
    """Reads CoNLL-U files, also compressed with gzip.

    Syntactic words count: the parts `do` and `n't` of a multi-word token (`4-5  don't`) are read as
    words, because the tree is over them; the model then sees them with a space between, unlike in
    running text. Empty nodes (`8.1`) stand for words that nobody wrote and are not part of the
    basic tree.

    Args:
        files: one or more.
        encoding: that of the files, a name that Python knows.
        errors: what to do with bytes invalid in that encoding, as in `bytes.decode`.

    Raises:
        UserError: with file and line, where a line is not a row of 10 columns, words are out of
            order, a head is not a number or not there, or there are several roots, none, or a
            cycle; where files have no sentence.

    Source: universaldependencies.org/format.html.
    """
    files = [files] if isinstance(files, str | Path) else files
    names = [str(name) for name in files]
    sentences: list[Sentence] = []
    counts = {"-": 0, ".": 0}
    streams.check_encoding(encoding)
    for source in find_sources(names, encoding, otherwise="txt"):
        if source.kind != "txt":
            raise UserError(f"{source.name}: a treebank is a text file in CoNLL-U (.conllu)")
        numbered = enumerate(streams.lines(source, _Decoding(encoding, errors)), 1)
        for filled, block in itertools.groupby(numbered, lambda line: bool(line[1].strip())):
            rows = list(_read_rows(source.name, block)) if filled else []
            for row in rows:
                if isinstance(row.id, tuple):
                    counts[row.id[1]] += 1
            words = [row for row in rows if not isinstance(row.id, tuple)]
            if words:
                sentences.append(_make_sentence(source.name, words))
            elif rows:
                number = "".join(map(str, rows[0].id))
                raise UserError(
                    f"{rows[0].place}: a sentence without a word, only the row {number}; add"
                    " the rows of its words, or remove it"
                )
    if not sentences:
        raise UserError(f"{', '.join(names)}: no sentences; is it CoNLL-U?")
    return Treebank(tuple(sentences), counts["-"], counts["."])


def encode_treebank(
    tokenizer: Tokenizer, sentences: Sequence[Sentence], max_length: int
) -> EncodedTreebank:
    """Encodes the sentences; those of more than `max_length` tokens are left out, with a note.

    Raises:
        UserError: none is left.
    """
    encoded = encode_words(tokenizer, [sentence.words for sentence in sentences], max_length)
    kept = [number for number, text in enumerate(encoded) if text is not None]
    if not kept:
        raise UserError(
            f"no sentence of the treebank, which has {len(sentences):,}, fits the {max_length}"
            " tokens that the model takes; use a model with more positions"
        )
    notes = ()
    if left := len(sentences) - len(kept):
        notes = (
            f"{left:,} of {len(sentences):,} sentences are longer than the {max_length} tokens that"
            " the model takes and are left out of every figure",
        )
    return EncodedTreebank(
        tuple(sentences[number] for number in kept),
        tuple(encoded[number] for number in kept),
        notes,
    )


def split_sentences(
    sentences: Sequence[Sentence], fractions: tuple[float, float] = (0.1, 0.2)
) -> dict[Split, Int[np.ndarray, " n"]]:
    """Returns the numbers of the sentences of train, validation and test.

    The hash of the words decides, ignoring case, so that a repeated sentence is in only one split,
    and the split of a sentence does not depend on the others.

    Args:
        sentences: those of a treebank.
        fractions: the approximate shares of validation and of test.
    """
    splits: list[Split] = [document_split(_hash(sentence), fractions) for sentence in sentences]
    return {
        split: np.array([number for number, own in enumerate(splits) if own == split], np.int64)
        for split in ("train", "validation", "test")
    }


def split_halves(sentences: Sequence[Sentence]) -> tuple[Bool[np.ndarray, " n"], ...]:
    """Returns which sentences are in the half to choose on, and which to report on, by hash."""
    choose = np.array(
        [document_split(_hash(sentence), (0.5, 0.0)) == "validation" for sentence in sentences]
    )
    return choose, ~choose


class _Decoding(NamedTuple):
    encoding: str
    errors: str


class _Row(NamedTuple):
    """A line; the `id` of a multi-word token is (4, "-", 5), of an empty node (8, ".", 1)."""

    place: str
    id: int | tuple[int, str, int]
    form: str
    upos: str
    xpos: str
    head: int | None
    deprel: str


def _hash(sentence: Sentence) -> bytes:
    return hashlib.sha256("\n".join(sentence.words).casefold().encode()).digest()


def _read_rows(name: str, block: Iterator[tuple[int, str]]) -> Iterator[_Row]:
    from conllu.exceptions import ParseException
    from conllu.parser import DEFAULT_FIELD_PARSERS, parse_line

    def as_it_stands(columns: list[str], number: int) -> str:
        return columns[number]

    # Columns that are not used here may hold anything: another tool's features do no harm.
    parsers: dict[str, Callable[[list[str], int], Any]] = {
        **dict.fromkeys(_COLUMNS, as_it_stands),
        "id": DEFAULT_FIELD_PARSERS["id"],
        "head": DEFAULT_FIELD_PARSERS["head"],
    }
    for number, line in block:
        if line.startswith("#"):
            continue
        place = f"{name}:{number}"
        columns = line.split("\t")
        if len(columns) != len(_COLUMNS):
            raise UserError(
                f"{place}: {len(columns)} tab-separated columns where CoNLL-U has {len(_COLUMNS)};"
                " correct the line, or give a .conllu file"
            )
        try:
            # The library also takes double spaces for the ends of columns.
            token = parse_line(re.sub(" {2,}", " ", line), _COLUMNS, parsers)
        except ParseException as error:
            raise UserError(f"{place}: {error}") from None
        if token["id"] is None:
            raise UserError(f"{place}: the first column must number the word, not be _")
        yield _Row(
            place, *(token[name] for name in ("id", "form", "upos", "xpos", "head", "deprel"))
        )


def _make_sentence(name: str, rows: Sequence[_Row]) -> Sentence:
    """Makes the tree of the rows, which are words.

    Raises:
        UserError: they are not a tree.
    """
    for number, row in enumerate(rows, 1):
        if row.id != number:
            raise UserError(f"{row.place}: word {row.id} where {number} is expected")
        if row.head is None:
            raise UserError(f"{row.place}: the word has no head (column 7); 0 marks the root")
        if not 0 <= row.head <= len(rows) or row.head == number:
            raise UserError(
                f"{row.place}: head {row.head} of word {number} must be another of the"
                f" {len(rows)} words of the sentence, or 0 for the root"
            )
    heads = np.array([row.head - 1 for row in rows], np.int64)
    roots = np.flatnonzero(heads == -1)
    if len(roots) != 1:
        where = rows[roots[1]] if len(roots) else rows[0]
        raise UserError(f"{where.place}: {len(roots)} words with head 0; a tree has one root")
    if circling := np.flatnonzero(_depths(heads) < 0).tolist():
        raise UserError(
            f"{rows[circling[0]].place}: word {circling[0] + 1} never leads to the root; its heads"
            " form a cycle"
        )
    return Sentence(
        rows[0].place,
        tuple(row.form for row in rows),
        heads,
        tuple(row.deprel for row in rows),
        tuple(row.upos for row in rows),
        tuple(row.xpos for row in rows),
    )


def _depths(heads: Int[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
    """Counts the steps to the root; -1 where it is not reached."""
    depths = np.where(heads == -1, 0, -1)
    for depth in range(1, len(heads)):
        reached = (depths < 0) & (depths[heads] == depth - 1) & (heads >= 0)
        if not reached.any():
            break
        depths[reached] = depth
    return depths
