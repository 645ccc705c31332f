"""The whole model: what it is made of, and the properties that hold whatever its numbers are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.probe_points import gate_heads
from bertjax.program.errors import UserError

# Sizes of the fixtures: B=3, T=7, K=2, D=32, N=4, H=8, F=37, V=99, L=2, M=11, G=6.
PARAMETERS = {
    "bert/embeddings/layer_norm/bias": (32,),
    "bert/embeddings/layer_norm/scale": (32,),
    "bert/embeddings/position_embeddings": (11, 32),
    "bert/embeddings/token_type_embeddings": (6, 32),
    "bert/embeddings/word_embeddings": (99, 32),
    "bert/encoder/layers/attention/key/bias": (2, 4, 8),
    "bert/encoder/layers/attention/key/kernel": (2, 32, 4, 8),
    "bert/encoder/layers/attention/output/bias": (2, 32),
    "bert/encoder/layers/attention/output/kernel": (2, 4, 8, 32),
    "bert/encoder/layers/attention/query/bias": (2, 4, 8),
    "bert/encoder/layers/attention/query/kernel": (2, 32, 4, 8),
    "bert/encoder/layers/attention/value/bias": (2, 4, 8),
    "bert/encoder/layers/attention/value/kernel": (2, 32, 4, 8),
    "bert/encoder/layers/attention_layer_norm/bias": (2, 32),
    "bert/encoder/layers/attention_layer_norm/scale": (2, 32),
    "bert/encoder/layers/intermediate/bias": (2, 37),
    "bert/encoder/layers/intermediate/kernel": (2, 32, 37),
    "bert/encoder/layers/output/bias": (2, 32),
    "bert/encoder/layers/output/kernel": (2, 37, 32),
    "bert/encoder/layers/output_layer_norm/bias": (2, 32),
    "bert/encoder/layers/output_layer_norm/scale": (2, 32),
    "bert/pooler/dense/bias": (32,),
    "bert/pooler/dense/kernel": (32, 32),
    "mlm_head/bias": (99,),
    "mlm_head/dense/bias": (32,),
    "mlm_head/dense/kernel": (32, 32),
    "mlm_head/layer_norm/bias": (32,),
    "mlm_head/layer_norm/scale": (32,),
    "nsp_head/dense/bias": (2,),
    "nsp_head/dense/kernel": (32, 2),
}


def inputs_of(batch, **changes):
    return batch._replace(**changes)[:5]


def test_parameters_have_these_names_and_shapes(new_params):
    shapes = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(new_params)
    }
    assert shapes == PARAMETERS


# ------------------------------------------------------------------ what it returns


def test_outputs_have_the_shapes_of_the_legend(output):
    assert output.mlm_logits.shape == (3, 7, 99)
    assert output.nsp_logits.shape == (3, 2, 2)
    assert output.encoder.hidden.shape == (3, 7, 32)
    assert output.encoder.pooled.shape == (3, 2, 32)
    assert output.encoder.trace.probs.shape == (2, 3, 4, 7, 7)
    assert output.encoder.trace.context.shape == (2, 3, 7, 4, 8)
    assert output.encoder.trace.hidden_states.shape == (3, 3, 7, 32)
    assert output.encoder.trace.embedded.shape == (3, 7, 32)
    assert output.encoder.trace.attention.shape == (2, 3, 7, 32)
    assert output.encoder.trace.inner.shape == (2, 3, 7, 37)


def test_trace_tells_of_every_layer(output, params, batch):
    trace, body = output.encoder.trace, params["bert"]
    np.testing.assert_array_equal(trace.hidden_states[-1], output.encoder.hidden)
    real = np.asarray(batch.sequence_ids) > 0
    np.testing.assert_allclose(trace.probs.sum(-1)[:, real[:, None].repeat(4, 1)], 1, rtol=1e-5)
    assert not np.allclose(trace.probs[0], trace.probs[1])
    # A layer's context, projected, is what its attention adds.
    layer = jax.tree.map(lambda x: np.asarray(x[1], np.float64), body["encoder"]["layers"])
    output_of = layer["attention"]["output"]
    added = np.einsum("btnh,nhd->btd", trace.context[1], output_of["kernel"]) + output_of["bias"]
    np.testing.assert_allclose(trace.attention[1], added, rtol=1e-4, atol=1e-5)
    summed = np.asarray(trace.hidden_states[1], np.float64) + added
    centred = summed - summed.mean(-1, keepdims=True)
    norm = layer["attention_layer_norm"]
    attended = centred / summed.std(-1, keepdims=True) * norm["scale"] + norm["bias"]
    inner = attended @ layer["intermediate"]["kernel"] + layer["intermediate"]["bias"]
    inner = np.asarray(jax.nn.gelu(inner, approximate=False))
    np.testing.assert_allclose(trace.inner[1], inner, rtol=1e-4, atol=1e-4)
    summed = attended + inner @ layer["output"]["kernel"] + layer["output"]["bias"]
    centred = summed - summed.mean(-1, keepdims=True)
    norm = layer["output_layer_norm"]
    expected = centred / summed.std(-1, keepdims=True) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(trace.hidden_states[2], expected, rtol=1e-4, atol=1e-4)


def test_trace_changes_no_result(forward, params, batch, output):
    plain = forward(params, *batch[:5])
    assert plain.encoder.trace is None
    np.testing.assert_allclose(plain.mlm_logits, output.mlm_logits, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain.nsp_logits, output.nsp_logits, rtol=1e-5, atol=1e-5)


def test_pooled_is_of_every_examples_first_token(output, params, batch):
    dense = jax.tree.map(lambda x: np.asarray(x, np.float64), params["bert"]["pooler"]["dense"])
    for row, starts in enumerate(np.asarray(batch.example_starts)):
        for slot, start in enumerate(starts):
            first = np.asarray(output.encoder.hidden[row, start], np.float64)
            expected = np.tanh(first @ dense["kernel"] + dense["bias"])
            np.testing.assert_allclose(output.encoder.pooled[row, slot], expected, atol=1e-5)


def test_masked_positions_give_the_logits_of_those_positions(forward, params, batch, output):
    positions = jnp.array([[1, 3, 6, 0, 0], [2, 2, 4, 1, 0], [6, 5, 4, 3, 2]])
    gathered = forward(params, *batch[:5], masked_positions=positions)
    assert gathered.mlm_logits.shape == (3, 5, 99)
    expected = np.take_along_axis(np.asarray(output.mlm_logits), positions[:, :, None], axis=1)
    np.testing.assert_allclose(gathered.mlm_logits, expected, rtol=1e-5, atol=1e-5)


def test_inputs_left_out_are_those_of_one_example_a_row(forward, params, batch):
    ids = batch.token_ids
    told = forward(
        params,
        ids,
        jnp.zeros_like(ids),
        (ids != 0).astype(jnp.int32),
        jnp.broadcast_to(jnp.arange(7), (3, 7)),
        jnp.zeros((3, 2), jnp.int32),
        edit=gate_heads(jnp.ones((2, 4))),
    )
    silent = forward(params, ids)
    np.testing.assert_allclose(silent.mlm_logits, told.mlm_logits, rtol=1e-5, atol=1e-5)
    assert silent.nsp_logits.shape == (3, 1, 2)
    np.testing.assert_allclose(silent.nsp_logits, told.nsp_logits[:, :1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["token_ids", "token_type_ids", "position_ids"])
def test_every_input_counts(forward, params, batch, output, name):
    changed = getattr(batch, name).at[2, 3].add(1)
    other = forward(params, *inputs_of(batch, **{name: changed}), trace=True)
    difference = np.abs(np.asarray(other.mlm_logits - output.mlm_logits)).max((1, 2))
    assert difference[2] > 1e-3
    assert (difference[:2] == 0).all()


# ------------------------------------------------------------------ padding and packing


def test_padding_never_changes_a_result(forward, params, batch, output):
    """Not its length, and not what stands in it."""
    padding = batch.sequence_ids == 0
    noisy = inputs_of(
        batch,
        token_ids=jnp.where(padding, 77, batch.token_ids),
        token_type_ids=jnp.where(padding, 5, batch.token_type_ids),
        position_ids=jnp.where(padding, 10, batch.position_ids),
    )
    other = forward(params, *noisy, trace=True)
    real = ~np.asarray(padding)
    np.testing.assert_array_equal(other.mlm_logits[real], output.mlm_logits[real])
    np.testing.assert_array_equal(other.nsp_logits, output.nsp_logits)

    alone = forward(params, *(x[1:2, :5] for x in batch[:4]), batch.example_starts[1:2])
    np.testing.assert_allclose(alone.mlm_logits[0], output.mlm_logits[1, :5], atol=1e-5)
    np.testing.assert_allclose(alone.nsp_logits[0], output.nsp_logits[1], atol=1e-5)


def test_packed_example_equals_the_same_example_alone(forward, params, batch, output):
    for slot, (start, stop) in enumerate([(0, 4), (4, 7)]):
        columns = [np.zeros((3, 7), np.int32) for _ in range(4)]
        for column, packed in zip(columns, batch[:4], strict=True):
            column[0, : stop - start] = packed[0, start:stop]
        alone = forward(params, *map(jnp.asarray, columns), jnp.zeros((3, 2), jnp.int32))
        np.testing.assert_allclose(
            alone.mlm_logits[0, : stop - start], output.mlm_logits[0, start:stop], atol=1e-5
        )
        np.testing.assert_allclose(alone.nsp_logits[0, 0], output.nsp_logits[0, slot], atol=1e-5)


def test_jacobian_across_examples_is_exactly_0(model, params, batch):
    """Of every output by every token's embedding; the examples share no token in the middle."""

    def outputs(table):
        embeddings = {**params["bert"]["embeddings"], "word_embeddings": table}
        changed = {**params, "bert": {**params["bert"], "embeddings": embeddings}}
        result = model.apply({"params": changed}, *batch[:5])
        # The decoder is the same table: only what attention carries is asked for.
        return result.encoder.hidden.sum(-1), result.nsp_logits[0, :, 0]

    hidden, nsp = jax.jit(jax.jacrev(outputs))(params["bert"]["embeddings"]["word_embeddings"])
    influence = np.abs(np.asarray(hidden)).max(-1)  # [B, T, V]
    first, second, other_rows = [11, 12], [13], [21, 22, 23, 31, 32, 33, 34]
    assert (influence[0, :4][:, first] > 0).all()
    assert (influence[0, 4:][:, second] > 0).all()
    assert (influence[0, :4][:, second + other_rows] == 0).all()
    assert (influence[0, 4:][:, first + other_rows] == 0).all()
    assert (influence[1, :5][:, [21, 22, 23]] > 0).all()
    assert (influence[:, :, [0]][np.asarray(batch.sequence_ids) > 0] == 0).all()  # padding
    nsp = np.abs(np.asarray(nsp)).max(-1)  # [K, V]
    assert (nsp[0, first] > 0).all()
    assert (nsp[1, second] > 0).all()
    assert (nsp[0, second] == 0).all()
    assert (nsp[1, first] == 0).all()


