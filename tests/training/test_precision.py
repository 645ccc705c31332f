"""dtype=auto on a CPU: what it takes, what it keeps, and how it is proven."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.config import BertConfig
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.program.config_parser import make_config
from bertjax.training import precision
from bertjax.training.pretrain_config import PretrainConfig
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
from bertjax.training.steps import lower_step, make_train_step

WIDE_MODEL = BertConfig(hidden_size=256, num_attention_heads=4)


@pytest.fixture
def rates(monkeypatch):
    """The rates that are measured, by dtype; a test changes them."""
    rates = {"float32": 60e9, "bfloat16": 240e9}
    monkeypatch.setattr(
        precision, "measure_rates", lambda mesh: (rates["bfloat16"], rates["float32"])
    )
    return rates


@pytest.fixture
def settle(tmp_path):
    """The dtype that a run in a new directory takes, and what is said of it."""
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def settle(model=WIDE_MODEL, **fields):
        given = {"data": "rows", "run": tmp_path / "run", "steps": 1, **fields}
        config, said = precision.settle_dtype(make_config(PretrainConfig, given), model, mesh)
        return config.dtype, said

    return settle


def test_auto_is_bfloat16_where_products_are_much_faster_in_it(settle, rates):
    dtype, said = settle()
    assert dtype == "bfloat16"
    assert "240 GFLOP/s in bfloat16 here, and at 60 in float32" in said
    rates["bfloat16"] = 85e9
    assert settle() == ("float32", "")


def test_auto_is_float32_in_a_narrow_model(settle, rates):
    assert settle(BertConfig(hidden_size=64, num_attention_heads=4)) == ("float32", "")


def test_what_is_given_is_taken(settle, rates):
    assert settle(dtype="float32") == ("float32", "")
    rates["bfloat16"] = 1.0
    assert settle(dtype="bfloat16") == ("bfloat16", "")


@pytest.mark.parametrize("begun", ["float32", "bfloat16"])
def test_run_keeps_the_dtype_that_it_began_with(settle, rates, monkeypatch, begun):
    monkeypatch.setattr(precision, "read_identity", lambda run, config: {"dtype": begun})
    rates["bfloat16"] = 1.0 if begun == "bfloat16" else 1e15
    assert settle() == (begun, "")


# ------------------------------------------------------------------ the proof


@pytest.fixture(scope="module")
def make_plain_step(even_model, half, vocabulary, seed):
    def make(dtype):
        objective = PretrainingObjective(even_model.clone(dtype=dtype), half, vocabulary, seed)
        return make_train_step(objective, optax.scale(-1.0), lambda clock: 0.1, seed)

    return make


@pytest.mark.whole
def test_first_steps_in_both_dtypes_agree_and_change_nothing(
    make_plain_step, start, rows, one_device
):
    before = jax.tree.map(np.asarray, start)
    narrow = lower_step(
        make_plain_step(jnp.bfloat16), start, place_rows(rows, one_device), one_device
    ).compile()
    wide = make_plain_step(jnp.float32)
    said = precision.prove_agreement(narrow, wide, start, [rows] * 3, one_device)
    assert "the losses of the first 3 steps in both differ by" in said
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(start), strict=True):
        np.testing.assert_array_equal(one, other)

    def other_loss(state, batch, clock):
        state, report = wide(state, batch, clock)
        return state, report._replace(loss=1.02 * report.loss)

    with pytest.raises(precision.ImpreciseError, match=r"in both differ by 2.*training in float32"):
        precision.prove_agreement(narrow, other_loss, start, [rows] * 3, one_device)
