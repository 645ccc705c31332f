"""Running a model on units: how much of its batches is padding."""

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.objectives.losses import Total
from bertjax.tasks import inference
from bertjax.tasks.units import Unit
from bertjax.text.framing import TokenSequence
from bertjax.types import HeadOutput


class Counting:
    """A model whose output for an example is its first token; it remembers the shapes it met."""

    per_token = False
    config = BertConfig()

    def __init__(self):
        self.shapes = []

    def apply(self, variables, token_ids, types, sequence_ids, positions, starts):
        self.shapes.append(token_ids.shape)  # once a compilation
        return HeadOutput(jnp.take_along_axis(token_ids, starts, axis=1), None)

    def loss(self, logits, batch, layout):
        return Total(jnp.zeros(()), jnp.zeros(()))


def run_full_rows(rows):
    """Runs so many rows of units of 16 tokens: the shape of the batches, and units in each."""
    nothing = np.zeros(1, np.float32)
    numbers = range(rows * inference.SHORTEST_ROW // 16)
    units = [
        Unit(number, (TokenSequence(np.full(16, number, np.int32), 16),), nothing, nothing)
        for number in numbers
    ]
    model, batches = Counting(), []
    outputs = inference.Inference(model, model, pad_id=0).run({}, units, batches.append)
    assert np.concatenate(outputs.logits).tolist() == list(numbers)
    (shape,) = model.shapes
    return shape, batches


@pytest.fixture(params=[1, 2, 16])
def cores(request, monkeypatch):
    for name in ("BATCH_TOKENS", "CPU_BATCH_TOKENS"):
        monkeypatch.setattr(inference, name, 8 * inference.SHORTEST_ROW)
    monkeypatch.setattr(inference, "count_cores", lambda: request.param)
    return request.param


@pytest.mark.parametrize("rows", [1, 5, 9, 33])
def test_batches_are_full_whatever_their_number(cores, rows):
    shape, batches = run_full_rows(rows)
    assert shape[0] <= 8
    spare = 2 if cores == 2 else 0  # an even number of rows in each batch
    assert len(batches) * shape[0] <= 1.12 * rows + spare


def test_cores_of_a_cpu_get_as_many_rows(cores):
    assert [run_full_rows(rows)[0][0] for rows in (1, 5)] == [1, 6 if cores == 2 else 5]
