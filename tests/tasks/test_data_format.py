"""What fine-tuning was told of its files is remembered, and what is said anew wins."""

import argparse

import pytest

from bertjax.commands.texts import Texts
from bertjax.errors import UserError
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import FILE_NAME, describe, join, recall, remember

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


def test_texts_of_a_fitted_model_are_read_from_the_columns_that_it_remembers(tmp_path):
    remember(tmp_path, DataConfig(text_column="body", pair_column="more", format="csv"))
    (tmp_path / "new.data").write_text("id,body,more\n1,a,b\n")
    named = {"encoding": "utf-8", "errors": "strict", "model": str(tmp_path)}
    files = [str(tmp_path / "new.data")]
    for said, texts in ((None, [("a", "b")]), ("more", ["b"])):
        options = argparse.Namespace(text_column=said, pair_column=None, **named)
        assert [text for _, text in Texts(options, files=files, pairs=True)] == texts


def test_remembered_format_is_of_files_whose_names_tell_none(tmp_path):
    remember(tmp_path, DataConfig(text_column="body", format="csv"))
    (tmp_path / "new.jsonl").write_text('{"body": "a"}\n')
    (tmp_path / "new.txt").write_text("a,b\n")
    named = {"encoding": "utf-8", "errors": "strict", "model": str(tmp_path), "text_column": None}
    for name, text in (("new.jsonl", "a"), ("new.txt", "a,b")):
        texts = Texts(argparse.Namespace(**named), files=[str(tmp_path / name)], pairs=True)
        assert [text for _, text in texts] == [text]
