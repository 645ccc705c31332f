"""`train.pretrain` in several real processes, which train as one: stopped, killed, gone on with.

`train/launch/local.sh` starts them. Rows have unlike numbers of tokens, so that the log, with a
line for each step, tells which rows a step saw.
"""

import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.metrics import read_metrics
from tests.prepared_rows import write_rows
from tests.train.pretrain_runs import (
    SPECIAL,
    WORDS,
    find_checkpoints,
    finish,
    make_columns,
    start_program,
    wait_for,
)

STEPS = 8
V = len(SPECIAL) + len(WORDS) + 1  # which two devices divide
# The others may take so long to notice that one is gone.
BOUND = 120


def make_uneven_columns(rows, seed):
    """Every other row, or so, is half empty."""
    columns = make_columns(rows, seed)
    short = np.random.default_rng(seed + 100).random(rows) < 0.5
    columns["sequence_ids"][short, 8:] = 0
    columns["token_ids"][short, 8:] = 0
    columns["next_sentence_labels"][short, 1] = -1
    return columns


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    Tokenizer(build_wordpiece([*SPECIAL, *WORDS, "w30"], True, None)).save(folder / "tokenizer")
    splits = {
        name: make_uneven_columns(count, seed)
        for seed, (name, count) in enumerate({"train": 64, "validation": 11, "test": 6}.items())
    }
    write_rows(folder / "rows", splits, V, folder / "tokenizer")
    return folder / "rows"


@pytest.fixture(scope="module")
def launch(rows, tmp_path_factory):
    """Starts `count` processes, or the program alone where it is 1; they share what is compiled."""
    cache = tmp_path_factory.mktemp("compiled")

    def start(count, run, *options, devices=1):
        arguments = [
            *("--data", rows, "--run", run),
            *("--model.num_hidden_layers", 2, "--model.hidden_size", 32),
            *("--model.num_attention_heads", 4, "--model.intermediate_size", 38),
            *("--batch-size", 16, "--budget.steps", STEPS, "--log-every", 1),
            *("--evaluation.every", 4, "--evaluation.batch_size", 8, "--checkpoint.every", 4),
            *("--optimizer.learning_rate", 0.01),
            *options,
        ]
        alone = [sys.executable, "-m", "train.pretrain"]
        command = alone if count == 1 else ["train/launch/local.sh", count]
        environment = {"PYTHON": sys.executable, "DEVICES": str(devices)}
        return start_program([*command, *arguments], cache, **environment)

    return start


def complete(process):
    code, output, errors = finish(process)
    assert code == 0, errors
    return output, errors


@pytest.fixture(scope="module")
def alone(launch, tmp_path_factory):
    """The lines of the log of one process with one device."""
    run = tmp_path_factory.mktemp("alone") / "run"
    complete(launch(1, run))
    return read_metrics(run / "metrics.jsonl")


def largest_difference(run, expected):
    """Of any loss in the log, relative; the rows behind them are the same."""
    lines = read_metrics(run / "metrics.jsonl")
    for name in ("step", "split", "tokens", "masked_tokens", "examples"):
        assert [line.get(name) for line in lines] == [line.get(name) for line in expected]
    tokens = {line["tokens"] for line in lines if "tokens" in line}
    assert len(tokens) > 2  # else they tell nothing of the rows
    return max(
        abs(line["loss"] / other["loss"] - 1) for line, other in zip(lines, expected, strict=True)
    )


def children_of(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in path.read_text().split()]


@pytest.mark.slow
def test_two_processes_train_as_one(launch, alone, tmp_path):
    run = tmp_path / "run"
    output, errors = complete(launch(2, run, "--json", "true"))
    worst = largest_difference(run, alone)
    print(f"largest relative difference of two processes: {worst}")
    assert worst < 1e-5
    # The first process alone tells. Gloo's greetings are on standard error, where those of two
    # processes may share a line.
    assert json.loads(output)["step"] == STEPS
    assert errors.count("step 8  loss") == 1
    assert "[Gloo]" in errors
    assert (run / "model" / "model.safetensors").is_file()
    assert '"processes": 2' in (run / "run.json").read_text()


