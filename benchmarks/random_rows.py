"""Rows to time a training step with."""

import numpy as np

from bertjax.types import RowBatch


def random_batch(vocab_size: int, rows: int, length: int) -> RowBatch:
    """Full rows of two examples each, of random tokens."""
    random = np.random.default_rng(0)
    second = length // 2
    shape = (rows, length)
    return RowBatch(
        token_ids=random.integers(5, vocab_size, shape).astype(np.int32),
        token_type_ids=np.zeros(shape, np.uint8),
        sequence_ids=np.broadcast_to(1 + (np.arange(length) >= second), shape).astype(np.uint8),
        position_ids=np.broadcast_to(np.arange(length) % second, shape).astype(np.uint16),
        example_starts=np.broadcast_to([0, second], (rows, 2)).astype(np.uint16),
        next_sentence_labels=random.integers(0, 2, (rows, 2)).astype(np.int8),
        row_numbers=np.arange(rows, dtype=np.uint32),
        epochs=np.zeros(rows, np.uint32),
    )
