"""What a worker does with a block of documents or of examples; the same in every process."""

import dataclasses
import functools
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bertjax.text.cleaning import CleaningConfig, clean, line_hashes, remove_boilerplate
from bertjax.text.duplicates import signatures
from bertjax.text.packing import make_rows
from bertjax.text.pairs import PairConfig, make_examples
from bertjax.text.rows import SPLITS, token_id_type
from bertjax.text.sentences import split_sentences
from bertjax.text.spool import SpoolReader
from bertjax.text.tokenizer import Tokenizer, load_tokenizer, use_one_thread


@dataclasses.dataclass(frozen=True)
class StepConfig:
    """What every step needs; the same in all workers.

    Attributes:
        tokenizer: directory of the tokenizer.
        spool: directory of the temporary files.
        cleaning: how text is cleaned.
        pairs: how examples are made.
        language: of the text, a code such as en.
        sentence_per_line: a line is a sentence; otherwise sentences are looked for.
        max_length: T.
        examples_per_row: K.
        seed: of all that is random.
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


class TokenBlock(NamedTuple):
    """Documents after tokenizing, and how many were left out and why.

    `token_ids` and `sentence_lengths` are those of all documents, one after the other;
    `documents` has a row (tokens, sentences) for each and `signatures` its signature.
    """

    token_ids: np.ndarray
    sentence_lengths: np.ndarray
    documents: np.ndarray
    signatures: list
    boilerplate_lines: int
    too_short: int
    without_sentences: int
    unknown_tokens: int


class Unit(NamedTuple):
    """Some documents of one split that become examples together."""

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
    """The steps of preparation in one process, with what they keep between blocks."""

    def __init__(self, config: StepConfig) -> None:
        self.config = config
        use_one_thread()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded when it is needed first."""
        return load_tokenizer(self.config.tokenizer)

    def clean_block(self, texts: Sequence[str]) -> CleanBlock:
        """Cleans documents; those that are too short go."""
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

    def tokenize_block(self, texts: Sequence[str], line_counts: "str | None" = None) -> TokenBlock:
        """Signatures, sentences and token ids of clean documents.

        Args:
            texts: as `clean_block` made them.
            line_counts: file with the counts of lines, when there is boilerplate to remove.
        """
        config = self.config.cleaning
        boilerplate_lines = 0
        if line_counts is not None:
            counts = _load_counts(line_counts)
            kept = []
            for text in texts:
                text, removed = remove_boilerplate(text, counts, config)
                boilerplate_lines += removed
                kept.append(text)
            texts = kept
        long_enough = [text for text in texts if len(text) >= max(1, config.minimum_characters)]
        sentences = [self._sentences(text) for text in long_enough]
        token_ids = self.tokenizer.encode_batch([part for parts in sentences for part in parts])
        lengths = np.array([len(ids) for ids in token_ids], np.int64)
        ends = np.cumsum([len(parts) for parts in sentences], dtype=np.int64)
        filled = [
            lengths[end - len(parts) : end] for parts, end in zip(sentences, ends, strict=True)
        ]
        # A sentence of control characters only has no tokens; a document of such ones has none.
        documents = [(int(part.sum()), int((part > 0).sum())) for part in filled]
        whole = [number for number, (tokens, _) in enumerate(documents) if tokens]
        joined = np.concatenate(token_ids) if token_ids else np.empty(0, np.int32)
        return TokenBlock(
            joined.astype(token_id_type(self.tokenizer.vocab_size)),
            lengths[lengths > 0],
            np.array([documents[number] for number in whole], np.int64).reshape(-1, 2),
            signatures([long_enough[number] for number in whole]),
            boilerplate_lines,
            len(texts) - len(long_enough),
            len(long_enough) - len(whole),
            int((joined == self.tokenizer.unk_id).sum()),
        )

    def tokenize_spooled(self, task: tuple[int, int, "str | None"]) -> TokenBlock:
        """`tokenize_block` of the clean documents that lie at (offset, size) in the spool."""
        offset, size, line_counts = task
        texts = pickle.loads(os.pread(self._clean_texts, size, offset))
        return self.tokenize_block(texts, line_counts)

    def clean_and_tokenize(self, texts: Sequence[str]) -> tuple[CleanBlock, TokenBlock]:
        """Both steps at once, for when no boilerplate is looked for."""
        block = self.clean_block(texts)
        return block._replace(texts=b""), self.tokenize_block(pickle.loads(block.texts))

    def make_rows(self, unit: Unit) -> RowBlock:
        """The examples of a unit, packed into rows. Randomness comes from (seed, unit) alone."""
        config = self.config
        self.tokenizer.forget_words()
        _load_counts.cache_clear()
        key = (config.seed, SPLITS.index(unit.split), unit.number, unit.copy)
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
        corpus = self._spools(unit.split)
        examples = [
            example
            for number, document in enumerate(corpus.documents(unit.first, unit.last), unit.first)
            for example in make_examples(
                number,
                document,
                corpus,
                config.pairs,
                config.max_length,
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

    @functools.cache  # noqa: B019, there is one object a process
    def _spools(self, split: str) -> SpoolReader:
        dtype = token_id_type(self.tokenizer.vocab_size)
        return SpoolReader(self.config.spool / split, dtype)


@functools.cache
def _load_counts(path: str):
    with open(path, "rb") as file:
        return pickle.load(file)
