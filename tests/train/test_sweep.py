"""`train.sweep`: the space, what is drawn from it, and sweeps that are killed and resumed."""

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

from bertjax.errors import UserError
from bertjax.training.signals import STOPPED_EXIT_CODE
from train.command_line import flat_fields, parse
from train.finetune import FinetuneConfig
from train.pretrain import PretrainConfig
from train.sweep import SweepConfig, _split_fixed, sweep
from train.sweep_space import PROGRAMS, Program, Recipe, count_trials, flatten, read_space, sample
from train.sweep_study import Lock, Study, make_pruner
from train.sweep_trial import make_score

WAY = Path(__file__).resolve().parents[2]

# A program with the manners of train.finetune: run directory, metrics.jsonl, SIGTERM, exit codes.
# work.log has a line for each step it takes, so that one taken twice shows.
FAKE = '''
import dataclasses, json, os, signal, sys, time
from pathlib import Path

@dataclasses.dataclass(frozen=True)
class Optimizer:
    """O.

    Attributes:
        learning_rate: l
    """
    learning_rate: float = 0.1

@dataclasses.dataclass(frozen=True)
class FakeConfig:
    """F.

    Attributes:
        run: r
        width: w
        steps: s
        pause: p
        crash: c
        most: m
        hold: h
    """
    run: str = ""
    width: int = 4
    steps: int = 5
    pause: float = 0.05
    crash: bool = False
    most: int = 99
    hold: str = ""
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)

    def __post_init__(self):
        if self.steps > self.most:
            from bertjax.errors import UserError
            raise UserError(f"steps={self.steps} is more than most={self.most}")

def main():
    import yaml
    config = yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
    run = Path(sys.argv[sys.argv.index("--run") + 1])
    if config["width"] % 3 == 0:
        print(f"error: --run {run}: width must not be a multiple of 3", file=sys.stderr)
        sys.exit(2)
    if config["crash"]:
        os.kill(os.getpid(), signal.SIGKILL)
    print("WORKER=" + os.environ.get("WORKER", ""))
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    saved = run / "checkpoints" / "step"
    step = int(saved.read_text()) if saved.exists() else 0
    with (run / "work.log").open("a") as log, (run / "metrics.jsonl").open("a") as metrics:
        log.write("start\\n")
        log.flush()
        while step < config["steps"] and not stop:
            time.sleep(config["pause"])
            if step == 3 and config["hold"] and Path(config["hold"]).exists():
                continue
            step += 1
            log.write(f"{step}\\n")
            log.flush()
            accuracy = (1 - config["optimizer"]["learning_rate"]) * (1 - 0.5**step)
            line = {"step": step, "split": "validation", "loss": 1 - accuracy, "accuracy": accuracy}
            metrics.write(json.dumps(line) + "\\n")
            metrics.flush()
            aside = run / "step.partial"
            aside.write_text(str(step))
            os.replace(aside, saved)
    sys.exit(75 if step < config["steps"] else 0)

if __name__ == "__main__":
    main()
'''

# The sweep of that program; what the machine is, is not asked, and figures take seconds.
LAUNCH = """
import train.sweep, train.sweep_report, train.sweep_space
from bertjax.errors import program
train.sweep_space.PROGRAMS["finetune"] = train.sweep_space.Program("fake_program", "FakeConfig")
train.sweep._write_provenance = lambda *_: None
train.sweep_report.draw_figures = lambda *_: []
program(train.sweep.main)()
"""

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
    monkeypatch.setitem(PROGRAMS, "finetune", Program("fake_program", "FakeConfig"))
    monkeypatch.setattr("train.sweep._write_provenance", lambda *_: None)
    monkeypatch.delitem(sys.modules, "fake_program", raising=False)

    def run(output="sweep", space=SPACE, figures=False, **fields):
        if not figures:
            monkeypatch.setattr("train.sweep_report.draw_figures", lambda *_: [])
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


# -------------------------------------------------------------------- space and values


