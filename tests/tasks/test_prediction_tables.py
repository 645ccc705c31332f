"""Predictions beside all that their input has, in every kind of file."""

import csv
import datetime
import json

import pytest

from bertjax.tasks.labelled import TextExample
from bertjax.tasks.prediction_tables import join_rows, write_rows
from bertjax.tasks.tagged_sentences import TaggedSentence

EXAMPLES = [
    TextExample("f:2", "a", None, None, {"id": 7, "body": "a\tb", "label": "x"}),
    TextExample("f:3", "b", None, None, {"id": 8, "body": "é", "label": "y"}),
]
PREDICTIONS = [
    {"label": "x", "probabilities": {"x": 0.75, "y": 0.25}},
    {"label": "y", "probabilities": {"x": 0.5, "y": 0.5}},
]


def test_every_column_of_the_input_is_kept_and_a_taken_name_is_told():
    rows, notes = join_rows(EXAMPLES, PREDICTIONS)
    assert rows[0] == {"id": 7, "body": "a\tb", "input_label": "x", **PREDICTIONS[0]}
    assert notes == [
        "the input's column 'label' is renamed 'input_label', because the predictions have"
        " 'label' themselves"
    ]
    sentence = TaggedSentence("f:1", ("a",), None, "a", ((0, 1),), {"sent_id": "s1", "text": "a"})
    [row], notes = join_rows([sentence], [{"tags": ["O"]}])
    assert row == {"text": "a", "tokens": ["a"], "sent_id": "s1", "tags": ["O"]}
    pair = TextExample("standard input, line 1", "a", "b", None)
    assert join_rows([pair], [{"value": 1.0}])[0] == [
        {"sentence1": "a", "sentence2": "b", "value": 1.0}
    ]
    when = EXAMPLES[0]._replace(record={"at": datetime.date(2020, 1, 2)})
    assert join_rows([when], PREDICTIONS[:1])[0][0]["at"] == "2020-01-02"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_are_read_back(tmp_path, suffix):
    rows, _ = join_rows(EXAMPLES, PREDICTIONS)
    path = tmp_path / f"out.{suffix}"
    notes = write_rows(path, rows)
    names = ["id", "body", "input_label", "label", "probabilities.x", "probabilities.y"]
    values = [[7, "a\tb", "x", "x", 0.75, 0.25], [8, "é", "y", "y", 0.5, 0.5]]
    if suffix == "jsonl":
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    elif suffix == "parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        assert table.column_names == names
        assert [list(row.values()) for row in table.to_pylist()] == values
    else:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(csv.reader(file, delimiter="," if suffix == "csv" else "\t"))
        assert found == [names, *([str(value) for value in row] for row in values)]
    assert notes == (
        [f"{path}: cells with tabs, line ends or quotation marks are in quotation marks; read it"
         " with --quoting double"] if suffix == "tsv" else []
    )  # fmt: skip


def test_cells_of_several_kinds_and_lists_are_written(tmp_path):
    rows = [{"id": 1, "tags": ["O"], "none": None}, {"id": "x", "tags": [], "none": None}]
    write_rows(tmp_path / "a.parquet", rows)
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == [
        {"id": "1", "tags": '["O"]', "none": None},
        {"id": "x", "tags": "[]", "none": None},
    ]
    write_rows(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_text() == 'id,tags,none\n1,"[""O""]",\nx,[],\n'
