"""Pretraining that changes on its way: phases, masking rates, an average of the weights."""

import signal

import numpy as np
import orbax.checkpoint as ocp
import pytest

from bertjax.loaded import load
from bertjax.program.errors import UserError
from bertjax.training.metrics import read_metrics
from bertjax.training.pretrain import run_pretraining
from bertjax.training.progress import Reporter
from tests.train.pretrain_runs import (
    CHANGING,
    MUON,
    assert_same_run,
    find_checkpoints,
    finish,
    read_config,
    wait_for,
)


@pytest.fixture(scope="module")
def changing_run(prepared, here, tmp_path_factory):
    run = tmp_path_factory.mktemp("changing") / "run"
    lines = []
    reporter = Reporter(lines.append)
    run_pretraining(read_config(prepared, run, *CHANGING), mesh=here, reporter=reporter)
    return run, lines


def test_phases_are_told_and_learned_from(changing_run):
    run, lines = changing_run
    assert [line for line in lines if line.startswith("phase")] == [
        "phase 1, until step 3: next tokens, 16 rows of 8 a step",
        "phase 2, until step 6: masked tokens, 8 rows of 16 a step",
        "phase 3, until the end: masked tokens, 16 rows of 16 a step",
    ]
    train = [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "train"]
    assert [line["tokens"] for line in train] == [3 * 16 * 8, 3 * 8 * 16, 3 * 256, 3 * 256]
    assert train[0]["nsp_loss"] == 0 < min(line["nsp_loss"] for line in train[1:])
    assert min(line["z_loss"] for line in train) > 0


@pytest.mark.whole
def test_changing_run_stopped_twice_equals_uninterrupted(changing_run, here, prepared, tmp_path):
    """Where the second phase begins, and within it."""
    config = read_config(prepared, tmp_path / "run", *CHANGING)
    for stop in ("step 3 ", "step 4: validation"):

        def interrupt(line, stop=stop):
            if line.startswith(stop):
                raise KeyboardInterrupt

        stopped = run_pretraining(config, mesh=here, reporter=Reporter(interrupt))
        assert stopped.stopped == "SIGINT"
    run_pretraining(config, mesh=here)
    assert_same_run(changing_run[0], tmp_path / "run")


@pytest.mark.slow
def test_phase_that_the_clock_passes_over_is_left_out(here, prepared, tmp_path):
    """Of a tenth of a millisecond, on the rows of the others."""
    given = ("--budget.steps", "null", "--budget.minutes", 0.02, "--evaluation.every", 9999)
    given += ("--phases.shares", 0.3, 0.0001, 0.6999, "--phases.batch-sizes", 8, 16, 8)
    lines = []
    config = read_config(prepared, tmp_path / "run", *given)
    run_pretraining(config, mesh=here, reporter=Reporter(lines.append))
    told = [line.split(",")[0] for line in lines if line.startswith("phase")]
    assert told == ["phase 1", "phase 3"]


def test_model_that_is_saved_is_the_average(changing_run):
    """The checkpoint with the lowest loss holds both, the average and what is averaged."""
    run, _ = changing_run
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "validation"]
    best = min(lines, key=lambda line: line["loss"])["step"]
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((run / "checkpoints" / str(best) / "state").absolute())
    saved, average, params = (
        tree["bert"]["encoder"]["layers"]["intermediate"]["kernel"]
        for tree in (load(run / "model").params, state["average"], state["params"])
    )
    np.testing.assert_array_equal(saved, average)
    assert np.abs(params - average).max() > 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--phases.shares", 0.5, 0.4), "phases.shares=.* add up to 1"),
        (("--phases.shares", 1, "--phases.lengths", 5), "rows of 16 tokens cannot be cut into"),
        (("--phases.shares", 1, "--phases.batch-sizes", 12), "must be a multiple of the 8 dev"),
        (("--phases.shares", 1, "--phases.data", "nowhere"), "nowhere: no such directory"),
        (
            ("--phases.shares", 1, "--budget.steps", "null", "--budget.epochs", 2),
            "give budget.steps, not budget.epochs=2",
        ),
        (("--average", 1), r"average=1.0 must be in \[0, 1\)"),
        (("--z-loss", -1), "z_loss=-1.0 must not be negative"),
        (("--masking.end-rate", 0.9), "masking.end_rate=0.9 must be above 0 and at most 0.8"),
    ],
)
def test_mistake_in_what_changes_names_the_field(prepared, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run_pretraining(read_config(prepared, tmp_path / "run", *options))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_changing_run_killed_in_every_phase_equals_uninterrupted(launch, tmp_path):
    steps, run = 200, tmp_path / "killed"  # phases of 50, 50 and 100
    options = (*CHANGING, *MUON, "--budget.steps", steps)
    reached = []
    for step in (2, 60, 120):
        process = launch(run, *options)
        wait_for(process, lambda step=step: max([0, *find_checkpoints(run)]) >= step)
        process.kill()
        assert finish(process)[0] == -signal.SIGKILL
        reached.append(max(find_checkpoints(run)))
    print(f"newest checkpoint at each kill: {reached}")
    assert reached[0] < 50 < reached[1] < 100 < reached[2]
    for path in (run, tmp_path / "whole"):
        code, _, errors = finish(launch(path, *options))
        assert code == 0, errors
    assert_same_run(tmp_path / "whole", run, steps)
