"""What fine-tuning was told of its files is remembered, and what is said anew wins."""

import argparse

import pytest

from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.errors import UserError
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import FILE_NAME, describe, join, recall, remember
from bertjax.tasks.reading import read_task_examples

TOLD = DataConfig(
    train=["f.csv"], text_column="body", pair_column="more", columns=["id", "body", "more", "x"],
    label_column="x", quoting="double", encoding="latin-1",
)  # fmt: skip


def test_what_was_told_is_remembered_but_for_files_and_encodings(tmp_path):
    assert recall(tmp_path) == {}
    remember(tmp_path, TOLD)
    assert recall(tmp_path) == {
        "text_column": "body", "pair_column": "more", "label_column": "x",
        "columns": ["id", "body", "more", "x"], "quoting": "double",
    }  # fmt: skip
    config = join(recall(tmp_path), {"encoding": "utf-8"})
    assert (config.text_column, config.quoting, config.encoding) == ("body", "double", "utf-8")
    assert config.option("text_column") == "--text-column"
    [note] = describe(recall(tmp_path), config, "DIR")
    assert note.startswith("files are read as DIR was fitted (bertjax_data.json): text_column=body")
    assert describe({}, config, "DIR") == []


def test_what_is_said_wins_and_an_empty_text_undoes():
    held = {"text_column": "body", "pair_column": "more", "label_column": "x", "quoting": "double"}
    config = join(held, {"text_column": "t", "pair_column": "", "columns": [], "quoting": None})
    assert (config.text_column, config.pair_column, config.columns) == ("t", None, [])
    assert (config.label_column, config.quoting) == ("x", "double")
    # A column of the label and columns of labels exclude each other.
    assert join(held, {"label_columns": ["a", "b"]}).label_column is None
    assert join({"label_columns": ["a"]}, {"label_column": "x"}).label_columns == []
    assert "text_column" not in "".join(describe(held, config, "DIR"))


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "damaged, not JSON"), ('{"seed": 1}', "has 'seed', which is no"), ("[]", "has \\[\\],")],
)
def test_damaged_memory_is_told(tmp_path, content, message):
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(UserError, match=message):
        recall(tmp_path)


def read_texts(model, file, *words):
    """What a command reads of a file for a model."""
    parser = argparse.ArgumentParser()
    add_texts(parser, pairs=True)
    reading = choose_reading(parser.parse_args([*words]), str(model))
    return [text for _, text in Texts(reading, files=[str(file)], pairs=True)]


def test_texts_of_a_fitted_model_are_read_from_the_columns_that_it_remembers(tmp_path):
    remember(tmp_path, DataConfig(text_column="body", pair_column="more", format="csv"))
    (tmp_path / "new.data").write_text("id,body,more\n1,a,b\n")
    assert read_texts(tmp_path, tmp_path / "new.data") == [("a", "b")]
    assert read_texts(tmp_path, tmp_path / "new.data", "--text-column", "more") == ["b"]


NEW = {
    "new.jsonl": '{"body": "a;b", "label": "x"}\n', "new.csv": 'body,label\n"a;b",x\n',
    "new.data": "body;label\n\"a;b\";x\n", "new.tsv": "body\tlabel\na;b\tx\n",
}  # fmt: skip


@pytest.mark.parametrize("name", NEW)
def test_remembered_format_is_of_files_whose_names_tell_none(tmp_path, name):
    remember(
        tmp_path,
        DataConfig(text_column="body", format="csv", delimiter=";", columns=["body", "label"]),
    )
    (tmp_path / name).write_text(NEW[name])
    assert read_texts(tmp_path, tmp_path / name) == ["a;b"]
    config = join(recall(tmp_path), {})
    examples, _ = read_task_examples("classification", [str(tmp_path / name)], config)
    assert [(example.first, example.label) for example in examples] == [("a;b", "x")]


def test_text_file_is_of_texts_or_of_the_remembered_format_as_the_command_reads(tmp_path):
    remember(tmp_path, DataConfig(format="csv"))
    (tmp_path / "new.txt").write_text("text,label\na,b\n")
    assert read_texts(tmp_path, tmp_path / "new.txt") == ["text,label", "a,b"]
    [example], _ = read_task_examples(
        "classification", [str(tmp_path / "new.txt")], join(recall(tmp_path), {})
    )
    assert (example.first, example.label) == ("a", "b")


def test_remembered_format_of_tagged_sentences_is_of_names_that_tell_none(tmp_path):
    config = join({"format": "jsonl"}, {})
    (tmp_path / "a.data").write_text('{"tokens": ["a"], "tags": ["B-X"]}\n')
    (tmp_path / "b.txt").write_text("a B-X\n")
    for name in ("a.data", "b.txt"):
        [sentence], _ = read_task_examples("tokens", [str(tmp_path / name)], config)
        assert (sentence.tokens, sentence.tags) == (("a",), ("B-X",))
