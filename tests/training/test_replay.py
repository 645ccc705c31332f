"""Replayed rows: how many there are of them, in which order, and what is no replay."""

import fractions

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.training.batches import EpochOrder, TrainingBatches
from bertjax.training.replay import MixedOrder, MixedRows, ReplayConfig
from tests.training.test_batches import NumberedRows

FIRST, SECOND = 23, 11


def mixed(share, seed=3):
    return MixedOrder(FIRST, SECOND, fractions.Fraction(share), seed)


@pytest.mark.parametrize("share", ["1/2", "3/10", "1/7", "99/100"])
def test_share_is_exact_in_every_stretch(share):
    exact = fractions.Fraction(share)
    for first, count in ((0, 700), (0, 10), (13, 7), (10**9 + 1, 40)):
        numbers, _ = mixed(share)(first, count)
        replayed = (numbers >= FIRST).sum()
        assert replayed == (first + count) * exact // 1 - first * exact // 1
        assert abs(replayed - count * exact) < 1


def test_each_source_is_gone_through_in_epochs_of_its_own():
    numbers, epochs = mixed("3/10")(0, 400)
    for own, size in ((numbers < FIRST, FIRST), (numbers >= FIRST, SECOND)):
        of_source, theirs = numbers[own], epochs[own]
        for epoch in range(len(of_source) // size):
            seen = of_source[epoch * size : (epoch + 1) * size]
            assert len(set(seen.tolist())) == size
            assert set(theirs[epoch * size : (epoch + 1) * size].tolist()) == {epoch}
    alone, _ = EpochOrder(FIRST, 3)(0, int((numbers < FIRST).sum()))
    np.testing.assert_array_equal(numbers[numbers < FIRST], alone)


def test_order_is_a_function_of_seed_and_place():
    whole = mixed("3/10")(0, 90)
    parts = [mixed("3/10")(first, 9) for first in range(0, 90, 9)]
    for column, pieces in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(column, np.concatenate(pieces))
    assert (mixed("3/10", seed=4)(0, 90)[0] != whole[0]).any()
    replayed = whole[0][whole[0] >= FIRST] - FIRST
    other, _ = EpochOrder(SECOND, 3)(0, len(replayed))
    assert (replayed != other).any()  # two sources of one size have unlike orders


def test_batches_hold_the_rows_of_both():
    rows = MixedRows(NumberedRows(FIRST), NumberedRows(SECOND))
    assert len(rows) == FIRST + SECOND
    batches = TrainingBatches(rows, 10, 0, 99, order=mixed("3/10"))
    for step in (0, 5):
        batch = batches[step]
        of_second = batch.row_numbers >= FIRST
        assert of_second.sum() == 3
        expected = np.where(of_second, batch.row_numbers - FIRST, batch.row_numbers) + 1
        np.testing.assert_array_equal(batch.token_ids[:, 0], expected)


def test_share_is_the_number_that_was_written():
    assert ReplayConfig("rows", 0.3).exact_share == fractions.Fraction(3, 10)
    assert ReplayConfig("rows", 1 / 3).exact_share == fractions.Fraction(1, 3)
    assert ReplayConfig("rows", 0.2).rows_of_epoch(101) == 127
    assert ReplayConfig().rows_of_epoch(101) == 101


@pytest.mark.parametrize("share", [-0.1, 1.0, 0.0001, float("nan")])
def test_impossible_share_is_refused(share):
    with pytest.raises(UserError, match=rf"replay.share={share} must be 0, or 0.001 to 0.99"):
        ReplayConfig("rows", share)


def test_share_without_text_is_refused():
    with pytest.raises(UserError, match=r"replay.share=0.3 needs text to replay: name it with"):
        ReplayConfig(share=0.3)
