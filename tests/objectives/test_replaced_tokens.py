"""Replaced-token detection: what is sampled, what counts as replaced, whom each loss teaches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.bert import BertForMaskedLM, BertForReplacedTokenDetection
from bertjax.objectives.masking import MaskingConfig, Vocabulary, mask_tokens
from bertjax.objectives.replaced_tokens import (
    OF_ELECTRA,
    GeneratorAndDiscriminator,
    ReplacedTokenObjective,
    ReplacedTokensConfig,
    detect,
    generator_of,
    make_detection_eval_step,
    sample_tokens,
)
from bertjax.program.errors import UserError
from bertjax.types import RowBatch
from tests.families.tiny import tiny_config

ROWS, LENGTH, V, MASK = 6, 16, 99, 4
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def models():
    """E=24, D=32; the generator has two heads of the discriminator's four."""
    config = tiny_config("electra")
    generator = BertForMaskedLM(config.shape_generator(0.5))
    return GeneratorAndDiscriminator(generator, BertForReplacedTokenDetection(config))


@pytest.fixture(scope="module")
def params(models):
    return jax.jit(models.init)(KEY, jnp.zeros((1, 1), jnp.int32))["params"]


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(V, MASK, list(range(5)), jnp.zeros(V, bool))


@pytest.fixture(scope="module")
def batch():
    """Rows of two texts and padding."""
    ids = np.random.default_rng(0).integers(5, V, (ROWS, LENGTH))
    sequence_ids = np.where(np.arange(LENGTH) < 8, 1, 2) * (np.arange(LENGTH) < 14)
    ids[:, [0, 8]], ids[:, [7, 13]], ids[:, 14:] = 2, 3, 0
    places = np.broadcast_to(np.arange(LENGTH), ids.shape)
    return RowBatch(
        jnp.asarray(ids, jnp.uint16),
        jnp.zeros(ids.shape, jnp.uint8),
        jnp.asarray(np.broadcast_to(sequence_ids, ids.shape), jnp.uint8),
        jnp.asarray(places % 8, jnp.uint16),
        jnp.broadcast_to(jnp.array([0, 8]), (ROWS, 2)),
        jnp.full((ROWS, 2), -1),
        jnp.arange(ROWS, dtype=jnp.uint32),
        jnp.zeros(ROWS, jnp.uint32),
    )


@pytest.fixture(scope="module")
def masked(batch, vocabulary):
    return mask_tokens(KEY, batch, MaskingConfig(rate=0.3), vocabulary, replacements=OF_ELECTRA)


# ------------------------------------------------------------------ what is masked and sampled


def test_masked_tokens_are_85_percent_masks_and_otherwise_as_they_were(batch, vocabulary):
    many = jax.tree.map(lambda x: jnp.concatenate([x] * 200), batch)
    many = many._replace(row_numbers=jnp.arange(200 * ROWS))
    masked = mask_tokens(KEY, many, MaskingConfig(rate=0.3), vocabulary, replacements=OF_ELECTRA)
    used = np.asarray(masked.weights) > 0
    now = np.take_along_axis(np.asarray(masked.token_ids), np.asarray(masked.positions), 1)[used]
    assert set(now[now != np.asarray(masked.labels)[used]]) == {MASK}
    share, count = (now == MASK).mean(), now.size
    assert share == pytest.approx(0.85, abs=5 * math.sqrt(0.85 * 0.15 / count))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_samples_have_the_probabilities_of_the_softmax(batch, temperature):
    logits = jnp.array([0.0, 3.0, -1.0, 1.5, 2.0])
    rows, slots = 400, 31
    many = batch._replace(row_numbers=jnp.arange(rows), epochs=jnp.zeros(rows, jnp.uint32))
    samples = sample_tokens(KEY, many, jnp.broadcast_to(logits, (rows, slots, 5)), temperature)
    assert samples.shape == (rows, slots)
    shares = np.bincount(np.asarray(samples).ravel(), minlength=5) / samples.size
    expected = np.asarray(jax.nn.softmax(logits / temperature))
    assert (np.abs(shares - expected) < 5 * np.sqrt(expected / samples.size)).all()
    # Every slot by itself: no two draw the same noise.
    assert len(np.unique(np.asarray(samples), axis=0)) == rows
    assert len(np.unique(np.asarray(samples), axis=1).T) == slots


