"""`train.sweep`: the space, what is drawn from it, and the examples of `configs/sweep`."""

from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
import yaml

from bertjax.commands.sweep import read_config
from bertjax.program.config_fields import flat_fields
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.sweeps.progress import SweepProgress
from bertjax.sweeps.report import rank_rows
from bertjax.sweeps.space import Recipe, count_trials, flatten, read_space, sample
from bertjax.sweeps.sweep import SweepConfig
from bertjax.sweeps.trial import make_score
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.pretrain_config import PretrainConfig

WAY = Path(__file__).resolve().parents[2]
CONFIGS = sorted((WAY / "configs" / "sweep").glob("*.yaml"))


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
        ({"run": {"choices": ["a"]}}, "run is set by the sweep: each trial has"),
        ({"seeds": {"choices": [2]}}, "seeds is set by the sweep: .* put seed into the space"),
        ({"batch_size": 3}, "batch_size: 3 is neither"),
        ({"batch_size": {"low": 1}}, "is neither"),
        ({"batch_size": {"low": 1, "high": 3, "logg": True}}, "is neither"),
        ({"batch_size": {"low": 1, "high": 3.5}}, "batch_size is a whole number, high=3.5 is not"),
        ({"batch_size": {"low": 8, "high": 8}}, "low=8 must be below high=8"),
        ({"batch_size": {"low": 0, "high": 8, "log": True}}, "needs low=0 above 0"),
        ({"batch_size": {"low": 1, "high": 8, "log": "yes"}}, "log='yes' must be true or false"),
        ({"batch_size": {"low": 1, "high": 8, "step": 9}}, r"step=9 must be in \(0, high - low"),
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
    def judged(name, values):
        lines = [{"step": step, name: value} for step, value in enumerate(values)]
        return make_score(name, "auto").judge(lines)

    assert judged("mlm_loss", [3.0, None, 2.0])["step"] == 2
    assert judged("macro_f1", [None, 0.25, 0.5])["step"] == 2
    assert judged("mcc", [None]) is None
    assert make_score("examples", "minimize").direction == "minimize"
    with pytest.raises(UserError, match="score='examples' has no known direction"):
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
    given = read_config([*words, "--fixed.packing"])
    assert given.output == "o"
    fixed = given.fixed
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


# -------------------------------------------------------------------- the examples


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
    assert f"bertjax sweep --config configs/sweep/{path.name}" in head
    assert "Hardware:" in head


def missing_paths(config_class, fixed):
    """What the user has to name on the command line."""
    names = {"data"} & dict(flat_fields(config_class)).keys()
    return dict.fromkeys(names - fixed.keys(), "somewhere")


def test_there_are_examples_of_both_programs():
    programs = {yaml.safe_load(path.read_text())["program"] for path in CONFIGS}
    assert programs == {"finetune", "pretrain"}


def test_run_is_judged_by_the_checkpoint_that_it_kept():
    values, kept = [0.5, 0.9, 0.8, 0.9], [1, 1, 1, 0]
    lines = [
        {"step": step, "accuracy": value, "kept": float(is_kept)}
        for step, (value, is_kept) in enumerate(zip(values, kept, strict=True))
    ]
    assert make_score("accuracy", "auto").judge(lines)["step"] == 2


def row_of(trial, accuracy, loss, error=None):
    return {
        "trial": trial, "state": "complete", "accuracy": accuracy, "loss": loss,
        "standard_error": error,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "order"),
    [
        ([row_of(0, 0.9, 0.5), row_of(1, 0.9, 0.3), row_of(2, 0.8, 0.1)], [1, 0, 2]),
        ([row_of(0, 0.9, 0.5, 0.05), row_of(1, 0.88, 0.3), row_of(2, 0.8, 0.1)], [1, 0, 2]),
        ([row_of(0, 0.9, None), row_of(1, 0.9, None)], [0, 1]),
        ([row_of(0, 0.9, None), row_of(1, 0.9, 0.3), {"trial": 2, "state": "failed"}], [1, 0, 2]),
        ([{"trial": 0, "state": "pruned"}], [0]),
    ],
)
def test_best_trial_is_chosen_as_a_checkpoint_is(rows, order):
    assert [row["trial"] for row in rank_rows(rows, "accuracy", "maximize")] == order
    less = [row | {"accuracy": -row["accuracy"]} if "accuracy" in row else row for row in rows]
    assert [row["trial"] for row in rank_rows(less, "accuracy", "minimize")] == order


def test_progress_shows_the_trial_that_best_yaml_is_made_of(capsys):
    study = optuna.create_study(direction="maximize")
    for value, loss in ((0.9, 0.5), (0.88, 0.3)):
        kept = {"step": 9, "loss": loss, "standard_error": 0.05}
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=kept))
    progress = SweepProgress(3, make_score("accuracy", "auto"))
    progress._said = 0
    progress.show(SimpleNamespace(trials=lambda: study.trials))
    assert "2 of 3 trials ended, 0 running; best accuracy 0.8800 (trial 1)" in (
        capsys.readouterr().err
    )
