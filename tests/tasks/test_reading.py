"""From options to a task and its examples: nothing that is said is passed over."""

import json
import typing

import numpy as np
import pytest

from bertjax.architectures import kind_of
from bertjax.config import BertConfig
from bertjax.program.errors import UserError
from bertjax.tasks.data_config import DataConfig, TaskName
from bertjax.tasks.data_format import to_fields
from bertjax.tasks.reading import TaskData, read_task_data, read_task_examples
from bertjax.tasks.task_kinds import TASK_KINDS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece


@pytest.fixture
def table(tmp_path):
    """60 texts, of which 12 are of class b and the others of a."""
    rows = [f"{'b' if number % 5 == 0 else 'a'}\tn{number}\n" for number in range(60)]
    (tmp_path / "f.tsv").write_text("label\ttext\n" + "".join(rows))
    return [str(tmp_path / "f.tsv")]


def config_of(table, **fields):
    return DataConfig(train=table, validation=table, test=table, **fields)


def test_splits_are_shares_of_train_where_they_have_no_files(table):
    shares = {"validation_share": 0.4, "test_share": 0.1}
    data = read_task_data("classification", DataConfig(train=table, **shares))
    every = [*data.train, *data.validation, *data.test]
    assert len(every) == len({example.first for example in every}) == 60
    assert len(data.validation) > len(data.test) > 0
    data = read_task_data("classification", DataConfig(train=table, validation=table, test=table))
    assert len(data.train) == len(data.validation) == len(data.test) == 60
    assert data.validation == data.train


def test_few_examples_are_all_learned_from_unless_told(tmp_path):
    path = tmp_path / "f.tsv"
    for count, validation, test in ((24, 0, 0), (99, 0, 0), (200, 0, 20), (300, 30, 30)):
        rows = [f"{'ab'[number % 2]}\tn{number}\n" for number in range(count)]
        path.write_text("label\ttext\n" + "".join(rows))
        data = read_task_data("classification", DataConfig(train=[str(path)]))
        assert len(data.train) + len(data.validation) + len(data.test) == count
        for split, held_out in ((data.validation, validation), (data.test, test)):
            assert 0.4 * held_out <= len(split) <= 1.6 * held_out
        told = " ".join(data.notes)
        assert ("none are held out for validation and test, and" in told) == (test == 0)
        assert ("none are held out for validation, and" in told) == (validation == 0 < test)
    path.write_text("label\ttext\n" + "".join(rows[:40]))
    some = read_task_data("classification", DataConfig(train=[str(path)], test_share=0.3))
    assert len(some.test) > 4
    assert not some.validation
    [note] = [note for note in some.notes if "held out" in note]
    assert "none are held out for validation, and they" in note
    assert "data.validation_share, or files of their own, say" in note
    files = DataConfig(train=[str(path)], validation=[str(path)], test=[str(path)])
    assert "held out" not in " ".join(read_task_data("classification", files).notes)


def test_balanced_classes_weigh_the_same(table):
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(build_wordpiece(specials, True, None))
    data = read_task_data("classification", config_of(table))
    task = data.task_to_train(class_weights="balanced")
    units = task.encode(data.train, tokenizer, 8, training=True).units
    labels, weights = (np.concatenate([unit[at] for unit in units]) for at in (2, 3))
    np.testing.assert_allclose([weights[labels == label].sum() for label in (0, 1)], 30)
    for plain, training in ((task, False), (data.task, True)):
        units = plain.encode(data.train, tokenizer, 8, training=training).units
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
    [name] = fields
    option = name.replace("_", "-")
    with pytest.raises(UserError, match=rf"^--data.{option} .*: is not read with task={task}"):
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
    data = read_task_data(task, data)
    assert data.task_to_train().name == task
    with pytest.raises(UserError, match=message):
        data.task_to_train(**options)


def test_task_is_named_where_it_is_read_and_has_a_class_of_model():
    assert set(TASK_KINDS) == set(typing.get_args(TaskName))
    assert all(kind_of(name) for name in TASK_KINDS)


