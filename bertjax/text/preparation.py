"""Raw text to a prepared directory, in three passes over what is spooled to disk.

1. read -> clean -> count lines                        (workers clean, this process counts)
2. remove boilerplate -> pieces -> sentences -> ids -> duplicates -> spool; then the splits
3. spool -> pairs -> packing -> rows

Memory holds one block of documents for each worker, and only hashes of the rest. Blocks have a
fixed size, results are taken in order, and randomness depends on the block's number: the bytes on
disk are the same for any number of workers.
"""

import array
import collections
import dataclasses
import functools
import importlib.metadata
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.program.errors import UserError
from bertjax.program.output_directory import whole_directory
from bertjax.program.wording import counted
from bertjax.text.cleaning import LineCounts
from bertjax.text.document_shapes import ShapeWatch
from bertjax.text.duplicates import DuplicateFilter, OverlapMeter
from bertjax.text.preparation_checks import check_splits, describe_lost_shares, describe_unknown
from bertjax.text.preparation_options import PreparationOptions
from bertjax.text.preparation_rows import pack_splits
from bertjax.text.preparation_steps import (
    SPOOL_NAME,
    CleanBlock,
    SpooledTexts,
    StepConfig,
    Steps,
    TokenBlock,
)
from bertjax.text.readers import list_sources, read_documents
from bertjax.text.row_writer import write_card
from bertjax.text.rows import PREPARED_FILES, SPLITS, TOKENIZER_NAME
from bertjax.text.sources import Source
from bertjax.text.special_tokens import tell_specials
from bertjax.text.splits import SPLIT_ORDER, Division, divide, split_place
from bertjax.text.spool import SpoolWriter, cut_units
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.workers import Workers, start_workers

# A block of documents: at least this many characters, or this many documents.
BLOCK_CHARACTERS = 1 << 17
BLOCK_DOCUMENTS = 1024
# A unit of examples, packed together: at T = 512 a half-empty row is 0.1 % of it.
UNIT_TOKENS = 1 << 18
# Word runs kept to measure the overlap of splits: enough for a tenth of a percent.
OVERLAP_SAMPLE = 1 << 18
# Imported once for all workers.
PRELOAD = ("ftfy", "rensa", "sentencex", "tokenizers")

Report = Callable[[str, int, int | None], None]


