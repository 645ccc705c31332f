"""Replaced-token detection against transformers: a generator and a discriminator share a table.

    .venv-parity/bin/python -m pytest tests/parity/test_electra_pretraining.py

Skipped where torch is not installed.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.interop.tensor_names import to_theirs  # noqa: E402
from bertjax.model.bert import BertForMaskedLM, BertForReplacedTokenDetection  # noqa: E402
from bertjax.objectives.masking import MaskingConfig, Vocabulary  # noqa: E402
from bertjax.objectives.replaced_tokens import (  # noqa: E402
    GeneratorAndDiscriminator,
    ReplacedTokenObjective,
    ReplacedTokensConfig,
    detect,
    generator_of,
    restore_words,
    sample_tokens,
    without_tables,
)
from bertjax.training.generator_directory import save_pretrained  # noqa: E402
from bertjax.types import RowBatch  # noqa: E402
from tests.parity.ladder import IGNORED, build_theirs  # noqa: E402
from tests.parity.random_models import draw_parameters, make_random_model  # noqa: E402
from tests.parity.test_live import GOLDEN, load_without_complaint  # noqa: E402

ROWS, LENGTH = 5, 13
MODEL, GENERATOR = "ElectraForPreTraining", "ElectraForMaskedLM"
WEIGHT = 50.0


@pytest.fixture(scope="module")
def pair():
    """The configs and float32 parameters of a discriminator and a generator half as wide."""
    config, discriminator = make_random_model(MODEL)
    shape = config.shape_generator(0.5)
    generator = without_tables(draw_parameters(shape, GENERATOR, seed=7))
    return config, shape, {"discriminator": discriminator, "generator": generator}


def draw_batch():
    random = np.random.default_rng(2)
    real = np.arange(LENGTH) < np.array([[13], [9], [5], [12], [2]])
    ids = np.where(real, random.integers(5, 99, (ROWS, LENGTH)), 0)
    ids[:, 0] = 2
    return RowBatch(
        ids.astype(np.int32),
        random.integers(0, 2, (ROWS, LENGTH)).astype(np.int32),
        real.astype(np.int32),
        np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (ROWS, LENGTH)),
        np.zeros((ROWS, 1), np.int32),
        np.full((ROWS, 1), -1, np.int32),
        np.arange(ROWS, dtype=np.uint32),
        np.zeros(ROWS, np.uint32),
    )


def test_losses_and_gradients_equal_torch(pair):
    config, shape, params = pair
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), params)
        models = GeneratorAndDiscriminator(
            BertForMaskedLM(shape, jnp.float64), BertForReplacedTokenDetection(config, jnp.float64)
        )
        vocabulary = Vocabulary(99, 4, list(range(5)), jnp.zeros(99, bool))
        objective = ReplacedTokenObjective(
            models, ReplacedTokensConfig(), MaskingConfig(rate=0.4), vocabulary, seed=17
        )
        batch = jax.tree.map(jnp.asarray, draw_batch())
        part, counts = objective.prepare(batch, 0.0)
        masked = part[1]

        @jax.jit
        def compute(params):
            def loss(params):
                totals, _ = objective.totals(params, {}, part, jnp.arange(ROWS), None)
                means = {name: total.sum / counts[name] for name, total in totals.items()}
                return means["mlm"] + WEIGHT * means["replaced"], means

            (_, means), gradients = jax.value_and_grad(loss, has_aux=True)(params)
            key = jax.random.split(jax.random.key(17))[0]
            logits = restore_words(models, params, batch, masked)
            sampled = sample_tokens(key, batch, logits)
            found = detect(models, params, batch, masked, sampled)
            return means, gradients, found

        means, gradients, found = jax.device_get(compute(wide))
    assert 0 < found.replaced.sum() < masked.weights.sum() + 1
    assert not (found.token_ids[np.asarray(batch.sequence_ids) > 0] == 0).any()  # see draw_batch

    theirs = build_theirs(SimpleNamespace(config=config), MODEL, params["discriminator"], "float64")
    generator = build_theirs(
        SimpleNamespace(config=shape), GENERATOR, generator_of(params), "float64"
    )
    generator.electra.embeddings = theirs.electra.embeddings
    generator.generator_lm_head.weight = theirs.electra.embeddings.word_embeddings.weight
    labels = np.full((ROWS, LENGTH), IGNORED)
    for row in range(ROWS):
        used = np.asarray(masked.weights[row]) > 0
        labels[row, np.asarray(masked.positions[row])[used]] = np.asarray(masked.labels[row])[used]
    inputs = {
        "attention_mask": torch.tensor(np.asarray(batch.sequence_ids)).long(),
        "token_type_ids": torch.tensor(np.asarray(batch.token_type_ids)).long(),
    }

    def run(model, token_ids, **labels):
        ids = torch.tensor(np.asarray(token_ids)).long()
        return model(input_ids=ids, **labels, **inputs)

    mlm = run(generator, masked.token_ids, labels=torch.tensor(labels)).loss
    real = inputs["attention_mask"] == 1
    replaced = torch.nn.functional.binary_cross_entropy_with_logits(  # theirs is float32 always
        run(theirs, found.token_ids).logits[real], torch.tensor(found.replaced)[real].double()
    )
    (mlm + WEIGHT * replaced).backward()
    assert means["mlm"] == pytest.approx(float(mlm.detach()), abs=1e-10)
    assert means["replaced"] == pytest.approx(float(replaced.detach()), abs=1e-10)

    def compare(model, gradients, config, parts, own):
        ours = to_theirs(gradients, config, parts, np.dtype("float64"))
        names = {name: weight.grad for name, weight in model.named_parameters() if own(name)}
        assert names
        for name, gradient in names.items():
            largest = max(1.0, float(gradient.abs().max()))
            np.testing.assert_allclose(
                ours[name], gradient.numpy(), rtol=0, atol=1e-10 * largest, err_msg=name
            )

    compare(theirs, gradients["discriminator"], config, {"replaced_head"}, lambda name: True)
    compare(
        generator,
        generator_of(gradients),
        shape,
        {"mlm_head"},
        lambda name: not name.startswith("electra.embeddings."),
    )


def test_both_directories_load_without_complaint(tmp_path, pair, caplog):
    config, shape, params = pair
    models = GeneratorAndDiscriminator(
        BertForMaskedLM(shape), BertForReplacedTokenDetection(config)
    )
    save_pretrained(tmp_path / "model", models, params, GOLDEN / "tiny_bert")
    theirs = load_without_complaint(transformers.ElectraForPreTraining, tmp_path / "model", caplog)
    generator = load_without_complaint(
        transformers.ElectraForMaskedLM, tmp_path / "model" / "generator", caplog
    )
    tables = [dict(one.electra.embeddings.named_parameters()) for one in (theirs, generator)]
    assert tables[0].keys() == tables[1].keys()
    for name, table in tables[0].items():
        assert torch.equal(table, tables[1][name]), name
