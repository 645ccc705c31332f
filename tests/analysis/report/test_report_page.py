"""The page in a browser: it opens, and shows the right numbers of what is chosen and hovered.

Skipped where there is no browser, but for `make test-browser`, which has to have one.
"""

import numpy as np
import pytest

from bertjax.analysis.capture.encoding import EncodedText, merge_subwords
from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.report.data import HeadFigure, ReportData
from bertjax.analysis.report.pages import write_report
from tests.analysis.report.report_example import make_figures, make_report

# A weight is stored in 256 steps and shown with three digits.
STORED = 0.004 + 0.0005


@pytest.fixture(scope="module")
def data():
    return make_report()


@pytest.fixture(scope="module")
def address(data, tmp_path_factory):
    page, *_ = write_report(data, tmp_path_factory.mktemp("report"))
    return page.as_uri()


@pytest.fixture
def page(browser, address):
    """A fresh page; an error of its script or a call to the network fails the test."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: message.type == "error" and problems.append(message.text))
    page.on("request", lambda request: request.url != address and problems.append(request.url))
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    yield page
    page.close()
    assert problems == []


def words(page, side):
    return page.locator(f".word[data-side={side}] .label").all_text_contents()


def weights(page, side="to"):
    """The numbers that stand beside the words; NaN for none, and for one that is not stored."""
    texts = page.locator(f".word[data-side={side}] .weight").all_text_contents()
    return np.array([float(text) if text not in ("", "–") else np.nan for text in texts])


def choose(page, title, **choice):
    page.get_by_label(title, exact=True).select_option(**choice)


def test_weight_of_a_word_is_that_of_the_capture(page, data):
    """Choose a sentence, drill into a head, hover a word, read the weights."""
    choose(page, "Sentence", index=1)
    page.locator("[data-layer='1'][data-head='2']").click()
    assert page.locator("#head-title").inner_text() == "Layer 1, head 2"
    captured = data.sentences[1]
    assert words(page, "from") == list(captured.encoded.words)
    assert "Lines below 0.010 are drawn only for" in page.locator("#map-meaning").inner_text()
    expected = merge_subwords(captured.probs[1, 2], captured.encoded)
    sizes = np.bincount(captured.encoded.word_ids)
    number = int(np.argmax(sizes))
    assert sizes[number] == 2  # a word of two tokens: its row is their mean
    page.locator(f".word[data-side=from][data-index='{number}']").hover()
    np.testing.assert_allclose(weights(page), expected[number], atol=STORED)
    assert np.isnan(weights(page, "from")).all()
    best = captured.encoded.words[np.argmax(expected[number])]
    assert f"mostly to: {best} {weights(page).max():.3f}" in page.locator("#reading").inner_text()
    page.locator(".word[data-side=to][data-index='2']").hover()
    np.testing.assert_allclose(weights(page, "from"), expected[:, 2], atol=2 * STORED)


def test_tokens_and_special_tokens_are_filtered_as_said(page, data):
    captured = data.sentences[0]
    choose(page, "Units", label="tokens")
    assert words(page, "to") == list(captured.encoded.tokens)
    page.locator(".word[data-side=from][data-index='4']").hover()
    np.testing.assert_allclose(weights(page), captured.probs[0, 0, 4], atol=STORED)
    kept = ~captured.encoded.special
    row = captured.probs[0, 0, np.flatnonzero(kept)[1]][kept]
    choose(page, "Special tokens", value="hide")
    assert "[CLS]" not in words(page, "to")
    page.locator(".word[data-side=from][data-index='1']").hover()
    np.testing.assert_allclose(weights(page), row, atol=STORED)
    choose(page, "Special tokens", value="renormalise")
    page.locator(".word[data-side=from][data-index='1']").hover()
    np.testing.assert_allclose(weights(page), row / row.sum(), atol=STORED / row.sum())
    assert weights(page).sum() == pytest.approx(1, abs=0.005)
    assert "scaled to sum to 1 again" in page.locator("#map-meaning").inner_text()


def test_pair_keeps_its_segments(page, data):
    choose(page, "Sentence", index=2)
    marked = page.locator(".word[data-side=from].second .label").all_text_contents()
    types = data.sentences[2].encoded.token_type_ids
    firsts = data.sentences[2].encoded.first_tokens
    assert len(marked) == types[firsts].sum() > 0


def test_layer_slider_goes_through_the_layers(page, data):
    page.locator(".word[data-side=from][data-index='2']").click()
    page.get_by_label("Layer", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#head-title").inner_text() == "Layer 1, head 0"
    captured = data.sentences[0]
    expected = merge_subwords(captured.probs[1, 0], captured.encoded)
    np.testing.assert_allclose(weights(page), expected[2], atol=STORED)  # the word is pinned
    chosen = page.locator("[role=gridcell][aria-selected=true]")
    assert (chosen.get_attribute("data-layer"), chosen.get_attribute("data-head")) == ("1", "0")


def test_matrix_shows_the_weight_under_the_pointer_and_the_keys(page, data):
    page.get_by_role("button", name="Matrix").click()
    canvas = page.locator("#matrix canvas")
    canvas.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):  # the first key enters at 0, 0
        page.keyboard.press(key)
    captured = data.sentences[0]
    expected = merge_subwords(captured.probs[0, 0], captured.encoded)
    reading = page.locator("#reading").inner_text()
    assert f"From “{captured.encoded.words[2]}” (3) to “[CLS]” (1)" in reading
    assert float(reading.split(": ")[-1]) == pytest.approx(expected[2, 0], abs=STORED)
    box = page.locator("#matrix .cursor").bounding_box()
    page.mouse.move(box["x"] + 1.5 * box["width"], box["y"] + 1.5 * box["height"])
    reading = page.locator("#reading").inner_text()
    assert "(4) to" in reading
    assert float(reading.split(": ")[-1]) == pytest.approx(expected[3, 1], abs=STORED)


def test_grid_greys_out_what_is_not_distinguishable(page):
    grey = page.locator("[role=gridcell].grey")
    assert [cell.get_attribute("data-head") for cell in grey.all()] == ["1", "3"]
    assert "not distinguishable from it" in grey.first.get_attribute("aria-label")
    assert "2 of 8 heads not distinguishable" in page.locator("#grid-legend").inner_text()
    colors = page.locator("[role=gridcell]:not(.grey)").evaluate_all(
        "cells => cells.map((cell) => cell.style.background)"
    )
    assert len(set(colors)) == 6
    choose(page, "Colour by", label="Class")
    assert "diagonal" in page.locator("#grid-legend").inner_text()
    assert page.locator("[role=gridcell].grey").count() == 0


def test_grid_is_used_by_keys(page):
    page.locator("[data-layer='0'][data-head='0']").focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator("#head-title").inner_text() == "Layer 1, head 3"
    focused = page.evaluate("document.activeElement.dataset.head")
    assert focused == "3"
    assert page.locator("[role=gridcell][tabindex='0']").count() == 1
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_maps_of_all_heads_are_drawn(page, data):
    page.get_by_role("button", name="Maps").click()
    page.wait_for_selector("#grid[data-drawn]")
    assert page.locator("#grid canvas").count() == 8
    pixels = page.locator("[data-layer='0'][data-head='2'] canvas").evaluate(
        "canvas => [canvas.width, ...canvas.getContext('2d').getImageData(0, 0, 3, 2).data]"
    )
    assert pixels[0] == len(data.sentences[0].encoded.tokens)
    assert len({tuple(pixels[k : k + 3]) for k in range(1, 25, 4)}) > 1


def test_table_sorts_and_leads_to_the_head(page):
    table = page.locator("#part-relations")
    firsts = table.locator("tbody tr td:first-child")
    assert firsts.all_text_contents() == ["nsubj", "det", "aux"]
    page.get_by_role("button", name="words").last.click()
    page.get_by_role("button", name="accuracy").click()  # numbers: the largest first
    assert firsts.all_text_contents() == ["nsubj", "det", "aux"]
    page.get_by_role("button", name="accuracy").click()
    assert firsts.all_text_contents() == ["det", "nsubj", "aux"]
    assert table.locator("td.grey").count() == 1
    table.get_by_role("button", name="0-3").click()
    assert page.locator("#head-title").inner_text() == "Layer 0, head 3"


def test_lens_curves_and_matrix_are_there(page):
    assert page.locator("table.lens tbody tr").count() == 3
    assert page.locator("table.lens td.right").count() > 0
    page.locator("table.lens td").first.hover()
    assert "rank 1; most likely: the 0.300" in page.locator("#lens-reading").inner_text()
    assert page.locator("#part-tags circle").count() == 6
    assert page.locator("#part-tags circle.hollow").count() == 1
    assert page.locator("#part-cka td").count() == 6
    assert page.locator("#part-cka td.grey").count() == 1


def test_curves_and_lens_are_each_one_stop_of_the_tab_key(page):
    for element, read in (("#part-tags svg", "circle"), ("table.lens", "td")):
        stops = page.locator(f"{element} [tabindex='0']")
        assert stops.count() == 1
        stops.focus()
        before = page.evaluate("document.activeElement.getAttribute('aria-label')")
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.tagName.toLowerCase()") == read
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") != before
        page.keyboard.press("ArrowUp")  # there is nothing above: it stays
        page.keyboard.press("ArrowLeft")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == before
        assert stops.count() == 1


def test_table_shows_the_random_model_beside_the_figure(page):
    cell = page.locator("#part-relations tbody tr").first.locator("td").nth(2)
    assert "random model 0." in cell.inner_text()


def test_theme_is_the_systems_or_the_readers(browser, address):
    color = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for system in ("light", "dark"):
        page = browser.new_page(color_scheme=system)
        page.goto(address)
        seen[system] = [page.evaluate(color)]
        for _ in range(3):  # light, dark, as the system
            page.locator("#theme").click()
            seen[system].append(page.evaluate(color))
        page.close()
    light, dark = "rgb(255, 255, 255)", seen["dark"][0]
    assert light != dark
    assert seen == {"light": [light, light, dark, light], "dark": [dark, light, dark, dark]}


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser, address, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    for table in ("data", "lens", "pairs"):  # wide tables scroll by themselves
        cell = page.locator(f"table.{table} td").first
        cell.evaluate("cell => { cell.textContent = 'w'.repeat(300) }")
    page.locator("#reading").evaluate("one => { one.textContent = 'w'.repeat(300) }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_page_of_no_section_opens(browser, tmp_path):
    written, *_ = write_report(ReportData("nothing"), tmp_path)
    page = browser.new_page()
    page.goto(written.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.locator("section:visible").count() == 0
    page.close()


@pytest.mark.slow
def test_large_model_at_512_tokens_does_not_choke(browser, tmp_path):
    layers, heads, length = 24, 16, 512
    rng = np.random.default_rng(0)
    maps = rng.standard_gamma(0.1, (layers, heads, length, length), dtype=np.float32)
    maps /= maps.sum(axis=-1, keepdims=True)
    special = np.zeros(length, bool)
    special[[0, -1]] = True
    tokens = tuple(f"token{k}" for k in range(length))
    encoded = EncodedText(
        np.arange(length), np.zeros(length, int), np.zeros((length, 2), int), special,
        np.arange(length), tokens, tokens, 0, 0,
    )  # fmt: skip
    figure = HeadFigure("entropy", "Entropy", "nats", "", make_figures(rng.random((layers, heads))))
    data = ReportData("large", {}, [figure], [Captured(encoded, maps, None, None)])
    written, *_ = write_report(data, tmp_path)
    assert written.stat().st_size < 10_000_000
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(written.as_uri())
    page.wait_for_selector("html[data-ready]")
    # One head of the 384 is in the page; the others are read from their numbers when asked for.
    assert page.evaluate("document.querySelectorAll('*').length") < 10_000
    page.locator("[data-layer='20'][data-head='9']").click()
    assert page.locator("#head-title").inner_text() == "Layer 20, head 9"
    assert page.evaluate("document.querySelectorAll('*').length") < 10_000
    row = page.locator(".word[data-side=from][data-index='7']")
    row.hover()
    shown = weights(page)
    heaviest = np.argsort(-maps[20, 9, 7])[:4]
    np.testing.assert_allclose(shown[heaviest], maps[20, 9, 7, heaviest], atol=STORED)
    assert np.isnan(shown[np.argsort(maps[20, 9, 7])[:100]]).all()  # not kept: a dash, no 0
    assert "heaviest edges are kept" in page.locator("#map-meaning").inner_text()
    page.get_by_role("button", name="Maps").click()
    page.wait_for_selector("#grid[data-drawn]", timeout=10_000)
    page.close()
