"""What comes with a process: its streams, their encoding, signals while it imports, file names.

Each in a process of its own, as a user meets it.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.planning.absent_devices import has_cuda_compiler

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"
BERTJAX = [sys.executable, "-m", "bertjax"]


def run(*words, before=(), **options):
    done = subprocess.run([*before, *BERTJAX, *words], stderr=subprocess.PIPE, **options)
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    return done


def model_stored_as(folder, dtype):
    """The tiny model with its weights in another dtype."""
    shutil.copytree(TINY, folder)
    weights = {name: value.astype(dtype) for name, value in load_file(TINY / WEIGHTS).items()}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


WEIGHTS = "model.safetensors"


# -------------------------------------------------------------------- narrow weights


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_weights_are_read_before_jax_is_imported(tmp_path, dtype):
    code = (
        "import sys\nfrom bertjax.interop.checkpoint_files import find_tensors, read_arrays\n"
        "arrays = read_arrays(find_tensors(__import__('pathlib').Path(sys.argv[1])))\n"
        "print({str(value.dtype) for value in arrays.values()}, 'jax' in sys.modules)"
    )
    model = model_stored_as(tmp_path / "model", dtype)
    done = subprocess.run([sys.executable, "-c", code, model], capture_output=True, text=True)
    assert done.stdout == "{'float32'} False\n", done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_every_command_takes_narrow_weights(tmp_path, dtype):
    model = model_stored_as(tmp_path / "model", dtype)
    (tmp_path / "t.txt").write_text("this is a text.\nthey are here\n")
    for words in (
        ["fill-mask", "this is [MASK].", "--model", model],
        ["info", model],
        ["embed", "--model", model, "--input", "t.txt", "--output", "v.npy"],
        ["explain", "this is [MASK].", "--model", model],
        ["what-if", "this is it", "--word", "this", "--model", model],
        ["contexts", "this is it", "--word", "this", "--model", model, "--input", "t.txt"],
        ["attention", "--model", model, "--input", "t.txt", "--output", "a.npz"],
        ["prune", "--model", model, "--heads", "1", "--text", "t.txt", "--output", "pruned"],
        ["verify", "--model", model],
    ):
        done = run(*words, cwd=tmp_path, stdout=subprocess.PIPE)
        assert done.returncode == 0, (words, done.stderr.decode())


# -------------------------------------------------------------------- streams


def without(stream):
    """A command line in front of another, which closes a stream of it."""
    return ["sh", "-c", f'exec "$@" {stream}&-', "sh"]


def test_closed_input_is_told():
    done = run("fill-mask", "--model", TINY, before=without("<"))
    assert done.returncode == 2
    assert b"standard input is closed" in done.stderr


def test_command_that_reads_nothing_needs_no_input():
    done = run("info", TINY, before=without("<"), stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"BertForPreTraining" in done.stdout


@pytest.mark.parametrize("words", [["info", TINY], ["info", TINY, "--json"], ["--help"]])
def test_output_that_is_closed_is_an_error_in_a_line(words):
    done = run(*words, before=without(">"))
    assert done.returncode == 2
    assert done.stderr == b"error: standard output: Bad file descriptor\n"


def test_errors_need_no_stream():
    done = subprocess.run(
        [*without("2>"), *BERTJAX, "info", TINY], stdout=subprocess.PIPE, text=True
    )
    assert done.returncode == 0
    assert "BertForPreTraining" in done.stdout


@pytest.mark.parametrize(("words", "code"), [(["info", TINY], 0), (["info", "nowhere"], 2)])
def test_full_standard_error_costs_the_messages_alone(words, code):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*BERTJAX, *words], stdout=subprocess.PIPE, stderr=full, text=True)
    assert done.returncode == code
    assert ("BertForPreTraining" in done.stdout) == (code == 0)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_letters_that_the_output_has_not_are_escaped(tmp_path, encoding):
    """JSON stays JSON, and a table is printed."""
    folder = tmp_path / "año Ω 😀"
    shutil.copytree(TINY, folder)
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    out = [
        run("info", folder, *more, env=environment, stdout=subprocess.PIPE)
        for more in (["--json"], [])
    ]
    assert [done.returncode for done in out] == [0, 0]
    assert json.loads(out[0].stdout.decode(encoding))["path"] == str(folder)
    shown = {"ascii": "a\\u00f1o \\u03a9 \\ud83d\\ude00", "latin-1": "año \\u03a9 \\ud83d\\ude00"}
    assert shown.get(encoding, "año Ω 😀") in out[1].stdout.decode(encoding)


# -------------------------------------------------------------------- signals while it starts

# Whatever is imported first takes long, and swallows what is raised, as jax does.
SLOW_IMPORT = """
import sys, time
class Swallow:
    def find_spec(self, name, path=None, target=None):
        if name in ("argparse", "jax"):
            print("importing", flush=True)
            try:
                time.sleep(60)
            except BaseException:
                pass
