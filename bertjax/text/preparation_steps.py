"""What a worker does with a block of documents or of examples; the same in every process."""

import dataclasses
import functools
import os
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.text.cleaning import CleaningConfig, LineCounts, clean, line_hashes, remove_boilerplate
from bertjax.text.duplicates import signatures
from bertjax.text.packing import make_rows
from bertjax.text.pairs import PairConfig, make_examples
from bertjax.text.pieces import cut_into_pieces
from bertjax.text.rows import SPLITS, token_id_type
from bertjax.text.sentences import split_sentences
from bertjax.text.special_tokens import find_specials
from bertjax.text.spool import SpoolReader
from bertjax.text.tokenizer import Tokenizer, load_tokenizer, use_one_thread

# The stem of the files with the token ids of all documents.
SPOOL_NAME = "documents"


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What every step needs, the same in all workers.

    Attributes:
        tokenizer: directory of the tokenizer.
        spool: directory of the temporary files.
        cleaning: how text is cleaned.
        pairs: how examples are made.
        language: that of the text, a code such as en.
        sentence_per_line: a line is a sentence; otherwise sentences are detected.
        max_length: T.
        examples_per_row: K.
        seed: the seed of all randomness.
    """

    tokenizer: Path
    spool: Path
    cleaning: CleaningConfig
    pairs: PairConfig
    language: str
    sentence_per_line: bool
    max_length: int
    examples_per_row: int
    seed: int


class CleanBlock(NamedTuple):
    """Documents after cleaning; `texts` is a pickled list of str, ready for the disk."""

    texts: bytes
    line_hashes: np.ndarray
    documents: int
    characters: int
    too_short: int


class SpooledTexts(NamedTuple):
    """Where a `CleanBlock` is in the spool: its texts, followed by its line hashes.

    `line_counts` is the file with the counts of all lines.
    """

    offset: int
    size: int
    hashes_size: int
    line_counts: str


class TokenBlock(NamedTuple):
    """Documents after tokenizing, and how many were left out and why.

    `token_ids`, `sentence_lengths` and `piece_sentences` (how many each piece has) cover all
    documents, one after the other; `documents` has a row (tokens, sentences, pieces) for each, and
    `signatures` its signature. `specials` says how many documents spell out each special token,
    and under "" how many spell out any.
    """

    token_ids: np.ndarray
    sentence_lengths: np.ndarray
    piece_sentences: np.ndarray
    documents: np.ndarray
    signatures: list
    boilerplate_lines: int
    too_short: int
    without_sentences: int
    unknown_tokens: int
    specials: Counter[str]


class Unit(NamedTuple):
    """Documents of one split that become examples together."""

    split: str
    number: int
    copy: int
    first: int
    last: int


class RowBlock(NamedTuple):
    """The rows of a unit, with counts: real tokens, examples, and pairs by label 0 and 1."""

    columns: dict[str, np.ndarray]
    tokens: int
    examples: int
    pairs: tuple[int, int]


class Steps:
    """The steps of preparation in one process, and what they keep between blocks."""

    def __init__(self, config: StepConfig) -> None:
        self.config = config
        use_one_thread()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded when first needed."""
        return load_tokenizer(self.config.tokenizer)

    def clean_block(self, texts: Sequence[str]) -> CleanBlock:
        """Cleans documents and drops those that are too short."""
        config = self.config.cleaning
        cleaned = [clean(text, config) for text in texts]
        long_enough = [text for text in cleaned if len(text) >= max(1, config.minimum_characters)]
        hashes = []
        if config.boilerplate_documents:
            hashes = [line_hashes(text) for text in long_enough]
        return CleanBlock(
            pickle.dumps(long_enough),
            np.concatenate(hashes) if hashes else np.empty(0, np.uint64),
            len(long_enough),
            sum(map(len, long_enough)),
            len(texts) - len(long_enough),
        )

    def tokenize_block(
        self, texts: Sequence[str], line_counts: LineCounts | None = None
    ) -> TokenBlock:
        """Returns signatures, sentences and token ids of clean documents.

        Args:
            texts: as `clean_block` made them.
            line_counts: the counts of all lines, where there is boilerplate to remove.
        """
        config = self.config.cleaning
        removed = 0
        if line_counts is not None:
            results = [remove_boilerplate(text, line_counts, config) for text in texts]
            texts = [text for text, _ in results]
            removed = sum(lines for _, lines in results)
        long_enough = [text for text in texts if len(text) >= max(1, config.minimum_characters)]
        pieces = [cut_into_pieces(text, self._sentences) for text in long_enough]
        token_ids, lengths = self.tokenizer.encode_joined(
            [text for document in pieces for piece in document for text in piece.sentences]
        )
        # A sentence of control characters has no tokens, nor does a document of such sentences.
        piece_ends = np.cumsum(
            [len(piece.sentences) for document in pieces for piece in document], dtype=np.int64
        )
        counts = np.array([len(document) for document in pieces], np.int64)
        ends = piece_ends[np.cumsum(counts) - 1]
        columns = (_sums_up_to(lengths, ends), _sums_up_to(lengths > 0, ends), counts)
        documents = np.stack(columns, axis=1)
        kept = documents[:, 0] > 0
        return TokenBlock(
            token_ids.astype(token_id_type(self.tokenizer.vocab_size)),
            lengths[lengths > 0],
            _sums_up_to(lengths > 0, piece_ends)[np.repeat(kept, counts)],
            documents[kept],
            signatures(
                [
                    tuple(piece.text for piece in pieces[number])
                    for number in np.flatnonzero(kept).tolist()
                ]
            ),
            removed,
            len(texts) - len(long_enough),
            len(long_enough) - int(kept.sum()),
            int((token_ids == self.tokenizer.unk_id).sum()),
            Counter(
                name
                for text in long_enough
                if (specials := find_specials(text, self.tokenizer.specials))
                for name in ("", *specials)
            ),
        )

    def tokenize_spooled(self, place: SpooledTexts) -> TokenBlock:
        """Calls `tokenize_block` on clean documents from the spool."""
        texts = pickle.loads(os.pread(self._clean_texts, place.size, place.offset))
        data = os.pread(self._clean_texts, place.hashes_size, place.offset + place.size)
        counts = _load_counts(place.line_counts)
        # Most blocks contain no boilerplate, and their lines are judged all at once.
        most = counts.count(np.frombuffer(data, np.uint64)).max(initial=0)
        frequent = most >= self.config.cleaning.boilerplate_documents
        return self.tokenize_block(texts, counts if frequent else None)

    def clean_and_tokenize(self, texts: Sequence[str]) -> tuple[CleanBlock, TokenBlock]:
        """Does both steps at once, where boilerplate is kept."""
        block = self.clean_block(texts)
        return block._replace(texts=b""), self.tokenize_block(pickle.loads(block.texts))

    def make_rows(self, unit: Unit) -> RowBlock:
        """Packs the examples of a unit into rows. Randomness comes from (seed, unit) alone."""
        config = self.config
        self.tokenizer.forget_words()
        _load_counts.cache_clear()
        key = (config.seed, SPLITS.index(unit.split), unit.number, unit.copy)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        corpus = self._spools(unit.split)
        room = config.pairs.room(self.tokenizer.frame, config.max_length)
        examples = [
            example
            for number, document in enumerate(corpus.documents(unit.first, unit.last), unit.first)
            for example in make_examples(
                number,
                document,
                corpus,
                config.pairs,
                room,
                self.tokenizer.continues_word,
                generator,
            )
        ]
        columns = make_rows(examples, self.tokenizer, config.max_length, config.examples_per_row)
        labels = [example.label for example in examples]
        return RowBlock(
            columns,
            int(np.count_nonzero(columns["sequence_ids"])),
            len(examples),
            (labels.count(0), labels.count(1)),
        )

    def _sentences(self, text: str) -> list[str]:
        if self.config.sentence_per_line:
            return [line for line in text.split("\n") if line]
        return split_sentences(text, self.config.language)

    @functools.cached_property
    def _clean_texts(self) -> int:
        return os.open(self.config.spool / "clean", os.O_RDONLY)

    @functools.cache  # noqa: B019, there is one object per process
    def _spools(self, split: str) -> SpoolReader:
        dtype = token_id_type(self.tokenizer.vocab_size)
        return SpoolReader(self.config.spool / SPOOL_NAME, split, dtype)


def _sums_up_to(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns the sum of each run of values, given where the runs end."""
    return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[ends], prepend=0)


@functools.cache
def _load_counts(path: str) -> LineCounts:
    with open(path, "rb") as file:
        return pickle.load(file)
