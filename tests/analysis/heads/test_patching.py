"""Activation patching: a head's output from a clean text restores the answer in another."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.probe_points import Edit
from tests.analysis.wired import CONFIG, HEAD, LAYER, make_wired_model

# [CLS] a COLOUR b [SEP]
CLEAN, CORRUPTED = "a red b", "a blue b"


@pytest.fixture(scope="module")
def apply():
    whole = make_wired_model()
    model = jax.jit(whole.module.apply, static_argnames="trace")
    return functools.partial(model, {"params": whole.params}), whole.tokenizer


@pytest.mark.parametrize(
    ("layer", "position", "head", "restores"),
    [
        (LAYER, 0, HEAD, True),
        (LAYER, 0, HEAD - 1, False),
        (LAYER, 1, HEAD, False),
        (LAYER - 1, 0, HEAD, False),
    ],
)
def test_patching_the_right_head_restores_the_answer(apply, layer, position, head, restores):
    apply, tokenizer = apply
    clean, corrupted = (
        jnp.array([[tokenizer.cls_id, *ids, tokenizer.sep_id]])
        for ids in tokenizer.encode_batch([CLEAN, CORRUPTED])
    )
    right, wrong = (apply(ids).logits[0, 0] for ids in (clean, corrupted))
    assert right[1] - right[0] > 1
    assert wrong[1] - wrong[0] < -1

    trace = apply(clean, trace=("context",)).encoder.trace
    shape = CONFIG.num_hidden_layers, 1, clean.shape[1], CONFIG.num_attention_heads, 1
    here = jnp.zeros(shape, bool).at[layer, :, position, head].set(True)
    patched = apply(corrupted, edit={"context": Edit(replace=trace.context, where=here)}).logits

    np.testing.assert_allclose(patched[0, 0], right if restores else wrong, atol=0.1)
