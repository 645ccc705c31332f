"""A fine-tuning run as a user sees it: it resumes to the bit, leaves what it says, and is used."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from bertjax.cli import COMMANDS
from bertjax.commands import compare, evaluate, predict
from bertjax.families.registry import load_config
from bertjax.interop.huggingface import (
    inspect_model_directory,
    load_model_directory,
    save_model_directory,
)
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import recall, remember
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.budget import BudgetConfig
from bertjax.training.finetune_config import ScoringConfig
from bertjax.training.signals import StopRequest
from bertjax.training.starting_model import FinetunedModelConfig
from tests.parity.random_models import draw_parameters
from tests.train.finetune_runs import TINY, WORDS, make_config, run, write_classes

pytestmark = pytest.mark.usefixtures("known_rate")
LOOKS_AT_PICTURES = True


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pretrained, known_rate):
    """A finished classification run."""
    folder = tmp_path_factory.mktemp("finetune")
    config = make_config(folder, pretrained, budget=BudgetConfig(epochs=6.0))
    data = dataclasses.replace(config.data, quoting="none")
    config = dataclasses.replace(config, data=data)
    assert run(config) == 0
    return config, Path(config.run)


def test_run_learns_and_leaves_what_it_says(finished):
    _, folder = finished
    results = json.loads((folder / "eval_results.json").read_text())
    assert json.loads((folder / "run.json").read_text())["score"] == "accuracy"
    assert results["test"]["accuracy"] == 1.0
    assert results["test"]["confusion_matrix"][0][1] == 0
    assert results["compilations_after_first_epoch"] == 0
    for name in ("curves.png", "confusion_matrix.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    card = (folder / "model" / "README.md").read_text()
    assert "| test | accuracy | 1.0000 |" in card
    assert "classes.tsv" in card
    lines = (folder / "predictions" / "predictions.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert {line.split("\t")[1] for line in lines[1:]} == {"cat", "dog"}
    contents = inspect_model_directory(folder / "model")
    assert contents.architecture == "BertForSequenceClassification"
    assert contents.config.id2label == ("cat", "dog")
    assert recall(folder / "model") == {"quoting": "none"}


def test_files_of_a_model_are_read_as_it_was_fitted_and_predictions_have_their_columns(
    finished, bertjax_command, tmp_path
):
    _, folder = finished
    shutil.copytree(folder / "model", tmp_path / "model")
    remember(tmp_path / "model", DataConfig(text_column="body", label_column="kind", format="csv"))
    path = tmp_path / "new.data"
    path.write_text("id,body,kind,label\n7,this is on,dog,?\n8,at his,cat,!\n")
    arguments = ("--model", tmp_path / "model")
    code, out, err = bertjax_command("predict", *arguments, "--input", path)
    assert code == 0, err
    assert "was fitted (bertjax_data.json): text_column=body, label_column=kind, format=csv" in err
    assert "the input's column 'label' is renamed 'input_label'" in err
    first, second = (json.loads(line) for line in out.splitlines())
    assert list(first.items())[:4] == [
        ("id", "7"), ("body", "this is on"), ("kind", "dog"), ("input_label", "?"),
    ]  # fmt: skip
    assert (first["label"], second["label"]) == ("dog", "cat")
    for name in ("a.csv", "a.tsv", "a.parquet"):
        output = tmp_path / name
        code, _, err = bertjax_command("predict", *arguments, "--input", path, "--output", output)
        assert (code, output.is_file()) == (0, True), err
    assert (
        (tmp_path / "a.csv").read_text().startswith("id,body,kind,input_label,label,probability,")
    )
    data = ("evaluate", *arguments, "--data", path, "--resamples", 0, "--json")
    code, out, err = bertjax_command(*data)
    assert json.loads(out)["examples"] == 2
    assert "2 classes (examples): dog 1; cat 1" in err
    code, _, err = bertjax_command(*data, "--text-column", "txt", "--label-column", "x")
    assert code == 2
    assert (
        "no column 'txt' and no column 'x'; there are: 'id', 'body', 'kind', 'label' (choose"
        in (err)
    )
    code, _, err = bertjax_command("predict", *arguments, "--output", tmp_path / "a.xls")
    assert (code, "Name one that ends in .jsonl, .csv, .tsv, .parquet" in err) == (2, True)


def test_kept_checkpoint_is_the_same_everywhere(finished, bertjax_command):
    """In the log, the results, the checkpoints, the model, and in what `info` says of the run."""
    _, folder = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    kept = [line for line in lines if line.get("kept")][-1]
    results = json.loads((folder / "eval_results.json").read_text())
    assert results["kept"]["step"] == kept["step"]
    assert results["kept"]["evaluations"] == len(
        [line for line in lines if line["split"] == "validation"]
    )
    assert results["validation"]["loss"] == pytest.approx(kept["loss"], rel=1e-5)
    assert (folder / "checkpoints" / str(kept["step"])).is_dir()
    _, out, _ = bertjax_command("info", folder, "--json")
    best = json.loads(out)["best_validation"]
    assert (best["step"], best["loss"]) == (kept["step"], kept["loss"])
    # Its accuracy of 1 came first with a higher loss: the last of the equal ones is kept.
    perfect = [line for line in lines if line["split"] == "validation" and line["accuracy"] == 1]
    assert len(perfect) > 1
    assert kept["loss"] == min(line["loss"] for line in perfect)
    assert kept["step"] > perfect[0]["step"]


def test_finished_run_is_left_alone(finished, capsys):
    config, folder = finished
    before = (folder / "eval_results.json").read_bytes()
    assert run(dataclasses.replace(config, json=True)) == 0
    out, err = capsys.readouterr()
    assert f"is finished: {json.loads(before)['steps']} steps" in err
    assert "budget" not in err
    assert run(dataclasses.replace(config, budget=BudgetConfig(epochs=9.0))) == 0
    said = "Its budget was budget.epochs=6.0; it has scored its best model, which is done once"
    assert said in capsys.readouterr().err
    assert json.loads(out) == json.loads(before)
    assert (folder / "eval_results.json").read_bytes() == before


def test_model_is_used_by_the_commands(finished, bertjax_command, tmp_path, monkeypatch):
    config, folder = finished
    model = str(folder / "model")
    code, out, _ = bertjax_command("predict", "--model", model, "--input", config.data.train[0])
    predictions = [json.loads(line) for line in out.splitlines()]
    assert (code, len(predictions)) == (0, 96)
    assert predictions[0]["label"] == "dog"
    assert sum(predictions[0]["probabilities"].values()) == pytest.approx(1)

    output = tmp_path / "a.json"
    code, out, _ = bertjax_command(
        "evaluate", "--model", model, "--data", config.data.train[0], "--resamples", "20",
        "--output", output, "--json",
    )  # fmt: skip
    result = json.loads(out)
    assert code == 0
    assert result["scores"]["accuracy"] > 0.9
    low, high = result["intervals"]["accuracy"]
    assert low <= result["scores"]["accuracy"] <= high
    assert sum(part["examples"] for name, part in result["slices"].items() if "label" in name) == 96

    worse = json.loads(output.read_text())
    worse["outcomes"] = [0.0] * 60 + worse["outcomes"][60:]
    (tmp_path / "b.json").write_text(json.dumps(worse))
    _, out, _ = bertjax_command("compare", output, tmp_path / "b.json", "--json")
    assert json.loads(out)["verdict"] == "worse"


def test_predict_tells_of_empty_lines_and_writes_where_it_stands(
    finished, bertjax_command, tmp_path, monkeypatch
):
    model = str((finished[1] / "model").absolute())
    monkeypatch.chdir(tmp_path)
    for output in (".", "folder/new"):
        arguments = ("predict", "--model", model, "--output", output)
        code, _, err = bertjax_command(*arguments, stdin=b"this is\n\n \non his\n")
        assert (code, "2 of 4 lines are empty and are passed over" in err) == (0, True)
        lines = (tmp_path / output / "predictions.jsonl").read_text().splitlines()
        assert len(lines) == 2
    assert "empty" not in bertjax_command("predict", "--model", model, stdin=b"this is\n")[2]


def test_tokenizer_of_fewer_tokens_is_told_of_by_every_command(finished, bertjax_command, tmp_path):
    config, folder = finished
    shutil.copytree(folder / "model", tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (tmp_path / "model" / name).unlink()
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    Tokenizer(build_wordpiece(tokens, True, None)).save(tmp_path / "model")
    note = f"has {len(tokens)} tokens, the model embeddings for 99"
    arguments = ("--model", tmp_path / "model")
    data = ("--data", config.data.train[0], "--resamples", 0)
    assert note in bertjax_command("predict", *arguments, stdin=b"this is\n")[2]
    assert note in bertjax_command("evaluate", *arguments, *data)[2]


def test_watching_scores_every_checkpoint_once(finished, bertjax_command):
    config, folder = finished
    arguments = ("evaluate", "--watch", folder, "--data", config.data.train[0], "--json")
    code, out, _ = bertjax_command(*arguments)
    lines = [json.loads(line) for line in out.splitlines()]
    steps = sorted(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert code == 0
    assert [line["step"] for line in lines] == steps
    assert lines[-1]["accuracy"] > 0.9
    assert (folder / "watch.png").read_bytes().startswith(b"\x89PNG")
    assert bertjax_command(*arguments)[1] == ""
    for wrong, message in (
        (("--data", "x"), "watch.jsonl: has the scores on "),
        (("--output", "a.json"), "--output is for --model"),
    ):
        code, _, err = bertjax_command(*arguments, *wrong)
        assert (code, message in err) == (2, True)
    assert bertjax_command("evaluate", "--data", config.data.train[0])[0] == 2
    code, _, err = bertjax_command("evaluate", "--watch", folder.parent, "--data", "x")
    assert (code, "no run directory" in err) == (2, True)


def test_stopped_run_resumed_equals_uninterrupted(finished, tmp_path, monkeypatch):
    whole, _ = finished
    parts = dataclasses.replace(whole, run=str(tmp_path / "parts"))

    class StopsSoon(StopRequest):
        """A SIGTERM after seven looks."""

        looks = 0

        @property
        def name(self):
            StopsSoon.looks += 1
            return "SIGTERM" if StopsSoon.looks > 7 else None

        @name.setter
        def name(self, value):
            pass

    monkeypatch.setattr("bertjax.training.session.StopRequest", StopsSoon)
    assert run(parts) == STOPPED_EXIT_CODE
    assert not (Path(parts.run) / "eval_results.json").exists()
    monkeypatch.undo()
    assert run(parts) == 0
    one, other = (load_model_directory(Path(c.run) / "model").params for c in (whole, parts))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    metrics = [
        [
            {name: value for name, value in json.loads(line).items() if name != "timing"}
            for line in (Path(config.run) / "metrics.jsonl").read_text().splitlines()
        ]
        for config in (whole, parts)
    ]
    assert metrics[0] == metrics[1]


def test_other_data_or_score_is_not_continued_with(finished, tmp_path):
    config = dataclasses.replace(finished[0], run=str(tmp_path / "run"))
    shutil.copytree(finished[1], config.run)
    other = dataclasses.replace(config, scoring=ScoringConfig(score="loss"))
    with pytest.raises(UserError, match=r"begun with other settings .* \(score: None then, loss"):
        run(other)
    (Path(config.run) / "eval_results.json").unlink()
    data = Path(config.data.train[0])
    before = data.read_bytes()
    try:
        write_classes(data, 90)
        same = rf"\(data: {data} then, {data} now, and what is there differs\)"
        with pytest.raises(UserError, match=rf"begun with other settings .* {same}"):
            run(config)
    finally:
        data.write_bytes(before)


@pytest.mark.whole
def test_same_data_and_model_are_continued_with_wherever_they_are(
    tmp_path, pretrained, monkeypatch
):
    config = make_config(tmp_path, pretrained, budget=BudgetConfig(steps=2))
    assert run(config) == 0
    about = json.loads((Path(config.run) / "run.json").read_text())
    assert about["data"]["train"] == [str(tmp_path / "classes.tsv")]
    (tmp_path / "data").mkdir()
    shutil.move(tmp_path / "classes.tsv", tmp_path / "data" / "moved.tsv")
    shutil.copytree(pretrained, tmp_path / "data" / "model")
    monkeypatch.chdir(tmp_path / "data")
    moved = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, train=["moved.tsv"]),
        model=FinetunedModelConfig(init="model"),
    )
    assert run(moved) == 0
    # Another model of the same shape is another one, although its path is the same.
    config = load_config(tmp_path / "data" / "model")
    params = draw_parameters(config, "BertForMaskedLM", seed=9)
    save_model_directory("model", config, params, "model", "BertForMaskedLM")
    with pytest.raises(UserError, match=rf"\(init: {pretrained} then, {tmp_path}/data/model now, "):
        run(moved)


def test_labels_of_another_task_are_refused_by_evaluate(finished, bertjax_command, tmp_path):
    _, folder = finished
    (tmp_path / "other.tsv").write_text("label\ttext\nbird\tit is\n")
    code, _, err = bertjax_command(
        "evaluate", "--model", folder / "model", "--data", tmp_path / "other.tsv"
    )
    assert code == 2
    assert "other.tsv:2: the label 'bird' is none of the model's, which are cat, dog" in err


def test_model_without_a_task_is_refused(bertjax_command):
    code, _, err = bertjax_command("predict", "--model", TINY, "--input", "-")
    assert code == 2
    assert "has no head of a supervised task" in err


def test_commands_are_registered():
    named = {"predict": predict, "evaluate": evaluate, "compare": compare}
    assert named.items() <= COMMANDS.items()
