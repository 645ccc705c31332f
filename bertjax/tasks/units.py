"""Examples as the model takes them: units of one or several sequences, packed into rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from bertjax.config import BertConfig
from bertjax.text.framing import TokenSequence
from bertjax.text.packing import Places, fill_rows, pack
from bertjax.types import TaskBatch


class Unit(NamedTuple):
    """What must stand in one row: the sequence of an example, or all choices of a question.

    Attributes:
        example: the number of the example that it is of, or a part of.
        sequences: one for most tasks.
        labels: for each sequence, or for each token of the only one; as the task has them.
        weights: of those in the loss; 0 where nothing is asked.
        origin: what the task needs beside, to read the model's output back.
    """

    example: int
    sequences: tuple[TokenSequence, ...]
    labels: Shaped[np.ndarray, "places ..."]
    weights: Float[np.ndarray, " places"]
    origin: Any = None

    @property
    def length(self) -> int:
        """Tokens of all its sequences."""
        return sum(len(sequence.token_ids) for sequence in self.sequences)


def check_units(units: Sequence[Unit], config: BertConfig) -> None:
    """Checks that the model has an embedding for every token, token type and position of units.

    Raises:
        UserError: it has not.
    """
    sequences = [sequence for unit in units for sequence in unit.sequences]
    if not sequences:
        return
    config.check_ids(
        np.concatenate([sequence.token_ids for sequence in sequences]),
        np.array([len(sequence.token_ids) > sequence.second_start for sequence in sequences]),
        np.array([len(sequence.token_ids) - 1 for sequence in sequences]),
    )


class Layout(NamedTuple):
    """The shape of every batch of a split, so that one compilation serves all.

    Attributes:
        rows: B.
        length: T.
        slots: K, sequences a row.
        slots_per_unit: how many of them each unit takes, whether it fills them or not.
    """

    rows: int
    length: int
    slots: int
    slots_per_unit: int


# The lengths of rows that are tried, in steps of so many tokens, up to so many times the longest
# unit.
LENGTH_STEP, MOST_LONGEST = 8, 3
# They are tried on so many of the batches, and the best of them on all.
SAMPLED_BATCHES, LIKELY_LENGTHS = 32, 8


def choose_layout(
    batches: Sequence[Sequence[Unit]], hidden_size: int, *, packing: bool = True, multiple: int = 1
) -> Layout:
    """Returns the layout in which a step costs least, among those that hold each of these batches.

    Longer rows waste less room at their end, and cost more attention: a token's matrix products
    with parameters are 24 D^2 operations a layer, its attention 4 T D, and the softmax is counted
    as much again.

    Args:
        batches: the units of every batch that is to fit.
        hidden_size: D.
        packing: False gives every unit a row of its own.
        multiple: the number of rows is a multiple of it (devices x microbatches).
    """
    units = [unit for batch in batches for unit in batch]
    slots_per_unit = max(len(unit.sequences) for unit in units)
    shortest_row = _round_up(max(unit.length for unit in units), LENGTH_STEP)
    if not packing:
        rows = _round_up(max(map(len, batches)), multiple)
        return Layout(rows, shortest_row, slots_per_unit, slots_per_unit)
    shortest = min(unit.length for unit in units)
    lengths = [np.array([unit.length for unit in batch]) for batch in batches]
    some = lengths[:: max(1, len(lengths) // SAMPLED_BATCHES)]

    def fit(length: int, lengths: Sequence[np.ndarray]) -> Layout:
        units_per_row = length // shortest
        rows = max(count_rows(batch, length, units_per_row) for batch in lengths)
        slots = units_per_row * slots_per_unit
        return Layout(_round_up(rows, multiple), length, slots, slots_per_unit)

    def cost(layout: Layout) -> int:
        return layout.rows * layout.length * (24 * hidden_size + 8 * layout.length)

    candidates = range(shortest_row, MOST_LONGEST * shortest_row + 1, LENGTH_STEP)
    # What is best for some may need a row more for one of the others.
    likely = sorted((fit(length, some) for length in candidates), key=cost)[:LIKELY_LENGTHS]
    return min((fit(layout.length, lengths) for layout in likely), key=cost)


def count_rows(lengths: Int[np.ndarray, " units"], length: int, units_per_row: int) -> int:
    """Returns how many rows of `length` tokens hold units of these lengths."""
    return int(pack(lengths, length, units_per_row).row.max(initial=-1)) + 1


def places_of(units: Sequence[Unit], layout: Layout, *, packing: bool = True) -> Places:
    """Returns where each unit goes: packed, or with `packing=False` each into a row of its own."""
    if not packing:
        zeros = np.zeros(len(units), np.int64)
        return Places(np.arange(len(units)), zeros, zeros)
    lengths = np.array([unit.length for unit in units])
    return pack(lengths, layout.length, layout.slots // layout.slots_per_unit)


def make_task_batch(
    units: Sequence[Unit], places: Places, layout: Layout, pad_id: int
) -> TaskBatch:
    """Returns the rows that hold these units, numpy arrays, filled up with padding to the layout.

    Labels are per slot `[B, K, ...]` where a unit has as many as sequences, and per token
    `[B, T, ...]` where it has as many as tokens (a sequence has two at least).

    Args:
        units: at least one.
        places: where each goes; `places.slot` counts units.
        layout: large enough for them.
        pad_id: of [PAD].
    """
    if places.row.max() >= layout.rows:
        raise ValueError(f"{places.row.max() + 1} rows do not fit {layout}")
    per_token = _labels_are_per_token(units)
    width = layout.length if per_token else layout.slots
    first = units[0].labels
    labels = np.zeros((layout.rows, width, *first.shape[1:]), first.dtype)
    weights = np.zeros((layout.rows, width), np.float32)
    slots = places.slot * layout.slots_per_unit
    of_sequences = []
    for unit, row, start, slot in zip(units, places.row, places.start, slots, strict=True):
        place = start
        for number, sequence in enumerate(unit.sequences):
            of_sequences.append((row, slot + number, place))
            place += len(sequence.token_ids)
        at = start if per_token else slot
        labels[row, at : at + len(unit.labels)] = unit.labels
        weights[row, at : at + len(unit.labels)] = unit.weights
    sequences = [sequence for unit in units for sequence in unit.sequences]
    placed = Places(*np.array(of_sequences).T)
    rows = fill_rows(sequences, placed, (layout.rows, layout.length, layout.slots), pad_id)
    return TaskBatch(*rows, labels, weights)


def _labels_are_per_token(units: Sequence[Unit]) -> bool:
    return any(len(unit.labels) != len(unit.sequences) for unit in units)


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
