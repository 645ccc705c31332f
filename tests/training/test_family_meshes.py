"""Every family on a mesh of 2 x 2 x 2 devices: steps, and answers to packed and padded examples."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.architectures import ARCHITECTURES, classes_of
from bertjax.objectives.losses import cross_entropy
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.objectives.supervised import SupervisedObjective
from bertjax.training.sharding import place_params, place_rows
from bertjax.types import TaskBatch
from bertjax.verification.examples import Example, arrange
from bertjax.verification.outputs import compare_answers, quantities, read_answers
from tests.families.test_contract import OWN_MODELS
from tests.families.tiny import LONGEST, tiny_config
from tests.parity.random_models import draw_parameters
from tests.training.steps_on_meshes import assert_equal_steps, take_step

LABELS = ("no", "yes", "maybe")
# Tokens to either side, of the layers that have a window.
WINDOW = 2
# Those that differ most from BERT; the others only make the suite longer.
QUICK = (("electra", None), ("modernbert", WINDOW))


def even_config_of(family, **fields):
    """A config whose axes 2 divides, with dropout; of a ModernBERT the layers are of both kinds."""
    config = tiny_config(
        family,
        vocab_size=98,
        intermediate_size=38,
        num_hidden_layers=3,
        id2label=LABELS,
        **({"local_attention": 2 * WINDOW} if family == "modernbert" else {}),
        **fields,
    )
    rates = {name: 0.1 for name in config.DROPOUT_RATES if name not in config.NOT_IN_FILE}
    return dataclasses.replace(config, **rates)


@pytest.mark.slow
@pytest.mark.parametrize("family", OWN_MODELS)
def test_pretraining_step_is_that_of_one_device(
    family, half, vocabulary, seed, eight_rows, one_device, eight_devices
):
    config = even_config_of(family)
    model = classes_of(config)[config.pretraining].module(config)
    objective = PretrainingObjective(model, half, vocabulary, seed)
    expected, found = (
        take_step(model, objective, eight_rows, seed, mesh) for mesh in (one_device, eight_devices)
    )
    assert_equal_steps(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", OWN_MODELS)
def test_step_of_a_task_is_that_of_one_device(family, seed, eight_rows, one_device, eight_devices):
    config = even_config_of(family)
    model = classes_of(config)["sequence"].module(config)
    labels = np.arange(16).reshape(8, 2) % 3
    weights = (eight_rows.next_sentence_labels >= 0).astype(np.float32)
    batch = TaskBatch(*eight_rows[:5], labels, weights)
    objective = SupervisedObjective(
        model, lambda logits, batch: cross_entropy(logits, batch.labels, batch.weights)
    )
    expected, found = (
        take_step(model, objective, batch, seed, mesh) for mesh in (one_device, eight_devices)
    )
    assert_equal_steps(found, expected)


@pytest.mark.parametrize(
    ("family", "window"),
    [
        pytest.param(family, window, marks=[] if (family, window) in QUICK else [pytest.mark.slow])
        for family in OWN_MODELS
        for window in (None, WINDOW)
    ],
)
def test_examples_packed_and_padded_on_a_mesh_are_those_alone_on_one_device(
    family, window, eight_devices
):
    config = even_config_of(family)
    if window is not None and "attention_window" not in config.NOT_IN_FILE:
        config = dataclasses.replace(config, attention_window=window)
    elif window is not None:
        config = dataclasses.replace(config, global_attn_every_n_layers=2)
    name = classes_of(config)["sequence"].name
    params, model = draw_parameters(config, name), ARCHITECTURES[name].module(config)
    random = np.random.default_rng(0)
    words = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])
    kinds = ((np.arange(7) > 3) & config.takes_pairs).astype(np.int32)
    examples = [Example(random.choice(words, 7).astype(np.int32), kinds) for _ in range(8)]

    @jax.jit
    def run(params, batch):
        return quantities(name, model.apply({"params": params}, *batch))

    alone = arrange(examples, [[number] for number in range(8)], 7, padding_seed=0)
    together = arrange(examples, [[2, 0], [1], [3, 5], [4, 6], [7]], LONGEST, padding_seed=1)
    # As many rows as the devices that share them out take.
    together = together._replace(
        batch=jax.tree.map(lambda x: np.concatenate([x, x[:3]]), together.batch)
    )
    expected = read_answers(jax.device_get(run(params, alone.batch)), alone)
    with jax.set_mesh(eight_devices):
        placed = place_params(params, eight_devices), place_rows(together.batch, eight_devices)
        outputs = run(*placed)
    assert len(outputs["hidden"].values.sharding.device_set) == 8
    answers = read_answers(jax.device_get(outputs), together)
    assert answers[0].keys() == {"hidden", "logits"}
    assert compare_answers(answers, expected) < 1e-5
