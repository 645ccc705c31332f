"""The table and the plot of the budget benchmark, from results that are there."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.bench_budget import describe, draw_curves, options_of
from benchmarks.budget.recipes import RECIPES, Ours
from bertjax.program.config_parser import parse
from bertjax.training.pretrain_config import PretrainConfig, shape_new_model

WAY = Path(__file__).parents[1]


def make_result(recipe, seed, loss):
    curve = [{"seconds": 15.0, "step": 9, "loss": 7.0}, {"seconds": 60.0, "step": 40, "loss": loss}]
    return {
        "recipe": recipe, "says": f"the {recipe}", "seed": seed, "minutes": 1.0, "steps": 40 + seed,
        "loss": loss, "accuracy": 0.25, "curve": curve,
    }  # fmt: skip


RESULTS = [
    make_result("minutes", 0, 4.0),
    make_result("torch", 0, 5.0),
    make_result("minutes", 2, 4.5),
]


def test_table_has_the_mean_and_the_ends_over_the_seeds():
    assert describe(RESULTS).splitlines()[2:] == [
        "| minutes: the minutes | 2 | 41 | 4.250 | 4.000 to 4.500 | 25.0% |",
        "| torch: the torch | 1 | 40 | 5.000 | 5.000 to 5.000 | 25.0% |",
    ]


def test_plot_has_a_line_for_each_run(tmp_path):
    draw_curves(RESULTS, tmp_path / "budget.png")
    assert (tmp_path / "budget.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [name for name, one in RECIPES.items() if isinstance(one, Ours)])
def test_recipe_is_one_that_pretraining_takes(name, monkeypatch):
    monkeypatch.chdir(WAY)
    given = Namespace(rows="rows", pairs="pairs", minutes=3.0)
    config = parse(PretrainConfig, "", options_of(RECIPES[name], given, 1, Path("run")))
    assert shape_new_model(config.model, 99, {"pad_token_id": 0}, 128).hidden_size == 256
    assert (config.budget.minutes, config.seed, config.data) == (3, 1, "rows")
    assert all(data in ("rows", "pairs") for data in config.phases.data)
