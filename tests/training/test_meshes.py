"""The pretraining step on meshes of every kind: the same numbers, and memory that is divided."""

import dataclasses

import jax
import pytest

from bertjax.model.bert import BertForPreTraining
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.state import new_state
from tests.training.steps_on_meshes import assert_equal_steps, take_step

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
def take(wide_model, half, vocabulary, seed, eight_rows):
    objective = PretrainingObjective(wide_model, half, vocabulary, seed)
    return lambda mesh: take_step(wide_model, objective, eight_rows, seed, mesh)


@pytest.fixture(scope="module")
def on_one_device(take, one_device):
    return take(one_device)


# Those that divide one axis or two only make the suite longer.
LEFT = {"8x1x1": [pytest.mark.slow], "1x1x8": [pytest.mark.slow], "2x4x1": [pytest.mark.whole]}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(shape, id=name, marks=LEFT.get(name, [])) for name, shape in MESHES.items()
    ],
)
def mesh(request):
    return make_mesh(MeshConfig(*request.param))


def test_loss_and_gradients_are_those_of_one_device(take, on_one_device, mesh):
    assert_equal_steps(take(mesh), on_one_device)


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
