"""What is planned for eight CPU devices is what eight CPU devices take when the step is run."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.planning.program import (
    bytes_on_a_device,
    compile_step,
    describe_batch,
    measure_memory,
)
from bertjax.text.row_writer import RowWriter
from bertjax.text.rows import COLUMNS, Rows
from bertjax.training.batches import TrainingBatches
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
from bertjax.training.state import describe_state, new_state
from bertjax.training.steps import lower_step
from tests.planning.steps import make_step, objective_of

LENGTH, EXAMPLES = 8, 2


@pytest.fixture(scope="module")
def real_batches(tmp_path_factory, config):
    """Of a prepared split: 64 rows, T=8, K=2."""
    folder = tmp_path_factory.mktemp("rows") / "train"
    writer = RowWriter(folder, LENGTH, EXAMPLES, 98)
    rng = np.random.default_rng(0)
    columns = {name: np.ones((64, LENGTH), np.int32) for name in COLUMNS[:4]}
    columns |= {name: np.zeros((64, EXAMPLES), np.int32) for name in COLUMNS[4:]}
    columns["token_ids"] = rng.integers(5, 98, (64, LENGTH))
    columns["position_ids"] = np.tile(np.arange(LENGTH), (64, 1))
    writer.append(columns)
    files = [folder / one["name"] for one in writer.close()]
    return TrainingBatches(Rows(files, LENGTH, EXAMPLES), 16, 0, 100)


def test_batch_is_described_as_it_comes(real_batches):
    mesh = make_mesh(MeshConfig())
    described = describe_batch(16, LENGTH, EXAMPLES, mesh)
    for name, one, real in zip(described._fields, described, real_batches[0], strict=True):
        assert (one.shape, one.dtype) == (real.shape, real.dtype), name


def test_columns_that_a_program_does_not_read_count_as_rows(even_model):
    mesh = make_mesh(MeshConfig())
    batch = describe_batch(16, LENGTH, EXAMPLES, mesh)
    state = describe_state(
        even_model, make_optimizer(OptimizerConfig()), mesh, jax.random.key(0), ("mlm",)
    )
    read = batch._replace(token_type_ids=None)  # a family without token types
    analysis = SimpleNamespace(
        argument_size_in_bytes=bytes_on_a_device((state.params, state.optimizer_state, read)),
        output_size_in_bytes=5, alias_size_in_bytes=2, temp_size_in_bytes=7,
        generated_code_size_in_bytes=1,
    )  # fmt: skip
    memory = measure_memory(analysis, state, batch)
    assert (memory.batch, memory.other) == (bytes_on_a_device(batch), 0)
    assert bytes_on_a_device(batch) == bytes_on_a_device(read) + 2 * LENGTH


@pytest.mark.whole
@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 8}, marks=pytest.mark.slow),
        {"data": 2, "fsdp": 2, "tensor": 2},
    ],
)
def test_plan_is_what_a_run_takes(even_model, half, vocabulary, real_batches, axes):
    mesh = make_mesh(MeshConfig(**axes))
    optimizer = make_optimizer(OptimizerConfig())
    step, key, terms = make_step(even_model, half, vocabulary), jax.random.key(0), ("mlm", "nsp")

    described = describe_state(even_model, optimizer, mesh, key, terms, averages=True)
    planned = compile_step(step, described, describe_batch(16, LENGTH, EXAMPLES, mesh), mesh)

    state = new_state(even_model, optimizer, mesh, key, terms, averages=True)
    batch = place_rows(real_batches[0], mesh)
    for one, real in zip(jax.tree.leaves(described), jax.tree.leaves(state), strict=True):
        assert (one.shape, one.dtype, one.sharding) == (real.shape, real.dtype, real.sharding)

    def held(tree):
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))

    memory = planned.memory
    assert memory.parameters == memory.average == held(state.params)
    assert memory.optimizer == held(state.optimizer_state)
    assert memory.batch == held(batch)
    counts = state.step, state.skipped, state.skipped_in_a_row, state.window
    assert memory.other == held(counts) + 4  # and the clock
    run = lower_step(step, state, batch, mesh).compile()
    assert memory.temporaries == run.memory_analysis().temp_size_in_bytes > 0
    new, report = run(state, batch, jnp.float32(1))
    assert bytes_on_a_device(new) == held(new)
    # XLA counts the table of the results, too: a pointer of 8 bytes for each.
    assert memory.results == held(report) + 8 * len(jax.tree.leaves((new, report)))
    assert np.isfinite(float(report.loss))


def sent_by(model, half, vocabulary, rows, axes):
    mesh = make_mesh(MeshConfig(**axes))
    optimizer = make_optimizer(OptimizerConfig())
    step = make_step(model, half, vocabulary)
    terms = objective_of(model, half, vocabulary).terms
    state = describe_state(model, optimizer, mesh, jax.random.key(0), terms)
    planned = compile_step(step, state, describe_batch(rows, LENGTH, EXAMPLES, mesh), mesh)
    return sum(one.sent for one in planned.collectives)


@pytest.mark.whole
@pytest.mark.parametrize(
    "axes",
    [
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 8}, marks=pytest.mark.slow),
        {"data": 2, "fsdp": 4},
    ],
)
def test_rows_stay_where_they_are(even_model, half, vocabulary, axes):
    """What is sent is parameters and gradients, however many rows there are."""
    few = sent_by(even_model, half, vocabulary, 16, axes)
    many = sent_by(even_model, half, vocabulary, 64, axes)
    assert few > 0
    assert many == pytest.approx(few, rel=0.02)