def test_space_takes_ranges_and_choices_of_either_program():
    space = read_space(
        {
            "optimizer": {"learning_rate": {"low": "1e-5", "high": 1e-3, "log": True}},
            "model.num_hidden_layers": {"low": 2, "high": 6},
            "batch_size": {"choices": [16, 32]},
            "model.hidden_dropout_prob": {"low": 0, "high": 0.3, "step": 0.1},
        },
        FinetuneConfig,
    )
    assert space == {
        "optimizer.learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "model.num_hidden_layers": optuna.distributions.IntDistribution(2, 6),
        "batch_size": optuna.distributions.CategoricalDistribution([16, 32]),
        "model.hidden_dropout_prob": optuna.distributions.FloatDistribution(0, 0.3, step=0.1),
    }


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space is empty"),
        ({"optimizer.learning_rat": {"choices": [1]}}, "did you mean 'optimizer.learning_rate'"),
        ({"optimizer": {"learning_rat": {"choices": [1]}}}, "did you mean 'optimizer.learning_ra"),
        ({"optimizer": {"choices": [1]}}, "unknown field optimizer.choices"),
        ({"run": {"choices": ["a"]}}, "run is the sweep's own: each trial has"),
        ({"seeds": {"choices": [2]}}, "seeds is the sweep's own: .* put seed into the space"),
        ({"batch_size": 3}, "batch_size: 3 is neither"),
        ({"batch_size": {"low": 1}}, "is neither"),
        ({"batch_size": {"low": 1, "high": 3, "logg": True}}, "is neither"),
        ({"batch_size": {"low": 1, "high": 3.5}}, "batch_size is a whole number, high=3.5 is not"),
        ({"batch_size": {"low": 8, "high": 8}}, "low=8 must be below high=8"),
        ({"batch_size": {"low": 0, "high": 8, "log": True}}, "needs low=0 above 0"),
        ({"batch_size": {"low": 1, "high": 8, "log": "yes"}}, "log='yes' must be true or false"),
        ({"batch_size": {"low": 1, "high": 8, "step": 9}}, r"step=9 must lie in \(0, high - low"),
        ({"batch_size": {"low": 1, "high": 8, "step": 3}}, "do not end at high=8"),
        ({"batch_size": {"low": "few", "high": 8}}, "low='few' is not a number"),
        ({"dtype": {"low": 1, "high": 2}}, "dtype is not a number; give it choices"),
        ({"packing": {"low": 0, "high": 1}}, "packing is not a number; give it choices"),
        ({"batch_size": {"choices": []}}, "must be a list of numbers"),
        ({"batch_size": {"choices": [[1], 2]}}, "must be a list of numbers"),
        ({"batch_size": {"choices": [8, 8]}}, "has a value twice"),
    ],
)
def test_mistake_in_the_space_names_field_and_rule(space, message):
    with pytest.raises(UserError, match=message):
        read_space(space, FinetuneConfig)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"batch_size": {"choices": [8, "many"]}}, "space: batch_size=many must be a whole number"),
        ({"dtype": {"choices": ["float32", "float8"]}}, "space: dtype=float8 must be one of"),
        ({"packing": {"choices": [True, 2]}}, "space: packing=2 must be true or false"),
        ({"optimizer.learning_rate": {"low": -1, "high": 1}}, "learning_rate=-1.* must be above 0"),
        ({"batch_size": {"choices": [8, 9]}}, "batch_size=9 must be a multiple of accumulation=4"),
        ({"budget.steps": {"low": 3, "high": 5}}, "exactly one of budget.steps"),
    ],
)
def test_values_are_checked_before_any_trial(space, message):
    recipe = Recipe(PretrainConfig, None, {"data": "d", "accumulation": 4, "budget.epochs": 1.0})
    distributions = read_space(space, PretrainConfig if "packing" not in space else FinetuneConfig)
    if "packing" in space:
        recipe = Recipe(FinetuneConfig, None, {})
    with pytest.raises(UserError, match=message):
        recipe.check(distributions)


def test_values_that_only_clash_with_others_of_the_space_are_left_to_their_trial():
    recipe = Recipe(PretrainConfig, None, {"data": "d", "budget.epochs": 1.0})
    space = {"batch_size": {"choices": [6, 8]}, "accumulation": {"choices": [3, 4]}}
    recipe.check(read_space(space, PretrainConfig))
    assert recipe.resolve({"batch_size": 8, "accumulation": 4}, "r").batch_size == 8
    with pytest.raises(UserError, match="must be a multiple"):
        recipe.resolve({"batch_size": 8, "accumulation": 3}, "r")


def test_base_fixed_and_values_win_in_that_order(tmp_path):
    base = tmp_path / "base.yaml"
    base.write_text("batch_size: 7\nmax_length: 77\noptimizer: {weight_decay: 0.5, beta1: 0.7}\n")
    fixed = flatten({"optimizer": {"beta1": 0.8}, "max_length": 88}, FinetuneConfig, "fixed")
    values = {"max_length": 99, "model.init": "null-model"}
    text = Recipe(FinetuneConfig, str(base), fixed).to_yaml(values)
    (tmp_path / "best.yaml").write_text(text)
    words = ["--config", str(tmp_path / "best.yaml"), "--run", "r"]
    config = parse(FinetuneConfig, "", words)
    assert (config.batch_size, config.max_length, config.model.init) == (7, 99, "null-model")
    assert (config.optimizer.weight_decay, config.optimizer.beta1) == (0.5, 0.8)
    assert "run" not in yaml.safe_load(text)


