"""Fine-tuning as a user sees it: every task learns, resumes to the bit, and leaves what it says."""

import dataclasses
import json
import random
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.cli import COMMANDS
from bertjax.commands import compare, evaluate, predict
from bertjax.config import BertConfig
from bertjax.errors import UserError
from bertjax.interop.huggingface import (
    inspect_model_directory,
    load_model_directory,
    save_model_directory,
)
from bertjax.model.bert import BertForMaskedLM
from bertjax.placement import is_divided
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.tasks.classification import Classification
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import recall, remember
from bertjax.tasks.reading import read_task_data
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.training.budget import BudgetConfig
from bertjax.training.checkpoint import CheckpointConfig
from bertjax.training.optimizer import OptimizerConfig
from bertjax.training.sharding import MeshConfig, make_mesh
from bertjax.training.signals import StopRequest
from train.finetune import finetune, main
from train.finetune_config import FinetuneConfig, ScoringConfig
from train.starting_model import FinetunedModelConfig

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"  # V=99, M=17
WORDS = tuple("the of and a to in is it was for on as with his they at be this".split())  # noqa: SIM905


def write_classes(path, count=96):
    """`cat` or `dog` by whether `on` or `his` is in the text."""
    draw = random.Random(1)
    lines = []
    for number in range(count):
        text = draw.choices([word for word in WORDS if word not in ("on", "his")], k=5)
        text[draw.randrange(5)] = ("on", "his")[number % 2]
        lines.append(f"{'cat' if number % 2 else 'dog'}\t{' '.join(text)}")
    path.write_text("label\ttext\n" + "\n".join(lines) + "\n")
    return path


def make_config(tmp_path, pretrained, task="classification", **fields):
    defaults = {
        "task": task,
        "run": str(tmp_path / "run"),
        "data": DataConfig(
            train=[str(write_classes(tmp_path / "classes.tsv"))],
            validation_share=0.1,
            test_share=0.1,
        ),
        "model": FinetunedModelConfig(init=pretrained),
        "budget": BudgetConfig(steps=12),
        "optimizer": OptimizerConfig(learning_rate=1e-2),
        "checkpoint": CheckpointConfig(every=5),
        "max_length": 17,
        "batch_size": 16,
        "log_every": 3,
    }
    return FinetuneConfig(**(defaults | fields))


