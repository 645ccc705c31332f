"""`bertjax gate`: what passes, what is named where it does not, and what is measured."""

import json
import shutil

import jax
import numpy as np
import pytest

import bertjax
from bertjax.gating.gate import gate
from bertjax.inference.labelled import read_labelled
from bertjax.program.errors import UserError
from tests.analysis.saved import save

NOUNS, ADJECTIVES = ("dog", "cat", "bird"), ("old", "red", "good", "bad")
TEXTS = [
    f"the {how} {one} {verb} a {other}"
    for how in ADJECTIVES
    for one in NOUNS
    for verb in ("sees", "hears")
    for other in NOUNS
]


def balance(directory):
    """Shifts the logits of a model of two classes so that it says each of half of the texts."""
    model = bertjax.load(directory)
    shares = [list(one.probabilities.values()) for one in model.predict(TEXTS)]
    gap = np.median([np.log(first / second) for first, second in shares])
    params = jax.tree.map(np.asarray, dict(model.params))
    params["sequence_head"]["dense"]["bias"] = params["sequence_head"]["dense"]["bias"] - [gap, 0]
    model.replace(params=params).save(directory)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models for bad and good: `right`, which is, `wrong`, which is not; `tags`; and data.csv."""
    folder = tmp_path_factory.mktemp("gate")
    for name, architecture, fields in (
        ("right", "BertForSequenceClassification", {"id2label": ("bad", "good")}),
        ("tags", "BertForTokenClassification", {"id2label": ("O", "B-X", "I-X")}),
        ("others", "BertForSequenceClassification", {"id2label": ("bad", "fair")}),
    ):
        (folder / f"made_{name}").mkdir()
        shutil.move(save(folder / f"made_{name}", architecture, **fields), folder / name)
    balance(folder / "right")
    shutil.copytree(folder / "right", folder / "wrong")
    config = json.loads((folder / "wrong" / "config.json").read_text())
    config["id2label"], config["label2id"] = {"0": "good", "1": "bad"}, {"good": 0, "bad": 1}
    (folder / "wrong" / "config.json").write_text(json.dumps(config))
    said = bertjax.load(folder / "right").predict(TEXTS)
    assert len({one.label for one in said}) == 2
    rows = [("text", "label", "source")]
    labels = [one.label for one in said]
    rows += [(text, labels[n], f"feed {n % 3}") for n, text in enumerate(TEXTS)]
    (folder / "data.csv").write_text("".join(f"{','.join(row)}\n" for row in rows))
    return folder


@pytest.fixture
def run(bertjax_command, folder):
    def run(new, old, *more):
        models = ("--model", folder / new, "--against", folder / old)
        options = ("--data", folder / "data.csv", "--resamples", 200, "--speed-texts", 0)
        return bertjax_command("gate", *models, *options, *more)

    return run


def test_gate_passes_names_what_is_not_met_and_writes_the_page(run, folder, tmp_path):
    required = ("accuracy >= old - 0.1", "bytes <= 1.05 * old", "calibration_error <= old + 0.4")
    options = [word for text in required for word in ("--require", text)]
    code, out, err = run("right", "right", *options, "--json", "--slice", "source")
    assert code == 0, err
    result = json.loads(out)
    assert (code, result["met"], result["not_met"]) == (0, True, [])
    assert "not met" not in err
    evaluated = bertjax.load(folder / "right").evaluate([str(folder / "data.csv")], resamples=0)
    for name, value in result["quantities"].items():
        if name in evaluated["scores"]:
            assert value["new"] == pytest.approx(evaluated["scores"][name], abs=1e-12), name
    assert result["quantities"]["accuracy"]["new_interval"] == [1, 1]
    size = (folder / "right" / "model.safetensors").stat().st_size
    assert result["quantities"]["bytes"]["new"] == size
    assert result["comparison"]["verdict"] == "cannot be told apart"
    assert {part["examples"] for name, part in result["slices"].items() if "feed" in name} == {24}

    required = ("accuracy >= old - 0.1", "parameters <= old", "worst_slice > 0.5", "flips <= 0.9")
    options = [word for text in required for word in ("--require", text)]
    code, out, err = run("wrong", "right", *options, "--json", "--output", tmp_path / "page")
    result = json.loads(out)
    assert code == 1
    assert result["not_met"] == ["accuracy >= old - 0.1", "worst_slice > 0.5"]
    line = "not met: accuracy >= old - 0.1: accuracy 0, old.accuracy 1, it is missed by 0.9"
    assert line in err.splitlines()
    assert result["comparison"]["verdict"] == "worse"
    assert result["slices"]["label bad"]["difference"] == -1
    page = (tmp_path / "page" / "report.html").read_text()
    assert "not passed: 2 of 4 requirements are not met" in page
    numbers = json.loads((tmp_path / "page" / "numbers.json").read_text())
    assert [part["name"] for part in numbers["tables"]] == ["requirements", "quantities", "slices"]
    [reliability] = numbers["curves"]
    assert {len(line["figures"]["value"]) for line in reliability["series"]} == {
        len(reliability["points"])
    }


def test_method_says_what_the_command_says(run, folder, tmp_path):
    required = ["accuracy >= old - 0.1", "bytes <= old"]
    options = [word for text in required for word in ("--require", text)]
    _, out, _ = run("wrong", "right", *options, "--slice", "source", "--json")
    new, old = (bertjax.load(folder / name) for name in ("wrong", "right"))
    verdict = new.gate(
        old, str(folder / "data.csv"), required,
        slices="source", output=tmp_path / "page", resamples=200, speed_texts=0,
    )  # fmt: skip
    assert verdict.to_json() == json.loads(out)
    assert (verdict.passed, [one.requirement for one in verdict.unmet]) == (False, required[:1])
    assert verdict.quantities["accuracy"]["old"] == 1
    assert (tmp_path / "page" / "report.html").is_file()
    told = "72 examples, not passed: 1 of 2 requirements are not met"
    assert repr(verdict).startswith(f"Verdict({told}; accuracy >= old - 0.1: accuracy 0")
    page = verdict._repr_html_()
    assert told in page
    assert "<td>accuracy &gt;= old - 0.1</td><td>no</td><td>-0.9000</td>" in page
    assert "<td>accuracy</td><td>0.0000</td><td>0.0000 to 0.0000</td><td>1.0000</td>" in page

    rows = [
        {"text": text, "label": one.label, "feed": f"feed {n % 2}"}
        for n, (text, one) in enumerate(zip(TEXTS, old.predict(TEXTS), strict=True))
    ]
    fast = {"resamples": 100, "speed_texts": 0}
    verdict = old.gate(old, rows, "accuracy > 0.9", slices=["feed"], **fast)
    assert verdict.passed
    assert {name for name in verdict.slices if "feed" in name} == {"feed feed 0", "feed feed 1"}
    smaller = old.prune("0-0")
    for wrong, told in (
        (lambda: old.gate("right", rows), "against='right' is not a Model; load it first"),
        (lambda: old.gate(old, rows, resamples=5), "^resamples 5 must be at least 100"),
        (lambda: old.gate(old, None), "^data=None is neither rows nor files"),
        (lambda: old.gate(old, rows, [3]), r"^require=\[3\] must be a string, or a list"),
        (lambda: old.gate(old, rows, slices=None), "^slices=None must be a string"),
        (lambda: old.gate(old, rows, max_length=13), "^max_length 13 must be between 8 and the"),
        (lambda: old.calibrate(rows, max_length=13), "must be between 8 and the model's 12 pos"),
        (lambda: old.trace(["a"], max_length=13), "must be between 0 and the model's 12 pos"),
        (lambda: old.gate(old, rows, ["acuracy > 1"], **fast), "^require 'acuracy > 1'"),
        (lambda: smaller.gate(old, rows, **fast), "was changed in memory since it was read"),
        (lambda: old.gate(smaller, rows, **fast), "save it first, and load what is saved"),
    ):
        with pytest.raises(UserError, match=told):
            wrong()


@pytest.mark.parametrize(
    ("new", "old", "more", "message"),
    [
        ("right", "tags", (), "is for classification (bad, good), and"),
        ("right", "others", (), "(bad, good)"),
        ("right", "nowhere", (), "nowhere: no such directory"),
        ("right", "wrong", ("--require", "acuracy >= 1"), "did you mean 'accuracy'?"),
        ("right", "wrong", ("--require", "p95_ms <= old"), "no times are measured"),
        ("right", "wrong", ("--slice", "sorce"), "no column 'sorce', it has the columns label, "),
        ("right", "wrong", ("--slice", "text"), "has 72 values, and 20 is the most"),
        ("right", "wrong", ("--resamples", 5), "--resamples 5 must be at least 100"),
    ],
)
def test_mistake_ends_with_two_and_one_paragraph(run, new, old, more, message):
    code, out, err = run(new, old, *more)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_times_are_of_both_models_in_turns(folder):
    model = bertjax.load(folder / "right")
    labelled = read_labelled(model, [str(folder / "data.csv")])
    few = labelled._replace(examples=labelled.examples[:8])
    done = []
    required = ["p95_ms >= 0", "median_ms <= 1e9"]
    verdict = gate(
        model, model, few, required, resamples=100, speed_texts=4,
        progress=lambda stage, some: done.append((stage.name, some)),
    )  # fmt: skip
    times = verdict.to_json()["quantities"]
    assert 0 < times["median_ms"]["new"] <= times["p95_ms"]["new"]
    assert verdict.unmet == []
    assert verdict.about["speed_texts"] == 4
    assert sum(some for name, some in done if name == "measuring times") == 2 * 4 * 4
    assert sum(some for name, some in done if name == "resampling") == 200


def test_model_in_memory_has_no_size_on_the_disk(folder):
    model = bertjax.load(folder / "right")
    labelled = read_labelled(model, [str(folder / "data.csv")])
    with pytest.raises(UserError, match="save it first"):
        gate(model, model.replace(directory=None), labelled, [], resamples=100, speed_texts=0)


# ------------------------------------------------------------------ every task

ROWS = {
    "multi-label": [
        {"text": text, "labels": ["art"] if n % 2 else ["art", "war"]}
        for n, text in enumerate(TEXTS[:12])
    ],
    "regression": [{"text": text, "label": n / 3} for n, text in enumerate(TEXTS[:12])],
    "tokens": [
        {"tokens": text.split(), "tags": ["O", "B-X", "I-X", "O", "O", "B-X"]}
        for text in TEXTS[:12]
    ],
    "question-answering": [
        {
            "id": str(n), "question": "a dog", "context": text,
            "answers": [{"text": "the", "answer_start": 0}],
        }
        for n, text in enumerate(TEXTS[:12])
    ],
    "multiple-choice": [
        {"context": text, "choices": ["a cat", "the old bird", "a dog"], "label": n % 3}
        for n, text in enumerate(TEXTS[:12])
    ],
}  # fmt: skip
CLASSES = {
    "multi-label": (
        "BertForSequenceClassification",
        {"id2label": ("art", "war"), "problem_type": "multi_label_classification"},
    ),
    "regression": (
        "BertForSequenceClassification", {"id2label": ("score",), "problem_type": "regression"},
    ),
    "tokens": ("BertForTokenClassification", {"id2label": ("O", "B-X", "I-X")}),
    "question-answering": ("BertForQuestionAnswering", {"answerable": True}),
    "multiple-choice": ("BertForMultipleChoice", {}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("task", ROWS)
def test_every_task_is_measured(task, tmp_path):
    architecture, fields = CLASSES[task]
    model = bertjax.load(save(tmp_path, architecture, **fields))
    labelled = read_labelled(model, ROWS[task])
    names = [f"{name} >= old - 1e6" for name in labelled.task.score_names]
    verdict = gate(model, model, labelled, [*names, "bytes <= old"], resamples=100, speed_texts=2)
    quantities = verdict.to_json()["quantities"]
    scores = model.evaluate(ROWS[task], resamples=0)["scores"]
    for name in labelled.task.score_names:
        expected = scores[name]
        if expected is None:
            assert quantities[name]["new"] is None
        else:
            assert quantities[name]["new"] == pytest.approx(expected, abs=1e-9), name
    sure = task not in ("regression", "question-answering")
    assert ("brier" in quantities) == sure
    assert ("flips" in quantities) == (task != "regression")
    for one in verdict.decisions:
        assert one.met == bool(np.isfinite(one.margin)), one
        # A score that can fall has not been measured exactly; a number is not right or wrong.
        [(name, value)] = one.new.items()
        if name != "bytes" and value > 0 and task != "regression":
            assert one.bound < one.margin, one
