"""`train.sweep`: whole sweeps, also killed and resumed."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.sweeps.space import PROGRAMS, Program
from bertjax.sweeps.study import Lock
from bertjax.sweeps.sweep import SweepConfig, sweep
from tests.train.fake_sweep import FAKE, LAUNCH

WAY = Path(__file__).resolve().parents[2]

SPACE = {
    "optimizer.learning_rate": {"low": 1e-3, "high": 0.9, "log": True},
    "width": {"choices": [4, 5, 7]},
}


@pytest.fixture
def launch(tmp_path):
    """Starts a sweep of the fake program in `tmp_path / "sweep"`."""
    (tmp_path / "fake_program.py").write_text(FAKE)

    def start(output="sweep", space=SPACE, **fields):
        config = {"space": space, "score": "accuracy", "sampler": "random", **fields}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
        path = os.pathsep.join([str(tmp_path), str(WAY)])
        command = [sys.executable, "-c", LAUNCH, "--config", str(tmp_path / "sweep.yaml")]
        return subprocess.Popen(
            [*command, "--output", str(tmp_path / output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
            cwd=tmp_path,
        )

    return start


@pytest.fixture
def search(tmp_path, monkeypatch):
    """The same sweep in this process; its exit code."""
    (tmp_path / "fake_program.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(WAY)]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(
        PROGRAMS, "finetune", Program(["-m", "fake_program"], "fake_program", "FakeConfig")
    )
    monkeypatch.setattr("bertjax.sweeps.sweep._write_provenance", lambda *_: None)
    monkeypatch.delitem(sys.modules, "fake_program", raising=False)

    def run(output="sweep", space=SPACE, figures=False, **fields):
        if not figures:
            monkeypatch.setattr("bertjax.sweeps.report.draw_figures", lambda *_: [])
        defaults = {"score": "accuracy", "sampler": "random", "fixed": {"pause": 0.0}}
        content = {**defaults, "space": space, "output": str(tmp_path / output), **fields}
        return sweep(SweepConfig(**content))

    return run


def finish(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def wait_for(process, is_so):
    deadline = time.monotonic() + 60
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read_results(output):
    return [json.loads(line) for line in (output / "results.jsonl").read_text().splitlines()]


def steps_taken(output):
    """The steps that the program took in each trial, in order."""
    return {
        log.parent.name: [int(line) for line in log.read_text().split() if line != "start"]
        for log in sorted(output.glob("trials/*/work.log"))
    }


def comparable(rows):
    return [{name: row[name] for name in row if name != "seconds"} for row in rows]


def test_sweep_leaves_results_best_and_figures(search, tmp_path, capsys):
    assert search(figures=True, trials=5, workers=2) == 0
    output, errors = capsys.readouterr()
    rows = read_results(tmp_path / "sweep")
    assert [row["trial"] for row in rows] == list(range(5))
    assert all(row["state"] == "complete" and row["validations"] == 5 for row in rows)
    for row in rows:
        rate = row["values"]["optimizer.learning_rate"]
        assert row["accuracy"] == pytest.approx((1 - rate) * (1 - 0.5**5))
    best = max(rows, key=lambda row: row["accuracy"])
    text = (tmp_path / "sweep" / "best.yaml").read_text()
    assert text.startswith(f"# Trial {best['trial']} of 5: validation accuracy {best['accuracy']}")
    content = yaml.safe_load(text)
    assert content["optimizer"]["learning_rate"] == best["values"]["optimizer.learning_rate"]
    assert content["width"] == best["values"]["width"]
    assert "run" not in content
    with (tmp_path / "sweep" / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [int(row["width"]) for row in table] == [row["values"]["width"] for row in rows]
    for name in ("history", "importance", "parallel_coordinates"):
        assert (tmp_path / "sweep" / f"{name}.png").read_bytes()[1:4] == b"PNG"
    lines = [line.split() for line in output.strip().splitlines()]
    assert lines[0] == ["trial", "optimizer.learning_rate", "width", "accuracy", "time", "state"]
    assert lines[1][0] == str(best["trial"])
    assert "trial 0 begins: learning_rate=" in errors
    assert f"best accuracy {best['accuracy']:.4f} (trial {best['trial']})" in errors


def test_json_is_the_only_thing_on_standard_output(search, capsys):
    assert search(figures=True, trials=1, json=True, storage="sqlite") == 0
    output, errors = capsys.readouterr()
    content = json.loads(output)
    assert content["best"] == content["trials"][0]
    assert "no importance.png: it needs 2 different trials" in errors


def test_each_worker_has_its_environment(search, tmp_path):
    environments = [{"WORKER": "one"}, {"WORKER": "two"}]
    fields = {"workers": 2, "environments": environments, "fixed": {"pause": 0.1}}
    assert search(trials=2, **fields) == 0
    said = [path.read_text() for path in sorted(tmp_path.glob("sweep/trials/*.log"))]
    assert ["WORKER=one" in log for log in said] == [True, False]
    assert ["WORKER=two" in log for log in said] == [False, True]


def test_trials_of_a_sweep_that_is_one_of_several_are_alone(search, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    assert search(trials=1) == 0
    (log,) = tmp_path.glob("sweep/trials/*.log")
    assert "TASKS=\n" in log.read_text()


def test_killed_sweep_resumed_loses_and_doubles_no_trial(launch, search, tmp_path):
    kill_and_resume(launch, search, tmp_path, "journal")


@pytest.mark.slow
def test_killed_sweep_in_sqlite_resumed_loses_and_doubles_no_trial(launch, search, tmp_path):
    kill_and_resume(launch, search, tmp_path, "sqlite")


def kill_and_resume(launch, search, tmp_path, storage):
    hold, output = tmp_path / "hold", tmp_path / "sweep"
    fields = {"trials": 6, "workers": 2, "storage": storage}
    fixed = {"pause": 0.1, "steps": 6, "hold": str(hold)}
    process = launch(**fields, fixed=fixed)
    wait_for(process, lambda: len(steps_taken(output)) == 4)
    hold.touch()  # the third and the fourth wait in their middle
    wait_for(process, lambda: [len(steps) for steps in steps_taken(output).values()][2:] == [3, 3])
    process.kill()  # and what it started lives on
    finish(process)
    process = launch(**fields, fixed=fixed)
    wait_for(process, lambda: count_starts(output) == 6)
    hold.unlink()
    code, _, errors = finish(process)
    assert code == 0, errors
    assert re.findall(r"trial (\d) continues", errors) == ["2", "3"]
    assert not re.search(r"trial [01] ", errors)
    assert steps_taken(output) == {f"{number:04}": list(range(1, 7)) for number in range(6)}
    rows = read_results(output)
    assert [(row["trial"], row["state"]) for row in rows] == [(n, "complete") for n in range(6)]
    assert search("whole", **fields, fixed={**fixed, "pause": 0.0}) == 0
    assert comparable(rows) == comparable(read_results(tmp_path / "whole"))


def count_starts(output):
    return sum(log.read_text().count("start") for log in output.glob("trials/*/work.log"))


@pytest.mark.slow
def test_sweep_killed_at_ten_moments_loses_and_doubles_no_trial(launch, tmp_path):
    draw = random.Random(7)
    fields = {"trials": 12, "workers": 2, "fixed": {"pause": 0.2, "steps": 6}, "pruner": "median"}
    output = tmp_path / "sweep"
    for _ in range(10):
        process = launch(**fields)
        before = journal_size(output)
        wait_for(process, lambda before=before: journal_size(output) > before)
        time.sleep(draw.random())
        process.kill()
        finish(process)
    code, _, errors = finish(launch(**fields))
    assert code == 0, errors
    rows = read_results(output)
    assert [row["trial"] for row in rows] == list(range(12))
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    for row, steps in zip(rows, steps_taken(output).values(), strict=True):
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) == 6 or row["state"] == "pruned"


def journal_size(output):
    journal = output / "study.journal"
    return journal.stat().st_size if journal.exists() else 0


def test_sweep_killed_with_its_trials_goes_on_from_their_checkpoints(launch, search, tmp_path):
    fields = {"trials": 3, "workers": 2, "fixed": {"pause": 0.2, "steps": 6}}
    output = tmp_path / "sweep"
    process = launch(**fields)
    wait_for(process, lambda: sum(map(len, steps_taken(output).values())) >= 7)
    for number in (0, 1):
        pid = (output / "locks" / f"{number:04}.process").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)
    process.kill()
    finish(process)
    assert search(**fields) == 0
    assert [row["state"] for row in read_results(output)] == ["complete"] * 3
    for steps in steps_taken(output).values():
        assert sorted(set(steps)) == list(range(1, 7))
        assert len(steps) <= 7  # the step that the kill hit may have been taken again


def test_two_sweeps_at_once_share_the_trials(launch, tmp_path):
    both = [launch(trials=7, workers=2, fixed={"pause": 0.3}) for _ in range(2)]
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    begun = [re.findall(r"trial (\d+) begins", errors) for _, _, errors in results]
    assert sorted(map(int, begun[0] + begun[1])) == list(range(7))
    assert all(begun)
    taken = steps_taken(tmp_path / "sweep")
    assert taken == {f"{number:04}": list(range(1, 6)) for number in range(7)}


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signal_stops_the_trials_and_the_same_command_goes_on(launch, search, tmp_path, number):
    fields = {"trials": 2, "workers": 2, "fixed": {"pause": 0.15, "steps": 8}}
    output = tmp_path / "sweep"
    process = launch(**fields)
    wait_for(process, lambda: len(steps_taken(output)) == 2)
    process.send_signal(number)
    code, _, errors = finish(process)
    assert code == STOPPED_EXIT_CODE, errors
    assert f"{number.name}: stopped; the same command goes on from there" in errors
    assert {row["state"] for row in read_results(output)} == {"unfinished"}
    for n in range(2):  # nothing runs any more
        lock = Lock(output / "locks" / f"{n:04}.program")
        assert lock.take()
        lock.release()
    assert search(**fields) == 0
    assert steps_taken(output) == {f"{n:04}": list(range(1, 9)) for n in range(2)}


def test_finished_sweep_started_again_runs_nothing_and_more_trials_are_added(
    search, tmp_path, capsys
):
    assert search(trials=2) == 0
    before = steps_taken(tmp_path / "sweep")
    capsys.readouterr()
    assert search(trials=2) == 0
    assert "begins" not in capsys.readouterr().err
    assert steps_taken(tmp_path / "sweep") == before
    assert search(trials=3) == 0
    assert [row["trial"] for row in read_results(tmp_path / "sweep")] == [0, 1, 2]


def test_bad_trial_is_given_up_after_few_validations(search, tmp_path, capsys):
    # In this order with this seed: the first is the one to beat.
    space = {"optimizer.learning_rate": {"choices": [0.1, 0.2, 0.8, 0.9]}}
    fields = {"space": space, "sampler": "grid", "pruner": "median", "seed": 5}
    assert search(fixed={"pause": 0.2, "steps": 8}, **fields) == 0
    output, errors = capsys.readouterr()
    rows = read_results(tmp_path / "sweep")
    assert [row["values"]["optimizer.learning_rate"] for row in rows] == [0.1, 0.2, 0.8, 0.9]
    assert [row["state"] for row in rows] == ["complete", "pruned", "pruned", "pruned"]
    for row in rows[1:]:
        assert 1 <= row["validations"] < 8
        assert f"pruned after {row['validations']}" in output
        assert f"trial {row['trial']} pruned" in errors


def test_failed_trial_is_told_with_its_message_and_the_sweep_goes_on(search, tmp_path, capsys):
    assert search(space={"width": {"choices": [4, 5, 6, 7]}}, sampler="grid") == 0
    rows = {row["values"]["width"]: row for row in read_results(tmp_path / "sweep")}
    states = [rows[width]["state"] for width in (4, 5, 6, 7)]
    assert states == ["complete", "complete", "failed", "complete"]
    assert rows[6]["error"] == "--run RUN: width must not be a multiple of 3"
    assert "failed: --run RUN: width must not be" in capsys.readouterr().out


def test_values_that_do_not_go_together_fail_their_trial_alone(search, tmp_path):
    space = {"steps": {"choices": [1, 2]}, "most": {"choices": [1, 2]}}
    assert search(space=space, sampler="grid") == 0
    errors = {row["error"] for row in read_results(tmp_path / "sweep")}
    assert errors == {None, "steps=2 is more than most=1"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"space": {"width": {"choices": [3, 6, 9, 12, 15]}}},
            "^3 trials in a row failed with: --run RUN: width must not be a multiple of 3$",
        ),
        (
            {"fixed": {"crash": True}},
            "ended by SIGKILL, which the system sends when memory runs out",
        ),
        ({"score": "acuracy", "direction": "maximize"}, "did you mean 'accuracy'"),
        ({"fixed": {"steps": 0}}, "the run has no validation"),
    ],
)
def test_three_failures_in_a_row_with_the_same_message_stop_the_sweep(
    search, tmp_path, capsys, fields, message
):
    with pytest.raises(UserError, match=message):
        search(**{"trials": 5} | fields)
    assert [row["state"] for row in read_results(tmp_path / "sweep")] == ["failed"] * 3
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space": {"optimizer.learning_rat": {"choices": [1]}}}, "did you mean 'optimizer.learn"),
        ({"fixed": {"stepps": 1}}, "fixed: unknown field stepps; did you mean 'steps'"),
        ({"score": "examples"}, "give --direction"),
        ({"sampler": "grid"}, "a grid needs its step or choices"),
    ],
)
def test_mistake_is_told_before_anything_is_written(search, tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        search(**{"trials": 3} | fields)
    assert not (tmp_path / "sweep").exists()


def test_directory_of_something_else_is_refused(search, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something that is not a sweep"):
        search(trials=1)


def test_one_failure_after_all_is_no_best(search):
    with pytest.raises(UserError, match="none of the 1 trials ended with a score"):
        search(trials=1, space={"width": {"choices": [3]}})


@pytest.mark.slow
def test_best_of_real_trials_is_what_the_program_makes_of_best_yaml(shared_data, tmp_path):
    lines = (shared_data / "classification" / "sms_spam.tsv").read_text(encoding="utf-8")
    (tmp_path / "sms.tsv").write_text("\n".join(lines.splitlines()[:400]), encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(REAL), encoding="utf-8")
    output, init = tmp_path / "sweep", shared_data / "weights" / "bert_tiny_mlm"
    options = ["--config", str(tmp_path / "sweep.yaml"), "--output", str(output)]
    options += ["--fixed.data.train", str(tmp_path / "sms.tsv"), "--fixed.model.init", str(init)]
    command = [sys.executable, "-m", "train.sweep", *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=WAY, timeout=500)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    trials = {trial["values"]["model.num_hidden_layers"]: trial for trial in told["trials"]}
    assert [trials[layers]["state"] for layers in (1, 2, 3)] == ["complete", "complete", "failed"]
    assert "model.num_hidden_layers=3 must lie between 1 and the 2" in trials[3]["error"]
    about = json.loads((output / "run.json").read_text())
    assert about["packages"]["optuna"] == optuna.__version__
    assert about["packages"]["jax"]
    command = [sys.executable, "-m", "train.finetune", "--config", str(output / "best.yaml")]
    command += ["--run", str(tmp_path / "again")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=WAY, timeout=300)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "again" / "eval_results.json").read_text())
    assert results["validation"]["roc_auc"] == pytest.approx(told["best"]["roc_auc"], abs=1e-9)
    trained = (tmp_path / "again" / "model" / "model.safetensors").read_bytes()
    trial = output / "trials" / f"{told['best']['trial']:04}"
    assert (trial / "model" / "model.safetensors").read_bytes() == trained


REAL = {
    "fixed": {
        "data.columns": ["label", "text"],
        "max_length": 32,
        "budget.steps": 6,
        "budget.epochs": None,
        "scoring.every_epochs": 0.1,
    },
    "space": {"model.num_hidden_layers": {"choices": [1, 2, 3]}},
    "score": "roc_auc",
    "sampler": "grid",
}
