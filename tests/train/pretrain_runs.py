"""Tiny pretraining runs, for tests: rows, options, and how a process is watched and killed."""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp

from bertjax.program.config_parser import parse
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain_config import PretrainConfig

T, K, ROWS, STEPS = 16, 2, 24, 12
# A process that hangs is given up after so many seconds; one on a loaded machine is not.
PATIENCE = 900
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{number}" for number in range(30)]
V = len(SPECIAL) + len(WORDS)
WAY = Path(__file__).resolve().parents[2]
# What a run has with which everything changes on its way.
CHANGING = (
    *("--phases.shares", 0.25, 0.25, 0.5, "--phases.lengths", 8, 16, 16),
    *("--phases.batch-sizes", 16, 8, 16, "--phases.causal", "true", "false", "false"),
    *("--masking.rate", 0.5, "--masking.end-rate", 0.2, "--average", 0.9, "--z-loss", 0.01),
)
MUON = ("--optimizer.name", "muon")


def make_columns(rows, seed):
    """Rows of two examples, `[CLS] a a a [SEP] b b [SEP]`; B follows A when its words do."""
    draw = np.random.default_rng(seed)
    ids = np.zeros((rows, T), np.int32)
    labels = draw.integers(0, 2, (rows, K))
    for row in range(rows):
        for example in range(K):
            first = draw.integers(5, V - 6)
            second = first + 3 if labels[row, example] == 0 else draw.integers(5, V - 2)
            words = [2, first, first + 1, first + 2, 3, second, second + 1, 3]
            ids[row, example * 8 : example * 8 + 8] = words
    whole = np.broadcast_to(np.arange(T), (rows, T))
    return {
        "token_ids": ids,
        "token_type_ids": (whole % 8 > 4).astype(np.uint8),
        "sequence_ids": (whole // 8 + 1).astype(np.uint8),
        "position_ids": whole % 8,
        "example_starts": np.broadcast_to([0, 8], (rows, K)),
        "next_sentence_labels": labels,
    }


def make_arguments(data, run, *options):
    arguments = [
        *("--data", data, "--run", run),
        *("--model.num_hidden_layers", 2, "--model.hidden_size", 32),
        *("--model.num_attention_heads", 4, "--model.intermediate_size", 37),
        *("--batch-size", 8, "--budget.steps", STEPS, "--log-every", 3),
        *("--evaluation.every", 4, "--evaluation.batch_size", 8, "--checkpoint.every", 2),
        *("--optimizer.learning_rate", 0.01),
        *options,
    ]
    return [str(word) for word in arguments]


def read_config(data, run, *options):
    return parse(PretrainConfig, "", make_arguments(data, run, *options))


def start_program(command, cache, **environment):
    """Starts a program on CPUs; those of one `cache` share what is compiled."""
    shared = {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
        [str(word) for word in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | shared | environment,
        cwd=WAY,
    )


def finish(process):
    output, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, output, errors


def read_state(run):
    """Every array of the newest checkpoint, as bytes."""
    newest = max(find_checkpoints(run))
    with ocp.StandardCheckpointer() as checkpointer:
        tree = checkpointer.restore((run / "checkpoints" / str(newest) / "state").absolute())
    leaves = ocp.tree.to_flat_dict(tree)
    return newest, {name: np.asarray(leaf).tobytes() for name, leaf in leaves.items()}


def assert_same_run(one, other, steps=STEPS):
    step, state = read_state(one)
    other_step, other_state = read_state(other)
    assert step == other_step == steps
    assert state.keys() == other_state.keys()
    assert [name for name in state if state[name] != other_state[name]] == []
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (one, other)]
    assert weights[0] == weights[1]
    lines = [read_metrics(run / "metrics.jsonl") for run in (one, other)]
    for line in lines[0] + lines[1]:
        del line["timing"]
    assert lines[0] == lines[1]


def kill_at_random(launch, run, draw, kills, *options, later=0.0):
    """Starts, kills -9, starts again, until it is through; a kill counts when it hits training.

    One kill in two comes while a checkpoint is half-written, the others up to a third of a second
    after the run directory says that this process trains.

    Args:
        later: the share of kills that come after this process has saved a checkpoint.

    Returns:
        The step of the newest checkpoint after each kill that counts (0 without one), and the
        standard error of the process that came through.
    """
    reached = []
    while len(reached) < kills:
        process, told = launch(run, *options), last_told(run)
        wait_for(process, lambda told=told: last_told(run) != told)
        newest = max([0, *find_checkpoints(run)])
        if draw.random() < later:
            wait_for(process, lambda newest=newest: max([0, *find_checkpoints(run)]) > newest)
        if draw.random() < 0.5:
            wait_for(process, lambda: any(run.glob("checkpoints/*tmp*")))
        else:
            time.sleep(draw.random() / 3)
        alive = process.poll() is None
        process.kill()
        _, _, errors = finish(process)
        assert alive, f"through after {len(reached)} kills: {errors}"
        reached.append(max([0, *find_checkpoints(run)]))
    code, _, errors = finish(launch(run, *options))
    assert code == 0, errors
    return reached, errors


def last_told(run):
    """When a process last said in the run directory that it trains."""
    return (run / "run.json").stat().st_mtime_ns if (run / "run.json").exists() else None


def wait_for(process, is_so):
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def find_checkpoints(run):
    return [int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()]
