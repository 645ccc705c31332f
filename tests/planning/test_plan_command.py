"""`bertjax plan` as one uses it: CPU devices everywhere, TPUs where their compiler is installed."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bertjax.commands.plan
import bertjax.planning.run
from bertjax.config import BertConfig
from bertjax.interop.huggingface import save_model_directory
from bertjax.model.bert import BertForMaskedLM, BertForPreTraining
from bertjax.numerics.products import hidden_dtype
from bertjax.planning import absent_devices
from bertjax.planning.chips import CHIPS
from bertjax.planning.program import CompiledStep, Memory, bytes_on_a_device
from tests.train.finetune_runs import TINY

CONFIG = """\
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64,
        attention_probs_dropout_prob: 0.0}
budget: {steps: 10}
batch_size: 16
evaluation: {batch_size: 4}
"""
ROWS = ("--length", 16, "--vocab-size", 96)

needs_libtpu = pytest.mark.skipif(
    not absent_devices.has_libtpu() and not os.environ.get("REQUIRE_LIBTPU"),
    reason="libtpu is not installed: make test-plan",
)


@pytest.fixture
def config_file(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def plan(bertjax_command, config_file):
    def run(*arguments):
        return bertjax_command("plan", "--config", config_file, *ROWS, *arguments)

    return run


def test_plan_for_cpu_devices_is_complete(plan):
    code, out, err = plan("--devices", "cpu:8", "--mesh", "2x2x2", "--search", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["mesh"] == {"data": 2, "fsdp": 2, "tensor": 2}
    assert (found["rows"], found["length"], found["examples"]) == (16, 16, 2)
    assert (found["dtype"], found["remat"]) == ("float32", "dots")
    memory = found["memory"]
    total = memory.pop("total")
    assert total == sum(memory.values())
    assert memory["optimizer"] >= 2 * memory["parameters"]
    # Parameters that are divided lie on all devices together once, on each data replica.
    assert found["parameters"] * 4 / 4 <= memory["parameters"] < found["parameters"] * 4 / 3
    assert found["fits"]
    assert found["available_bytes"] > total
    assert {one["kind"] for one in found["collectives"]} >= {"all-reduce", "all-gather"}
    assert found["sent_bytes"] == sum(one["sent"] for one in found["collectives"]) > 0
    assert found["seconds_at_least"] is None
    assert "are assumed" in found["notes"][0]
    assert "evaluation.batch_size=4" not in " ".join(found["notes"])


@pytest.fixture
def states(monkeypatch):
    """The states that steps are planned for, none of which is compiled."""
    seen = []

    def compile_step(step, state, batch, mesh):
        seen.append(state)
        memory = Memory(bytes_on_a_device(state.params), *7 * [0])
        return CompiledStep(memory, [], 1.0, 0.0)

    monkeypatch.setattr(bertjax.planning.run, "compile_step", compile_step)
    return seen


def test_replaced_tokens_are_planned_with_both_models(plan, states):
    fields = "objective=replaced-tokens", "model.family=electra"
    code, out, err = plan(
        "--devices", "cpu:1", "--search", 0, "--json", "--set", *fields, "average=0.5"
    )
    assert code == 0, err
    found, params = json.loads(out), states[0].params
    assert set(params) == {"discriminator", "generator"}
    generator, whole = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (params["generator"], params)
    )
    assert (found["generator_parameters"], found["parameters"]) == (generator, whole)
    assert found["memory"]["parameters"] == 4 * whole

    def encoder(width, inner):  # of two layers, for 16 tokens that see each other
        return 2 * (4 * width**2 + 2 * width * inner + 2 * 16 * width)

    # The tables are 128 wide; 3 of 16 tokens may be masked, and all are judged.
    of_discriminator = 128 * 32 + encoder(32, 64) + 32 * 32 + 32
    of_generator = 128 * 8 + encoder(8, 16) + 3 / 16 * (8 * 128 + 128 * 96)
    expected = 3 * 2 * 16 * 16 * (of_discriminator + of_generator)  # 16 rows
    assert found["matmul_flops_per_device"] == expected

    code, out, err = plan("--devices", "cpu:1", "--search", 0, "--set", *fields)
    assert out.startswith(f"{whole:,} parameters, of which {generator:,} are the generator's; pr")


@pytest.mark.whole
def test_model_that_is_trained_further_is_planned_with_the_heads_that_it_gets(
    plan, config_file, states, tmp_path
):
    """A `BertForMaskedLM` has no next-sentence head, and rows without pairs give it none."""
    config_file.write_text("budget: {steps: 10}\nbatch_size: 16\n")
    shape = BertConfig(99, 8, 1, 1, 8, max_position_embeddings=16)
    for module in (BertForMaskedLM, BertForPreTraining):
        params = jax.jit(module(shape).init)(jax.random.key(0), np.zeros((1, 1), np.int32))
        path = tmp_path / module.__name__
        save_model_directory(path, shape, params["params"], TINY, module.__name__)
        code, _, err = plan("--devices", "cpu:1", "--search", 0, "--set", f"model.init={path}")
        assert code == 0, err
        assert jax.tree.map(jnp.shape, states.pop().params) == jax.tree.map(
            jnp.shape, params["params"]
        )


def test_several_layouts_make_a_table(plan, states):
    arguments = ("--devices", "cpu:8", "--mesh", "data", "fsdp", "--rows-per-device", 2)
    code, out, err = plan(*arguments)
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["cpu:8", "8x1x1", "16"],
        ["cpu:8", "1x8x1", "16"],
    ]
    told = [line.partition(": compiled in ")[0] for line in err.splitlines()]
    assert told == ["cpu:8, mesh 8x1x1, 16 rows", "cpu:8, mesh 1x8x1, 16 rows"]
    assert "evaluation.batch_size=4 is no multiple of the 8 devices" in out


@pytest.mark.slow
def test_search_of_a_small_model_ends(plan, monkeypatch):
    monkeypatch.setattr(bertjax.planning.run, "MOST_TOKENS", 64 * 16)
    code, out, err = plan("--devices", "cpu:2", "--batch-size", 126, "--search", 3)
    assert code == 0, err
    assert "largest batch: at least 128 rows fit (found in 1 more compilation; none of more" in out
    assert [line.partition(":")[0] for line in err.splitlines()] == 2 * ["cpu"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology", "v9:2x2"], "one of v4, v5e, v5p, v6e"),
        (["--topology", "v5e"], "a colon and the shape of the slice"),
        (["--topology", "v5e:0x0"], "a colon and the shape of the slice"),
        (["--topology", "v5e:2x2x2"], "slices of v5e have 2 dimensions, as v5e:4x4"),
        (["--topology", "v5p:2x2"], "slices of v5p have 3 dimensions, as v5p:4x4x4"),
        (["--topology", "v6e:32x32"], "1,024 chips are more than the 256"),
        (["--devices", "cpu:5000"], "number of CPU devices up to 1,024"),
        (["--devices", "cpu:none"], "name a number of CPU devices up to 1,024, as cpu:8"),
        (["--devices", "gpu:8"], "name a number of CPU devices, as cpu:8"),
        (["--devices", "cpu:99"], "this process has 8 CPU devices already"),
        (["--devices", "cpu:8", "--mesh", "3x1x1"], "does not make the number of devices, 8"),
        (["--devices", "cpu:8", "--mesh", "wide"], "give data, fsdp, tensor"),
        (["--devices", "cpu:8", "--mesh", "tensor"], "mesh.tensor=8 does not divide axis"),
        (["--devices", "cpu:8", "--rows-per-device", "0"], "--rows-per-device 0 must be"),
        (["--devices", "cpu:8", "--batch-size", "12"], "must be a multiple of the 8 devices"),
        (["--devices", "cpu:8", "--set", "batchsize=8"], "unknown key batchsize; did you mean"),
        (["--devices", "cpu:8", "--set", "a.b=1"], "(`bertjax pretrain --help` lists them"),
        (["--devices", "cpu:8", "--set", "remat=(--help x)"], "remat=(--help x) must be one of"),
        (["--devices", "cpu:8", "--set", "remat"], "give FIELD=VALUE, such as mesh.fsdp=4"),
        (["--set", "batch_size=8", "--devices", "cpu:8", "--batch-size", "8"],
         "--set batch_size and --batch-size set the same field; leave one out"),
        (["--set", "mesh.fsdp=2", "--devices", "cpu:8", "--mesh", "data"],
         "--set mesh.fsdp and --mesh set the same field"),
        (["--devices", "cpu:8", "--set", "attention=splash"], "runs on tpu, not on cpu"),
        (["--devices", "cpu:8", "--set", "model.max_position_embeddings=8"], "pass --length 8"),
        (["--devices", "cpu:8", "--data", "nowhere"], "nowhere: no such directory"),
        (["--devices", "cpu:8", "--search", "-1"], "must be at least 0"),
    ],
)  # fmt: skip
def test_mistakes_are_told(plan, arguments, message):
    code, out, err = plan(*arguments)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(("arguments", "told"), [((), "here"), (("--set", "data=there"), "there")])
def test_data_that_is_set_counts_before_the_config(plan, config_file, states, arguments, told):
    config_file.write_text(CONFIG + "data: here\n")
    code, out, err = plan("--devices", "cpu:1", "--search", 0, *arguments)
    assert code == 0, err
    assert f"no prepared directory at {told}:" in out


def test_mesh_of_absent_devices_is_not_mended_by_a_flag_for_present_ones(plan):
    _, _, err = plan("--devices", "cpu:8", "--mesh", "3x1x1")
    assert "choose axes whose product" in err
    assert "XLA_FLAGS" not in err


def test_config_that_is_not_there_is_told(bertjax_command):
    code, _, err = bertjax_command("plan", "--config", "none.yaml", "--devices", "cpu:8")
    assert code == 2
    assert "--config none.yaml: no such file" in err


def test_missing_compiler_is_told(plan, monkeypatch):
    monkeypatch.setattr(absent_devices, "has_libtpu", lambda: False)
    code, _, err = plan("--topology", "v5e:2x2")
    assert code == 2
    assert "libtpu, which compiles for TPUs, is not installed: pip install 'bertjax[plan]'" in err


def test_missing_compiler_for_gpus_is_told(plan, monkeypatch):
    monkeypatch.setattr(absent_devices, "has_cuda_compiler", lambda: False)
    code, _, err = plan("--topology", "h200:1x1x1")
    assert code == 2
    assert "compiles for NVIDIA GPUs, is not installed: pip install 'bertjax[plan-gpu]'" in err


@pytest.fixture
def unreadable(monkeypatch):
    """Programs with instructions that jaxlib does not know, for chips that are this CPU."""

    def fail(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: async-update has [/3] operands\n*** stack")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", fail)
    chip, open_cpu = CHIPS["v6e"], bertjax.planning.run._open_cpu
    monkeypatch.setattr(
        bertjax.planning.run, "_open_cpu", lambda *place: open_cpu(*place)._replace(chip=chip)
    )


@pytest.mark.whole
def test_program_that_jaxlib_cannot_read_is_planned_without_what_is_sent(plan, unreadable):
    code, out, err = plan("--devices", "cpu:2", "--search", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["fits"]
    assert found["memory"]["temporaries"] > 0
    assert (found["collectives"], found["sent_bytes"]) == (None, None)
    bounds = found["seconds_at_least"]
    assert bounds["links"] is None
    assert bounds["overlapped"] == max(bounds["products"], bounds["memory"])
    assert found["notes"][-1].startswith("what the devices send, and how long it takes, is unknown")
    assert "cannot read the compiled program (INTERNAL: async-update" in found["notes"][-1]


def test_loop_that_does_not_tell_its_rounds_leaves_what_is_sent_open(plan, monkeypatch):
    def fail(*program):
        raise ValueError("does not say how often it runs its loop while.1")

    monkeypatch.setattr("bertjax.planning.program.read_collectives", fail)
    code, out, err = plan("--devices", "cpu:2", "--search", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["collectives"], found["sent_bytes"]) == (None, None)
    assert found["notes"][-1].endswith("unknown: does not say how often it runs its loop while.1")


@pytest.mark.parametrize(
    "meshes", [["data"], pytest.param(["data", "fsdp"], marks=pytest.mark.slow)]
)
def test_what_is_not_known_is_left_empty(plan, unreadable, meshes):
    code, out, err = plan("--devices", "cpu:2", "--search", 0, "--mesh", *meshes)
    assert code == 0, err
    assert out.count("async-update has [/3] operands); matching versions of jax and libtpu") == 1
    if len(meshes) > 1:
        # Of thirteen columns, sent and links are empty.
        assert [len(line.split()) for line in out.splitlines()[1:3]] == [11, 11]
    else:
        assert "nothing to say" not in out
        assert "  links " not in out
        assert "at most" in out


def test_machine_that_does_not_tell_its_memory_is_told(plan, monkeypatch):
    monkeypatch.setattr(bertjax.planning.run, "memory_of_machine", lambda: None)
    code, out, err = plan("--devices", "cpu:1", "--search", 0)
    assert (code, out) == (2, "")
    assert "does not report the machine's memory; plan for a TPU or GPU with --topology" in err


@needs_libtpu
def test_program_for_a_tpu_is_a_tpus(plan):
    code, out, err = plan("--topology", "v5e:2x2", "--mesh", "data", "fsdp", "--json")
    assert code == 0, err
    data, fsdp = json.loads(out)
    for found in (data, fsdp):
        assert (found["dtype"], found["remat"]) == ("bfloat16", "none")
        assert found["device_count"] == 4
        assert found["available_bytes"] == 16 << 30
        bounds = found["seconds_at_least"]
        assert bounds["products"] == found["matmul_flops_per_device"] / 197e12
        assert bounds["overlapped"] == max(bounds[name] for name in ("products", "memory", "links"))
    # Every device has all parameters, or a quarter of those that are divided.
    assert data["memory"]["parameters"] == 4 * data["parameters"]
    assert fsdp["memory"]["parameters"] < 0.3 * data["memory"]["parameters"]
    assert [one["kind"] for one in data["collectives"]] == ["all-reduce"]
    assert "all-gather" in [one["kind"] for one in fsdp["collectives"]]


@needs_libtpu
@pytest.mark.parametrize("topology", ["v5p:2x2x1", "v6e:2x2"])
def test_generation_whose_programs_may_be_unreadable_is_planned(plan, topology):
    code, out, err = plan("--topology", topology, "--mesh", "fsdp", "--search", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["fits"]
    assert (found["sent_bytes"] is None) == (found["seconds_at_least"]["links"] is None)


@needs_libtpu
@pytest.mark.parametrize("mesh", ["2x4x1", "2x2x2"])
def test_splash_is_divided_over_rows_and_heads(plan, mesh):
    arguments = ("--topology", "v5e:2x4", "--mesh", mesh, "--set", "attention=splash", "--json")
    code, out, err = plan(*arguments, "--search", 0)
    assert code == 0, err
    assert json.loads(out)["attention"] == "splash"


@needs_libtpu
@pytest.mark.parametrize("attention", ["splash", "blockwise"])
def test_layers_of_two_kinds_are_planned(plan, attention):
    fields = ("model.family=modernbert", "model.local_attention=4", f"attention={attention}")
    arguments = ("--topology", "v5e:2x4", "--mesh", "2x2x2", "--search", 0, "--json")
    code, out, err = plan(*arguments, "--set", *fields)
    assert code == 0, err
    found = json.loads(out)
    assert found["attention"] == attention


@needs_libtpu
def test_step_that_is_too_large_says_so(plan):
    arguments = ("--topology", "v5e:1x1", "--batch-size", 1 << 20, "--search", 0)
    code, out, _ = plan(*arguments)
    assert code == 1
    assert "does not fit:" in out


@needs_libtpu
def test_two_processes_may_plan_at_once(monkeypatch):
    monkeypatch.delenv("ALLOW_MULTIPLE_LIBTPU_LOAD", raising=False)
    program = (
        "from bertjax.planning.absent_devices import tpu_devices\n"
        "print(len(tpu_devices('v5e:2x2')), flush=True)\n"
        "input()"
    )
    first, second = (
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(2)
    )
    # Both are alive until both have opened the slice.
    counts = [process.stdout.readline() for process in (first, second)]
    for process in (first, second):
        process.communicate(b"\n")
    assert counts == [b"4\n", b"4\n"]


@needs_libtpu
@pytest.mark.parametrize("generation", ["v4:2x2x1", "v5p:2x2x1", "v6e:2x2"])
def test_device_is_a_chip_in_every_generation(generation):
    assert len(absent_devices.tpu_devices(generation)) == 4


def test_dtype_between_products_is_that_of_the_target():
    """On this CPU, whatever the program is for, jax's default backend is the CPU."""
    assert hidden_dtype(jnp.bfloat16) == jnp.float32
    if absent_devices.has_libtpu():
        mesh = jax.sharding.Mesh(absent_devices.tpu_devices("v5e:2x2"), ("data",))
        with jax.set_mesh(mesh):
            assert hidden_dtype(jnp.bfloat16) == jnp.bfloat16
