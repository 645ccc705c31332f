"""What a run leaves: written whole, beside what was there before."""

import json
import math

import pytest

from bertjax.config import BertConfig
from bertjax.program.outputs import write_json
from bertjax.tasks.regression import Regression
from bertjax.tasks.results import make_model_card, write_predictions


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    write_json(tmp_path / "a.json", {"a": [math.nan, 1.5], "b": {"c": math.inf, "d": 2}})
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "a": [None, 1.5],
        "b": {"c": None, "d": 2},
    }
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("folder", [".", "new/folder"])
def test_predictions_leave_alone_what_lies_beside_them(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    task = Regression()
    for value in (1.0, 2.0):  # the second time they are replaced
        write_predictions(
            tmp_path / folder, task, task.examples_of_lines(["a"]), [{"value": value}]
        )
    table = (tmp_path / folder / "predictions.tsv").read_text()
    assert table == "index\tprediction\n0\t2.0\n"
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    names = {path.name for path in (tmp_path / folder).iterdir()} - {"thesis.tex"}
    assert names == {"predictions.jsonl", "predictions.tsv"}


def test_model_card_says_what_was_scored_and_nothing_else():
    facts = {"seed": 3, "steps": 40, "score": "pearson"}
    scores = {"pearson": 0.5, "spearman": None, "total": 7}
    config = BertConfig()
    card = make_model_card(
        config,
        Regression(),
        {**facts, "validation": scores, "test": scores},
        "seed: 3\n",
        ["d"],
        "base",
    )
    assert "`base` with bertjax, seed 3, 40 steps. The checkpoint with the best validation" in card
    assert "| test | pearson | 0.5000 |" in card
    assert "spearman" not in card
    by_loss = {**facts, "validation": scores, "kept": {"by": "loss"}}
    card = make_model_card(config, Regression(), by_loss, "seed: 3\n", ["d"], "base")
    assert "Of the checkpoints within chance of the best validation pearson that with" in card
    card = make_model_card(config, Regression(), facts, "seed: 3\n", ["d"], "base")
    assert "The last checkpoint was kept: there was no validation split." in card
    assert "best validation" not in card
    assert "scored once" not in card