@pytest.mark.whole
def test_unlikely_token_is_never_preferred_by_the_noise(batch):
    """What has a billionth of the probability does not come in ten million draws."""
    rows, slots = 2000, 50
    many = batch._replace(row_numbers=jnp.arange(rows), epochs=jnp.zeros(rows, jnp.uint32))
    logits = jnp.broadcast_to(jnp.where(jnp.arange(V) == 7, 30.0, 0.0), (rows, slots, V))
    assert (sample_tokens(KEY, many, logits) == 7).all()


def test_samples_are_a_function_of_key_epoch_and_row(batch):
    logits = jnp.zeros((ROWS, 9, V))
    samples = np.asarray(sample_tokens(KEY, batch, logits))
    assert (samples[0] == samples[1]).mean() < 0.3
    some = jnp.array([4, 1])
    part = batch._replace(row_numbers=batch.row_numbers[some], epochs=batch.epochs[some])
    np.testing.assert_array_equal(sample_tokens(KEY, part, logits[:2]), samples[some])
    later = batch._replace(epochs=batch.epochs + 1)
    for other in (
        sample_tokens(KEY, later, logits),
        sample_tokens(jax.random.key(4), batch, logits),
    ):
        assert (np.asarray(other) == samples).mean() < 0.1


# ------------------------------------------------------------------ what is replaced


@pytest.fixture(scope="module")
def run(models, params, batch, masked):
    """`run(samples)`: what the two make of the batch where these tokens are sampled."""
    compiled = jax.jit(lambda samples: detect(models, params, batch, masked, samples))
    return lambda samples: jax.device_get(compiled(jnp.asarray(samples, jnp.int32)))


def test_right_guess_is_an_original_token(run, batch, masked):
    found = run(masked.labels)
    assert not found.replaced.any()
    np.testing.assert_array_equal(found.token_ids, batch.token_ids)
    wrong = run(np.where(np.asarray(masked.labels) == 50, 51, 50))
    used = np.asarray(masked.weights) > 0
    expected = np.zeros((ROWS, LENGTH), bool)
    for row, positions in enumerate(np.asarray(masked.positions)):
        expected[row, positions[used[row]]] = True
    assert used.sum() == expected.sum() < used.size
    np.testing.assert_array_equal(wrong.replaced, expected)
    np.testing.assert_array_equal(
        wrong.token_ids[~expected], np.asarray(batch.token_ids)[~expected]
    )
    assert np.isin(wrong.token_ids[expected], (50, 51)).all()
    assert np.abs(wrong.logits - found.logits).max() > 1e-3


# ------------------------------------------------------------------ what is learned


@pytest.fixture(scope="module")
def objective(models, vocabulary):
    config = ReplacedTokensConfig(discriminator_weight=7.0)
    return ReplacedTokenObjective(
        models, config, MaskingConfig(rate=0.3, end_rate=0.1), vocabulary, seed=17, z_loss=0.1
    )


def test_rate_of_masking_follows_the_budget(objective, batch):
    assert objective.slots(LENGTH) == 5  # of the highest rate, rounded up
    prepare = jax.jit(lambda progress: objective.prepare(batch, progress)[1])
    assert [int(prepare(progress)["mlm"]) for progress in (0.0, 1.0)] == [3 * ROWS, ROWS]


@pytest.fixture(scope="module")
def gradients(objective, params, batch):
    """`gradients(of the generator's loss, of the discriminator's)` by those weights."""
    part, counts = objective.prepare(batch, 0.0)

    @jax.jit
    def compute(params, weights):
        def loss(params):
            totals, _ = objective.totals(params, {}, part, jnp.arange(ROWS), None)
            assert set(totals) == set(objective.terms) == set(counts)
            means = [totals[name].sum / counts[name] for name in ("mlm", "replaced")]
            return weights[0] * means[0] + weights[1] * means[1], totals

        return jax.grad(loss, has_aux=True)(params)

    return lambda *weights: jax.device_get(compute(params, jnp.array(weights)))


def largest(tree):
    return max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))