def run(config):
    return finetune(config, read_task_data(config.task, config.data))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A new model of two layers, 32 wide, whose heads learn in a few dozen steps."""
    config = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=17,
        initializer_range=0.2,
    )
    model = BertForMaskedLM(config)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    path = tmp_path_factory.mktemp("pretrained") / "model"
    save_model_directory(path, config, params, TINY, "BertForMaskedLM")
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def one_device():
    """One device, and no measurement of its rate, which takes longer than a run here."""
    with pytest.MonkeyPatch.context() as patch:
        mesh = make_mesh(MeshConfig(), jax.devices()[:1])
        patch.setattr("train.finetune.make_mesh", lambda config: mesh)
        patch.setattr("train.finetune.measure_matmul_rate", lambda mesh, dtype: 1e9)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pretrained):
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
    assert "the input's column 'label' is called 'input_label'" in err
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


def test_loss_of_the_config_is_that_of_the_training_whoever_calls(tmp_path, pretrained):
    """Data is read without it. The loss of validation and test is the plain one."""
    rows = [f"{'dog' if number % 4 else 'cat'}\tthe of and\n" for number in range(64)]
    (tmp_path / "four.tsv").write_text("label\ttext\n" + "".join(rows))
    files = [str(tmp_path / "four.tsv")]
    config = make_config(
        tmp_path,
        pretrained,
        data=DataConfig(train=files, validation=files, test=files),
        model=FinetunedModelConfig(
            init=pretrained, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        ),
        budget=BudgetConfig(steps=1),
        optimizer=OptimizerConfig(learning_rate=1e-12),
        batch_size=64,
        log_every=1,
    )
    data, scored = read_task_data(config.task, config.data), []
    for name, value in (("label_smoothing", 0.9), ("class_weights", "balanced")):
        one = dataclasses.replace(config, run=str(tmp_path / name), **{name: value})
        assert finetune(one, data) == 0
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()]
        trained, validated = (line["loss"] for line in lines[:2])
        assert abs(trained - validated) > 1e-3  # of the same examples and parameters
        scored.append(validated)
    assert scored[0] == pytest.approx(scored[1], rel=1e-5)


def test_few_examples_without_a_word_are_all_learned(tmp_path, pretrained, capsys):
    path = write_classes(tmp_path / "few.tsv", 24)
    data = DataConfig(train=[str(path)])
    config = FinetuneConfig(
        run=str(tmp_path / "run"), data=data, model=FinetunedModelConfig(init=pretrained),
        max_length=17,
    )  # fmt: skip
    assert run(config) == 0
    said = capsys.readouterr().err
    assert "24 training examples, 0 for validation, 0 for the test" in said
    assert "150 steps of 8 examples (50 epochs)" in said
    assert "few to learn from" not in said
    assert "test none: no examples were held out for it" in said
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert not {"kept", "validation", "test"} & results.keys()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert len(lines) > 15
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_run_of_too_few_steps_says_so_before_it_begins(tmp_path, pretrained, capsys):
    config = make_config(tmp_path, pretrained, budget=BudgetConfig(epochs=0.5), dry_run=True)
    assert run(config) == 0
    said = capsys.readouterr().err
    assert "warning: 3 steps are too few to learn from" in said
    assert "--budget.steps 150" in said


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


# ------------------------------------------------------------------------------ resume


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

    monkeypatch.setattr("train.finetune.StopRequest", StopsSoon)
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


@pytest.mark.slow
def test_model_on_several_devices_knows_that_they_are(tmp_path, pretrained, monkeypatch):
    """Else a kernel (attention=splash) is not divided, which jax refuses to compile."""
    mesh, known, loss = make_mesh(MeshConfig(), jax.devices()[:2]), [], Classification.loss

    def note(*arguments):
        known.append(is_divided())
        return loss(*arguments)

    monkeypatch.setattr("train.finetune.make_mesh", lambda config: mesh)
    monkeypatch.setattr(Classification, "loss", note)
    assert run(make_config(tmp_path, pretrained, budget=BudgetConfig(steps=1))) == 0
    assert len(known) >= 3  # in training, at the validation and for the results
    assert all(known)


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
        data=DataConfig(train=["moved.tsv"]),
        model=FinetunedModelConfig(init="model"),
    )
    assert run(moved) == 0
    # Another model of the same shape is another one, although its path is the same.
    config = BertConfig.load(tmp_path / "data" / "model")
    module = BertForMaskedLM(config)
    params = jax.jit(module.init)(jax.random.key(9), jnp.zeros((1, 1), jnp.int32))["params"]
    save_model_directory("model", config, params, "model", "BertForMaskedLM")
    with pytest.raises(UserError, match=rf"\(init: {pretrained} then, {tmp_path}/data/model now, "):
        run(moved)


# ------------------------------------------------------------------------------ every task


def write_tags(path):
    draw = random.Random(2)
    sentences = []
    for _ in range(60):
        words = draw.choices(WORDS, k=6)
        sentences.append("\n".join(f"{w}\t{'B-X' if w == 'his' else 'O'}" for w in words))
    path.write_text("\n\n".join(sentences) + "\n")


def write_questions(path):
    draw = random.Random(3)
    paragraphs = []
    for number in range(40):
        words = draw.choices([word for word in WORDS if word != "his"], k=7)
        words[draw.randrange(7)] = "his"
        context = " ".join(words)
        answers = [{"text": "his", "answer_start": f" {context}".index(" his")}]
        question = {"id": str(number), "question": "is it", "answers": answers}
        if number % 4 == 0:
            question |= {"answers": [], "is_impossible": True}
        paragraphs.append({"context": context, "qas": [question]})
    content = {"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    path.write_text(json.dumps(content))


def write_choices(path):
    draw = random.Random(4)
    lines = []
    for number in range(40):
        choices = [draw.choice(WORDS[:6]) for _ in range(2 + number % 2)]
        label = draw.randrange(len(choices))
        choices[label] = "his"
        lines.append(
            {"context": " ".join(draw.choices(WORDS, k=3)), "choices": choices, "label": label}
        )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_sets(path):
    classes = path.with_name("some.tsv")
    rows = [line.split("\t") for line in write_classes(classes).read_text().splitlines()[1:]]
    path.write_text(
        "".join(json.dumps({"text": text, "labels": [label]}) + "\n" for label, text in rows)
    )


def write_numbers(path):
    classes = path.with_name("some.tsv")
    rows = [line.split("\t") for line in write_classes(classes).read_text().splitlines()[1:]]
    path.write_text(
        "text,score\n"
        + "".join(f"{text},{0.5 if label == 'cat' else -1}\n" for label, text in rows)
    )


@pytest.mark.parametrize(
    ("task", "write", "name", "score", "least"),
    [
        ("tokens", write_tags, "tags.conll", "f1", 0.9),
        pytest.param(
            "question-answering",
            write_questions,
            "questions.json",
            "f1",
            60,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "multiple-choice",
            write_choices,
            "choices.jsonl",
            "accuracy",
            0.9,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "multi-label", write_sets, "sets.jsonl", "micro_f1", 0.9, marks=pytest.mark.slow
        ),
        pytest.param(
            "regression", write_numbers, "numbers.csv", "pearson", 0.9, marks=pytest.mark.slow
        ),
    ],
)
def test_every_task_learns_and_predicts(
    tmp_path, pretrained, bertjax_command, task, write, name, score, least
):
    write(tmp_path / name)
    data = DataConfig(
        train=[str(tmp_path / name)], validation=[str(tmp_path / name)], test_share=0.2
    )
    config = make_config(
        tmp_path,
        pretrained,
        task,
        data=data,
        budget=BudgetConfig(steps=60),
        batch_size=24,
        scoring=ScoringConfig(every_epochs=10),
    )
    assert run(config) == 0
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["validation"][score] > least
    assert list((tmp_path / "run" / "predictions").glob("predictions.*"))

    model = str(tmp_path / "run" / "model")
    code, _, _ = bertjax_command(
        "predict", "--model", model, "--input", tmp_path / name, "--output", tmp_path / "out"
    )
    assert code == 0
    assert list((tmp_path / "out").glob("predictions.*"))
    code, out, _ = bertjax_command(
        "evaluate", "--model", model, "--data", tmp_path / name, "--resamples", "3", "--json"
    )
    assert json.loads(out)["scores"][score] == pytest.approx(results["validation"][score])
    if task == "tokens":  # offsets are of the line as it was given
        code, out, _ = bertjax_command("predict", "--model", model, stdin=b"  in \this  a \r\n")
        found = json.loads(out)["entities"]
        assert found == [{"type": "X", "start": 6, "end": 9, "text": "his"}]


# ------------------------------------------------------------------------------ options


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_head_normalisation_survives_saving(tmp_path, pretrained, norm):
    config = make_config(
        tmp_path,
        pretrained,
        model=FinetunedModelConfig(init=pretrained, classifier_norm=norm),
        budget=BudgetConfig(steps=24),
    )
    assert run(config) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    best = max(
        (line for line in lines if line["split"] == "validation"),
        key=lambda line: line["accuracy"],
    )
    # The model directory is scored anew at the end: folded, a batch normalisation says the same.
    results = json.loads((tmp_path / "run" / "eval_results.json").read_text())
    assert results["validation"]["loss"] == pytest.approx(best["loss"], rel=1e-4)
    saved = inspect_model_directory(tmp_path / "run" / "model").config
    assert saved.classifier_norm == ("none" if norm == "batch" else "layer")


def test_top_layers_are_dropped_and_training_stops_early(tmp_path, pretrained):
    config = make_config(
        tmp_path,
        pretrained,
        model=FinetunedModelConfig(init=pretrained, num_hidden_layers=1),
        scoring=ScoringConfig(every_epochs=0.2, patience=2, score="macro_f1"),
        budget=BudgetConfig(steps=400),
    )
    assert run(config) == 0
    assert inspect_model_directory(tmp_path / "run" / "model").config.num_hidden_layers == 1
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text())["steps"] < 400


def test_window_of_the_checkpoint_is_kept(tmp_path, pretrained):
    """Two layers in which a token sees one to either side: [CLS] learns of two words, no more."""
    folder = tmp_path / "model"
    shutil.copytree(pretrained, folder)
    values = json.loads((folder / "config.json").read_text())
    config = dataclasses.replace(BertConfig.load(folder), attention_window=1)
    (folder / "config.json").write_text(json.dumps(values | config.to_dict()))
    config = make_config(tmp_path, str(folder), budget=BudgetConfig(steps=3))
    path = tmp_path / "classes.tsv"
    path.write_text(path.read_text().replace("\t", "\tthe of ").replace("the of text", "text"))
    assert run(config) == 0
    assert inspect_model_directory(tmp_path / "run" / "model").config.attention_window == 1
    lines = (tmp_path / "run" / "predictions" / "predictions.jsonl").read_text().splitlines()
    found = [json.loads(line)["probabilities"]["cat"] for line in lines]
    assert len(found) > 3
    np.testing.assert_allclose(found, found[0], rtol=1e-4)


# ------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": FinetunedModelConfig()}, "model.init is missing"),
        ({"max_length": 18}, r"max_length=18 is more than .* max_position_embeddings=17"),
        ({"scoring": ScoringConfig(score="acuracy")}, r"scoring.score='acuracy' is not one of"),
        ({"data": DataConfig()}, "data.train is empty"),
    ],
)
def test_wrong_options_are_named(tmp_path, pretrained, fields, message):
    with pytest.raises(UserError, match=message):
        run(make_config(tmp_path, pretrained, **fields))


@pytest.mark.parametrize("dry_run", [False, True])
def test_unknown_score_is_refused_before_anything_is_done(tmp_path, pretrained, dry_run):
    scoring = ScoringConfig(score="macro_f2")
    with pytest.raises(UserError, match=r"'macro_f2' is not one of: .*did you mean 'macro_f1'"):
        run(make_config(tmp_path, pretrained, scoring=scoring, dry_run=dry_run))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{"score": "loss"}, {"patience": 2}])
def test_scoring_without_a_validation_split_is_refused(tmp_path, pretrained, fields):
    config = make_config(tmp_path, pretrained, scoring=ScoringConfig(**fields))
    data = dataclasses.replace(config.data, validation_share=0.0)
    with pytest.raises(UserError, match="look at the validation split, and there is none"):
        run(dataclasses.replace(config, data=data))


def test_more_layers_than_there_are_cannot_be_kept(tmp_path, pretrained):
    model = FinetunedModelConfig(init=pretrained, num_hidden_layers=3)
    with pytest.raises(UserError, match="between 1 and the 2 layers of"):
        run(make_config(tmp_path, pretrained, model=model))


def test_tokenizer_of_another_model_is_refused_or_told(tmp_path, pretrained, capsys):
    folder = tmp_path / "model"
    shutil.copytree(pretrained, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (folder / name).unlink()
    model = FinetunedModelConfig(init=str(folder))
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    Tokenizer(build_wordpiece(tokens, True, None)).save(folder)
    assert run(make_config(tmp_path, pretrained, model=model, dry_run=True)) == 0
    assert f"has {len(tokens)} tokens, the model embeddings for 99" in capsys.readouterr().err
    tokens += [f"word{number}" for number in range(99)]
    Tokenizer(build_wordpiece(tokens, True, None)).save(folder)
    with pytest.raises(UserError, match=r"tokens, more than the model's vocab_size=99"):
        run(make_config(tmp_path, pretrained, model=model))


def test_wrong_options_are_named_at_once():
    with pytest.raises(UserError, match="--run DIR is missing"):
        FinetuneConfig()
    with pytest.raises(UserError, match=r"label_smoothing=1.0"):
        FinetuneConfig(run="x", label_smoothing=1.0)
    with pytest.raises(UserError, match=r"batch_size=0 must be at least 1"):
        FinetuneConfig(run="x", batch_size=0)


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


@pytest.mark.slow
def test_several_seeds_are_summarised(tmp_path, pretrained, monkeypatch, capsys):
    arguments = [
        "--data.train", write_classes(tmp_path / "classes.tsv"), "--model.init", pretrained,
        "--run", tmp_path / "run", "--seeds", 2, "--budget.steps", 3, "--max-length", 17, "--json",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["finetune", *map(str, arguments)])
    assert main() == 0
    summary = json.loads(capsys.readouterr().out)
    for split in ("validation", "test"):
        values = [
            json.loads((tmp_path / "run" / f"seed-{seed}" / "eval_results.json").read_text())[split]
            for seed in (0, 1)
        ]
        losses = [scores["loss"] for scores in values]
        assert summary[split]["loss"]["values"] == losses
        assert summary[split]["loss"]["mean"] == pytest.approx(sum(losses) / 2)
    assert losses[0] != losses[1]
    assert json.loads((tmp_path / "run" / "eval_results.json").read_text()) == summary
