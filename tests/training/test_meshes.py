"""The pretraining step on meshes of every kind: the same numbers, and memory that is divided."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.model.bert import BertForPreTraining
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
from bertjax.training.state import new_state
from bertjax.training.steps import lower_step, make_train_step

# data x fsdp x tensor
MESHES = {"8x1x1": (8, 1, 1), "2x4x1": (2, 4, 1), "2x2x2": (2, 2, 2), "1x1x8": (1, 1, 8)}


@pytest.fixture(scope="module")
def wide_model(even_config):
    """N=8, H=4, F=40, V=104: eight devices divide every axis."""
    config = dataclasses.replace(
        even_config, num_attention_heads=8, intermediate_size=40, vocab_size=104
    )
    return BertForPreTraining(config)


@pytest.fixture(scope="module")
def eight_rows(rows):
    return jax.tree.map(lambda x: np.concatenate([x, x]), rows)._replace(
        row_numbers=np.arange(8, dtype=np.uint32)
    )


@pytest.fixture(scope="module")
def take(wide_model, half, vocabulary, seed, eight_rows):
    """A state with AdamW's moments on a mesh, one step of plain gradient descent, its report."""
    objective = PretrainingObjective(wide_model, half, vocabulary, seed)
    step = make_train_step(objective, optax.scale(-1.0), lambda clock: clock, seed)

    def run(mesh):
        state = new_state(wide_model, optax.scale(-1.0), mesh, jax.random.key(3), objective.terms)
        before, batch = jax.device_get(state), place_rows(eight_rows, mesh)
        compiled = lower_step(step, state, batch, mesh).compile()
        after, report = compiled(state, batch, jnp.float32(1))
        gradients = jax.tree.map(lambda old, new: old - new, before, jax.device_get(after))
        return report, gradients.params

    return run


@pytest.fixture(scope="module")
def on_one_device(take, one_device):
    return take(one_device)


# The two that divide one axis only make the suite longer.
ONE_AXIS = ("8x1x1", "1x1x8")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(shape, id=name, marks=[pytest.mark.slow] if name in ONE_AXIS else [])
        for name, shape in MESHES.items()
    ],
)
def mesh(request):
    return make_mesh(MeshConfig(*request.param))


def test_loss_and_gradients_are_those_of_one_device(take, on_one_device, mesh):
    report, gradients = take(mesh)
    expected, expected_gradients = on_one_device
    assert len(report.loss.sharding.device_set) == 8
    assert float(report.loss) == pytest.approx(float(expected.loss), rel=1e-5)
    norm = float(expected.gradient_norm)
    assert float(report.gradient_norm) == pytest.approx(norm, rel=1e-5)
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(gradients),
        jax.tree.leaves(expected_gradients),
        strict=True,
    ):
        bound = 1e-5 * float(np.abs(other).max()) + 1e-6
        np.testing.assert_allclose(one, other, rtol=0, atol=bound, err_msg=str(path))


def test_parameters_and_optimizer_are_divided_over_fsdp_and_tensor(wide_model, mesh):
    state = new_state(
        wide_model, make_optimizer(OptimizerConfig()), mesh, jax.random.key(3), ("mlm",)
    )
    for tree, copies in ((state.params, 1), (state.optimizer_state, 2)):
        whole, here = 0, dict.fromkeys(mesh.devices.flat, 0)
        small = 0  # biases and scales [L, D] and the like, which every device has
        for leaf in jax.tree.leaves(tree):
            whole += leaf.nbytes
            small += leaf.nbytes if leaf.sharding.is_fully_replicated else 0
            for shard in leaf.addressable_shards:
                here[shard.device] += shard.data.nbytes
        assert len(set(here.values())) == 1
        parts = mesh.shape["fsdp"] * mesh.shape["tensor"]
        (on_each,) = set(here.values())
        if parts == 1:
            assert on_each == whole
            continue
        assert small < 0.06 * whole
        # What only one of the axes divides (position embeddings, the inner bias) is divided less.
        assert (
            (whole - small) / parts
            <= on_each - small
            < 1.1 * (whole - small) / parts + 4000 * copies
        )
