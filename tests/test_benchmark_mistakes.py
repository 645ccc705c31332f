"""Benchmarks as one starts them from a shell: a mistake is told before minutes of measuring.

Those that import jax take seconds to tell; `make test-all` starts them.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

WAY = Path(__file__).parents[1]
OURS = ["--cases", "base-training", "--venvs", ".", "--peers", "ours"]


def start(*words):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, cwd=WAY
    )


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.whole
def test_peers_start_as_a_file_too():
    done = start("benchmarks/bench_peers.py", "--help")
    assert done.returncode == 0, done.stderr
    assert "--make-venvs DIR" in done.stdout


@pytest.mark.whole
@pytest.mark.parametrize(
    ("words", "message"),
    [
        slow(["bench_input.py", "--data", "x", "--batch-size", "0"], "must be at least 1"),
        slow(["bench_export.py", "--model", "x", "--texts", "x", "--rounds", "0"], "be above 0"),
        slow(["bench_step.py", "--rounds", "1"], "must be at least 2"),
        slow(["bench_finetune.py", "--data", "none", "--model", "x"], "there is no sms_spam.tsv"),
        slow(["bench_finetune.py", "--data", ".", "--model", ".", "--json", "no/x"], "its folder"),
        (["bench_peers.py", *OURS[:-1], "torch"], "--venvs .: no environment of torch in it"),
        (["bench_peers.py", *OURS, "--json", "none/x"], "its folder"),
        (["bench_peers.py", *OURS, "--rounds", "0"], "at least 1"),
        (["bench_peers.py", *OURS[:-1], "onnxruntime"], "none takes part in base-training"),
    ],
)
def test_mistakes_are_told(words, message):
    done = start(f"benchmarks/{words[0]}", *words[1:])
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_missing_torch_is_told_before_ours_is_trained():
    done = start("-m", "benchmarks.bench_budget", "--output", "none", "--rows", "none")
    assert done.returncode == 2
    assert "torch and transformers not installed here" in done.stderr
