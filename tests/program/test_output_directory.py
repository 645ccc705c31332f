"""Output directories: a place of their own, apart from the input."""

import contextlib
import threading

import pytest

from bertjax.program.errors import UserError
from bertjax.program.output_directory import _remove_from_under, whole_directory


@pytest.mark.parametrize("path", [".", "/", "", "..", "rows/.."])
def test_output_needs_a_name_of_its_own(path):
    with pytest.raises(UserError, match=r"names no directory to make; name one"):
        whole_directory(path, overwrite=True).__enter__()


def test_output_is_never_named_as_what_was_not_finished(tmp_path):
    """It would be refused where it is read."""
    with (
        pytest.raises(UserError, match=r"made.partial: what ends in .partial .*; name another"),
        whole_directory(tmp_path / "made.partial"),
    ):
        raise AssertionError("it was begun")
    assert not [*tmp_path.iterdir()]


def test_output_and_input_never_contain_one_another(tmp_path, monkeypatch):
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.txt").write_text("mine")
    monkeypatch.chdir(texts)
    for output, given, message in (
        ("../texts", [".."], r"is inside the input \.\., and would be read as a part of it"),
        ("../texts", ["a.txt"], r"contains the input a.txt"),
        (texts, ["nowhere", tmp_path / "texts"], "contains the input"),
        ("made", ["../texts"], "is inside the input"),
    ):
        with pytest.raises(UserError, match=message):
            whole_directory(output, True, ["*"], given).__enter__()
    with whole_directory(
        tmp_path / "texts2", inputs=["a.txt", "*.txt", "corpus:python"]
    ) as partial:
        (partial / "new").touch()
    assert (texts / "a.txt").read_text() == "mine"


def test_directory_is_removed_while_another_thread_writes_to_it(tmp_path):
    """At Ctrl-C the main thread goes on writing until the process is gone."""
    for attempt in range(20):
        folder = tmp_path / str(attempt) / "spool"
        folder.mkdir(parents=True)
        over, begun = threading.Event(), threading.Event()

        def write(folder=folder, over=over, begun=begun):
            number = 0
            while not over.is_set():
                with contextlib.suppress(OSError):
                    (folder / str(number)).write_text("x")
                number += 1
                if number == 100:
                    begun.set()

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        begun.wait()
        _remove_from_under(folder.parent)
        over.set()
        thread.join()
        assert not folder.parent.exists()


def test_what_killed_programs_left_is_gone_at_the_end_of_the_next(tmp_path):
    for name in ("made.partial", "made.partial.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    with whole_directory(tmp_path / "made") as partial:
        (partial / "own").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["own"]


def test_place_that_cannot_be_written_is_named_as_it_was_given(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .*file/rows: no directory can be made there"):
        whole_directory(tmp_path / "file" / "rows").__enter__()
