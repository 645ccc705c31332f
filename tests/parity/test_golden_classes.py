"""The eight classes against what torch and transformers' Flax computed (`make_golden*.py`)."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from bertjax.interop.huggingface import load_model_directory
from bertjax.model.bert import BertForPreTraining
from tests.families.tiny import BERT_CLASSES
from tests.parity.ladder import QUANTITIES, TOLERANCES, Case, compute_ours, differences
from tests.tiers import leave_whole

GOLDEN = Path(__file__).parent / "golden"
CLASSES = GOLDEN / "classes"

# A bias that every rival of a softmax shares changes nothing.
NO_GRADIENT = {
    "BertForQuestionAnswering": {"qa_outputs.bias"},
    "BertForMultipleChoice": {"classifier.bias"},
}


@pytest.mark.parametrize("architecture", BERT_CLASSES)
@pytest.mark.parametrize("dtype", leave_whole(TOLERANCES, ["float64"]))
def test_class_equals_torch(architecture, dtype):
    loaded = load_model_directory(CLASSES / architecture)
    assert (loaded.architecture, loaded.notes) == (architecture, [])
    case = Case(config=loaded.config, choices=2, **load_file(CLASSES / "batch.safetensors"))
    expected = load_file(CLASSES / f"{architecture}.safetensors")
    computed = compute_ours(case, architecture, loaded.params, dtype)
    actual = {name: computed[name] for name in expected}

    found = differences(case, actual, expected)
    expected_quantities = {*QUANTITIES} - {"logits" if architecture == "BertModel" else "pooled"}
    assert found.keys() == expected_quantities
    assert {name: value for name, value in found.items() if value > TOLERANCES[dtype]} == {}
    gradients = [name.partition(":")[2] for name in expected if name.startswith("gradients:")]
    assert len(gradients) >= 6
    small = {name for name in gradients if np.abs(expected[f"gradients:{name}"]).max() < 1e-4}
    assert small == NO_GRADIENT.get(architecture, set())


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_checkpoint_of_flax_gives_what_flax_computed(dtype):
    loaded = load_model_directory(GOLDEN / "flax_bert")
    assert (loaded.architecture, loaded.notes) == ("BertForPreTraining", [])
    expected = np.load(GOLDEN / "flax_bert" / "outputs.npz")
    real = expected["real"] == 1
    with jax.enable_x64(dtype == "float64"):
        inputs = [
            jnp.asarray(expected[name], jnp.int32)
            for name in ("token_ids", "token_type_ids", "real")
        ]
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), loaded.params)
        model = BertForPreTraining(loaded.config, jnp.dtype(dtype))
        output = jax.jit(lambda *x: model.apply(*x, trace=True))({"params": params}, *inputs)
    for actual, wanted in (
        (output.encoder.trace.hidden_states[:, real], expected["hidden"][:, real]),
        (output.mlm_logits[real], expected["mlm_logits"][real]),
        (output.nsp_logits[:, 0], expected["nsp_logits"]),
    ):
        np.testing.assert_allclose(
            np.asarray(actual), wanted, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype]
        )
