"""The program of the whole model: precision, memory and size, and its derivatives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.model.bert import BertForPreTraining, BertModel


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


@pytest.mark.whole
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
