"""Which rows a step sees."""

import itertools

import numpy as np
import pytest

from bertjax.training.batches import TrainingBatches, evaluation_batches, read_ahead


class NumberedRows:
    """Rows of T=3 and K=2 that carry their own number."""

    def __init__(self, size):
        self.size, self.asked = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, numbers):
        numbers = np.asarray(numbers)
        assert ((numbers >= 0) & (numbers < self.size)).all()
        self.asked.append(numbers)
        tokens = np.broadcast_to(numbers[:, None] + 1, (len(numbers), 3)).copy()
        slots = np.zeros((len(numbers), 2), np.int32)
        return {
            "token_ids": tokens,
            "token_type_ids": tokens * 0,
            "sequence_ids": tokens * 0 + 1,
            "position_ids": tokens * 0 + np.arange(3),
            "example_starts": slots,
            "next_sentence_labels": slots.copy(),
        }


def rows_of(batches, steps):
    """The row numbers and epochs of all those steps, in order."""
    drawn = [batches[step] for step in range(steps)]
    for batch in drawn:
        np.testing.assert_array_equal(batch.token_ids[:, 0], batch.row_numbers + 1)
    return [np.concatenate([getattr(b, name) for b in drawn]) for name in ("row_numbers", "epochs")]


@pytest.mark.parametrize(("rows", "batch_size"), [(97, 5), (5, 5), (3, 7), (1, 4), (64, 1)])
def test_epoch_is_a_permutation_and_batches_may_span_epochs(rows, batch_size):
    batches = TrainingBatches(NumberedRows(rows), batch_size, seed=0, steps=1000)
    steps = -(-4 * rows // batch_size)
    numbers, epochs = rows_of(batches, steps)
    for epoch in range(4):
        seen = numbers[epoch * rows : (epoch + 1) * rows]
        assert sorted(seen) == list(range(rows))
        assert (epochs[epoch * rows : (epoch + 1) * rows] == epoch).all()


def test_rows_are_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        return tuple(TrainingBatches(NumberedRows(97), 97, seed, 9)[epoch].row_numbers)

    orders = {(seed, epoch): order(seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(set(orders.values())) == 9
    assert orders[1, 2] == order(1, 2)
    assert tuple(range(97)) not in orders.values()


def test_every_row_can_stand_anywhere():
    """Over many epochs each row is as often first as another."""
    batches = TrainingBatches(NumberedRows(5), 1, seed=0, steps=1000)
    counts = np.bincount([batches[5 * epoch].row_numbers[0] for epoch in range(150)], minlength=5)
    assert np.abs(counts - 30).max() < 5 * np.sqrt(150 * 1 / 5 * 4 / 5)
    assert counts.max() - counts.min() > 0


def test_batch_is_the_same_whatever_was_read_before():
    rows = NumberedRows(97)
    batches = TrainingBatches(rows, 5, seed=0, steps=1000)
    later = batches[123]
    assert len(rows.asked) == 1  # by random access: nothing was read on the way
    batches[0], batches[7]
    for one, other in zip(later, batches[123], strict=True):
        np.testing.assert_array_equal(one, other)


def test_types_are_those_that_key_the_masks():
    batch = TrainingBatches(NumberedRows(9), 4, seed=0, steps=9)[5]
    assert batch.row_numbers.dtype == batch.epochs.dtype == np.uint32
    assert batch.epochs.tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("first", [0, 3, 11])
def test_reading_ahead_begins_at_the_step_asked_for(first):
    batches = TrainingBatches(NumberedRows(97), 5, seed=0, steps=12)
    ahead = list(itertools.islice(read_ahead(batches, first), 20))
    assert len(ahead) == 12 - first
    for step, batch in enumerate(ahead, start=first):
        np.testing.assert_array_equal(batch.row_numbers, batches[step].row_numbers)
        np.testing.assert_array_equal(batch.token_ids, batches[step].token_ids)


def test_reading_ahead_does_not_read_a_budget_without_end():
    rows = NumberedRows(97)
    ahead = read_ahead(TrainingBatches(rows, 5, seed=0, steps=2**40), 2**30)
    next(ahead)
    assert len(rows.asked) < 20


@pytest.mark.parametrize(("rows", "limit"), [(10, 0), (10, 7), (8, 0), (3, 0), (10, 99)])
def test_evaluation_sees_every_row_once_and_fills_up_with_empty_ones(rows, limit):
    batches = list(evaluation_batches(NumberedRows(rows), 4, limit))
    assert {batch.token_ids.shape for batch in batches} == {(4, 3)}
    real = np.concatenate([(batch.sequence_ids > 0).any(1) for batch in batches])
    tokens = np.concatenate([batch.token_ids[:, 0] for batch in batches])
    labels = np.concatenate([batch.next_sentence_labels for batch in batches])
    numbers = np.concatenate([batch.row_numbers for batch in batches])
    total = min(limit or rows, rows)
    assert real.sum() == total
    assert (tokens[real] - 1).tolist() == numbers[real].tolist() == list(range(total))
    assert (labels[~real] == -1).all()
    assert (labels[real] == 0).all()
    assert (np.concatenate([batch.epochs for batch in batches]) == 0).all()


def test_processes_read_their_parts_of_the_same_batches():
    whole = TrainingBatches(NumberedRows(10), 6, seed=0, steps=9)
    sources = [NumberedRows(10), NumberedRows(10)]
    parts = [
        TrainingBatches(source, 6, seed=0, steps=9, here=here)
        for source, here in zip(sources, (np.arange(3), np.arange(3, 6)), strict=True)
    ]
    for step in range(4):
        for name in ("token_ids", "row_numbers", "epochs"):
            together = np.concatenate([getattr(part[step], name) for part in parts])
            np.testing.assert_array_equal(together, getattr(whole[step], name))
    assert {len(numbers) for source in sources for numbers in source.asked} == {3}


@pytest.mark.parametrize("rows", [8, 5, 1])
def test_processes_evaluate_their_parts_of_the_same_batches(rows):
    """The last batch may have no row for a process: it gets empty ones."""
    parts = [
        list(evaluation_batches(NumberedRows(rows), 4, here=here))
        for here in (np.arange(2), np.arange(2, 4))
    ]
    whole = list(evaluation_batches(NumberedRows(rows), 4))
    for batch, *pieces in zip(whole, *parts, strict=True):
        for name, expected in batch._asdict().items():
            together = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_array_equal(together, expected)


def test_evaluation_does_not_write_into_the_rows():
    """Rows are memory-mapped: a batch that is whole may be the file itself."""

    class ReadOnlyRows(NumberedRows):
        def __getitem__(self, numbers):
            columns = super().__getitem__(numbers)
            for column in columns.values():
                column.flags.writeable = False
            return columns

    assert len(list(evaluation_batches(ReadOnlyRows(7), 4))) == 2
