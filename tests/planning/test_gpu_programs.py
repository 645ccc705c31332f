"""The programs of an NVIDIA GPU that is not there, read as its compiler made them."""

import json
import os
import re

import jax
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.model.bert import BertForPreTraining
from bertjax.objectives.masking import MaskingConfig, Vocabulary
from bertjax.planning import absent_devices
from bertjax.planning.chips import CHIPS
from bertjax.planning.gpus import PROCESSORS, describe_gpu
from bertjax.planning.program import describe_batch
from bertjax.planning.run import open_devices
from bertjax.training.optimizer import OptimizerConfig, make_optimizer
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.state import describe_state
from bertjax.training.steps import lower_step
from tests.planning.steps import make_step

pytestmark = pytest.mark.skipif(
    not absent_devices.has_cuda_compiler() and not os.environ.get("REQUIRE_CUDA_COMPILER"),
    reason="jax's CUDA plugin is not installed: make test-plan",
)

ROWS, LENGTH, EXAMPLES = 4, 16, 2
# No other size is 97, so that the logits can be told from everything else.
WORDS = 97
CONFIG = BertConfig(
    vocab_size=WORDS,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=LENGTH,
    type_vocab_size=2,
    attention_probs_dropout_prob=0.0,
)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(), open_devices("h200:1x1x1").devices)


@pytest.fixture(scope="module")
def lowered(mesh):
    """The step before it is compiled, by dtype."""

    def lower(dtype, attention="dense"):
        model = BertForPreTraining(CONFIG, dtype, attention=attention)
        vocabulary = Vocabulary(WORDS, 4, list(range(5)), np.zeros(WORDS, bool))
        masking = MaskingConfig()
        step = make_step(model, masking, vocabulary)
        optimizer = make_optimizer(OptimizerConfig())
        terms = ("mlm", "nsp")
        state = describe_state(model, optimizer, mesh, jax.random.key(0), terms)
        return lower_step(step, state, describe_batch(ROWS, LENGTH, EXAMPLES, mesh), mesh)

    return lower


@pytest.fixture(scope="module")
def narrow(lowered):
    """The lines of the step's program with bfloat16 products."""
    return lowered("bfloat16").compile().as_text().splitlines()


def lines_with(program, opcode):
    return [line for line in program if re.search(rf" {opcode}\(", line)]


def name_of(line):
    return re.match(r"\s*(?:ROOT )?%([\w.\-]+) = ", line)[1]


def test_gelu_is_not_rounded_before_its_end(narrow):
    errors = lines_with(narrow, "erf")
    assert errors
    for line in [*errors, *lines_with(narrow, "exponential")]:
        assert " = f32[" in line, line
    # 1 + erf in bfloat16 would be nothing but rounding below -3.
    rounded = lines_with(narrow, "convert")
    for name in map(name_of, errors):
        assert not [line for line in rounded if re.search(rf"convert\(%{name}\)", line)]


def test_masked_lm_logits_are_not_rounded(narrow):
    places = [line for line in narrow if re.search(rf"\[(\d+,)*{WORDS}\]", line)]
    forward = [line for line in places if "/mlm_head/" in line and "transpose(" not in line]
    assert forward
    assert [line for line in forward if re.search(rf"bf16\[(\d+,)*\d+,{WORDS}\]\S* \w", line)] == []


def test_no_update_collides_with_another(narrow):
    scatters = lines_with(narrow, "scatter")
    assert scatters
    assert [line for line in scatters if "unique_indices=true" not in line] == []


def test_products_are_chosen_by_their_shape_and_not_by_a_race(narrow):
    text = "\n".join(narrow)
    assert '"__cublas$lt$matmul"' in text
    assert "gemm_fusion" not in text