def test_finetuning_keeps_the_model_of_the_best_score():
    recipe, space = Recipe(FinetuneConfig, None, {}), {}
    assert recipe.for_score("mcc", "maximize", space).fixed == {"scoring.score": "mcc"}
    assert recipe.for_score("loss", "minimize", space).fixed == {"scoring.score": "loss"}
    assert recipe.for_score("loss", "maximize", space).fixed == {}
    assert Recipe(PretrainConfig, None, {}).for_score("mlm_accuracy", "maximize", {}).fixed == {}
    chosen = Recipe(FinetuneConfig, None, {"scoring.score": "f1"})
    assert chosen.for_score("mcc", "maximize", space).fixed == {"scoring.score": "f1"}


def test_score_knows_its_better_side_or_asks():
    assert make_score("mlm_loss", "auto").best([3.0, float("nan"), 2.0]) == 2.0
    assert make_score("macro_f1", "auto").best([float("nan"), 0.25, 0.5]) == 0.5
    assert make_score("mcc", "auto").best([float("nan")]) is None
    assert make_score("examples", "minimize").direction == "minimize"
    with pytest.raises(UserError, match="score='examples' is not one whose better side is known"):
        make_score("examples", "auto")


def finished(values, score, space):
    return optuna.trial.create_trial(params=values, distributions=space, value=score)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_drawn_is_a_function_of_seed_and_trials_so_far(sampler):
    space = read_space({"batch_size": {"low": 1, "high": 10**6}}, FinetuneConfig)
    so_far = []
    for number in range(9):
        values = sample(space, sampler, 3, so_far, "minimize", 9)
        assert values == sample(space, sampler, 3, so_far, "minimize", 9)
        assert values != sample(space, sampler, 4, so_far, "minimize", 9)
        so_far.append(finished(values, float(number), space))
    assert len({trial.params["batch_size"] for trial in so_far}) == 9


def test_tpe_learns_where_the_good_values_are():
    space = read_space({"optimizer.learning_rate": {"low": 0.1, "high": 1}}, FinetuneConfig)
    so_far = []
    for _ in range(30):
        values = sample(space, "tpe", 1, so_far, "minimize", 30)
        distance = abs(values["optimizer.learning_rate"] - 0.3)
        so_far.append(finished(values, distance, space))
    distances = [trial.value for trial in so_far]
    assert sum(distances[20:]) < 0.5 * sum(distances[:10])


def test_grid_has_every_combination_once():
    given = {"batch_size": {"low": 2, "high": 6, "step": 2}, "packing": {"choices": [True, False]}}
    space = read_space(given, FinetuneConfig)
    assert count_trials("grid", space, None) == 6
    assert count_trials("grid", space, 99) == 6
    so_far = []
    for _ in range(6):
        values = sample(space, "grid", 0, so_far, "minimize", 6)
        so_far.append(finished(values, 1.0, space))
    drawn = {(trial.params["batch_size"], trial.params["packing"]) for trial in so_far}
    assert drawn == {(size, packing) for size in (2, 4, 6) for packing in (True, False)}


def test_grid_of_floats_needs_a_step_and_others_a_number_of_trials():
    space = read_space({"optimizer.beta1": {"low": 0.1, "high": 0.9}}, FinetuneConfig)
    with pytest.raises(UserError, match="a grid needs its step or choices"):
        count_trials("grid", space, 3)
    with pytest.raises(UserError, match="--trials N is missing"):
        count_trials("tpe", space, None)


def test_field_for_all_trials_is_an_option_of_its_own():
    words = ["--fixed.data.train", "a.tsv", "b.tsv", "--output", "o", "--fixed.max-length=9"]
    rest, fixed = _split_fixed([*words, "--fixed.packing"])
    assert rest == ["--output", "o"]
    assert fixed == {"data.train": ["a.tsv", "b.tsv"], "max_length": "9", "packing": "true"}
    nested = {"max_length": 8, "data": {"train": ["c.tsv"], "columns": ["label", "text"]}}
    flat = flatten({**nested, **fixed}, FinetuneConfig, "fixed")
    config = Recipe(FinetuneConfig, None, flat).resolve({}, "run")
    assert (config.max_length, config.packing) == (9, True)
    assert (config.data.train, config.data.columns) == (["a.tsv", "b.tsv"], ["label", "text"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--output DIR is missing"),
        (("--output", "o", "--base", "nowhere.yaml"), "base=nowhere.yaml: no such file"),
        (("--output", "o", "--workers", "0"), "workers=0 must be at least 1"),
        (("--output", "o", "--trials", "0"), "trials=0 must be at least 1"),
        (("--output", "o", "--environments", '[{"A": "1"}, {}]'), "2 entries for workers=1"),
        (("--output", "o", "--sampler", "gird"), "sampler.*gird.* grid"),
    ],
)
def test_mistake_in_the_options_names_field_and_rule(options, message):
    with pytest.raises(UserError, match=message):
        parse(SweepConfig, "", options)


