"""Pictures show labels as they are, leave out what does not vary, and never cost a result."""

import xml.etree.ElementTree as ElementTree

import pytest

from bertjax.pictures import (
    LONGEST_LABEL,
    Panel,
    draw_confusion_matrix,
    draw_panels,
    draw_picture,
    draw_table_of_lines,
    series_of,
    short_label,
)


@pytest.fixture(autouse=True)
def text_stays_text(monkeypatch):
    """So that it can be read in an SVG."""
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")


def texts_of(path):
    return [element.text for element in ElementTree.parse(path).iter() if element.text]


@pytest.mark.parametrize("label", ["$10_to_$50", "a^$x$", r"$\frac$", "50%_{x", "$"])
def test_labels_are_drawn_as_they_stand(tmp_path, label):
    path = tmp_path / "matrix.svg"
    assert draw_confusion_matrix(path, [[30, 2], [1, 4]], [label, "other"]) == []
    assert texts_of(path).count(label) == 2
    assert {"30\n94%", "30", "94%"} & set(texts_of(path))
    path = tmp_path / "curves.svg"
    lines = [{"step": 1, label: 0.5}, {"step": 2, label: 0.75}]
    assert draw_table_of_lines(path, lines, [label]) == []
    assert label in texts_of(path)


def test_picture_that_fails_costs_a_note_and_leaves_nothing_behind(tmp_path):
    def fail():
        raise RuntimeError("no\nmemory")

    assert draw_picture(tmp_path / "a.png", fail) == ["no a.png: no memory"]
    assert draw_panels(tmp_path / "b.png", []) == ["no b.png: there is nothing to draw"]
    assert list(tmp_path.iterdir()) == []


def test_missing_matplotlib_costs_a_note_that_names_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    [note] = draw_confusion_matrix(tmp_path / "a.png", [[1]], ["a"])
    assert "no a.png: it needs matplotlib" in note
    assert "pip install 'bertjax[tasks]'" in note


def test_letters_that_the_font_lacks_are_told(tmp_path):
    [note] = draw_confusion_matrix(tmp_path / "a.png", [[1, 0], [0, 1]], ["日本", "b"])
    assert note == "a.png: the font lacks 日, 本; they are drawn as boxes"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_long_labels_are_cut_and_hundreds_of_classes_fit(tmp_path):
    assert short_label("a\n b") == "a b"
    assert len(short_label("x" * 100)) == LONGEST_LABEL
    eye = [[int(row == column) for column in range(150)] for row in range(150)]
    assert draw_confusion_matrix(tmp_path / "a.png", eye, [str(n) for n in range(150)]) == []
    width, height = (
        int.from_bytes((tmp_path / "a.png").read_bytes()[at : at + 4]) for at in (16, 20)
    )
    assert 1000 < width < 5000
    assert 1000 < height < 5000


def test_what_is_the_same_in_every_line_makes_no_panel(tmp_path):
    lines = [{"step": step, "examples": 40, "loss": 1 / step} for step in (2, 1)]
    draw_table_of_lines(tmp_path / "a.svg", lines, ["loss", "examples"])
    assert "loss" in texts_of(tmp_path / "a.svg")
    assert "examples" not in texts_of(tmp_path / "a.svg")
    draw_table_of_lines(tmp_path / "b.svg", lines[:1], ["loss", "examples"])  # may yet vary
    assert {"loss", "examples"} <= set(texts_of(tmp_path / "b.svg"))


def test_line_of_one_point_shows(tmp_path):
    """A run of 30 steps has one line of the log where it is written every 20 steps."""
    train = series_of([{"step": 20, "loss": 1.0}], "loss", "train")
    other = series_of([{"step": step, "loss": 0.5} for step in (30, 10)], "loss", "validation")
    assert list(other.steps) == [10, 30]
    for name, drawn in (("both", [train, other]), ("one", [other])):
        assert draw_panels(tmp_path / f"{name}.svg", [Panel("loss", drawn)]) == []
    shapes = [(tmp_path / f"{name}.svg").read_text().count("<use ") for name in ("both", "one")]
    assert shapes[0] >= shapes[1] + 1
    assert "train" in texts_of(tmp_path / "both.svg")


def test_baselines_and_marks_are_in_the_legend(tmp_path):
    panel = Panel("loss", [series_of([{"step": 1, "loss": 2.0}], "loss")], {"unigram": 7.0})
    assert draw_panels(tmp_path / "a.svg", [panel], {"kept": 1}) == []
    assert {"loss", "unigram", "kept", "step"} <= set(texts_of(tmp_path / "a.svg"))
