"""`train.sweep`: whole sweeps, also killed and resumed."""

import csv
import json
import subprocess
import sys

import optuna
import pytest
import yaml

from bertjax.program.errors import UserError
from tests.train.fake_sweep import WAY, read_results, steps_taken


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


@pytest.mark.whole
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


@pytest.mark.whole
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
    assert "model.num_hidden_layers=3 must be between 1 and the 2" in trials[3]["error"]
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