# -------------------------------------------------------------------- the study


def open_study(directory, **identity):
    return Study(directory, "journal", "maximize", make_pruner("none", 3), identity)


def claim(study, limit=3):
    return study.claim(read_space(SPACE_OF_FINETUNE, FinetuneConfig), "random", 0, limit)


SPACE_OF_FINETUNE = {"batch_size": {"low": 1, "high": 10**6}}


def test_claims_never_overshoot_and_never_share_a_trial(tmp_path):
    one, other = open_study(tmp_path), open_study(tmp_path)
    claims = [claim(study) for study in (one, other, one, other)]
    assert [had and had.trial.number for had in claims] == [0, 1, 2, None]
    claims[1].owner.release()  # as the system does when its process dies
    again = claim(one)
    assert (again.trial.number, again.values) == (1, claims[1].values)
    assert again.continued
    assert claim(other) is None


def test_trial_left_half_entered_gets_the_values_it_was_given(tmp_path):
    whole = open_study(tmp_path)
    expected = [claim(whole).values, claim(whole).values]
    (tmp_path / "killed").mkdir()
    killed = open_study(tmp_path / "killed")
    space = read_space(SPACE_OF_FINETUNE, FinetuneConfig)
    for number in range(2):
        values = sample(space, "random", 0, killed.trials(), "maximize", 3)
        killed.optuna.enqueue_trial(values)
        if number == 0:
            killed.optuna.ask()  # it runs, and no value is noted yet
    assert [claim(killed).values, claim(killed).values] == expected
    assert [trial.params for trial in killed.trials()] == expected


def test_torn_last_line_of_the_journal_is_cut(tmp_path):
    study = open_study(tmp_path)
    claim(study).owner.release()
    with (tmp_path / "study.journal").open("a") as journal:
        journal.write('{"op_code":4,"work')
    again = open_study(tmp_path)
    assert claim(again).trial.number == 0
    assert [trial.number for trial in open_study(tmp_path).trials()] == [0]


def test_sweep_with_other_settings_is_refused(tmp_path):
    open_study(tmp_path, seed=0)
    with pytest.raises(UserError, match=r"begun with other settings \(seed: 0 then, 1 now\)"):
        open_study(tmp_path, seed=1)
    with pytest.raises(UserError, match=r"its study is in study\.journal; give --storage journal"):
        Study(tmp_path, "sqlite", "maximize", make_pruner("none", 3), {})


def test_lock_is_held_until_its_last_holder_is_gone(tmp_path):
    lock = Lock(tmp_path / "lock")
    assert lock.take()
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lock.descriptor])
    lock.release()
    other = Lock(tmp_path / "lock")
    assert not other.take()
    child.kill()
    child.wait()
    assert other.take()


# -------------------------------------------------------------------- whole sweeps


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
    assert re.findall(r"trial (\d) goes on", errors) == ["2", "3"]
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
        assert f"trial {row['trial']} given up" in errors


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
        ({"fixed": {"crash": True}}, "ended by SIGKILL, as the system does when memory runs out"),
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
    with pytest.raises(UserError, match="none of the 1 trials came to its end with a score"):
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


# -------------------------------------------------------------------- the examples


CONFIGS = sorted((WAY / "configs" / "sweep").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_example_is_read_and_its_space_fits_its_program(path):
    config = parse(SweepConfig, "", ["--config", str(path), "--output", "o"])
    config_class = {"finetune": FinetuneConfig, "pretrain": PretrainConfig}[config.program]
    fixed = flatten(config.fixed, config_class, "fixed")
    base = str(WAY / config.base) if config.base else None
    space = read_space(config.space, config_class)
    recipe = Recipe(config_class, base, fixed | missing_paths(config_class, fixed))
    recipe.check(space)
    assert count_trials(config.sampler, space, config.trials) > 1
    make_score(config.score, config.direction)
    head = path.read_text().split("\nprogram:")[0]
    assert f"python -m train.sweep --config configs/sweep/{path.name}" in head
    assert "Hardware:" in head


def missing_paths(config_class, fixed):
    """What the user has to name on the command line."""
    names = {"data"} & dict(flat_fields(config_class)).keys()
    return dict.fromkeys(names - fixed.keys(), "somewhere")


def test_there_are_examples_of_both_programs():
    programs = {yaml.safe_load(path.read_text())["program"] for path in CONFIGS}
    assert programs == {"finetune", "pretrain"}
