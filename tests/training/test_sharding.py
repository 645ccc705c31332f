"""Where everything lives: every parameter has its row in the table, and the mesh must divide it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from bertjax.model.bert import BertForPreTraining
from bertjax.program.errors import UserError
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import (
    MeshConfig,
    make_mesh,
    place_params,
    place_rows,
    rows_here,
    shardings_of,
    spec_of,
)
from bertjax.training.state import count_parameters, fingerprint, new_state

# What a device holds of a parameter where fsdp=4 and tensor=2, with V=98, D=32, N=4, H=8, F=38,
# L=2, M=11, G=6.
SHARES = {
    "bert/embeddings/position_embeddings": (11, 8),
    "bert/embeddings/token_type_embeddings": (6, 8),
    "bert/embeddings/word_embeddings": (49, 8),
    "bert/encoder/layers/attention/key/bias": (2, 2, 8),
    "bert/encoder/layers/attention/key/kernel": (2, 8, 2, 8),
    "bert/encoder/layers/attention/output/kernel": (2, 2, 8, 8),
    "bert/encoder/layers/attention/query/bias": (2, 2, 8),
    "bert/encoder/layers/attention/query/kernel": (2, 8, 2, 8),
    "bert/encoder/layers/attention/value/bias": (2, 2, 8),
    "bert/encoder/layers/attention/value/kernel": (2, 8, 2, 8),
    "bert/encoder/layers/intermediate/bias": (2, 19),
    "bert/encoder/layers/intermediate/kernel": (2, 8, 19),
    "bert/encoder/layers/output/kernel": (2, 19, 8),
    "bert/pooler/dense/kernel": (8, 16),
    "mlm_head/bias": (49,),
    "mlm_head/dense/kernel": (8, 16),
    "nsp_head/dense/kernel": (8, 2),
}


def shares_of(tree, mesh):
    """The shape of what one device holds of each leaf."""
    shardings = jax.tree.leaves(shardings_of(tree, mesh))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): sharding.shard_shape(leaf.shape)
        for (path, leaf), sharding in zip(
            jax.tree_util.tree_leaves_with_path(tree), shardings, strict=True
        )
    }


@pytest.fixture(scope="module")
def four_by_two():
    return make_mesh(MeshConfig(fsdp=4, tensor=2))


def test_every_parameter_is_divided_as_the_table_says(even_params, four_by_two):
    shares = shares_of(even_params, four_by_two)
    divided = {name: share for name, share in shares.items() if name in SHARES}
    assert divided == SHARES
    for path, leaf in jax.tree_util.tree_leaves_with_path(even_params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name not in SHARES:
            assert shares[name] == leaf.shape
            assert name.endswith(("bias", "scale"))


def test_no_row_of_the_table_is_shadowed():
    """The output of attention is not that of the feed-forward part."""
    start = "bert/encoder/layers"
    assert spec_of(f"{start}/attention/output/kernel") != spec_of(f"{start}/output/kernel")
    assert spec_of("mlm_head/bias") == PartitionSpec("tensor")
    assert spec_of("mlm_head/dense/bias") == PartitionSpec()


def test_parameter_without_a_row_is_an_error(eight_devices):
    with pytest.raises(LookupError, match=r"no row of sharding.PARAMETERS covers bert/gate/kernel"):
        spec_of("bert/gate/kernel")
    with pytest.raises(LookupError, match=r"covers tagger/kernel"):
        shardings_of({"tagger": {"kernel": jnp.zeros((4, 4))}}, eight_devices)


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_moments_of_an_optimizer_live_where_their_parameters_live(even_params, four_by_two, name):
    state = jax.eval_shape(make_optimizer(OptimizerConfig(name)).init, even_params)
    shares = shares_of(state, four_by_two)
    moments = 0
    for path, share in shares.items():
        for parameter, expected in SHARES.items():
            if path.endswith("/" + parameter):
                assert share == expected, path
                moments += 1
    # Two moments a parameter; one for those that Muon updates.
    assert moments == 2 * len(SHARES) - (6 if name == "muon" else 0)


def test_mesh_that_does_not_divide_a_parameter_is_refused(params, eight_devices):
    message = (
        r"mesh.tensor=2 does not divide axis 0 of bert/embeddings/word_embeddings \(99, 32\); "
        r"choose a mesh.tensor that does"
    )
    with pytest.raises(UserError, match=message):
        shardings_of(
            params["bert"] and {"bert": {"embeddings": params["bert"]["embeddings"]}}, eight_devices
        )


def test_heads_that_tensor_does_not_divide_are_refused(even_config):
    mesh = make_mesh(MeshConfig(tensor=8))
    model = BertForPreTraining(dataclasses.replace(even_config, vocab_size=96))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))
    with pytest.raises(UserError, match=r"mesh.tensor=8 does not divide axis \d of .*attention"):
        shardings_of(shapes["params"], mesh)


# ------------------------------------------------------------------ the mesh


def test_data_takes_the_devices_that_the_other_axes_leave():
    assert make_mesh(MeshConfig()).shape == {"data": 8, "fsdp": 1, "tensor": 1}
    assert make_mesh(MeshConfig(fsdp=2, tensor=2)).shape == {"data": 2, "fsdp": 2, "tensor": 2}
    assert make_mesh(MeshConfig(), jax.devices()[:1]).devices.size == 1


@pytest.mark.parametrize("axes", [{"data": 3}, {"fsdp": 3}, {"tensor": 16}, {"data": 1}])
def test_mesh_of_another_number_of_devices_is_refused(axes):
    with pytest.raises(UserError, match=r"does not make the number of devices, 8; set XLA_FLAGS="):
        make_mesh(MeshConfig(**axes))


@pytest.mark.parametrize("axes", [{"data": 0}, {"fsdp": -1}, {"tensor": 0}, {"data": -2}])
def test_axis_without_devices_is_refused(axes):
    (name,) = axes
    with pytest.raises(UserError, match=rf"mesh.{name}={axes[name]} must be at least 1"):
        MeshConfig(**axes)


def test_rows_are_placed_on_one_device_as_they_are(rows, one_device):
    placed = place_rows(rows, one_device)
    for one, other in zip(rows, placed, strict=True):
        assert isinstance(other, jax.Array)
        assert other.dtype == one.dtype
        assert other.sharding.mesh == one_device
        np.testing.assert_array_equal(one, other)


def test_rows_are_divided_over_data_and_fsdp(rows, eight_devices):
    placed = place_rows(rows, eight_devices)
    assert placed.token_ids.sharding.shard_shape((4, 7)) == (1, 7)
    np.testing.assert_array_equal(placed.token_ids, rows.token_ids)


def test_one_process_reads_all_rows(eight_devices, one_device):
    for mesh in (eight_devices, one_device):
        np.testing.assert_array_equal(rows_here(mesh, 12), np.arange(12))


def test_parameters_are_placed_as_the_table_says(even_params, four_by_two):
    placed = place_params(even_params, four_by_two)
    for one, other, sharding in zip(
        jax.tree.leaves(placed),
        jax.tree.leaves(even_params),
        jax.tree.leaves(shardings_of(even_params, four_by_two)),
        strict=True,
    ):
        assert one.sharding == sharding
        np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------ the state


@pytest.fixture(scope="module")
def states(even_model, one_device, eight_devices):
    """A new state on one device and on eight."""
    optimizer = make_optimizer(OptimizerConfig())
    key = jax.random.key(3)
    return [
        new_state(even_model, optimizer, mesh, key, ("mlm",))
        for mesh in (one_device, eight_devices)
    ]


def test_new_state_is_the_same_on_any_mesh(states, eight_devices):
    one, eight = states
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(eight), strict=True):
        np.testing.assert_array_equal(first, second)
    table = eight.params["bert"]["embeddings"]["word_embeddings"]
    assert {shard.data.shape for shard in table.addressable_shards} == {(49, 16)}
    assert int(eight.step) == int(eight.skipped) == int(eight.skipped_in_a_row) == 0
    assert count_parameters(eight.params) == sum(x.size for x in jax.tree.leaves(one.params))


def test_new_state_takes_given_parameters(even_model, even_params, one_device):
    state = new_state(
        even_model,
        make_optimizer(OptimizerConfig()),
        one_device,
        jax.random.key(0),
        ("mlm",),
        even_params,
    )
    for one, other in zip(jax.tree.leaves(state.params), jax.tree.leaves(even_params), strict=True):
        np.testing.assert_array_equal(one, other)


def test_fingerprint_is_the_same_wherever_the_state_lives(states):
    one, eight = (fingerprint(state.params["bert"]["embeddings"]) for state in states)
    assert one == eight
    assert len(one) == 5
    assert len(set(one.values())) == 5


def test_fingerprint_shows_any_change(states):
    params = states[0].params
    before = fingerprint(params)
    name = "['mlm_head']['dense']['kernel']"
    kernel = params["mlm_head"]["dense"]["kernel"]
    bits = jax.lax.bitcast_convert_type(kernel, jnp.uint32)
    for place, bit in (((0, 0), 0), ((31, 31), 31), ((7, 5), 12)):
        flipped = bits.at[place].set(bits[place] ^ jnp.uint32(1 << bit))
        changed = jax.lax.bitcast_convert_type(flipped, jnp.float32)
        after = fingerprint({"mlm_head": {"dense": {"kernel": changed}}})
        assert after[name] != before[name]
    swapped = kernel.at[jnp.array([0, 1])].set(kernel[jnp.array([1, 0])])
    assert fingerprint({"mlm_head": {"dense": {"kernel": swapped}}})[name] != before[name]