# ------------------------------------------------------------------ heads


def test_gate_0_equals_the_head_removed(forward, params, batch, output):
    layer, head = 1, 2
    gates = jnp.ones((2, 4)).at[layer, head].set(0)
    gated = forward(params, *batch[:5], edit=gate_heads(gates))

    def remove(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return leaf.at[layer, head].set(0) if name.endswith("attention/output/kernel") else leaf

    removed = forward(jax.tree_util.tree_map_with_path(remove, params), *batch[:5])
    np.testing.assert_allclose(gated.mlm_logits, removed.mlm_logits, rtol=1e-5, atol=1e-5)
    assert np.abs(gated.mlm_logits - output.mlm_logits).max() > 1e-3


def test_gates_of_1_change_nothing(forward, params, batch):
    plain = forward(params, *batch[:5])
    gated = forward(params, *batch[:5], edit=gate_heads(jnp.ones((2, 4))))
    np.testing.assert_allclose(gated.mlm_logits, plain.mlm_logits, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------ a causal model


def test_token_of_a_causal_model_sees_nothing_behind_itself(model, forward, params, batch):
    """What comes behind a token changes nothing of it; the first sees itself alone."""
    causal = jax.jit(
        lambda params, inputs: model.clone(causal=True).apply({"params": params}, *inputs)
    )
    inputs = inputs_of(batch)
    whole = np.asarray(causal(params, inputs).encoder.hidden)
    for end in (1, 4):
        begun = jnp.where(jnp.arange(7) < end, batch.sequence_ids, 0)
        beginning = causal(params, inputs_of(batch, sequence_ids=begun)).encoder.hidden
        np.testing.assert_allclose(whole[:, :end], beginning[:, :end], rtol=0, atol=1e-5)
    alone = jnp.where(jnp.arange(7) < 1, batch.sequence_ids, 0)
    first = forward(params, *inputs_of(batch, sequence_ids=alone)).encoder.hidden[:, 0]
    np.testing.assert_allclose(whole[:, 0], first, rtol=0, atol=1e-5)
    assert np.abs(whole[:, 0] - forward(params, *inputs).encoder.hidden[:, 0]).max() > 1e-3


def test_causal_model_has_no_maps_to_read(model, params, batch):
    with pytest.raises(UserError, match="a causal model has no attention probabilities"):
        model.clone(causal=True).apply({"params": params}, *inputs_of(batch), trace=("probs",))
