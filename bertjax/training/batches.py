"""Which rows a step sees: a pure function of (seed, step), read ahead of need."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import grain
import numpy as np

from bertjax.errors import UserError
from bertjax.types import RowBatch

# What jax takes for a seed everywhere.
MOST_SEEDS = 1 << 32
# Batches that are read while the devices compute.
PREFETCH = 4


def check_seed(seed: int) -> None:
    """Raises a `UserError` unless rows, masks and dropout can be drawn with the seed."""
    if not 0 <= seed < MOST_SEEDS:
        raise UserError(f"seed={seed} must lie in [0, {MOST_SEEDS})")


@runtime_checkable
class RowSource(Protocol):
    """Rows by number, as `bertjax.text.rows.Rows` gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]: ...


@runtime_checkable
class Batches(Protocol):
    """The batch of every step, by random access; the length is that of the run, or more."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Any: ...


class TrainingBatches:
    """The batch of every step, by random access: `batches[step]`.

    Each epoch is a permutation of all rows, keyed by (seed, epoch) and computed place by place, so
    that nothing is kept and nothing is to be restored. A batch may span two epochs: no row is
    dropped.
    """

    def __init__(self, rows: RowSource, batch_size: int, seed: int, steps: int) -> None:
        self._rows, self._batch_size, self._seed, self._steps = rows, batch_size, seed, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> RowBatch:
        places = step * self._batch_size + np.arange(self._batch_size)
        epochs, places = np.divmod(places, len(self._rows))
        seeds = {epoch: self._epoch_seed(int(epoch)) for epoch in np.unique(epochs)}
        last = len(self._rows) - 1
        numbers = np.array(
            [
                grain.experimental.index_shuffle(int(place), last, seeds[epoch], rounds=4)
                for epoch, place in zip(epochs, places, strict=True)
            ]
        )
        return _batch_of(self._rows[numbers], numbers, epochs)

    def _epoch_seed(self, epoch: int) -> int:
        return int(np.random.SeedSequence((self._seed, epoch)).generate_state(1)[0])


def read_ahead(batches: Batches, first_step: int) -> Iterator[Any]:
    """The batches from `first_step` on, a few of them made in the background."""
    source = grain.MapDataset.source(batches).slice(slice(first_step, None))
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCH)
    return iter(source.to_iter_dataset(options))


def evaluation_batches(rows: RowSource, batch_size: int, limit: int = 0) -> Iterator[RowBatch]:
    """The first `limit` rows (0 = all) in order; the last batch is filled up with empty rows.

    An empty row is all padding: it holds no masked token and no example, so it counts nowhere.
    """
    total = min(limit or len(rows), len(rows))
    for start in range(0, total, batch_size):
        numbers = np.arange(start, min(start + batch_size, total))
        batch = _batch_of(rows[numbers], numbers, np.zeros_like(numbers))
        missing = batch_size - len(numbers)
        filled = [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in batch]
        padded = RowBatch(*filled)
        padded.next_sentence_labels[len(numbers) :] = -1
        yield padded


def _batch_of(columns: dict[str, np.ndarray], numbers: np.ndarray, epochs: np.ndarray) -> RowBatch:
    return RowBatch(
        **columns, row_numbers=numbers.astype(np.uint32), epochs=epochs.astype(np.uint32)
    )
