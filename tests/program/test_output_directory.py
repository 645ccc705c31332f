"""Output directories: a place of their own, apart from the input."""

import pytest

from bertjax.errors import UserError
from bertjax.program.output_directory import whole_directory


@pytest.mark.parametrize("path", [".", "/", "", "..", "rows/.."])
def test_output_needs_a_name_of_its_own(path):
    with pytest.raises(UserError, match=r"names no directory to make; name one"):
        whole_directory(path, overwrite=True).__enter__()


def test_output_and_input_never_contain_one_another(tmp_path, monkeypatch):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("mine")
    monkeypatch.chdir(texts)
    for output, given, message in (
        ("../texts", [".."], r"lies in the input \.\., and would be read as text"),
        ("../texts", ["a.txt"], r"holds the input a.txt"),
        (texts, ["nowhere", tmp_path / "texts"], "holds the input"),
        ("made", ["../texts"], "lies in the input"),
    ):
        with pytest.raises(UserError, match=message):
            whole_directory(output, True, ["*"], given).__enter__()
    with whole_directory(
        tmp_path / "texts2", inputs=["a.txt", "*.txt", "corpus:python"]
    ) as partial:
        (partial / "new").touch()
    assert (texts / "a.txt").read_text() == "mine"


def test_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .*file/rows: no directory can be made there"):
        whole_directory(tmp_path / "file" / "rows").__enter__()
