"""Studies that commands offer, called as methods of a model."""

import collections
import json

import numpy as np
import pytest

import bertjax
from bertjax.analysis.report import pages
from bertjax.program.errors import UserError
from tests.analysis.saved import save
from tests.interop.test_hub import TINY

TEXTS = ["the dog sees a bird", ("the cat", "hears a dog"), "a bird ."]


@pytest.fixture(scope="module")
def masked():
    return bertjax.load(TINY)


@pytest.fixture
def fitted(tmp_path):
    return bertjax.load(save(tmp_path, "BertForSequenceClassification", id2label=("no", "yes")))


def record():
    """What a progress function is told: (name, total) of every stage, and what was done of it."""
    done = collections.Counter()
    return done, lambda stage, part: done.update({(stage.name, stage.total): part})


def test_report_is_written_and_its_numbers_returned(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "draw_figures", lambda data: [])
    model = bertjax.load(save(tmp_path, "BertModel"))
    done, progress = record()
    report = model.analyze(TEXTS, tmp_path / "report", shown=1, progress=progress)
    assert done == {("attention", 13): 13, ("similarity of the layers", 3): 3}
    assert report.page == tmp_path / "report" / "report.html"
    assert report.numbers == json.loads((tmp_path / "report" / "numbers.json").read_text())
    assert "block" in {figure["name"] for figure in report.numbers["headFigures"]}  # of the pair
    assert report.numbers["title"] == "model"
    assert any("measured on 3 texts" in note for note in report.notes)
    assert repr(report) == f"Report({report.page}, {len(report.notes)} note)"
    with pytest.raises(UserError, match="there is no text to measure the model on"):
        model.analyze([], tmp_path / "other")
    with pytest.raises(UserError, match=r"report\.html is a file; name a folder"):
        model.analyze(TEXTS, report.page)
    assert not (tmp_path / "other").exists()


def test_pruning_is_studied_on_rows_and_saved(fitted, tmp_path):
    rows = [{"text": "the dog", "label": "no"}, {"text": "the cat sees", "label": "yes"}]
    done, progress = record()
    study = fitted.study_pruning("2", data=rows, test=rows[:1], by="random", progress=progress)
    assert done == {("removing random heads", 5): 5}
    result = study.result
    assert (result["by"], result["removed"], result["examples"]) == ("random", 2, 1)
    assert result["chosen_on"] == result["measured_on"] == ["memory:data"]
    output = study.model.params["bert"]["encoder"]["layers"]["attention"]["output"]["kernel"]
    blank = np.argwhere((np.asarray(output) == 0).all(axis=(2, 3))).tolist()
    assert len(blank) == 2
    assert blank == [[int(k), head] for k, part in result["removed_heads"].items() for head in part]
    study.save(tmp_path / "pruned")
    assert json.loads((tmp_path / "pruned" / "pruning.json").read_text())["removed"] == 2
    assert repr(study).startswith("PruningStudy(2 of 6 heads, accuracy ")
    assert bertjax.load(tmp_path / "pruned").predict(["the dog"]) == study.model.predict(
        ["the dog"]
    )


def test_masked_lm_is_scored_as_by_the_command(masked, tmp_path, bertjax_command):
    file, texts = tmp_path / "texts.txt", ["this is a cat", "they were all of us", "it was"]
    file.write_text("\n".join(texts) + "\n")
    code, out, err = bertjax_command("evaluate", "--model", TINY, "--data", file, "--json")
    assert code == 0, err
    scores = masked.evaluate(texts)
    command = json.loads(out)
    assert scores["scores"] == command["scores"]
    assert (scores["task"], scores["fingerprint"]) == ("masked-lm", command["fingerprint"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give texts for a masked LM, or data"),
        ({"texts": TEXTS, "data": []}, "give texts for a masked LM, or data"),
        ({"texts": TEXTS}, "a BertForSequenceClassification has no masked-LM head"),
        ({"data": [{"text": "a", "label": "no"}], "by": "chance"}, "by='chance' is not one of imp"),
        ({"texts": [3]}, r"text 1: 3 \(int\) is not a text, or a pair"),
    ],
)
def test_impossible_studies_are_refused(fitted, arguments, message):
    with pytest.raises(UserError, match=message):
        fitted.study_pruning("2", **arguments)


def test_files_are_not_taken_for_texts(masked, tmp_path):
    (tmp_path / "a.txt").write_text("this is\n")
    for given in (str(tmp_path / "a.txt"), tmp_path / "a.txt", [str(tmp_path / "a.txt")]):
        with pytest.raises(UserError, match="is not a list of texts"):
            masked.evaluate(given)
