"""What a run writes of itself, and the work it counts."""

import dataclasses
import json
import math
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.architectures import find_architecture
from bertjax.model.bert import BertForPreTraining
from bertjax.training.metrics import (
    MetricsWriter,
    count_matmul_flops,
    draw_matrices,
    measure_matmul_rate,
    read_metrics,
)
from tests.families.test_contract import OWN_MODELS
from tests.families.tiny import tiny_config


def write_lines(directory, steps, first_step=0):
    writer = MetricsWriter(directory, first_step)
    for step in steps:
        writer.write(step, "train", {"loss": 1 / step}, {"seconds": 0.5})
    writer.close()


def test_lines_come_back_as_they_were_written(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(20, "train", {"loss": 2.5, "skipped": 0}, {"seconds_a_step": 0.25})
    writer.write(20, "validation", {"loss": 2.75}, {"seconds": 1.5})
    # Every line is on the disk when it is written: a kill loses none.
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {
            "step": 20,
            "split": "train",
            "loss": 2.5,
            "skipped": 0,
            "timing": {"seconds_a_step": 0.25},
        },
        {"step": 20, "split": "validation", "loss": 2.75, "timing": {"seconds": 1.5}},
    ]
    writer.close()
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


def test_resumed_run_drops_the_lines_of_later_steps(tmp_path):
    write_lines(tmp_path, [10, 20, 30, 40])
    write_lines(tmp_path, [30, 50], first_step=20)
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20, 30, 50]
    assert not list(tmp_path.glob(".partial-*"))


def test_last_line_that_a_kill_cut_short_goes(tmp_path):
    write_lines(tmp_path, [10, 20])
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:17])
    assert [line["step"] for line in read_metrics(path)] == [10, 20]
    write_lines(tmp_path, [30], first_step=20)
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]


def test_no_file_has_no_lines(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_numbers_that_are_not_finite_become_null(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    writer.write(1, "train", {"loss": math.nan, "norm": math.inf, "rate": 0.5}, {"s": -math.inf})
    writer.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (line["loss"], line["norm"], line["rate"]) == (None, None, 0.5)
    assert line["timing"] == {"s": None}


# ------------------------------------------------------------------ the work of a step


def products_of(jaxpr, times=1):
    """FLOPs of all matrix products of a program; those inside a scan as often as it turns."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            ((contracted, _), _) = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            inner = math.prod(left[axis] for axis in contracted)
            total += times * 2 * inner * math.prod(equation.outvars[0].aval.shape)
        turns = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    total += products_of(inner, times * turns)
    return total


@pytest.mark.parametrize("head_size", [None, 11])
def test_counted_work_is_that_of_the_programs_products(config, head_size):
    """B=3, T=7, P=5, K=2; two products are none: a look-up in the token-type table, a sum of P."""
    config = dataclasses.replace(config, num_hidden_layers=5, attention_head_size=head_size)
    model = BertForPreTraining(config)
    ids = jnp.ones((3, 7), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]

    def loss(params):
        output = model.apply(
            {"params": params},
            ids,
            example_starts=jnp.zeros((3, 2), jnp.int32),
            masked_positions=jnp.zeros((3, 5), jnp.int32),
        )
        return output.mlm_logits.sum() + output.nsp_logits.sum()

    look_up = 2 * 21 * 6 * 32  # tokens x G x D
    forward = products_of(jax.make_jaxpr(loss)(params).jaxpr) - look_up
    of_bias = 2 * 15 * config.vocab_size  # the gradient of the head's bias, slots x V
    both = products_of(jax.make_jaxpr(jax.grad(loss))(params).jaxpr) - 2 * look_up - of_bias
    counted = count_matmul_flops(model.config, 3, 7, masked_slots=5, examples=2, attention="dense")
    assert counted == 3 * forward
    assert counted == both


@pytest.mark.parametrize("family", OWN_MODELS)
def test_counted_work_of_a_family_is_that_of_its_products(family):
    config = tiny_config(family, num_hidden_layers=3)
    model = find_architecture("masked-lm", config).module(config)
    ids = jnp.ones((3, 7), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids)["params"]

    def run(params):
        positions = jnp.zeros((3, 5), jnp.int32)
        return model.apply({"params": params}, ids, masked_positions=positions).logits

    look_up = 2 * 21 * config.type_vocab_size * config.embedding_size
    forward = products_of(jax.make_jaxpr(run)(params).jaxpr) - look_up
    assert count_matmul_flops(config, 3, 7, 5, 0, "dense") == 3 * forward


@pytest.mark.parametrize("length", [3, 4, 9])
def test_work_within_a_window_is_counted_where_the_attention_leaves_out_the_rest(length):
    config = tiny_config("modernbert", num_hidden_layers=5, local_attention=6)
    assert config.local_layers == (False, True, True, False, True)
    places = np.arange(length)
    near = int((abs(places[:, None] - places) <= 3).sum())
    whole, left = (count_matmul_flops(config, 7, length, 2, 0, at) for at in ("dense", "splash"))
    assert left == count_matmul_flops(config, 7, length, 2, 0, "blockwise")
    # Three local layers, 7 rows; two products a pair, each once forward and twice backward.
    of_a_pair = 3 * 2 * 2 * config.hidden_size
    assert whole - left == 3 * 7 * (length**2 - near) * of_a_pair


def test_counted_work_equals_a_hand_count():
    """bert-base, 8 x 128 tokens, 20 slots, one example a row."""
    from bertjax.config import BertConfig

    layer = 4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768
    encoder = 8 * 128 * 12 * layer
    heads = 8 * 20 * (768**2 + 768 * 30522) + 8 * (768**2 + 2 * 768)
    assert count_matmul_flops(BertConfig(), 8, 128, 20, 1, "dense") == 6 * (encoder + heads)


def test_rate_is_of_matrices_as_a_run_has_them(eight_devices):
    matrices = np.asarray(draw_matrices(eight_devices, jnp.float32, 16))
    assert len(np.unique(matrices)) > 0.99 * matrices.size
    assert abs(matrices.std() - 1) < 0.1


def test_rate_of_the_machine_is_measured_on_every_device(one_device, eight_devices):
    for mesh in (one_device, eight_devices):
        rate = measure_matmul_rate(mesh, jnp.float32, size=64, repeats=3)
        assert 1e6 < rate < 1e16


def test_rate_is_that_of_the_measurement_that_nothing_slowed(one_device, monkeypatch):
    times = iter([0.0, 9.0, 10.0, 12.0, 20.0, 25.0])
    clock = SimpleNamespace(perf_counter=lambda: next(times))
    monkeypatch.setattr("bertjax.training.metrics.time", clock)
    assert measure_matmul_rate(one_device, jnp.float32, size=8, repeats=3) == 2 * 8**3 / 2.0