def test_products_are_bfloat16_and_gradients_of_parameters_are_not_rounded(narrow):
    types = dict(re.findall(r"%([\w.\-]+) = \(?(\w+)\[", "\n".join(narrow)))
    products = [line for line in narrow if '"__cublas$lt$matmul"' in line and "/layers/" in line]
    assert len(products) > 10
    results = set()
    for line in products:
        operands = re.search(r"custom-call\(%([\w.\-]+), %([\w.\-]+)", line).groups()
        assert [types[name] for name in operands] == ["bf16", "bf16"], line
        # [64, 32] and so on is the gradient of a kernel; what has rows flows on, in bfloat16.
        result = re.search(r" = \((\w+)\[([\d,]+)\]", line)
        results.add((result[1], result[2].startswith(f"{ROWS * LENGTH},")))
    assert {("bf16", True), ("f32", False)} <= results
    assert ("f32", True) not in results


@pytest.mark.parametrize("attention", ["explicit", "dense", "xla", "blockwise"])
def test_float32_is_float32(lowered, attention):
    """What is lowered says so of every product; the compiler takes the word for its own."""
    program = lowered("float32", attention).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) > 20
    for line in products:
        assert "precision = [HIGHEST, HIGHEST]" in line, line


def test_float32_products_are_compiled_as_such(lowered):
    program = lowered("float32").compile().as_text()
    products = [line for line in program.splitlines() if '"__cublas$lt$matmul"' in line]
    assert len(products) > 20
    for line in products:
        assert '"operand_precision":["HIGHEST","HIGHEST"]' in line, line


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_gpu_is_taken(name):
    devices = open_devices(f"{name}:1x1x8")
    assert len(devices.devices) == 8
    assert {device.device_kind for device in devices.devices} == {PROCESSORS[name].name}
    assert {device.platform for device in devices.devices} == {"gpu"}
    assert devices.available == CHIPS[name].memory * 3 // 4
    assert f"device_memory_size: {CHIPS[name].memory}\n" in describe_gpu(name)


SMALL = """\
model: {hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64,
        attention_probs_dropout_prob: 0.0}
budget: {steps: 10}
batch_size: 16
"""


@pytest.fixture
def plan(bertjax_command, tmp_path):
    def run(*arguments):
        (tmp_path / "small.yaml").write_text(SMALL)
        rows = ("--length", 16, "--vocab-size", 96, "--search", 0, "--json")
        code, out, err = bertjax_command(
            "plan", "--config", tmp_path / "small.yaml", *rows, *arguments
        )
        assert code == 0, err
        return json.loads(out)

    return run


def test_gpus_of_a_host_are_planned(plan):
    data, fsdp = plan("--topology", "h200:1x1x2", "--mesh", "data", "fsdp")
    for found in (data, fsdp):
        assert (found["dtype"], found["remat"]) == ("bfloat16", "dots")
        assert found["device_count"] == 2
        bounds = found["seconds_at_least"]
        assert bounds["products"] == found["matmul_flops_per_device"] / 989e12
        assert bounds["links"] == found["sent_bytes"] / 450e9 > 0
    assert {one["kind"] for one in data["collectives"]} == {"all-reduce"}
    assert fsdp["memory"]["parameters"] < 0.6 * data["memory"]["parameters"]


def test_rate_between_hosts_is_not_made_up(plan):
    found = plan("--topology", "a100:1x2x1")
    assert found["device_count"] == 2
    assert found["sent_bytes"] > 0
    assert found["seconds_at_least"]["links"] is None
    assert "the speed of their network" in " ".join(found["notes"])


def test_cudnn_is_planned_without_a_gpu(plan):
    found = plan("--topology", "h100:1x1x1", "--set", "attention=cudnn")
    assert found["attention"] == "cudnn"


@pytest.mark.slow
def test_base_config_fits_an_h200(bertjax_command):
    """256 rows of 512 tokens, in what jax takes of its memory."""
    arguments = ("--config", "configs/pretrain/base.yaml", "--topology", "h200:1x1x1")
    code, out, err = bertjax_command("plan", *arguments, "--search", 0, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["rows"], found["length"], found["microbatches"]) == (256, 512, 1)
    assert found["memory"]["total"] <= 0.75 * (141 << 30)
