"""Several examples into one row: which example goes where, and the arrays of the rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bertjax.text.framing import TokenSequence
from bertjax.text.pairs import NO_PAIR, Example

if TYPE_CHECKING:
    from bertjax.text.tokenizer import Tokenizer


class Places(NamedTuple):
    """Where each example goes, [examples] each: its row, its slot there (from 0), its start.

    Attributes:
        row: from 0.
        slot: from 0.
        start: the position of its first token in the row, from 0.
    """

    row: np.ndarray
    slot: np.ndarray
    start: np.ndarray


def pack(lengths: np.ndarray, max_length: int | np.ndarray, examples_per_row: int) -> Places:
    """Packs examples into as few rows as it can: best fit, the longest first.

    Each example goes into the row with the least room that is still enough, the most recently used
    of several. A new row is opened only where none has room. Best-fit decreasing needs
    at most 11/9 of the fewest rows (Johnson 1973), and on text about 1.01.

    Cost: one operation on an integer of T bits an example, since the room left in rows is a set of
    bits in one number.

    Args:
        lengths: [examples] tokens of each, special tokens included, 1 ... `max_length`.
        max_length: T, or [examples] the T of the row that each opens if it finds no room.
        examples_per_row: K, the most examples in a row.
    """
    order = np.argsort(-lengths, kind="stable").tolist()
    sizes, opened = lengths.tolist(), np.broadcast_to(max_length, len(lengths)).tolist()
    row, slot, start = (np.zeros(len(sizes), np.int64) for _ in range(3))
    # By the room they have left; bit r of `rooms` is set when open_rows[r] is not empty.
    open_rows: list[list[int]] = [[] for _ in range(max(opened, default=0) + 1)]
    rooms = 0
    used: list[int] = []
    tokens: list[int] = []
    for example in order:
        size = sizes[example]
        enough = rooms >> size
        if enough:
            room = size + (enough & -enough).bit_length() - 1
            place = open_rows[room].pop()
            if not open_rows[room]:
                rooms ^= 1 << room
        else:
            room, place = opened[example], len(used)
            used.append(0)
            tokens.append(0)
        row[example], slot[example], start[example] = place, used[place], tokens[place]
        used[place] += 1
        tokens[place] += size
        if room > size and used[place] < examples_per_row:
            open_rows[room - size].append(place)
            rooms |= 1 << (room - size)
    return Places(row, slot, start)


def make_rows(
    examples: Sequence[Example], tokenizer: "Tokenizer", max_length: int, examples_per_row: int
) -> dict[str, np.ndarray]:
    """Makes the rows that hold these examples, as the columns of `bertjax.text.rows`.

    Args:
        examples: in the order of their rows.
        tokenizer: which has the frame.
        max_length: of a row, in tokens.
        examples_per_row: at most.

    Returns:
        Every example is whole in one row in the tokenizer's frame, as `[CLS] A [SEP] B [SEP]` or
        `[CLS] A [SEP]`, with positions from 0, its sequence id one more than its slot; the rest of
        the row is padding: the tokenizer's `pad_id`, and 0 in every other column.
    """
    parts: list[np.ndarray] = []
    lengths, second_starts = (np.zeros(len(examples), np.int64) for _ in range(2))
    for number, (first, second, label) in enumerate(examples):
        has_second = label != NO_PAIR
        parts += tokenizer.frame.parts(first, second if has_second else None)
        lengths[number] = len(first) + len(second) + tokenizer.frame.size(has_second)
        starts = tokenizer.frame.starts((len(first), len(second)))
        second_starts[number] = starts[1] if has_second else lengths[number]
    labels = np.array([example.label for example in examples], np.int8)
    places = pack(lengths, max_length, examples_per_row)
    rows = int(places.row.max(initial=-1)) + 1

    position = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    place = np.repeat(places.row * max_length + places.start, lengths) + position
    columns = {
        "token_ids": np.full((rows, max_length), tokenizer.pad_id, np.int32),
        "token_type_ids": np.zeros((rows, max_length), np.uint8),
        "sequence_ids": np.zeros((rows, max_length), np.uint8),
        "position_ids": np.zeros((rows, max_length), np.uint16),
        "example_starts": np.zeros((rows, examples_per_row), np.uint16),
        "next_sentence_labels": np.full((rows, examples_per_row), -1, np.int8),
    }
    if examples:
        columns["token_ids"].flat[place] = np.concatenate(parts)
    columns["token_type_ids"].flat[place] = position >= np.repeat(second_starts, lengths)
    columns["sequence_ids"].flat[place] = np.repeat(places.slot + 1, lengths)
    columns["position_ids"].flat[place] = position
    columns["example_starts"][places.row, places.slot] = places.start
    columns["next_sentence_labels"][places.row, places.slot] = labels
    return columns


def fill_rows(
    sequences: Sequence[TokenSequence],
    places: Places,
    shape: tuple[int, int, int],
    pad_id: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns rows that hold these sequences, filled up with padding, int32: the first five columns
    of `types.RowBatch`.

    Args:
        sequences: framed.
        places: where each goes.
        shape: rows, tokens of each, and sequences in each.
        pad_id: of the padding token.
    """
    rows, length, slots = shape
    token_ids = np.full((rows, length), pad_id, np.int32)
    types, sequence_ids, positions = (np.zeros((rows, length), np.int32) for _ in range(3))
    starts = np.zeros((rows, slots), np.int32)
    for (ids, second_start), row, slot, start in zip(sequences, *places, strict=True):
        end = start + len(ids)
        token_ids[row, start:end] = ids
        types[row, start + second_start : end] = 1
        sequence_ids[row, start:end] = slot + 1
        positions[row, start:end] = np.arange(end - start)
        starts[row, slot] = start
    return token_ids, types, sequence_ids, positions, starts