@pytest.mark.parametrize("name", TASK_KINDS)
def test_smoothed_task_is_the_same_task_with_another_loss(name):
    config = BertConfig(id2label=("B-a", "I-a", "O"))
    task = TASK_KINDS[name].of_model(config, None)
    trained = TaskData(task, [], [], [], [], DataConfig())
    smooth = TASK_KINDS[name].smooth
    assert trained.task_to_train() is task
    assert (smooth is None) == (name in ("regression", "question-answering"))
    if smooth is not None:
        smoothed = trained.task_to_train(0.25)
        assert type(smoothed) is type(task)
        assert smoothed.model_fields() == task.model_fields()
        assert (vars(smoothed)["_smoothing"], vars(task)["_smoothing"]) == (0.25, 0.0)


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
    assert "give --data.quoting double" in notes[0]
    for quoting in ("none", "double"):
        config = DataConfig(quoting=quoting)
        path.write_text('label\ttext\na\tb\n"a"\tx\n')
        assert read_task_examples("classification", [str(path)], config)[1] == []
    path = tmp_path / "f.jsonl"
    path.write_text(json.dumps({"label": "a", "text": '"y"'}))
    assert read_task_examples("classification", [str(path)], DataConfig())[1] == []


def write_table(path, labels):
    rows = [f"text {number},{label}\n" for number, label in enumerate(labels)]
    path.write_text("text,label\n" + "".join(rows))
    return [str(path)]


def test_classes_that_differ_in_spelling_are_told_and_made_one_when_asked(tmp_path):
    table = write_table(tmp_path / "f.csv", ["TRUE", "True", "true", "TRUE", "False", "FALSE"])
    data = read_task_data("classification", config_of(table))
    assert len(data.task.labels) == 5
    assert data.notes[0].startswith("5 classes (train / validation / test): TRUE 2 / 2 / 2; ")
    assert "'TRUE' (6) and 'True' (3) and 'true' (3); 'FALSE' (3) and 'False' (3)" in data.notes[1]
    assert data.notes[1].endswith(" or make one of them with --data.spelling merge")
    data = read_task_data("classification", config_of(table, spelling="merge"))
    assert data.task.labels == ("FALSE", "TRUE")
    assert [example.label for example in data.test] == ["TRUE"] * 4 + ["FALSE"] * 2
    assert data.notes[0].startswith("classes are made one that differ in spelling only: 'False' to")
    assert data.notes[1] == "2 classes (train / validation / test): TRUE 4 / 4 / 4; FALSE 2 / 2 / 2"
    # Other files follow: here the most frequent spelling is another one.
    other = write_table(tmp_path / "g.csv", ["true", "true", "False"])
    examples, _ = read_task_examples("classification", other, data.config)
    assert [example.label for example in examples] == ["TRUE", "TRUE", "FALSE"]


def test_numbers_as_tables_write_them_are_twins(tmp_path):
    table = write_table(tmp_path / "f.csv", ["1.0", "1", "0.0", "0"])
    assert (
        "'0' (3) and '0.0' (3); '1' (3) and '1.0' (3)"
        in (read_task_data("classification", config_of(table)).notes[1])
    )
    data = read_task_data("classification", config_of(table, spelling="merge"))
    assert data.task.labels == ("0", "1")


