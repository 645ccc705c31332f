"""Which rows a step sees: a pure function of (seed, step), read ahead of need."""

import collections
import concurrent.futures
import functools
import itertools
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer

from bertjax.config import BertConfig
from bertjax.program.errors import UserError
from bertjax.training.permutation import permute
from bertjax.types import RowBatch

# What jax takes for a seed everywhere.
MOST_SEEDS = 1 << 32
# Places of an epoch whose rows are computed together.
STRETCH = 4096
# Batches that the reading thread hands over together: a hand-over takes half a batch's time.
TOGETHER = 4


def check_seed(seed: int) -> None:
    """Raises a `UserError` unless rows, masks and dropout can be drawn with the seed."""
    if not 0 <= seed < MOST_SEEDS:
        raise UserError(f"seed={seed} must be in [0, {MOST_SEEDS})")


@runtime_checkable
class RowSource(Protocol):
    """Rows by number, as `bertjax.text.rows.Rows` gives them."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]: ...


class FittingRows:
    """Rows that are checked, as they are read, for ids that the model has no embedding for."""

    def __init__(self, rows: RowSource, config: BertConfig) -> None:
        self._rows, self._config = rows, config

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        rows = self._rows[indices]
        self._config.check_ids(rows["token_ids"], rows["token_type_ids"], rows["position_ids"])
        return rows


@runtime_checkable
class Batches(Protocol):
    """The batch of every step, by random access; the length is that of the run, or more."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> Any: ...


@runtime_checkable
class Order(Protocol):
    """Which rows come when: a pure function of (seed, place)."""

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of the rows at `count` places from `first` on, and their epochs."""


class EpochOrder:
    """The order of the rows of a source, one epoch after the other.

    Each epoch is a permutation of all rows, keyed by (seed, epoch) and computed place by place, so
    that nothing is to be kept and nothing to be restored.

    Args:
        length: how many rows there are.
        seed: of the order.
    """

    def __init__(self, length: int, seed: int) -> None:
        self._length, self._seed = length, seed
        self._numbers_at = functools.lru_cache(maxsize=2)(self._compute_numbers)

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of the rows at `count` places from `first` on, and their epochs."""
        parts, epochs = [np.empty(0, np.int64)], [np.empty(0, np.uint32)]
        while count:
            epoch, place = divmod(first, self._length)
            stretch, inside = divmod(place, STRETCH)
            part = self._numbers_at(epoch, stretch)[inside : inside + count]
            parts.append(part)
            epochs.append(np.full(len(part), epoch, np.uint32))
            first, count = first + len(part), count - len(part)
        return np.concatenate(parts), np.concatenate(epochs)

    def _compute_numbers(self, epoch: int, stretch: int) -> np.ndarray:
        """Returns the rows at `STRETCH` places of an epoch, or at fewer where it ends."""
        places = np.arange(stretch * STRETCH, min((stretch + 1) * STRETCH, self._length))
        seed = int(np.random.SeedSequence((self._seed, epoch)).generate_state(1)[0])
        return permute(places, self._length, seed)


class TrainingBatches:
    """The batch of every step, by random access: `batches[step]`.

    A batch may span two epochs: no row is dropped.

    Args:
        rows: of the training split.
        batch_size: rows a step, over all processes.
        seed: of the order.
        steps: of the run.
        here: the places in a batch that this process reads (`sharding.rows_here`); None = all.
        order: of the rows; None = one epoch after the other.
        first_step: of those that use the rows.
        rows_before: how many rows were used before it.
    """

    def __init__(
        self,
        rows: RowSource,
        batch_size: int,
        seed: int,
        steps: int,
        here: Integer[np.ndarray, " B"] | None = None,
        order: Order | None = None,
        first_step: int = 0,
        rows_before: int = 0,
    ) -> None:
        self._rows, self._batch_size, self._steps = rows, batch_size, steps
        self._order = EpochOrder(len(rows), seed) if order is None else order
        self._here = np.arange(batch_size) if here is None else here
        self._first_step, self._rows_before = first_step, rows_before

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> RowBatch:
        first = self._rows_before + (step - self._first_step) * self._batch_size
        numbers, epochs = self._order(first, self._batch_size)
        numbers, epochs = numbers[self._here], epochs[self._here]
        return _batch_of(self._rows[numbers], numbers, epochs)


def read_ahead(batches: Batches, first_step: int) -> Iterator[Any]:
    """Yields the batches from `first_step` on, a few of them made in the background."""
    end = len(batches)
    starts = iter(range(first_step, end, TOGETHER))

    def read(start: int) -> list[Any]:
        return [batches[step] for step in range(start, min(start + TOGETHER, end))]

    reader = concurrent.futures.ThreadPoolExecutor(1, "read-ahead")
    try:
        coming = collections.deque(reader.submit(read, at) for at in itertools.islice(starts, 2))
        while coming:
            ready = coming.popleft().result()
            coming.extend(reader.submit(read, start) for start in itertools.islice(starts, 1))
            yield from ready
    finally:
        reader.shutdown(cancel_futures=True)


def evaluation_batches(
    rows: RowSource,
    batch_size: int,
    limit: int = 0,
    here: Integer[np.ndarray, " B"] | None = None,
) -> Iterator[RowBatch]:
    """Yields the first `limit` rows (0 = all) in order; empty rows fill up the last batch.

    An empty row is all padding: it holds no masked token and no example, so it counts nowhere.

    Args:
        rows: of the split.
        batch_size: rows at a time, over all processes.
        limit: how many rows.
        here: the places in a batch that this process reads; None = all.
    """
    total = min(limit or len(rows), len(rows))
    here = np.arange(batch_size) if here is None else here
    for start in range(0, total, batch_size):
        numbers = start + here[start + here < total]
        batch = _batch_of(rows[numbers], numbers, np.zeros_like(numbers))
        missing = len(here) - len(numbers)
        filled = [np.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in batch]
        padded = RowBatch(*filled)
        padded.next_sentence_labels[len(numbers) :] = -1
        yield padded


def _batch_of(columns: dict[str, np.ndarray], numbers: np.ndarray, epochs: np.ndarray) -> RowBatch:
    return RowBatch(
        **columns,
        row_numbers=numbers.astype(np.uint32),
        epochs=epochs.astype(np.uint32, copy=False),
    )