def prepare(
    options: PreparationOptions,
    tokenizer: Path | str,
    output: Path | str,
    workers: int = 1,
    overwrite: bool = False,
    report: Report = lambda stage, done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Makes a prepared directory from raw text.

    Args:
        options: what to read and what to make from it.
        tokenizer: a tokenizer's directory or file.
        output: the directory to make; an existing one stays until the new one is whole.
        workers: processes besides this one; 1 does everything in this one. No effect on the result.
        overwrite: replace an existing `output`.
        report: called now and then with a stage's progress: (stage, done, total or None).
        note: called with what the user should know: how the tokenizer's files are read, documents
            that do not look like documents, shares not kept, special tokens that are spelled out.

    Returns:
        The data card.

    Raises:
        UserError: something is wrong with the input, the tokenizer or the options, or nothing is
            left after cleaning.
    """
    if workers < 1:
        raise UserError(f"workers={workers} must be at least 1")
    sources = list_sources(options.reader)
    loaded = load_tokenizer(tokenizer)
    for text in loaded.notes:
        note(text)
    with whole_directory(output, overwrite, PREPARED_FILES, options.reader.input) as partial:
        loaded.save(partial / TOKENIZER_NAME)
        spool = partial / "spool"
        spool.mkdir()
        config = StepConfig(
            tokenizer=partial / TOKENIZER_NAME,
            spool=spool,
            cleaning=options.cleaning,
            pairs=options.pairs,
            language=options.rows.language,
            sentence_per_line=options.reader.sentence_per_line,
            max_length=options.rows.max_length,
            examples_per_row=options.rows.examples_per_row,
            seed=options.rows.seed,
        )
        with start_workers(Steps, (config,), workers, PRELOAD) as crew:
            run = _Preparation(options, loaded, partial, crew, report, note)
            run.read_and_tokenize(sources)
            run.check_splits()
            run.make_rows()
        shutil.rmtree(spool)
        return write_card(partial, run.token_counts(), run.card(sources))


class _Preparation:
    """The passes, and what they count."""

    def __init__(
        self,
        options: PreparationOptions,
        tokenizer: Tokenizer,
        directory: Path,
        workers: Workers,
        report: Report,
        note: Callable[[str], None],
    ) -> None:
        self.options = options
        self.tokenizer = tokenizer
        self.directory = directory
        self.workers = workers
        self.report = report
        self.note = note
        self.shapes = ShapeWatch(options.reader, note)
        self.read: dict[str, int] = collections.Counter()
        self.specials = collections.Counter[str]()
        self.counts: dict[str, int] = collections.Counter()
        self.splits: dict[str, dict[str, Any]] = {split: {} for split in SPLITS}
        self.duplicate_filter = DuplicateFilter(options.duplicates)
        self.overlap = OverlapMeter(OVERLAP_SAMPLE)
        self.spool = SpoolWriter(directory / "spool" / SPOOL_NAME)
        self.places = array.array("d")
        self.units: dict[str, list[tuple[int, int]]] = {}

    def _report(self, stage: str, done: int, total: int | None) -> None:
        spools = bool(self.options.cleaning.boilerplate_documents)
        stages = ("reading", "tokenizing", "packing") if spools else ("reading", "packing")
        self.report(f"{stages.index(stage) + 1} of {len(stages)}: {stage}", done, total)

    def read_and_tokenize(self, sources: list[Source]) -> None:
        """Passes 1 and 2: from the sources to the spool, and who gets what of it."""
        blocks = _blocks(self._documents(sources))
        if self.options.cleaning.boilerplate_documents:
            self._tokenize_spooled(self._clean(blocks))
        else:
            for clean, tokens in self.workers.run(Steps.clean_and_tokenize, blocks):
                self._count_clean(clean)
                self._spool(tokens)
        self.spool.close()
        self._divide()

    def _divide(self) -> None:
        """Divides what is in the spool into the splits."""
        piece_tokens = functools.cache(self.spool.piece_tokens)
        self.division: Division = divide(
            np.array(self.places),
            self.spool.document_tokens,
            piece_tokens,
            tuple(self.options.rows.fractions.values()),
            self.options.least_documents,
        )
        whole = np.ones(self.spool.documents, bool)
        whole[list(self.division.parts)] = False
        documents = self.spool.ranges()
        for number, split in enumerate(SPLIT_ORDER):
            own = np.flatnonzero(whole & (self.division.splits == number))
            ranges, tokens = [documents[own]], [self.spool.document_tokens[own]]
            for document, parts in self.division.parts.items():
                ends = self.spool.piece_ends(document)
                for part in parts:
                    if part.split == number:
                        ranges.append(ends[[part.first, part.last]][None])
                        tokens.append(piece_tokens(document)[part.first : part.last].sum()[None])
            of_split, of_tokens = np.concatenate(ranges), np.concatenate(tokens)
            in_order = np.argsort(of_split[:, 0], kind="stable")
            of_split, of_tokens = of_split[in_order], of_tokens[in_order]
            self.spool.write_split(split, of_split)
            self.units[split] = cut_units(of_tokens, UNIT_TOKENS)
            self.splits[split] |= {
                "documents": len(of_split),
                "sentences": int(np.diff(of_split).sum()),
                "text_tokens": int(of_tokens.sum()),
                "share_of_tokens": round(self.division.shares[number], 6),
            }

    def _documents(self, sources: list[Source]) -> Iterator[str]:
        sizes = [source.size for source in sources]
        total = None if None in sizes or any(s.compressed for s in sources) else sum(sizes)
        for source in sources:
            for document in read_documents(source, self.options.reader, self.note):
                self.counts["read_documents"] += 1
                self.counts["read_characters"] += len(document.text)
                self.read[source.name] += 1
                self._report("reading", self.counts["read_characters"], total)
                if source.kind == "txt":
                    self.shapes.look(document)
                yield document.text
            if source.kind == "txt" and self.read[source.name] == 1:
                self.shapes.finish_file(document)
        self.shapes.judge()

    def _clean(self, blocks: Iterable[list[str]]) -> list[SpooledTexts]:
        """Pass 1. Returns where each block of clean text is."""
        counts = LineCounts()
        path = self.directory / "spool" / "lines"
        places = []
        with (self.directory / "spool" / "clean").open("wb") as spool:
            for block in self.workers.run(Steps.clean_block, blocks):
                self._count_clean(block)
                counts.add(block.line_hashes)
                hashes = block.line_hashes.tobytes()
                place = SpooledTexts(spool.tell(), len(block.texts), len(hashes), str(path))
                places.append(place)
                spool.write(block.texts + hashes)
        with path.open("wb") as file:
            pickle.dump(counts, file, protocol=5)  # which writes the table without a copy
        return places

    def _tokenize_spooled(self, places: list[SpooledTexts]) -> None:
        """Pass 2, once the clean text is on disk."""
        blocks = self.workers.run(Steps.tokenize_spooled, places)
        for done, block in enumerate(blocks, 1):
            self._spool(block)
            self._report("tokenizing", done, len(places))
        (self.directory / "spool" / "clean").unlink()

    def _count_clean(self, block: CleanBlock) -> None:
        self.counts["clean_documents"] += block.documents
        self.counts["clean_characters"] += block.characters
        self.counts["too_short"] += block.too_short

    def _spool(self, block: TokenBlock) -> None:
        """Judges the documents of a block in order, and writes the new ones to the spool."""
        for name in ("boilerplate_lines", "too_short", "without_sentences", "unknown_tokens"):
            self.counts[name] += getattr(block, name)
        self.specials += block.specials
        self.counts["tokens"] += int(block.documents[:, 0].sum())
        token, sentence, piece = 0, 0, 0
        for (tokens, sentences, pieces), signature in zip(
            block.documents.tolist(), block.signatures, strict=True
        ):
            verdict = self.duplicate_filter.judge(signature)
            self.counts[verdict] += 1
            if verdict == "new":
                self.overlap.add(
                    self.spool.documents, signature.overlap_hashes, signature.overlap_pieces
                )
                self.places.append(split_place(signature.exact))
                self.spool.append(
                    block.token_ids[token : token + tokens],
                    block.sentence_lengths[sentence : sentence + sentences],
                    block.piece_sentences[piece : piece + pieces],
                )
            token += tokens
            sentence += sentences
            piece += pieces
        self.spool.flush()

    def check_splits(self) -> None:
        """Checks that each split has what pairs and rows need.

        Notes which share is not kept, which special tokens the text spells out, and whether much of
        it is unknown to the tokenizer.

        Raises:
            UserError: there is too little text; says what to change.
        """
        check_splits(self.options, self.counts, self.splits, self.tokenizer.frame)
        for text in describe_lost_shares(self.options, self.splits):
            self.note(text)
        spelled = self.specials.pop("", 0)
        total = counted(self.counts["clean_documents"], "document")
        notes = tell_specials(self.specials, self.tokenizer.specials, spelled, total)
        for text in [*notes, *describe_unknown(self.counts, self.tokenizer)]:
            self.note(text)

    def make_rows(self) -> None:
        """Pass 3: from the spools to the rows of the three splits."""
        packed = pack_splits(
            self.directory,
            self.options,
            self.tokenizer.vocab_size,
            self.units,
            self.workers,
            lambda done, total: self._report("packing", done, total),
        )
        for split in SPLITS:
            self.splits[split] |= packed.splits[split]
        self._token_counts = packed.token_counts

    def token_counts(self) -> np.ndarray:
        """Counts each token in the train rows, [V], special tokens left out."""
        self._token_counts[list(self.tokenizer.special_ids)] = 0
        return self._token_counts

    def card(self, sources: list[Source]) -> dict[str, Any]:
        """Returns the data card, without what `write_card` adds."""
        options, counts = self.options, self.counts
        reader = dataclasses.asdict(options.reader)
        del reader["input"]  # the sources are listed by name and hash, not by path
        return {
            "max_length": options.rows.max_length,
            "examples_per_row": options.rows.examples_per_row,
            "vocab_size": self.tokenizer.vocab_size,
            "sources": [
                {
                    "name": source.path.name if source.path else source.name,
                    "kind": source.kind,
                    "bytes": source.size,
                    "sha256": source.fingerprint(),
                    "documents": self.read[source.name],
                }
                for source in sources
            ],
            "options": {
                "reader": reader,
                "cleaning": dataclasses.asdict(options.cleaning),
                "duplicates": dataclasses.asdict(options.duplicates),
                "pairs": dataclasses.asdict(options.pairs),
                "rows": dataclasses.asdict(options.rows),
            },
            "tokenizer": {
                "kind": self.tokenizer.kind,
                "vocab_size": self.tokenizer.vocab_size,
                "fingerprint": self.tokenizer.fingerprint,
            },
            "counts": {
                "documents_read": counts["read_documents"],
                "characters_read": counts["read_characters"],
                "documents_too_short": counts["too_short"],
                "documents_without_sentences": counts["without_sentences"],
                "boilerplate_lines_removed": counts["boilerplate_lines"],
                "characters_clean": counts["clean_characters"],
                "exact_duplicates_removed": counts["exact"],
                "near_duplicates_removed": counts["near"],
                "documents_kept": counts["new"],
                "documents_of_one_paragraph": self.shapes.one_paragraph,
                "tokens": counts["tokens"],
                "unknown_tokens": counts["unknown_tokens"],
            },
            # The hash alone decided, unless documents were cut into parts.
            "documents_cut": len(self.division.parts),
            "parts_of_cut_documents": sum(map(len, self.division.parts.values())),
            "splits": self.splits,
            # The share of the word runs of a held-out split that also occur in train.
            "overlap_with_train": self.overlap.report(self.division.split_of),
            "versions": {
                name: importlib.metadata.version(name)
                for name in ("bertjax", "ftfy", "numpy", "rensa", "sentencex", "tokenizers")
            },
        }


def _blocks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Groups documents into blocks whose borders depend on the documents alone."""
    block: list[str] = []
    characters = 0
    for text in texts:
        block.append(text)
        characters += len(text)
        if characters >= BLOCK_CHARACTERS or len(block) == BLOCK_DOCUMENTS:
            yield block
            block, characters = [], 0
    if block:
        yield block