def test_no_gradient_passes_through_the_samples_and_both_losses_reach_the_embeddings(gradients):
    of_generator, totals = gradients(1.0, 0.0)
    of_discriminator, _ = gradients(0.0, 1.0)
    assert largest(of_discriminator["generator"]) == 0
    tables = ("word_embeddings", "position_embeddings", "token_type_embeddings", "layer_norm")
    for found in (of_generator, of_discriminator):
        embeddings = found["discriminator"]["bert"].pop("embeddings")
        assert set(embeddings) == {*tables, "projection"}
        assert all(largest(embeddings[name]) > 1e-4 for name in tables)
    assert largest(of_generator["discriminator"]) == 0
    for tree in (of_generator["generator"], of_discriminator["discriminator"]):
        bias_of_keys = tree["bert"]["encoder"]["layers"]["attention"]["key"].pop("bias")
        assert largest(bias_of_keys) < 1e-5  # a softmax does not change with it
        assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))
    assert totals["replaced"].count == 14 * ROWS
    assert totals["mlm"].count == totals["z"].count == 3 * ROWS
    assert totals["z"].sum / totals["z"].count == pytest.approx(math.log(V) ** 2, rel=0.1)
    assert totals["mlm"].sum / totals["mlm"].count == pytest.approx(math.log(V), rel=0.05)
    assert totals["replaced"].sum / totals["replaced"].count == pytest.approx(math.log(2), rel=0.1)


def test_generator_has_no_table_of_its_own(models, params):
    embeddings = params["generator"]["bert"]["embeddings"]
    assert set(embeddings) == {"projection"}
    assert embeddings["projection"]["kernel"].shape == (24, 16)
    whole = generator_of(params)
    shapes = jax.eval_shape(models.generator.init, KEY, jnp.zeros((1, 1), jnp.int32))["params"]
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(
        lambda leaf: leaf.shape, whole
    )
    tables = params["discriminator"]["bert"]["embeddings"]
    assert whole["bert"]["embeddings"]["word_embeddings"] is tables["word_embeddings"]
    layers = [one["bert"]["encoder"]["layers"]["output"]["kernel"] for one in params.values()]
    assert len({float(leaf.std()) for leaf in layers}) == 2  # drawn by keys of their own


def test_evaluation_scores_both_and_beside_them_the_unigram_and_the_share(
    models, vocabulary, params, batch
):
    log_probs = jnp.log(jnp.full(V, 1 / V)).at[50].add(0.5)
    score = jax.jit(make_detection_eval_step(models, vocabulary, log_probs))
    totals = jax.device_get(score(params, batch))
    figures = totals.summarize()
    assert figures["masked_tokens"] == 2 * ROWS  # 15 % of ten
    share = figures["replaced_share"]
    assert 0 < share < 2 / 14 + 1e-6
    assert totals.detected.count + totals.kept.count == totals.replaced.count == 14 * ROWS
    assert totals.detected.count == pytest.approx(share * 14 * ROWS)
    assert figures["share_loss"] == pytest.approx(
        -share * math.log(share) - (1 - share) * math.log(1 - share)
    )
    assert figures["unigram_loss"] == pytest.approx(math.log(V), abs=0.1)
    # Another generator writes other tokens; those drawn by frequency are the same ones.
    bias = params["generator"]["mlm_head"]["bias"].at[7].set(100)
    head = {**params["generator"]["mlm_head"], "bias": bias}
    other = {**params, "generator": {**params["generator"], "mlm_head": head}}
    changed = jax.device_get(score(other, batch)).summarize()
    assert changed["by_frequency_loss"] == figures["by_frequency_loss"]
    for its in (figures, changed):  # by the paper's weight
        assert its["loss"] == pytest.approx(its["mlm_loss"] + 50 * its["by_frequency_loss"])
    assert changed["loss"] - figures["loss"] > 10  # a worse generator makes a worse pair
    assert changed["replaced_loss"] != figures["replaced_loss"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("generator_size", 0.0),
        ("generator_size", 1.5),
        ("discriminator_weight", 0.0),
        ("temperature", math.inf),
    ],
)
def test_field_out_of_range_is_named(field, value):
    with pytest.raises(UserError, match=rf"replaced_tokens\.{field}={value} must be above 0"):
        ReplacedTokensConfig(**{field: value})
