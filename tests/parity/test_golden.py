"""bertjax against what torch computed in float64 (`make_golden.py`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from bertjax.architectures import ARCHITECTURES
from bertjax.interop.huggingface import load_model_directory
from bertjax.interop.tensor_names import to_theirs
from bertjax.model.bert import BertForPreTraining
from bertjax.objectives.losses import cross_entropy

GOLDEN = Path(__file__).parent / "golden"
TOLERANCES = {"float32": 5e-5, "float64": 1e-12}


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN / "outputs.safetensors")


@pytest.fixture(scope="module", params=TOLERANCES)
def computed(request, golden):
    """(outputs, loss, gradients by Hugging Face's names, what is allowed to differ)."""
    dtype = request.param
    with jax.enable_x64(dtype == "float64"):
        config, params, _, notes = load_model_directory(GOLDEN / "tiny_bert")
        assert notes == []
        model = BertForPreTraining(config, jnp.dtype(dtype))
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        whole_numbers = [name for name, value in golden.items() if value.dtype == np.int64]
        inputs = {name: jnp.asarray(golden[name], jnp.int32) for name in whole_numbers}

        def loss(params):
            output = model.apply(
                {"params": params},
                inputs["input_ids"],
                inputs["token_type_ids"],
                inputs["attention_mask"],
                trace=True,
            )
            labels = inputs["labels"]
            mlm = cross_entropy(output.mlm_logits, labels, (labels >= 0).astype(dtype))
            next_sentence = inputs["next_sentence_label"][:, None]
            nsp = cross_entropy(output.nsp_logits, next_sentence, jnp.ones((2, 1), dtype))
            return mlm.mean() + nsp.mean(), output

        (value, output), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        assert output.mlm_logits.dtype == dtype
        gradients = jax.tree.map(np.asarray, gradients)
        return output, value, gradients, config, TOLERANCES[dtype]


def compare(actual, expected, tolerance):
    np.testing.assert_allclose(np.asarray(actual), expected, rtol=tolerance, atol=tolerance)


def test_hidden_states_of_every_layer_equal_torch(computed, golden):
    output, *_, tolerance = computed
    real = golden["attention_mask"] == 1
    assert output.encoder.trace.hidden_states.shape == (6, 2, 11, 24)
    compare(output.encoder.trace.hidden_states[:, real], golden["hidden"][:, real], tolerance)
    compare(output.encoder.hidden[real], golden["hidden"][-1][real], tolerance)


def test_attention_probabilities_of_every_head_equal_torch(computed, golden):
    output, *_, tolerance = computed
    for row, length in enumerate(golden["attention_mask"].sum(axis=1)):
        actual = output.encoder.trace.probs[:, row, :, :length]
        compare(actual, golden["probs"][:, row, :, :length], tolerance)


def test_pooled_output_equals_torch(computed, golden):
    output, *_, tolerance = computed
    compare(output.encoder.pooled[:, 0], golden["pooled"], tolerance)


def test_logits_of_both_heads_equal_torch(computed, golden):
    output, *_, tolerance = computed
    real = golden["attention_mask"] == 1
    compare(output.mlm_logits[real], golden["mlm_logits"][real], tolerance)
    compare(output.nsp_logits[:, 0], golden["nsp_logits"], tolerance)


def test_loss_equals_torch(computed, golden):
    _, loss, _, _, tolerance = computed
    compare(loss, golden["loss"], tolerance)


def test_gradients_equal_torch(computed, golden):
    _, _, gradients, config, tolerance = computed
    parts = ARCHITECTURES["BertForPreTraining"].parts
    theirs = to_theirs(gradients, config, parts, gradients["mlm_head"]["bias"].dtype)
    names = [name for name in golden if name.startswith("gradient:")]
    assert len(names) == 15
    for name in names:
        assert np.abs(golden[name]).max() > 1e-3, name
        compare(theirs[name.removeprefix("gradient:")], golden[name], tolerance)
