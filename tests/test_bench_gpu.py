"""benchmarks/gpu.sh rehearsed without a GPU, and the text that torch is given."""

import argparse
import importlib.util
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_gpu
from tests.prepared_rows import write_rows

WAY = Path(__file__).parents[1]


@pytest.fixture
def text(tmp_path):
    draw = random.Random(5)
    words = [
        draw.choice("bcdfgh") + draw.choice("aeiou") + draw.choice("lmnrst") for _ in range(60)
    ]

    def sentence():
        return " ".join(draw.choices(words, k=draw.randint(4, 12))).capitalize() + "."

    documents = ["\n".join(sentence() for _ in range(12)) for _ in range(60)]
    path = tmp_path / "text.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return path


@pytest.mark.slow
def test_script_is_rehearsed_on_this_machine(text, tmp_path):
    output = tmp_path / "found.json"
    environment = {
        **os.environ, "REHEARSAL": str(text), "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "benchmarks/gpu.sh", str(output), str(tmp_path / "work")],
        capture_output=True, text=True, cwd=WAY, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    for dtype in ("float32", "bfloat16"):
        assert found[f"conformance-{dtype}"]["dtype"] == dtype
    for name in ("base", "base-raced", "large", "text"):
        assert found[name]["seconds_a_step"] > 0, found[name]
        assert found[name]["losses"][-1] < found[name]["losses"][0]
    # A CPU has no such kernel, and says so.
    assert "cudnn runs on gpu, not on cpu" in " ".join(found["base-cudnn"]["said"])
    assert found["resume"]["same_weights"], found["resume"]
    assert found["resume"]["same_losses"]
    assert found["resume"]["continued"]
    for name in ("base-torch", "base-torch-no-dropout", "large-torch", "text-torch"):
        if importlib.util.find_spec("torch") is None:
            assert "No module named 'torch'" in " ".join(found[name]["said"])
        else:
            assert found[name]["losses"][-1] < found[name]["losses"][0]


def test_torch_is_given_the_same_examples_padded(tmp_path):
    ids = np.zeros((6, 24), np.int32)
    of = np.zeros((6, 24), np.uint8)
    draw = np.random.default_rng(0)
    for row in range(6):
        first, second = draw.integers(4, 12, 2)
        of[row, : first + second] = np.repeat([1, 2], [first, second])
        ids[row, : first + second] = draw.integers(5, 90, first + second)
    columns = {
        "token_ids": ids,
        "token_type_ids": np.zeros_like(of),
        "sequence_ids": of,
        "position_ids": np.zeros_like(ids),
        "example_starts": np.zeros((6, 2), np.int32),
        "next_sentence_labels": np.zeros((6, 2), np.int32),
    }
    write_rows(tmp_path / "rows", {"train": columns}, 90)
    options = argparse.Namespace(data=str(tmp_path / "rows"), rows=6, steps=1)
    given = []
    for batch, tokens in bench_gpu._padded_batches(options):
        whole = batch["ids"].copy()
        whole.reshape(-1)[batch["places"]] = batch["labels"]
        real = ~batch["padding"] if "padding" in batch else np.ones(whole.shape, bool)
        assert tokens == real.sum()
        assert whole.size <= 6 * 24
        assert (batch["ids"].reshape(-1)[batch["places"]] == 4).all()
        given += [tuple(row[kept]) for row, kept in zip(whole, real, strict=True)]
    examples = [tuple(ids[row][of[row] == number]) for row in range(6) for number in (1, 2)]
    assert sorted(given) == sorted(examples)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ours", "--rows", "0"], "--rows and --steps must be at least 1"),
        (["ours", "--length", "8"], "--length at least 16"),
        (["resume", "--data", "rows"], "resume needs --data and --folder"),
    ],
)
def test_mistakes_are_told(monkeypatch, words, message):
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", *words])
    with pytest.raises(bench_gpu.UserError, match=message):
        bench_gpu.main()
