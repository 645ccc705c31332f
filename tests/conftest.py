"""For every test: eight CPU devices, shape annotations as checks, a tiny model, the real data."""

import gc
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The proofs are of numbers, so every machine computes them the same way; JAX_PLATFORMS overrides.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# What one test compiled, the others, the programs that they start and the other worker of xdist
# read from the disk: one folder for a run of the suite. Its size has no bound: jax would look at
# every file of the folder, under a lock, whenever it adds one (a minute of a run of the suite).
if "PYTEST_XDIST_WORKER" not in os.environ:
    _compiled = tempfile.TemporaryDirectory(prefix="compiled-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = "-1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
import pytest
from jaxtyping import install_import_hook

# Python looks for garbage after every 700 new objects: a twelfth of the time where jax traces.
gc.set_threshold(100_000, 20, 20)

# XLA takes seconds to optimize what a test runs once, for milliseconds. The settings are this
# process's own: the programs that tests start choose their devices, and see `pytest_configure`.
jax.config.update("jax_disable_most_optimizations", True)
# Nor need an operation know the line that it comes from.
jax.config.update("jax_traceback_in_locations_limit", 0)
jax.config.update("jax_num_cpu_devices", 8)
_given_flags = os.environ.get("XLA_FLAGS")
# LLVM's work in one piece takes a quarter less processor time than in parallel ones.
_quick_flags = f"{_given_flags or ''} --xla_cpu_parallel_codegen_split_count=1"
# From jaxlib 0.11 on there is no such flag, and one that is not known ends the process.
if jaxlib.version.__version_info__ < (0, 11):
    _quick_flags += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = _quick_flags
jax.devices()  # reads the flags

# Before the first import of any of them: shape annotations of these packages are checked at calls.
install_import_hook(
    [
        "bertjax.types",
        "bertjax.model",
        "bertjax.numerics",
        "bertjax.objectives",
        "bertjax.training",
    ],
    "beartype.beartype",
)


_TESTS = str(Path(__file__).parent)
_OURS = str(Path(__file__).parents[1] / "bertjax")
# A kernel of jax's own has products of its own, whose precision `full_precision` sets.
_KERNELS = str(Path("pallas", "ops"))
_bind_product = jax.lax.dot_general_p.bind


def _bind_full_product(left, right, **how):
    """Refuses what no CPU shows: a float32 product of ours that a GPU or TPU would round."""
    wide = all(jnp.issubdtype(one.dtype, jnp.floating) for one in (left, right))
    wide = wide and max(jnp.finfo(one.dtype).bits for one in (left, right)) >= 32
    # jax's own attention names an algorithm for narrow values, on processors that have it. Who says
    # that the device may round (Muon of a model in bfloat16) has not forgotten it.
    named = isinstance(how["precision"], jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset)
    named = named or how["precision"] == (jax.lax.Precision.DEFAULT,) * 2
    if wide and not named and how["precision"] != (jax.lax.Precision.HIGHEST,) * 2:
        frame = sys._getframe(1)
        while frame and not frame.f_code.co_filename.startswith((_OURS, _TESTS)):
            frame = None if _KERNELS in frame.f_code.co_filename else frame.f_back
        if frame and frame.f_code.co_filename.startswith(_OURS):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            raise AssertionError(f'{place}: a product of float32 needs precision="highest"')
    return _bind_product(left, right, **how)


jax.lax.dot_general_p.bind = _bind_full_product


def pytest_configure(config):
    """Without the slow proofs, programs that tests start are compiled as quickly as the tests.

    With them they are compiled as a user's are. libtpu ends the process at a flag that it does not
    know, as is the suite's.
    """
    quick = "not slow" in config.option.markexpr
    if quick:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
    if quick and importlib.util.find_spec("libtpu") is None:
        return
    if _given_flags is None:
        os.environ.pop("XLA_FLAGS")
    else:
        os.environ["XLA_FLAGS"] = _given_flags


@pytest.fixture(scope="session")
def shared_data():
    """The real data beside the checkout; tests that need it are skipped where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is not there")
    return folder


@pytest.fixture(scope="session")
def minilm(shared_data, tmp_path_factory):
    """all-MiniLM-L6-v2, which a script beside the data brings; skipped where it cannot."""
    script = shared_data.parent / "get-minilm"
    if not script.is_file():
        pytest.skip(f"no MiniLM: {script} is not there")
    folder = tmp_path_factory.mktemp("minilm")
    done = subprocess.run([script, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no MiniLM: {script} failed: {done.stderr[-300:]}")
    return folder / "minilm"


@pytest.fixture(params=["bert_tiny_mlm", "minilm"])
def checkpoint(request, shared_data):
    if request.param == "minilm":
        return request.getfixturevalue("minilm")
    return shared_data / "weights" / "bert_tiny_mlm"


@pytest.fixture(scope="session")
def config():
    """N=4, H=8, F=37, V=99, L=2, M=11, G=6: all different, so that a transposed shape shows."""
    from bertjax.config import BertConfig

    return BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=37,
        max_position_embeddings=11,
        type_vocab_size=6,
    )


@pytest.fixture(scope="session")
def model(config):
    from bertjax.model.bert import BertForPreTraining

    return BertForPreTraining(config)


@pytest.fixture(scope="session")
def new_params(model):
    """Parameters as a new model has them."""
    return jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 1), jnp.int32))["params"]


@pytest.fixture(scope="session")
def params(new_params):
    """Parameters whose biases and scales are no zeros and ones, so that none goes unnoticed."""
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), x.dtype), new_params
    )


@pytest.fixture(scope="session")
def batch():
    """B=3, T=7, K=2: two examples in a row, one with padding behind it, one that fills its row."""
    from bertjax.types import RowBatch

    return RowBatch(
        token_ids=jnp.array(
            [[2, 11, 12, 3, 2, 13, 3], [2, 21, 22, 23, 3, 0, 0], [2, 31, 3, 32, 33, 34, 3]]
        ),
        token_type_ids=jnp.array(
            [[0, 0, 1, 1, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1]]
        ),
        sequence_ids=jnp.array(
            [[1, 1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]]
        ),
        position_ids=jnp.array(
            [[0, 1, 2, 3, 0, 1, 2], [0, 1, 2, 3, 4, 0, 0], [0, 1, 2, 3, 4, 5, 6]]
        ),
        example_starts=jnp.array([[0, 4], [0, 0], [0, 0]]),
        next_sentence_labels=jnp.array([[1, 0], [0, -1], [1, -1]]),
        row_numbers=jnp.array([5, 8, 2], jnp.uint32),
        epochs=jnp.zeros(3, jnp.uint32),
    )


@pytest.fixture(scope="session")
def forward(model):
    """`forward(params, token_ids, ..., trace=, dropout=)`: the model, compiled once for all."""

    def apply(params, *inputs, dropout_key=None, **options):
        rngs = None if dropout_key is None else {"dropout": dropout_key}
        return model.apply({"params": params}, *inputs, rngs=rngs, **options)

    return jax.jit(apply, static_argnames=("dropout", "trace"))


@pytest.fixture(scope="session")
def output(forward, params, batch):
    """What the model makes of the batch, with its trace."""
    return forward(params, *batch[:5], trace=True)


@pytest.fixture(scope="module")  # while it is open, its event loop keeps others from running
def browser():
    """Chromium; tests are skipped where there is none, but for `make test-browser`."""
    lacks = pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip
    try:
        from playwright import sync_api
    except ModuleNotFoundError:
        lacks("no playwright: pip install 'bertjax[browser]'")
    with sync_api.sync_playwright() as playwright:
        installed = shutil.which("chromium") or shutil.which("google-chrome")
        for path in (None, installed):
            try:
                found = playwright.chromium.launch(executable_path=path)
            except sync_api.Error:
                continue
            yield found
            found.close()
            return
        lacks("no browser: playwright install chromium, or the system's chromium package")


@pytest.fixture
def bertjax_command(monkeypatch, capfd):
    """Runs a command line in this process; gives (exit code, stdout, stderr)."""
    from bertjax import cli

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stopped:
            cli.main(list(map(str, arguments)))
        return stopped.value.code, *capfd.readouterr()

    return run
