"""Units in rows: nothing lost, nothing moved, and packed rows that mean what single ones mean."""

import jax
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.model.bert import BertForSequenceClassification
from bertjax.objectives.losses import cross_entropy
from bertjax.tasks.batches import TaskBatches, deal_out
from bertjax.tasks.units import (
    Layout,
    Unit,
    choose_layout,
    make_task_batch,
    places_of,
)
from bertjax.text.framing import TokenSequence
from tests.parity.random_models import draw_parameters

PAD = 0
CONFIG = BertConfig(vocab_size=1 << 20, hidden_size=64, num_attention_heads=4)


def make_units(lengths, sequences=1):
    """Units of these lengths, tokens all different, label = number of the unit."""
    units, token = [], 5
    for number, length in enumerate(lengths):
        parts = []
        for _ in range(sequences):
            ids = np.arange(token, token + length, dtype=np.int32)
            parts.append(TokenSequence(ids, length - 1))
            token += length
        labels = np.full(sequences, number, np.int32)
        units.append(Unit(number, tuple(parts), labels, np.ones(sequences, np.float32)))
    return units


@pytest.mark.parametrize("sequences", [1, 2])
@pytest.mark.parametrize("packing", [True, False])
def test_every_unit_stands_whole_in_one_row(sequences, packing):
    units = make_units([3, 5, 2, 7, 2, 4], sequences)
    layout = choose_layout([units], 32, packing=packing)
    places = places_of(units, layout, packing=packing)
    batch = make_task_batch(units, places, layout, PAD)
    assert batch.token_ids.shape == (layout.rows, layout.length)
    assert (batch.sequence_ids != 0).sum() == sum(unit.length for unit in units)
    for unit, row, slot in zip(units, places.row, places.slot * sequences, strict=True):
        for number, sequence in enumerate(unit.sequences):
            own = batch.sequence_ids[row] == slot + number + 1
            np.testing.assert_array_equal(batch.token_ids[row, own], sequence.token_ids)
            np.testing.assert_array_equal(batch.position_ids[row, own], np.arange(own.sum()))
            assert batch.token_type_ids[row, own].tolist() == [0] * (own.sum() - 1) + [1]
            assert batch.example_starts[row, slot + number] == np.flatnonzero(own)[0]
            assert batch.labels[row, slot + number] == unit.example
    assert batch.weights.sum() == len(units) * sequences
    assert (batch.token_ids[batch.sequence_ids == 0] == PAD).all()


def test_labels_of_tokens_stand_where_their_tokens_do():
    units = [
        unit._replace(labels=sequence.token_ids + 100, weights=np.ones(unit.length, np.float32))
        for unit in make_units([3, 5, 4])
        for sequence in unit.sequences
    ]
    layout = choose_layout([units], 32)
    batch = make_task_batch(units, places_of(units, layout), layout, PAD)
    assert batch.labels.shape == batch.token_ids.shape
    real = batch.sequence_ids != 0
    np.testing.assert_array_equal(batch.labels[real], batch.token_ids[real] + 100)
    assert (batch.weights == real).all()


def test_layout_too_small_is_our_bug():
    units = make_units([6, 6, 6])
    layout = Layout(1, 8, 1, 1)
    with pytest.raises(ValueError, match="do not fit"):
        make_task_batch(units, places_of(units, layout), layout, PAD)


def test_rows_are_a_multiple_for_devices():
    assert choose_layout([make_units([9, 9, 9])], 32, multiple=4).rows == 4


# ------------------------------------------------------------------------------ batches


def make_batches(count=203, **options):
    lengths = np.random.default_rng(0).integers(2, 40, count)
    arguments = {"batch_size": 16, "seed": 3, "steps": 1000, "config": CONFIG, "pad_id": PAD}
    return make_units(lengths), TaskBatches(make_units(lengths), **(arguments | options))


def test_an_epoch_sees_every_unit_once():
    units, batches = make_batches()
    assert batches.steps_per_epoch == 13
    for epoch in (0, 1, 40):
        seen = []
        for step in range(epoch * 13, epoch * 13 + 13):
            batch = batches[step]
            used = batch.weights > 0
            assert used.sum() in (15, 16)
            seen += batch.labels[used].tolist()
        assert sorted(seen) == [unit.example for unit in units]


def test_batches_are_a_function_of_seed_and_step():
    _, first = make_batches()
    _, again = make_batches()
    _, other = make_batches(seed=4)
    np.testing.assert_array_equal(first[29].token_ids, again[29].token_ids)
    assert not np.array_equal(first[0].labels, first[13].labels)
    assert not np.array_equal(first[0].labels, other[0].labels)


def test_all_batches_have_one_shape_with_little_padding():
    _, batches = make_batches()
    shapes = {batches[step].token_ids.shape for step in range(len(batches))}
    assert len(shapes) == 1
    assert batches.efficiency > 0.85


def test_deal_out_gives_batches_of_nearly_one_number_of_tokens():
    lengths = np.random.default_rng(1).integers(2, 200, 640)
    totals = [lengths[batch].sum() for batch in deal_out(lengths, 32, np.random.default_rng(2))]
    assert len(totals) == 20
    by_chance = np.random.default_rng(3).permutation(lengths).reshape(20, 32).sum(axis=1)
    assert np.std(totals) < np.std(by_chance) / 10


def test_same_units_do_not_always_meet():
    lengths = np.random.default_rng(1).permutation(np.arange(2, 162))
    meets = []
    for seed in range(6):
        batches = deal_out(lengths, 16, np.random.default_rng(seed))
        longest = int(lengths.argmax())
        [own] = [set(batch.tolist()) for batch in batches if longest in batch]
        meets.append(own)
    assert len(set.intersection(*meets)) <= 2


# ------------------------------------------------------------------------------ packed = alone


def test_packed_and_unpacked_batches_have_the_same_loss_and_gradients():
    config = BertConfig(
        vocab_size=999,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=41,
        id2label=("a", "b", "c"),
    )
    model = BertForSequenceClassification(config)
    params = draw_parameters(config, "BertForSequenceClassification")
    units = [
        unit._replace(labels=unit.labels % 3) for unit in make_units([3, 5, 11, 7, 2, 4, 9, 2])
    ]

    @jax.jit
    def loss(params, batch):
        logits = model.apply({"params": params}, *batch[:5]).logits
        return cross_entropy(logits, batch.labels, batch.weights).mean()

    results = []
    for packing in (True, False):
        layout = choose_layout([units], 32, packing=packing)
        batch = make_task_batch(units, places_of(units, layout, packing=packing), layout, PAD)
        results.append((layout, jax.value_and_grad(loss)(params, batch)))
    (packed, one), (unpacked, other) = results
    assert packed.rows < unpacked.rows == len(units)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
