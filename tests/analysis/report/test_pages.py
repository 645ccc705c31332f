"""What is written: whole, small, in order, and refused where its parts do not fit."""

import base64
import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from bertjax.analysis.report.data import Head, Measure, ReportData, Table
from bertjax.analysis.report.maps import (
    LEAST_EDGES,
    dequantize,
    plan_edges,
    quantize,
    store_maps,
    texts_with_room,
)
from bertjax.analysis.report.pages import assemble_page, numbers_of, write_report
from bertjax.program.errors import UserError
from tests.analysis.report.report_example import make_figures, make_report


@pytest.fixture(scope="module")
def data():
    return make_report()


@pytest.fixture(scope="module")
def page(data):
    return assemble_page(data)


def data_of(page):
    found = re.findall(r'<script type="application/json" id="report-data">(.*?)</script>', page)
    assert len(found) == 1
    return json.loads(found[0])


def bytes_of(text, dtype=np.uint8):
    return np.frombuffer(base64.b64decode(text), dtype)


def random_maps(layers, heads, length, seed=0):
    maps = np.random.default_rng(seed).gamma(0.2, size=(layers, heads, length, length))
    return (maps / maps.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_quantized_weights_are_as_near_as_is_said():
    weights = np.linspace(0, 1, 200_001)
    error = np.abs(dequantize(quantize(weights)) - weights)
    assert error.max() <= 0.004
    assert error[weights < 0.002].max() <= 0.0002
    assert quantize(np.array([1 / 512]))[0] == 11  # even steps would make it 0 or 1 of 255
    assert (np.diff(quantize(weights).astype(int)) >= 0).all()


def test_short_maps_are_stored_whole():
    maps = random_maps(2, 3, 7)
    [stored] = store_maps([maps])
    assert stored.edges is None
    np.testing.assert_array_equal(stored.weights, quantize(maps))
    layers = stored.to_json()["weights"]
    for layer, text in enumerate(layers):
        np.testing.assert_array_equal(bytes_of(text).reshape(3, 7, 7), quantize(maps[layer]))


@pytest.mark.parametrize(("length", "column_type"), [(40, "<u1"), (300, "<u2")])
def test_long_maps_keep_the_heaviest_edges_and_say_how_much(length, column_type):
    maps = random_maps(2, 3, length)
    most = maps.size // 2
    [stored] = store_maps([maps], most)
    edges = stored.edges
    assert LEAST_EDGES <= edges < length
    found = stored.to_json()
    assert sum(len(text) for part in ("weights", "columns") for text in found[part]) <= most
    weights = bytes_of(found["weights"][1]).reshape(3, length, edges)
    columns = bytes_of(found["columns"][1], column_type).reshape(3, length, edges)
    order = np.argsort(-maps[1], axis=-1, kind="stable")[..., :edges]
    np.testing.assert_array_equal(weights, quantize(np.take_along_axis(maps[1], order, axis=-1)))
    kept = np.take_along_axis(maps[1], columns.astype(int), axis=-1)
    np.testing.assert_array_equal(weights, quantize(kept))
    np.testing.assert_allclose(stored.kept[1], kept.sum(axis=-1).mean(axis=-1), rtol=1e-5)
    assert found["columnBytes"] == np.dtype(column_type).itemsize


def test_short_texts_stay_whole_beside_a_long_one():
    maps = [random_maps(2, 3, length) for length in (60, 5, 8)]
    stored = store_maps(maps, 9000)
    assert [one.edges is None for one in stored] == [False, True, True]
    assert stored[0].weights.shape[2] == 60


def test_as_many_texts_are_shown_as_there_is_room_for():
    shapes = [(2, 3, length) for length in (60, 8, 60, 60)]
    with pytest.raises(UserError, match="show fewer or shorter texts"):
        plan_edges(shapes, 9000)
    room = texts_with_room(shapes, 9000)
    assert 0 < room < 4
    assert len(store_maps([random_maps(*shape) for shape in shapes[:room]], 9000)) == room
    with pytest.raises(UserError, match="show fewer or shorter texts"):
        store_maps([random_maps(*shape) for shape in shapes[: room + 1]], 9000)
    assert texts_with_room(shapes) == 4
    assert texts_with_room([(2, 3, 60)] * 2, 5000) == 1
    assert texts_with_room([(12, 12, 512)] * 12) < 12  # of a model of the base size
    with pytest.raises(UserError, match="1 texts of up to 60 tokens"):
        texts_with_room(shapes, 100)


def test_too_many_texts_are_refused():
    with pytest.raises(UserError, match="show fewer or shorter texts"):
        store_maps([random_maps(2, 3, 60)] * 3, 9000)


def test_page_holds_all_data_and_asks_for_nothing_else(data, page):
    found = data_of(page)
    assert found["title"] == "tiny & <new> @@DATA@@"
    assert "<title>tiny &amp; &lt;new&gt; @@DATA@@</title>" in page
    assert [len(one["tokens"]) for one in found["sentences"]] == [
        len(one.encoded.tokens) for one in data.sentences
    ]
    assert found["lenses"][0]["topTokens"][0][0][1] == "</script>"
    assert page.count("</script>") == 2
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"https?://[^\"' ]+", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link|<img|@import|url\(|fetch\(|XMLHttpRequest|\bsrc=", page)


def test_numbers_are_those_of_the_data(data, tmp_path):
    found = json.loads(json.dumps(numbers_of(data), allow_nan=False))
    entropy, kind = found["headFigures"]
    assert entropy["figures"]["value"] == [[0.1, 0.5, 0.9, 1.3], [1.7, 2.1, 2.5, None]]
    assert entropy["figures"]["low"][0][2] == 0.85
    assert entropy["figures"]["control_high"][1][0] == 0.6
    assert entropy["figures"]["distinguishable"][0] == [True, False, True, True]
    assert kind["figures"] == {"value": [[0, 1, 2, 0], [1, 1, 0, 2]]}
    first, second, third = found["tables"][0]["rows"]
    assert first[1] == {"layer": 1, "head": 2}
    assert (first[2]["value"], first[2]["distinguishable"]) == (0.7, True)
    assert second[2]["distinguishable"] is False
    assert third[1:] == [None, {"value": None}, 3]
    assert found["curves"][0]["series"][1]["figures"] == {"value": [0.2, 0.4, 0.45]}


@pytest.mark.parametrize(
    ("value", "told"), [(0.05, True), (0.1, False), (0.3, False), (0.31, True)]
)
def test_measure_is_told_from_its_control_on_either_side(value, told):
    measure = Measure(value, control=0.2, control_low=0.1, control_high=0.3)
    table = Table("one", "", "", ("a",), ((measure,),))
    [[cell]] = numbers_of(ReportData("", tables=[table]))["tables"][0]["rows"]
    assert cell["distinguishable"] is told
    assert "low" not in cell


def test_everything_is_written(data, tmp_path):
    (tmp_path / "mine.txt").write_text("stays")
    written = write_report(data, tmp_path)
    assert [path.name for path in written[:2]] == ["report.html", "numbers.json"]
    assert {path.name for path in written[2:]} == {
        f"{name}.{kind}" for name in ("entropy", "class", "tags", "cka") for kind in ("png", "svg")
    }
    there = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert there == {*written, tmp_path / "mine.txt"}
    for path in written[2:]:
        if path.suffix == ".svg":
            ElementTree.parse(path)
        else:
            assert path.read_bytes().startswith(b"\x89PNG")
    drawing = (tmp_path / "figures" / "entropy.svg").read_text()
    assert "not distinguishable from a random model" in drawing
    assert "nats" in drawing
    before = [path.read_bytes() for path in written]
    assert [path.read_bytes() for path in write_report(data, tmp_path)] == before


def test_figures_of_an_earlier_report_are_not_left_beside_the_new_one(data, tmp_path):
    write_report(data, tmp_path)
    (tmp_path / "figures" / "mine.png").write_text("stays")
    written = write_report(data._replace(curves=[]), tmp_path)
    there = set((tmp_path / "figures").iterdir())
    assert there == {*written[2:], tmp_path / "figures" / "mine.png"}
    assert not (tmp_path / "figures" / "tags.png").exists()


def test_every_section_may_be_left_out(tmp_path):
    assert data_of(assemble_page(ReportData("nothing")))["shape"] == [0, 0]
    [page, numbers] = write_report(ReportData("nothing"), tmp_path)
    assert json.loads(numbers.read_text())["headFigures"] == []
    assert page.stat().st_size < 100_000


def test_parts_that_do_not_fit_are_refused(data):
    def refuse(match, **changes):
        with pytest.raises(ValueError, match=match):
            write_report(data._replace(**changes), "nowhere")

    entropy, _ = data.head_figures
    refuse("name='Big One' must be lower-case", head_figures=[entropy._replace(name="Big One")])
    refuse("'entropy' is used by two parts", head_figures=[entropy, entropy])
    other = entropy._replace(name="other", figures=make_figures(np.zeros((3, 4))))
    refuse(r"the same \[L, N\]", head_figures=[entropy, other])
    [matrix] = data.matrices
    refuse(r"matrix cka: figures must be \(2, 3\)", matrices=[matrix._replace(figures=np.eye(2))])
    [curve] = data.curves
    refuse("curve tags, accuracy: a figure for each", curves=[curve._replace(points=("0",))])
    [table] = data.tables
    refuse("every row needs 4 cells", tables=[table._replace(rows=((Head(0, 0),),))])


def test_palette_steps_are_those_of_the_library(page):
    import matplotlib

    for name, steps in data_of(page)["palettes"].items():
        colors = [matplotlib.colors.to_hex(c) for c in matplotlib.colormaps[name]([0.0, 0.5, 1.0])]
        assert [steps[0], steps[len(steps) // 2], steps[-1]] == colors
