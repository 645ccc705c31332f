"""Phases of a run: when each begins, which rows it takes, and rows cut for it."""

import math

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.training.batches import TrainingBatches
from bertjax.training.budget import BudgetConfig, Clock
from bertjax.training.cut_rows import CutRows
from bertjax.training.phases import PhasesConfig, count_rows_before, make_phases
from tests.training.test_batches import NumberedRows, rows_of

STEPS = Clock(BudgetConfig(steps=101), 24, 8)


def test_run_without_phases_is_one():
    (phase,) = make_phases(PhasesConfig(), 8, STEPS)
    assert (phase.end, phase.span, phase.batch_size) == (math.inf, (0, 1), 8)
    assert (phase.length, phase.data, phase.causal) == (None, None, False)


def test_phases_begin_at_whole_steps_and_fill_the_budget():
    config = PhasesConfig([0.25, 0.25, 0.5], [8, 16, 16], batch_sizes=[32, 8, 8])
    phases = make_phases(config, 4, STEPS)
    assert [phase.end for phase in phases] == [25, 50, math.inf]
    assert [phase.span for phase in phases] == [(0, 25 / 101), (25 / 101, 50 / 101), (50 / 101, 1)]
    assert [(phase.length, phase.batch_size) for phase in phases] == [(8, 32), (16, 8), (16, 8)]


def test_phases_of_minutes_begin_at_seconds():
    clock = Clock(BudgetConfig(minutes=10.0), 24, 8)
    assert [phase.end for phase in make_phases(PhasesConfig([0.3, 0.7]), 8, clock)] == [
        180,
        math.inf,
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shares": [0.5, 0.6]}, "must be above 0 and add up to 1"),
        ({"shares": [1.5, -0.5]}, "must be above 0"),
        (
            {"shares": [0.5, 0.5], "lengths": [8]},
            r"phases.lengths=\[8\] must have an item for each",
        ),
        ({"lengths": [8]}, "phases.lengths="),
        ({"shares": [0.5, 0.5], "batch_sizes": [8, 0]}, "phases.batch_sizes=.* at least 1"),
        ({"shares": [0.001, 0.999]}, "one of them has no step in 101 steps"),
    ],
)
def test_mistake_names_the_field(fields, message):
    with pytest.raises(UserError, match=message):
        make_phases(PhasesConfig(**fields), 8, STEPS)


def test_phase_goes_on_in_the_epoch_of_those_before_on_the_same_rows():
    """6 steps of 5 rows, 4 of other rows, then 6 of 9: the first and last see each row once."""
    config = PhasesConfig([0.375, 0.25, 0.375], [3, 1, 3], batch_sizes=[5, 7, 9])
    phases = make_phases(config, 1, Clock(BudgetConfig(steps=16), 84, 8))
    starts = [0, 6, 10]
    assert [count_rows_before(phases, starts[: n + 1], n) for n in range(3)] == [0, 0, 30]
    rows = NumberedRows(84)
    first = rows_of(TrainingBatches(rows, 5, 0, 16), 6)[0]
    last = TrainingBatches(rows, 9, 0, 16, first_step=10, rows_before=30)
    seen = [*first, *(number for step in range(10, 16) for number in last[step].row_numbers)]
    assert sorted(seen) == list(range(84))


# ------------------------------------------------------------------ rows that are cut


class OneRow:
    """`[CLS] a a [SEP] b [SEP] [CLS] c [SEP] d [SEP] [PAD]`, as rows of 12."""

    max_length, examples_per_row = 12, 3

    def __len__(self):
        return 1

    def __getitem__(self, indices):
        columns = {
            "token_ids": [2, 11, 12, 3, 13, 3, 2, 14, 3, 15, 3, 0],
            "token_type_ids": [0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0],
            "sequence_ids": [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0],
            "position_ids": [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0],
            "example_starts": [0, 6, 0],
            "next_sentence_labels": [1, 0, -1],
        }
        types = {"token_ids": np.int32, "next_sentence_labels": np.int8}
        return {
            name: np.tile(np.array(column, types.get(name, np.uint16)), (len(indices), 1))
            for name, column in columns.items()
        }


def test_cut_row_goes_on_from_position_0_and_has_the_pairs_that_are_whole():
    pieces = CutRows(OneRow(), 6)
    assert (len(pieces), pieces.max_length) == (2, 6)
    cut = {name: column.tolist() for name, column in pieces[np.array([1, 0])].items()}
    assert cut["token_ids"] == [[2, 14, 3, 15, 3, 0], [2, 11, 12, 3, 13, 3]]
    assert cut["position_ids"] == [[0, 1, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5]]
    assert cut["sequence_ids"] == [[2, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1]]
    assert cut["example_starts"] == [[0, 0, 0], [0, 0, 0]]
    assert cut["next_sentence_labels"] == [[-1, 0, -1], [1, -1, -1]]


def test_pair_that_is_cut_through_is_not_asked_about():
    cut = {name: column.tolist() for name, column in CutRows(OneRow(), 4)[np.arange(3)].items()}
    assert cut["position_ids"] == [[0, 1, 2, 3], [0, 1, 0, 1], [0, 1, 2, 0]]
    assert cut["token_type_ids"] == [[0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0]]
    assert cut["example_starts"] == [[0, 0, 0]] * 3
    assert cut["next_sentence_labels"] == [[-1, -1, -1]] * 3


def test_rows_are_cut_at_a_divisor_of_their_length():
    with pytest.raises(UserError, match="rows of 12 tokens cannot be cut into rows of 5; give a"):
        CutRows(OneRow(), 5)
