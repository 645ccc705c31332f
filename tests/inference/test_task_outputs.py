"""Units of a task: packed rows with little padding, every unit's output its own."""

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.inference import shapes as shapes_module
from bertjax.inference import task_outputs
from bertjax.inference.task_outputs import Inference
from bertjax.objectives.losses import Total
from bertjax.tasks.units import Unit
from bertjax.text.framing import TokenSequence
from bertjax.types import HeadOutput


class Counting:
    """A model whose output for a sequence is its first token; it remembers the shapes it met."""

    per_token = False
    config = BertConfig()

    def __init__(self):
        self.shapes = []

    def apply(self, variables, token_ids, types, sequence_ids, positions, starts):
        self.shapes.append(token_ids.shape)  # once a compilation
        return HeadOutput(jnp.take_along_axis(token_ids, starts, axis=1), None)

    def loss(self, logits, batch, layout):
        used = (batch.sequence_ids[:, :, None] == jnp.arange(layout.slots) + 1).any(axis=1)
        return Total((logits * used).sum().astype(float), used.sum().astype(float))


class CountingTokens(Counting):
    """Its output for a token is the token."""

    per_token = True

    def apply(self, variables, token_ids, *others):
        self.shapes.append(token_ids.shape)
        return HeadOutput(token_ids, None)

    def loss(self, logits, batch, layout):
        return Total(logits.sum().astype(float), (batch.sequence_ids != 0).sum().astype(float))


def make_units(lengths, sequences=1):
    """Units whose tokens are their number, and the number of the sequence behind the comma."""
    nothing = np.zeros(sequences, np.float32)
    return [
        Unit(
            number,
            tuple(
                TokenSequence(np.full(t, 10 * number + s, np.int32), t) for s in range(sequences)
            ),
            nothing,
            nothing,
        )
        for number, t in enumerate(lengths)
    ]


@pytest.fixture(params=[1, 2, 16])
def cores(request, monkeypatch):
    for name in ("BATCH_TOKENS", "CPU_BATCH_TOKENS"):
        monkeypatch.setattr(task_outputs, name, 8 * 64)
    monkeypatch.setattr(shapes_module, "count_cores", lambda: request.param)


def run(model, units, progress=lambda done: None):
    return Inference(model, model, pad_id=0).run({}, units, progress)


@pytest.mark.parametrize("rows", [1, 5, 9, 33])
def test_rows_are_full_whatever_their_number(cores, rows):
    model, batches = Counting(), []
    units = make_units([16] * (rows * 4))
    outputs = run(model, units, batches.append)
    assert np.concatenate(outputs.logits).tolist() == [10 * n for n in range(rows * 4)]
    assert {length for _, length in model.shapes} == {64}
    assert max(most for most, _ in model.shapes) <= 8
    # All but the last are full.
    assert batches[:-1] == sorted(batches[:-1], reverse=True)
    assert sum(batches) == rows * 4


def test_a_long_unit_does_not_make_all_rows_long(cores):
    model = Counting()
    lengths = [500, *[20] * 400, 90]
    outputs = run(model, make_units(lengths))
    assert np.concatenate(outputs.logits).tolist() == [10 * n for n in range(len(lengths))]
    assert {length for _, length in model.shapes} == {64, 128, 512}
    assert outputs.loss.count == len(lengths)


def test_outputs_of_tokens_are_of_the_unit_alone(cores):
    lengths = np.random.default_rng(0).integers(2, 100, 80)
    outputs = run(CountingTokens(), make_units(lengths))
    assert outputs.loss.mean() == (10 * np.arange(80) * lengths).sum() / lengths.sum()
    for number, (length, output) in enumerate(zip(lengths, outputs.logits, strict=True)):
        assert output.tolist() == [10 * number] * length


@pytest.mark.parametrize("sequences", [2, 3, 5])
def test_sequences_of_a_unit_stay_together(sequences):
    model, lengths = Counting(), [3, 400, 30, 30, 512, 4, 2]
    outputs = run(model, make_units(lengths, sequences))
    for number, output in enumerate(outputs.logits):
        assert output.tolist() == [10 * number + s for s in range(sequences)]
    assert outputs.loss.count == len(lengths) * sequences


def test_no_units_have_no_outputs():
    outputs = run(Counting(), [])
    assert outputs.logits == []
    assert outputs.loss.count == 0
