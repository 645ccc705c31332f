"""The whole model: what it is made of, and the properties that hold whatever its numbers are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.bert import BertForPreTraining, BertModel
from bertjax.model.probe_points import gate_heads

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


# ------------------------------------------------------------------ dropout


@pytest.fixture(scope="module")
def drop(forward, batch):
    """The model with dropout on: `drop(params, key, row_ids)`."""

    def apply(params, key, row_ids, inputs=batch[:5]):
        options = {"dropout_key": jax.random.key(key), "row_ids": jnp.array(row_ids)}
        return forward(params, *inputs, dropout=True, trace=True, **options)

    return apply


def test_dropout_is_a_function_of_key_and_row(drop, forward, params, batch):
    def logits(*arguments):
        return np.asarray(drop(params, *arguments).mlm_logits)

    real = np.asarray(batch.sequence_ids) > 0
    first = logits(0, [4, 5, 6])
    np.testing.assert_array_equal(logits(0, [4, 5, 6]), first)
    assert not np.allclose(logits(1, [4, 5, 6])[real], first[real])
    assert not np.allclose(logits(0, [4, 9, 6])[1], first[1])
    counted = forward(params, *batch[:5], dropout=True, dropout_key=jax.random.key(0))
    np.testing.assert_allclose(counted.mlm_logits, logits(0, [0, 1, 2]), rtol=1e-5, atol=1e-5)
    turned = logits(0, [6, 5, 4], tuple(x[::-1] for x in batch[:5]))
    np.testing.assert_allclose(turned[::-1][real], first[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", ["attention", "feed-forward"])
def test_dropout_differs_from_layer_to_layer(drop, params, place):
    """Of a layer whose only output is a bias of ones, dropout shows its mask."""
    silent = jax.tree.map(jnp.zeros_like, params["bert"]["encoder"]["layers"])
    part = silent["attention"] if place == "attention" else silent
    part["output"]["bias"] = jnp.ones((2, 32))
    for norm in ("attention_layer_norm", "output_layer_norm"):
        silent[norm]["scale"] = jnp.ones((2, 32))
    changed = {**params, "bert": {**params["bert"], "encoder": {"layers": silent}}}
    hidden = np.asarray(drop(changed, 0, [4, 5, 6]).encoder.trace.hidden_states)
    dropped = np.diff(hidden, axis=0) < -0.5  # a kept 1 / 0.9 rises the others only a little
    assert dropped.mean((1, 2, 3)) == pytest.approx(0.1, abs=0.05)
    assert (dropped[0] & dropped[1]).mean() < 0.5 * dropped.mean()


def test_embeddings_and_probabilities_are_dropped_out(drop, params, output):
    dropped = drop(params, 0, [4, 5, 6]).encoder.trace
    share = np.mean(np.asarray(dropped.embedded) == 0)
    assert share == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / dropped.embedded.size))
    value = jax.tree.map(lambda x: x[0], params["bert"]["encoder"]["layers"]["attention"]["value"])

    def context_without_dropout(trace):
        values = jnp.einsum("btd,dnh->btnh", trace.embedded, value["kernel"]) + value["bias"]
        return jnp.einsum("bnts,bsnh->btnh", trace.probs[0], values)

    plain = output.encoder.trace
    np.testing.assert_allclose(plain.context[0], context_without_dropout(plain), atol=1e-5)
    assert not np.allclose(dropped.context[0], context_without_dropout(dropped), atol=1e-2)


def test_dropout_off_needs_no_key_and_ignores_the_rates(config, forward, params, batch):
    without = dataclasses.replace(config, hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    other = jax.jit(BertForPreTraining(without).apply)({"params": params}, *batch[:5])
    plain = forward(params, *batch[:5])
    np.testing.assert_array_equal(plain.mlm_logits, other.mlm_logits)


# ------------------------------------------------------------------ precision, memory, size


@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_bfloat16_keeps_parameters_and_logits_in_float32(
    config, params, batch, output, backend, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    model = BertForPreTraining(config, jnp.bfloat16)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch.token_ids)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    narrow = jax.jit(lambda p: model.apply({"params": p}, *batch[:5], trace=True))(params)
    assert narrow.encoder.hidden.dtype == (jnp.float32 if backend == "cpu" else jnp.bfloat16)
    assert narrow.encoder.trace.probs.dtype == jnp.float32
    assert narrow.mlm_logits.dtype == narrow.nsp_logits.dtype == jnp.float32
    difference = np.abs(np.asarray(narrow.mlm_logits - output.mlm_logits))
    assert 0 < difference.max() < 0.1 * np.abs(output.mlm_logits).max()


def loss_with(config, batch, **fields):
    """A scalar of the parameters, dropout on, of a body with these attributes."""
    model = BertModel(config, **fields)

    def loss(params):
        rngs = {"dropout": jax.random.key(0)}
        output = model.apply({"params": params}, *batch[:5], dropout=True, rngs=rngs)
        target = jnp.linspace(-1, 1, output.hidden.size).reshape(output.hidden.shape)
        return jnp.square(output.hidden - target).mean() + jnp.square(output.pooled).mean()

    return loss


@pytest.fixture(scope="module")
def gradients(config, params, batch):
    return jax.jit(jax.grad(loss_with(config, batch)))(params["bert"])


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(config, params, batch, gradients, remat):
    others = jax.jit(jax.grad(loss_with(config, batch, remat=remat)))(params["bert"])
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(others), strict=True
    ):
        # The biases of the keys have no influence: their gradient is 0 but for rounding.
        tolerance = 1e-5 * float(jnp.abs(one).max()) + 1e-7
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=tolerance, err_msg=str(path))


def equations(jaxpr):
    """The names of all primitives of a program, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)