sys.meta_path.insert(0, Swallow())
for name in ("argparse", "jax"):
    sys.modules.pop(name, None)
"""


@pytest.mark.parametrize(
    ("module", "number", "code", "told"),
    [
        ("bertjax", signal.SIGINT, 130, "interrupted\n"),
        ("bertjax", signal.SIGTERM, 143, "terminated\n"),
        ("train.prepare", signal.SIGINT, 130, "interrupted\n"),
        ("train.pretrain", signal.SIGINT, 75, "SIGINT: stopped; nothing is lost, the same command"),
        ("train.finetune", signal.SIGTERM, 75, "SIGTERM: stopped; nothing is lost"),
    ],
)
def test_signal_while_it_imports_ends_it_in_a_line(tmp_path, module, number, code, told):
    (tmp_path / "sitecustomize.py").write_text(SLOW_IMPORT)
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    # What a shell starts in the background ignores SIGINT, and hands that down to the program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", module, "info"],
        env={**os.environ, "PYTHONPATH": path, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == code, errors
    assert errors.startswith(told)
    assert errors.count("\n") == 1


# -------------------------------------------------------------------- plugins of jax

# As jax_plugins.xla_cuda13 without CUDA's libraries.
PLUGIN = """
import os
def initialize():
    if not os.getenv("JAX_SKIP_CUDA_CONSTRAINTS_CHECK"):
        raise RuntimeError("Unable to load cuDNN. Is it installed?")
"""
FIRSTS = ["from bertjax.program.entry import begin; begin()", "import bertjax; bertjax.finetune"]
DEVICES = (
    "import jax; jax.devices(); from jax._src import hardware_utils;"
    " from bertjax.program.cuda_plugin import NVIDIA_DEVICES;"
    " print(hardware_utils._NVIDIA_GPU_DEVICES == [*NVIDIA_DEVICES],"
    " hardware_utils.has_visible_nvidia_gpu())"
)


def start_jax(tmp_path, first=FIRSTS[1]):
    """What is printed where bertjax begins, as a program or for Python, and jax has to look."""
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path}
    environment.pop("JAX_PLATFORMS", None)
    done = subprocess.run(
        [sys.executable, "-c", f"{first}; {DEVICES}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    return done.stdout.split(), done.stderr


@pytest.mark.whole
@pytest.mark.parametrize("first", FIRSTS)
def test_plugin_for_devices_that_are_not_there_prints_no_traceback(tmp_path, first):
    (tmp_path / "jax_plugins").mkdir()
    (tmp_path / "jax_plugins" / "stand_in.py").write_text(PLUGIN)
    (same, has_gpu), errors = start_jax(tmp_path, first)
    assert same == "True"
    assert ("Traceback" in errors) == (has_gpu == "True"), errors


@pytest.mark.skipif(not has_cuda_compiler(), reason="jax's CUDA plugin is not installed")
def test_plugin_that_is_a_compiler_alone_prints_nothing(tmp_path):
    (_, has_gpu), errors = start_jax(tmp_path)
    assert has_gpu == "True" or "Traceback" not in errors, errors
    # A libtpu beside it says of its own that there is no TPU.
    assert has_gpu == "True" or errors == "" or importlib.util.find_spec("libtpu"), errors
