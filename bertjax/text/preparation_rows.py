"""The last pass of preparation: from the spool to the rows of the three splits."""

import collections
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.program.errors import UserError
from bertjax.text.preparation_options import PreparationOptions
from bertjax.text.preparation_steps import Steps, Unit
from bertjax.text.row_writer import RowWriter
from bertjax.text.rows import SPLITS
from bertjax.text.workers import Workers


class PackedSplits(NamedTuple):
    """The rows that were written.

    Attributes:
        splits: what the data card says of each split's rows.
        token_counts: [V], those of the train rows, special tokens included.
    """

    splits: dict[str, dict[str, Any]]
    token_counts: np.ndarray


def pack_splits(
    directory: Path,
    options: PreparationOptions,
    vocab_size: int,
    units: Mapping[str, Sequence[tuple[int, int]]],
    workers: Workers,
    report: Callable[[int, int], None],
) -> PackedSplits:
    """Writes the rows of every split, those of train once for each copy.

    Args:
        directory: the prepared directory.
        options: how rows are made.
        vocab_size: V.
        units: the first document of each unit of a split, and the one after its last.
        workers: which make the rows.
        report: called with the units done, and with all there are.

    Raises:
        UserError: there should be pairs, and there are none.
    """
    rows = options.rows
    copies = {"train": options.pairs.duplicate_factor}
    jobs = [
        Unit(split, number, copy, first, last)
        for split in SPLITS
        for copy in range(copies.get(split, 1))
        for number, (first, last) in enumerate(units[split])
    ]
    writers = {
        split: RowWriter(directory / split, rows.max_length, rows.examples_per_row, vocab_size)
        for split in SPLITS
    }
    names = ("tokens", "examples", "next_pairs", "random_pairs")
    totals = {split: collections.Counter(dict.fromkeys(names, 0)) for split in SPLITS}
    for done, (unit, block) in enumerate(
        zip(jobs, workers.run(Steps.make_rows, jobs), strict=True), 1
    ):
        writers[unit.split].append(block.columns)
        figures = (block.tokens, block.examples, *block.pairs)
        totals[unit.split].update(dict(zip(names, figures, strict=True)))
        report(done, len(jobs))
    splits = {}
    for split, writer in writers.items():
        files = writer.close()
        places = writer.rows * rows.max_length
        tokens = totals[split]["tokens"]
        splits[split] = {
            "rows": writer.rows,
            **totals[split],
            "efficiency": round(tokens / places, 6) if places else None,
            "files": files,
        }
    pairs = splits["train"]["next_pairs"] + splits["train"]["random_pairs"]
    if options.pairs.pairing != "none" and not pairs:
        raise UserError(
            f"no document of the train split has two sentences in {rows.max_length} tokens, so"
            f" there are no pairs; pass --pairing none, or a larger --max-length"
        )
    return PackedSplits(splits, writers["train"].token_counts)
