"""The same examples put to a model in several ways: alone, padded, in another order, packed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from bertjax.config import BertConfig

# Tokens of the longest example: every check runs in seconds on a CPU.
LONGEST = 64
# Tokens of padding behind the longest one.
PADDING = 7
SEED = 20181011


class Example(NamedTuple):
    """One sequence of tokens."""

    token_ids: Int[np.ndarray, " t"]
    token_type_ids: Int[np.ndarray, " t"]


class Place(NamedTuple):
    """Where an example stands in a batch.

    Attributes:
        row: of the batch.
        start: its first token in the row.
        slot: which example of the row it is.
        length: in tokens.
    """

    row: int
    start: int
    slot: int
    length: int


class Batch(NamedTuple):
    """The first five inputs of `BertModel`, and the place of every row in the global batch."""

    token_ids: Int[np.ndarray, "B T"]
    token_type_ids: Int[np.ndarray, "B T"]
    sequence_ids: Int[np.ndarray, "B T"]
    position_ids: Int[np.ndarray, "B T"]
    example_starts: Int[np.ndarray, "B K"]


class Arrangement(NamedTuple):
    """A batch, and where in it each example is, by the example's number."""

    batch: Batch
    places: dict[int, Place]


def draw_examples(config: BertConfig, longest: int = LONGEST) -> list[Example]:
    """Draws eight examples of three lengths, any token but padding, two segments where known.

    Args:
        config: of the model.
        longest: tokens of the longest, where the model has positions for them.
    """
    random = np.random.default_rng(SEED)
    longest = min(longest, config.max_length)
    lengths = [longest, longest // 3, longest // 8, longest // 3] * 2
    tokens = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])
    examples = []
    for length in (max(1, length) for length in lengths):
        second = random.integers(1, length + 1)
        kinds = ((np.arange(length) >= second) & config.takes_pairs).astype(np.int32)
        examples.append(Example(random.choice(tokens, length).astype(np.int32), kinds))
    return examples


def arrange(
    examples: Sequence[Example], rows: Sequence[Sequence[int]], length: int, padding_seed: int
) -> Arrangement:
    """Returns the batch whose rows hold the examples of these numbers, one after the other.

    What stands at places of padding is drawn: it must not matter.

    Args:
        examples: all there are.
        rows: numbers of examples for each row; none twice.
        length: T.
        padding_seed: of the tokens at places of padding.
    """
    random = np.random.default_rng(padding_seed)
    shape = (len(rows), length)
    any_token = np.concatenate([example.token_ids for example in examples])
    batch = Batch(
        random.choice(any_token, shape).astype(np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros(shape, np.int32),
        np.zeros((len(rows), max(map(len, rows))), np.int32),
    )
    places = {}
    for row, numbers in enumerate(rows):
        start = 0
        for slot, number in enumerate(numbers):
            token_ids, token_type_ids = examples[number]
            end = start + len(token_ids)
            batch.token_ids[row, start:end] = token_ids
            batch.token_type_ids[row, start:end] = token_type_ids
            batch.sequence_ids[row, start:end] = slot + 1
            batch.position_ids[row, start:end] = np.arange(end - start)
            batch.example_starts[row, slot] = start
            places[number] = Place(row, start, slot, end - start)
            start = end
    return Arrangement(batch, places)


def arrange_alone(examples: Sequence[Example]) -> list[Arrangement]:
    """Arranges each in a row of its own without any padding: a batch for each length."""
    by_length: dict[int, list[int]] = {}
    for number, example in enumerate(examples):
        by_length.setdefault(len(example.token_ids), []).append(number)
    return [
        arrange(examples, [[number] for number in numbers], length, padding_seed=0)
        for length, numbers in by_length.items()
    ]


def arrange_padded(
    examples: Sequence[Example], order: Sequence[int], padding_seed: int = 1
) -> Arrangement:
    """Arranges each in a row of its own, in this order, padded beyond the longest."""
    longest = max(len(example.token_ids) for example in examples)
    return arrange(examples, [[number] for number in order], longest + PADDING, padding_seed)


def arrange_packed(examples: Sequence[Example]) -> Arrangement:
    """Arranges several in each row, each starting somewhere else."""
    rows = [[2, 0], [1, 3, 5], [4, 6], [7]]
    length = max(sum(len(examples[number].token_ids) for number in row) for row in rows)
    return arrange(examples, rows, length + 1, padding_seed=2)
