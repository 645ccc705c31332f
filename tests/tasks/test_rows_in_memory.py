"""Rows of a Python program are read as the same rows in a file are."""

import json

import datasets
import pandas
import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.reading import read_task_data
from bertjax.tasks.rows_in_memory import read_given

ROWS = [{"text": f"n{number}", "label": "ab"[number % 3 == 0]} for number in range(40)]
NUMBERS = {"a": 0, "b": 1}


def read(rows, name="classification", **fields):
    return read_given(name, DataConfig(**fields), {"train": rows})


@pytest.fixture
def from_file(tmp_path):
    """The data of the rows in a file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return read_task_data("classification", DataConfig(train=[str(path)]))


def as_dataset():
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a", "b"])}
    numbered = [row | {"label": NUMBERS[row["label"]]} for row in ROWS]
    return datasets.Dataset.from_list(numbered, features=datasets.Features(features))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: iter(ROWS),
        lambda: {name: [row[name] for row in ROWS] for name in ("text", "label")},
        lambda: pandas.DataFrame(ROWS),
        as_dataset,
    ],
    ids=["list", "iterator", "columns", "frame", "data set with numbered classes"],
)
def test_rows_in_any_form_are_those_of_the_file(from_file, make):
    data = read(make())
    assert data.fingerprint() == from_file.fingerprint()
    assert [len(split) for split in data[1:4]] == [len(split) for split in from_file[1:4]]
    assert data.train[0].place == "train row 1"
    assert data.config.train == ["memory:train"]
    assert data.describe(data.config)[0].endswith("examples (memory:train)")


def test_each_split_is_rows_or_files(tmp_path, from_file):
    path = tmp_path / "rows.jsonl"
    splits = {"train": ROWS, "validation": path, "test": [path, str(path)]}
    data = read_given("classification", DataConfig(), splits)
    assert data.config.validation == [str(path)]
    assert [len(split) for split in data[1:4]] == [40, 40, 40]
    assert data.validation[0].place == f"{path}:1"


def test_missing_value_of_a_frame_is_no_value():
    frame = pandas.DataFrame({"text": ["a", None], "score": [1.5, float("nan")]})
    with pytest.raises(UserError, match=r"^train row 2: "):
        read(frame, "regression")
    assert read(frame[:1], "regression").train[0].label == 1.5


def test_tags_that_are_numbers_have_the_names_of_the_data_set():
    kind = datasets.ClassLabel(names=["O", "B-X", "I-X"])
    features = {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(kind)}
    rows = [{"tokens": ["at", "his", "on"], "ner_tags": [0, 1, 2]}] * 2
    data = read(datasets.Dataset.from_list(rows, features=datasets.Features(features)), "tokens")
    assert data.train[0].tags == ("O", "B-X", "I-X")
    named = [row | {"ner_tags": ["O", "B-X", "I-X"]} for row in rows]
    assert read(named, "tokens").fingerprint() == data.fingerprint()


def test_questions_are_those_of_the_hub_or_of_squad(tmp_path):
    question = {"id": "7", "question": "who?", "context": "it was his", "title": "t"}
    hub = [question | {"answers": {"text": ["his"], "answer_start": [7]}}]
    hub += [question | {"id": "8", "answers": {"text": [], "answer_start": []}}]
    answers = ([{"text": "his", "answer_start": 7}], [])
    entries = [
        {"id": number, "question": "who?", "answers": some}
        for number, some in zip("78", answers, strict=True)
    ]
    articles = [{"title": "t", "paragraphs": [{"context": "it was his", "qas": entries}]}]
    path = tmp_path / "squad.json"
    path.write_text(json.dumps({"data": articles}))
    expected = read_task_data("question-answering", DataConfig(train=[str(path)])).fingerprint()
    assert read(hub, "question-answering").fingerprint() == expected
    assert read(articles, "question-answering").fingerprint() == expected
    with pytest.raises(UserError, match=r"^train: data\[0\].*'context' is null"):
        read([{"question": "who?"}], "question-answering")
    uneven = question | {"answers": {"text": ["his", "it"], "answer_start": [7]}}
    with pytest.raises(UserError, match=r"^train row 1: .* 2 texts and 1 answer_start; each text"):
        read([uneven], "question-answering")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b"}], r"^train row 2: no field 'label'"),
        ([{"text": 3, "label": "x"}], r"^train row 1: the field 'text' is 3, not text"),
        ([{"body": "a", "kind": "x"}], r"^train: which column holds the text"),
        (["a", {"b": 1}], r"^train row 1: a row is a dict of fields, this is 'a'"),
        ([], r"^train has no rows$"),
        ([{"text": b"a", "label": "x"}], r"^train row 1: b'a' \(bytes\) is not a text; decode it"),
        ([{"text": "a\ud800", "label": "x"}], r"^train row 1: character 2 is U\+D800, half of a"),
        ([{"text": "a", "label": float("inf")}], r"^train row 1: inf is not a finite number"),
        ({"text": ["a"], "label": 1}, r"^train: its column label is 1; a dict has columns, each"),
        (
            pandas.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"]),
            r"^train: two columns are called text; rename one of them$",
        ),
        (
            {"train": datasets.Dataset.from_list([{"text": "a"}])},
            r"^train is several data sets; give one of them, train\['train'\]$",
        ),
        (3, r"^train=3 is neither rows .* nor the path of a file$"),
        ({"text": ["a"], "label": []}, r"^train: columns have different lengths: .*'label': 0"),
        ("nowhere.csv", r"^nowhere.csv: no such file"),
    ],
)
def test_what_is_wrong_with_rows_is_said_with_their_place(rows, message):
    with pytest.raises(UserError, match=message):
        read(rows)


def test_format_is_of_files():
    with pytest.raises(UserError, match=r"^format=csv is what files are, and train is given as"):
        read(ROWS, format="csv")
