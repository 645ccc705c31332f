"""Texts and pairs of texts: labels and weights of their units, and the files of predictions."""

import json

import numpy as np
import pytest

from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.regression import Regression
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece

TASKS = {
    "classes": (Classification(("a", "b"), np.array([0.5, 2.0])), "b", 1, np.int32),
    "sets": (MultiLabelClassification(("a", "b", "c")), ("c", "a"), [1, 0, 1], np.float32),
    "numbers": (Regression(), -1.5, -1.5, np.float32),
}


@pytest.fixture(scope="module")
def tokenizer():
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return Tokenizer(build_wordpiece([*specials, *"xyz"], True, None))


@pytest.mark.parametrize("name", TASKS)
def test_unit_has_the_label_of_its_example_and_no_weight_without_one(tokenizer, name):
    task, label, expected, dtype = TASKS[name]
    examples = [TextExample("f:1", "x y", None, label), TextExample("f:2", "x", "y z", None)]
    for training in (True, False):
        units, notes = task.encode(examples, tokenizer, 8, training=training)
        assert units[0].labels.dtype == units[1].labels.dtype == dtype
        assert units[0].labels.tolist() == [expected]
        assert units[0].weights.tolist() == [2.0 if training and name == "classes" else 1.0]
        assert units[1].weights.tolist() == [0]
        assert [unit.sequences[0].second_start for unit in units] == [4, 3]
        assert notes == []
    _, notes = task.encode(examples, tokenizer, 5, training=True)
    assert notes == ["1 of 2 texts are longer than 5 tokens and were cut"]


def test_line_is_a_text_or_a_pair():
    single, pair = Regression().examples_of_lines(["one text", "two\ttexts"])
    assert (single.first, single.second, single.label) == ("one text", None, None)
    assert (pair.first, pair.second) == ("two", "texts")


def test_predictions_stand_beside_texts_and_labels(tmp_path):
    examples = [TextExample("f:1", "x", None, ("a",)), TextExample("f:2", "x", "é", None)]
    task = MultiLabelClassification(("a", "b"))
    task.write_predictions(tmp_path, examples, [{"labels": ["a", "b"]}, {"labels": []}])
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").open(encoding="utf-8")]
    assert lines == [
        {"text": "x", "gold": ["a"], "labels": ["a", "b"]},
        {"sentence1": "x", "sentence2": "é", "gold": None, "labels": []},
    ]
    assert (tmp_path / "predictions.tsv").read_text() == "index\tprediction\n0\ta,b\n1\t\n"