@pytest.mark.whole
def test_mistake_ends_all_processes(launch, tmp_path):
    code, _, errors = finish(launch(2, tmp_path / "run", "--batch-size", 3))
    assert code == 2
    assert "error: process 0 of 2: batch_size" in errors
    assert "process 0 of 2 ended with 2" in errors
    # The other finds the same, or that the first is gone, whichever comes first.
    assert re.search(r"process 1 of 2 ended with [1-9]", errors)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "devices", "mesh"),
    [
        (4, 1, ()),
        (4, 1, ("--mesh.fsdp", 4)),
        (4, 1, ("--mesh.fsdp", 2, "--mesh.tensor", 2)),
        (2, 2, ("--mesh.tensor", 2)),
        (2, 1, ("--mesh.tensor", 2)),
    ],
)
def test_processes_on_any_mesh_train_as_one(launch, alone, tmp_path, count, devices, mesh):
    options = (*mesh, "--accumulation", 2)
    complete(launch(count, tmp_path / "run", *options, devices=devices))
    worst = largest_difference(tmp_path / "run", alone)
    print(f"largest relative difference of {count} x {devices} {mesh}: {worst}")
    assert worst < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_one_process_stops_all_at_the_same_step(launch, tmp_path, number):
    run = tmp_path / "run"
    process = launch(4, run, "--budget.steps", 9999)
    wait_for(process, lambda: run.exists() and find_checkpoints(run))
    os.kill(children_of(process)[2], number)
    code, _, errors = finish(process)
    assert code == STOPPED_EXIT_CODE, errors
    (step,) = re.findall(rf"{number.name}: saved step (\d+)", errors)
    assert max(find_checkpoints(run)) == int(step)
    assert errors.count("ended with 75") == 4


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 2])
def test_killed_process_ends_the_others_and_fewer_go_on(launch, tmp_path, victim):
    """Four processes, one killed; two go on until they are stopped; one comes to the end."""
    steps, run = 400, tmp_path / "run"
    options = ("--budget.steps", steps, "--evaluation.every", 200, "--checkpoint.every", 10)
    # At a larger rate 400 steps make of other sums' rounding another run.
    options += ("--optimizer.learning_rate", 1e-5)
    process = launch(4, run, *options)
    wait_for(process, lambda: run.exists() and find_checkpoints(run))
    os.kill(children_of(process)[victim], signal.SIGKILL)
    killed = time.monotonic()
    code, _, errors = finish(process)
    seconds = time.monotonic() - killed
    print(f"the others ended {seconds:.1f} s after process {victim} was killed:\n{errors}")
    assert code != 0
    assert seconds < BOUND
    codes = {
        int(index): int(code)
        for index, code in re.findall(r"process (\d) of 4 ended with (\d+)", errors)
    }
    assert len(codes) == 4
    assert codes[victim] == 128 + signal.SIGKILL
    assert re.search(r"another process went|another task died", errors)

    process = launch(2, run, *options)
    before = max(find_checkpoints(run))
    wait_for(process, lambda: max(find_checkpoints(run)) > before)
    process.send_signal(signal.SIGTERM)  # which the script hands on
    code, _, errors = finish(process)
    assert code == STOPPED_EXIT_CODE, errors
    assert f"continuing {run} from step {before}" in errors

    complete(launch(1, run, *options))
    complete(launch(1, tmp_path / "whole", *options))
    worst = largest_difference(run, read_metrics(tmp_path / "whole" / "metrics.jsonl"))
    print(f"largest relative difference to one process that nothing happened to: {worst}")
    assert worst < 1e-4


@pytest.mark.slow
def test_processes_go_by_one_clock(launch, tmp_path):
    run = tmp_path / "run"
    options = ("--budget.steps", "null", "--budget.minutes", 0.1, "--evaluation.every", 9999)
    complete(launch(2, run, *options, "--checkpoint.every", 9999))
    lines = [one for one in read_metrics(run / "metrics.jsonl") if one["split"] == "train"]
    assert max(line["learning_rate"] for line in lines) > 0.005
    assert lines[-1]["learning_rate"] < 0.003
    assert max(find_checkpoints(run)) == lines[-1]["step"]
