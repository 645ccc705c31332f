"""Packing: every example stands whole in one row, and rows are full."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.text.framing import Frame
from bertjax.text.packing import make_rows, pack
from bertjax.text.pairs import NO_PAIR, Example

PAD_ID, CLS_ID, SEP_ID = 7, 5, 6
FRAMES = {
    "BERT": Frame((CLS_ID,), (SEP_ID,), (SEP_ID,)),
    "RoBERTa": Frame((CLS_ID,), (SEP_ID, SEP_ID), (SEP_ID,)),
}
T, K = 19, 3


@st.composite
def examples(draw) -> list[Example]:
    made = []
    for _ in range(draw(st.integers(0, 25))):
        label = draw(st.sampled_from([0, 1, NO_PAIR]))
        room = T - FRAMES["RoBERTa"].size(pair=label != NO_PAIR)  # enough for both
        first = draw(st.integers(1, room - (label != NO_PAIR)))
        second = 0 if label == NO_PAIR else draw(st.integers(1, room - first))
        ids = np.arange(10, 10 + first + second, dtype=np.uint16)
        made.append(Example(ids[:first], ids[first:], label))
    return made


def unpack(columns: dict[str, np.ndarray], frame: Frame) -> list[tuple[list[int], list[int], int]]:
    """(first, second, label) of every example, read back from the columns alone."""
    found = []
    for row in range(len(columns["token_ids"])):
        sequence_ids = columns["sequence_ids"][row]
        for slot in range(K):
            here = sequence_ids == slot + 1
            if not here.any():
                assert columns["next_sentence_labels"][row, slot] == -1
                assert columns["example_starts"][row, slot] == 0
                continue
            places = np.flatnonzero(here)
            start = columns["example_starts"][row, slot]
            np.testing.assert_array_equal(places, start + np.arange(len(places)))
            np.testing.assert_array_equal(
                columns["position_ids"][row, places], np.arange(len(places))
            )
            ids, types = columns["token_ids"][row, places], columns["token_type_ids"][row, places]
            assert (np.diff(types.astype(int)) >= 0).all()
            first, second = ids[types == 0], ids[types == 1]
            before_second = len(frame.between) if len(second) else 1
            assert first[0] == CLS_ID
            assert (first[-before_second:] == SEP_ID).all()
            if len(second):
                assert second[-1] == SEP_ID
            label = int(columns["next_sentence_labels"][row, slot])
            found.append((first[1:-before_second].tolist(), second[:-1].tolist(), label))
        padding = sequence_ids == 0
        assert (columns["token_ids"][row, padding] == PAD_ID).all()
        assert not columns["position_ids"][row, padding].any()
        assert not columns["token_type_ids"][row, padding].any()
    return found


@settings(max_examples=150, deadline=None)
@given(examples(), st.sampled_from(list(FRAMES.values())))
def test_rows_unpack_to_the_examples_that_went_in(packed, frame):
    tokenizer = SimpleNamespace(pad_id=PAD_ID, frame=frame)
    found = unpack(make_rows(packed, tokenizer, T, K), frame)
    expected = [(one.first.tolist(), one.second.tolist(), one.label) for one in packed]
    assert sorted(found) == sorted(expected)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(1, T), max_size=60), st.integers(1, 6))
def test_packed_rows_neither_overflow_nor_could_be_joined(lengths, most):
    lengths = np.array(lengths, np.int64)
    places = pack(lengths, T, most)
    rows = int(places.row.max(initial=-1)) + 1
    filled = np.bincount(places.row, lengths, minlength=rows)
    count = np.bincount(places.row, minlength=rows)
    assert (filled <= T).all()
    assert (count <= most).all()
    for row in range(rows):
        inside = np.flatnonzero(places.row == row)
        order = inside[np.argsort(places.slot[inside])]
        np.testing.assert_array_equal(places.slot[order], np.arange(len(order)))
        starts = np.cumsum(lengths[order]) - lengths[order]
        np.testing.assert_array_equal(places.start[order], starts)
    # The shortest example of a later row fitted into no earlier row that had a free slot.
    for row in range(1, rows):
        shortest = lengths[places.row == row].min()
        longest_first = lengths[places.row == row].max()
        open_rows = np.flatnonzero((count[:row] < most) & (T - filled[:row] >= longest_first))
        assert len(open_rows) == 0, (row, shortest)


@pytest.mark.parametrize("max_length", [128, 512])
def test_lengths_like_those_of_text_fill_the_rows(max_length):
    """Most examples are full, a tenth is short, and the ends of documents have any length."""
    generator = np.random.default_rng(0)
    lengths = np.where(generator.random(3000) < 0.8, max_length - generator.integers(0, 2, 3000), 0)
    lengths = np.where(lengths > 0, lengths, generator.integers(5, max_length, 3000))
    places = pack(lengths, max_length, max_length // 8)
    assert lengths.sum() / max_length / (places.row.max() + 1) > 0.985


def test_best_fit_takes_the_row_with_the_least_room():
    # 10 and 6 leave room for 3 and 7; the 3 belongs to the 10, so that 7 still fits.
    places = pack(np.array([10, 6, 3, 7]), 13, 4)
    assert places.row.tolist() == [0, 1, 0, 1]


def test_one_example_a_row_is_no_packing():
    places = pack(np.array([2, 5, 3]), 50, 1)
    assert sorted(places.row.tolist()) == [0, 1, 2]
    assert places.start.tolist() == [0, 0, 0]
