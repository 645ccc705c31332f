"""Prepared directories of rows that a test makes up."""

import shutil

import numpy as np

from bertjax.program.output_directory import whole_directory
from bertjax.text.row_writer import RowWriter, write_card
from bertjax.text.rows import PREPARED_FILES, SPLITS, TOKENIZER_NAME


def write_rows(path, splits, vocab_size, tokenizer=None, overwrite=False):
    """Writes a prepared directory from arrays in memory.

    Args:
        path: the directory to make.
        splits: the columns of `rows.COLUMNS` for each split; a missing split has no rows.
        vocab_size: V.
        tokenizer: a tokenizer's directory, copied to `path/tokenizer`.
        overwrite: replace an existing `path`.
    """
    first = next(iter(splits.values()))
    max_length = first["token_ids"].shape[1]
    examples_per_row = first["example_starts"].shape[1]
    card = {
        "max_length": max_length,
        "examples_per_row": examples_per_row,
        "vocab_size": vocab_size,
        "options": {"pairs": {"pairing": "nsp"}},
        "splits": {},
    }
    with whole_directory(path, overwrite, PREPARED_FILES) as partial:
        if tokenizer is not None:
            shutil.copytree(tokenizer, partial / TOKENIZER_NAME)
        counts = np.zeros(vocab_size, np.int64)
        for split in SPLITS:
            writer = RowWriter(partial / split, max_length, examples_per_row, vocab_size)
            if split in splits:
                writer.append(splits[split])
            card["splits"][split] = {"files": writer.close(), "rows": writer.rows}
            if split == "train":
                counts = writer.token_counts
        counts[:5] = 0  # the special tokens
        write_card(partial, counts, card)