def test_empty_texts_and_examples_without_a_label_are_told(tmp_path):
    path = tmp_path / "f.jsonl"
    records = [{"text": "a", "labels": ["x"]}, {"text": None, "labels": []}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    _, notes = read_task_examples("multi-label", [str(path)], DataConfig())
    assert notes == [
        f"{path}:2: here, and in 1 of 2 examples together, a text is empty",
        f"{path}:2: here, and in 1 of 2 examples together, there is no label; they are learned as"
        " examples of none",
    ]


def test_same_data_are_the_same_under_another_path(tmp_path):
    (tmp_path / "g").mkdir()
    tables = [write_table(tmp_path / name, "abab") for name in ("f.csv", "g/h.csv")]
    first, second = (read_task_data("classification", config_of(table)) for table in tables)
    assert first.fingerprint() == second.fingerprint()
    write_table(tmp_path / "f.csv", "abba")
    third = read_task_data("classification", config_of(tables[0]))
    assert third.fingerprint() != first.fingerprint()


def test_tags_are_told_as_they_were_read_and_others_are_read_alike(tmp_path):
    train, test = tmp_path / "train.conll", tmp_path / "test.conll"
    train.write_text("a DET\nb O\nc NOUN\nd DET\n")
    test.write_text("b O\nc O\nd DET\n")  # by itself it would be IO
    config = DataConfig(train=[str(train)], validation=[str(test)], test=[str(test)])
    data = read_task_data("tokens", config)
    assert data.task.labels == ("DET", "NOUN", "O")
    assert data.test[0].tags == ("O", "O", "DET")
    assert data.config.scheme == "none"
    assert data.notes[0] == f"tags of {train} are read as none: they mark no entities"
    assert data.notes[-1] == (
        "3 classes (train / validation / test): DET 2 / 1 / 1; O 1 / 2 / 2; NOUN 1 / 0 / 0"
    )


def test_other_columns_are_kept_beside_examples_and_are_no_other_data(tmp_path):
    table, more = tmp_path / "t.csv", tmp_path / "m.csv"
    table.write_text("text,label\na,x\nb,y\n")
    more.write_text("id,text,label\n7,a,x\n8,b,y\n")
    shares = {"validation_share": 0.0, "test_share": 0.0}
    one, other = (
        read_task_data("classification", DataConfig(train=[str(path)], **shares))
        for path in (table, more)
    )
    assert one.fingerprint() == other.fingerprint()
    predictions = [{"label": "x"}, {"label": "x"}]
    other.task.write_predictions(tmp_path, other.train, predictions)
    first, second = map(json.loads, (tmp_path / "predictions.jsonl").read_text().splitlines())
    assert first == {"id": "7", "text": "a", "input_label": "x", "gold": "x", "label": "x"}
    assert (second["id"], second["gold"], second["label"]) == ("8", "y", "x")


def test_label_with_a_line_end_stays_on_one_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text('text,label\na,"x\ny"\nb,z\n')
    shares = {"validation_share": 0.0, "test_share": 0.0}
    data = read_task_data("classification", DataConfig(train=[str(path)], **shares))
    assert data.notes[-1] == '2 classes (train): "x\\ny" 1; z 1'


def test_other_encoding_is_named_as_the_option_of_the_program(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\na,x\n", encoding="utf-16")
    with pytest.raises(UserError, match=r"looks like UTF-16; pass --data\.encoding utf-16"):
        read_task_data("classification", DataConfig(train=[str(path)]))


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("|", "bars")])
def test_other_delimiters_are_recognised_and_told(tmp_path, mark, name):
    path = tmp_path / "t.csv"
    path.write_text(f"text{mark}label\na,b{mark}x\nc{mark}y\n")
    data = read_task_data("classification", DataConfig(train=[str(path)]))
    assert [(example.first, example.label) for example in data.train] == [("a,b", "x"), ("c", "y")]
    assert data.notes[0] == f"{path}: {name} separate its cells, as its header line shows"
    # The next file may be of another kind: what is recognised is not remembered, what is said is.
    assert to_fields(data.config) == {}
    said = read_task_data("classification", DataConfig(train=[str(path)], delimiter=mark))
    assert to_fields(said.config) == {"delimiter": mark}
    assert not [note for note in said.notes if "separate" in note]


@pytest.mark.parametrize("mark", [";", "|"])
def test_delimiter_of_choice_questions_is_recognised_and_told(tmp_path, mark):
    path = tmp_path / "t.csv"
    names = ["sent1", "sent2", "ending0", "ending1", "label"]
    path.write_text(f"{mark.join(names)}\n{mark.join(['a', 'b, c', 'd', 'e', '0'])}\n")
    [question], notes = read_task_examples("multiple-choice", [str(path)], DataConfig())
    assert question.choices == ("b, c d", "b, c e")
    assert "separate its cells" in notes[0]