def program_of_gradient(config, params, batch, **fields):
    return list(equations(jax.make_jaxpr(jax.grad(loss_with(config, batch, **fields)))(params)))


def test_remat_computes_again_what_its_name_says(config, params, batch):
    counts = {
        remat: program_of_gradient(config, params["bert"], batch, remat=remat)
        for remat in ("none", "dots", "full")
    }
    products = {remat: names.count("dot_general") for remat, names in counts.items()}
    # A layer's scores and context are made again, and its products with parameters are not.
    assert products["none"] + 2 == products["dots"] < products["full"]
    assert counts["dots"].count("exp") > counts["none"].count("exp")


def test_program_does_not_grow_with_depth(config, model, batch):
    sizes = []
    for layers in (2, 5):
        deep = dataclasses.replace(config, num_hidden_layers=layers)
        shapes = jax.eval_shape(BertModel(deep).init, jax.random.key(0), batch.token_ids)
        sizes.append(len(program_of_gradient(deep, shapes["params"], batch)))
    assert sizes[0] == sizes[1] > 100


# ------------------------------------------------------------------ forward mode


def test_hessian_vector_product_is_the_finite_difference_of_the_gradient(config, params, batch):
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), params)
        model = BertForPreTraining(config, jnp.float64, attention="explicit")

        def loss(params):
            output = model.apply({"params": params}, *batch[:5])
            return jnp.square(output.mlm_logits).mean() + jnp.square(output.nsp_logits).mean()

        random = np.random.default_rng(5)
        way = jax.tree.map(lambda x: jnp.asarray(random.normal(size=x.shape)), wide)
        gradient = jax.jit(jax.grad(loss))
        _, product = jax.jit(lambda p, v: jax.jvp(jax.grad(loss), (p,), (v,)))(wide, way)
        ahead, behind = (
            gradient(jax.tree.map(lambda x, v, by=step: x + by * v, wide, way))
            for step in (1e-6, -1e-6)
        )
        expected = jax.tree.map(lambda one, other: (one - other) / 2e-6, ahead, behind)

    for found, right in zip(*map(jax.tree.leaves, (product, expected)), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max() + 1e-6)
