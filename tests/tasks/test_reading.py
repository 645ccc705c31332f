"""From options to a task and its examples: nothing that is said is passed over."""

import json

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.reading import DataConfig, read_task_data, read_task_examples
from bertjax.text.tokenizer import Tokenizer, build_wordpiece


@pytest.fixture
def table(tmp_path):
    """60 texts, of which 12 are of class b and the others of a."""
    rows = [f"{'b' if number % 5 == 0 else 'a'}\tn{number}\n" for number in range(60)]
    (tmp_path / "f.tsv").write_text("label\ttext\n" + "".join(rows))
    return [str(tmp_path / "f.tsv")]


def config_of(table, **fields):
    return DataConfig(train=table, validation=table, test=table, **fields)


def test_splits_are_shares_of_train_where_they_have_no_files(table):
    data = read_task_data("classification", DataConfig(train=table, validation_share=0.4))
    every = [*data.train, *data.validation, *data.test]
    assert len(every) == len({example.first for example in every}) == 60
    assert len(data.validation) > len(data.test) > 0
    data = read_task_data("classification", DataConfig(train=table, validation=table, test=table))
    assert len(data.train) == len(data.validation) == len(data.test) == 60
    assert data.validation == data.train


def test_balanced_classes_weigh_the_same(table):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(build_wordpiece(specials, True, None))
    data = read_task_data("classification", config_of(table), class_weights="balanced")
    units = data.task.encode(data.train, tokenizer, 8, training=True).units
    labels, weights = (np.concatenate([unit[at] for unit in units]) for at in (2, 3))
    np.testing.assert_allclose([weights[labels == label].sum() for label in (0, 1)], 30)
    units = data.task.encode(data.train, tokenizer, 8, training=False).units
    assert {float(unit.weights[0]) for unit in units} == {1.0}


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ("classification", {"label_separator": ","}),
        ("classification", {"tag_column": 2}),
        ("regression", {"labels": ["a", "b"]}),
        ("tokens", {"text_column": "text"}),
        ("question-answering", {"columns": ["a"]}),
        ("multiple-choice", {"label_column": "right"}),
    ],
)
def test_option_that_the_task_does_not_read_is_refused(table, task, fields):
    [(name, value)] = fields.items()
    message = rf"{name}={json.dumps(value)[:2]}".replace('"', "'").replace("[", r"\[")
    with pytest.raises(UserError, match=rf"^{message}.* is not read with task={task}"):
        read_task_examples(task, table, config_of(table, **fields))


def test_encoding_is_read_for_every_task(tmp_path):
    questions = {"data": [{"paragraphs": [{"context": "é", "qas": []}]}]}
    (tmp_path / "f.json").write_bytes(json.dumps(questions, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(UserError, match="no questions"):
        read_task_examples(
            "question-answering", [str(tmp_path / "f.json")], DataConfig(encoding="latin-1")
        )


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("multi-label", {"class_weights": "balanced"}, "class_weights=balanced is for task=class"),
        ("regression", {"smoothing": 0.1}, r"label_smoothing=0.1 spreads .* task=regression has"),
    ],
)
def test_recipe_that_the_task_does_not_follow_is_refused(table, tmp_path, task, options, message):
    (tmp_path / "g.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b", "label": 2}\n')
    if task == "multi-label":
        (tmp_path / "g.jsonl").write_text('{"text": "a", "labels": ["x", "y"]}\n')
    data = config_of([str(tmp_path / "g.jsonl")])
    assert read_task_data(task, data).train
    with pytest.raises(UserError, match=message):
        read_task_data(task, data, **options)


@pytest.mark.parametrize("name", ["labels", "label_columns"])
def test_label_that_is_named_twice_is_refused(name):
    with pytest.raises(UserError, match=rf"^{name}=\['a', 'b', 'a'\] has 'a' twice"):
        DataConfig(**{name: ["a", "b", "a"]})


def test_quotation_marks_that_are_kept_are_told_of(tmp_path):
    path = tmp_path / "f.tsv"
    path.write_text('label\ttext\na\tb\n"a"\tx\nb\t"y"\nb\t"z" of\n')
    _, notes = read_task_examples("classification", [str(path)], DataConfig())
    assert len(notes) == 1
    assert f"{path}:3: here, and in 2 of 4 examples together" in notes[0]
    assert "(--data.quoting double)" in notes[0]
    for quoting in ("none", "double"):
        config = DataConfig(quoting=quoting)
        path.write_text('label\ttext\na\tb\n"a"\tx\n')
        assert read_task_examples("classification", [str(path)], config)[1] == []
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"label": "a", "text": '"y"'}))
    assert read_task_examples("classification", [str(path)], DataConfig())[1] == []
