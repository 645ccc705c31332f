"""`bertjax compare`: of the same examples only, whatever their file is called."""

import json

import numpy as np
import pytest

from bertjax.tasks.regression import Regression
from bertjax.tasks.scoring import Predicted, evaluate_predictions


def write_evaluation(path, texts, values, data="f.csv", **changes):
    task = Regression()
    examples = [
        example._replace(place=f"{data}:{number}", label=float(number))
        for number, example in enumerate(task.examples_of_lines(texts))
    ]
    predicted = Predicted([{"value": value} for value in values], 0.0, [], 0.0)
    result = evaluate_predictions(task, examples, predicted, resamples=0)
    path.write_text(json.dumps({"task": task.name, "data": [data], **result, **changes}))
    return path


@pytest.fixture
def texts():
    return [f"text {number}" for number in range(30)]


def test_better_model_is_told_of_the_same_examples_in_another_file(
    bertjax_command, tmp_path, texts
):
    noise = np.random.default_rng(0).normal(size=30)
    a = write_evaluation(tmp_path / "a.json", texts, np.arange(30) + noise)
    b = write_evaluation(tmp_path / "b.json", texts, np.arange(30) + noise / 9, data="copy.csv")
    code, out, _ = bertjax_command("compare", a, b, "--json")
    result = json.loads(out)
    assert (code, result["verdict"], result["examples"]) == (0, "better", 30)
    assert result["B"] - result["A"] == pytest.approx(result["difference"])
    assert bertjax_command("compare", a, b)[1].endswith("B is better than A\n")


def test_other_examples_of_the_same_file_are_refused(bertjax_command, tmp_path, texts):
    a = write_evaluation(tmp_path / "a.json", texts, np.arange(30.0))
    b = write_evaluation(tmp_path / "b.json", [*texts[:-1], "another"], np.arange(30.0))
    code, _, err = bertjax_command("compare", a, b)
    assert (code, "are not of the same examples: 30 of regression in f.csv and" in err) == (2, True)
    b.write_text('{"task": "regression"}')
    code, _, err = bertjax_command("compare", a, b)
    assert (code, "not what `bertjax evaluate --output` writes (no data)" in err) == (2, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", 1), ("data", "f.csv"), ("data", [1]), ("fingerprint", None), ("slice_score", {}),
        ("outcomes", 0.5), ("outcomes", []), ("outcomes", [0.5, "x"]), ("outcomes", [None]),
    ],
)  # fmt: skip
def test_field_of_another_kind_is_told(bertjax_command, tmp_path, texts, name, value):
    a = write_evaluation(tmp_path / "a.json", texts, np.arange(30.0))
    b = write_evaluation(tmp_path / "b.json", texts, np.arange(30.0))
    b.write_text(json.dumps(json.loads(b.read_text()) | {name: value}))
    code, _, err = bertjax_command("compare", a, b)
    assert (code, f"b.json: {name} is not what `bertjax evaluate" in err) == (2, True)


def test_outcomes_that_went_missing_are_told(bertjax_command, tmp_path, texts):
    a = write_evaluation(tmp_path / "a.json", texts, np.arange(30.0))
    b = write_evaluation(tmp_path / "b.json", texts, np.arange(30.0), outcomes=[0.5])
    code, _, err = bertjax_command("compare", a, b)
    assert (code, "have 30 and 1 outcomes of the same examples" in err) == (2, True)
