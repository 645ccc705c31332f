"""The page at `/` in a browser: forms, answers, colours of words, attention, keys.

Skipped where there is no browser, but for `make test-browser`, which has to have one.
"""

import numpy as np
import pytest

from bertjax.serving.keys import Keys
from tests.serving.running import http, running
from tests.serving.served_models import tiny_model

MODELS = {
    "classifier": "BertForSequenceClassification",
    "tagger": "BertForTokenClassification",
    "reader": "BertForQuestionAnswering",
}
TEXT = "the dog sees  a bird"


@pytest.fixture(scope="module")
def address(browser):
    models = {name: tiny_model(architecture) for name, architecture in MODELS.items()}
    with running(models, explain=True, explain_max_tokens=16) as (address, _):
        yield address


def open_page(browser, address, allowed=(), **options):
    """A page, and what went wrong on it: errors of its script, calls to elsewhere."""
    page, problems = browser.new_page(**options), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "console",
        lambda message: (
            message.type == "error"
            and not any(status in message.text for status in allowed)
            and problems.append(message.text)
        ),
    )
    page.on(
        "request",
        lambda request: request.url.startswith(address) or problems.append(request.url),
    )
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page, problems


@pytest.fixture
def page(browser, address):
    page, problems = open_page(browser, address, viewport={"width": 1280, "height": 900})
    yield page
    page.close()
    assert problems == []


def choose(page, title, label):
    page.get_by_label(title, exact=True).select_option(label=label)


def send(page, **values):
    """Fills the form in, sends it and waits for the answer."""
    for name, text in values.items():
        page.locator(f"#field-{name}").fill(text)
    page.locator("#send").click()
    wait_for_answer(page)


def wait_for_answer(page):
    page.locator("#status", has_text="Answered in").wait_for()


def post(address, route, **call):
    return http.post(f"{address}{route}", json=call).json()


def scores_of(page):
    """What each word of the explanation adds, as the page tells a reader who points at it."""
    titles = page.locator("#explanation .weighed").evaluate_all("all => all.map(one => one.title)")
    return [float(title.rsplit(": ", 1)[1].replace("+", "")) for title in titles]


def test_browsers_get_the_page_and_probes_the_health(address):
    answer = http.get(address, headers={"accept": "text/html,application/xhtml+xml"})
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "classifier" not in answer.text  # who may see the models, says a key
    probe = http.get(address)
    assert (probe.status_code, probe.text) == (200, "")


def test_classes_are_those_of_the_route(page, address):
    send(page, text=TEXT)
    [expected] = post(address, "/predict", inputs=[[TEXT]])
    rows = page.locator("#answer tbody tr")
    assert rows.locator("th").all_text_contents() == [one["label"] for one in expected]
    shown = [float(text) for text in rows.locator("td.numeric").all_text_contents()]
    np.testing.assert_allclose(shown, [one["score"] for one in expected], atol=0.002)


def test_many_classes_are_the_best_ones_until_all_are_asked_for(page):
    scores = np.random.default_rng(0).dirichlet(np.ones(200)).tolist()
    found = [[{"label": f"label {n}", "score": score} for n, score in enumerate(scores)]]
    page.route("**/predict", lambda route: route.fulfill(json=found))
    page.set_viewport_size({"width": 360, "height": 740})
    send(page, text=TEXT)
    ranked = [f"label {n}" for n in np.argsort(scores)[::-1]]
    rows = page.locator("#answer tbody tr")
    assert rows.locator("th").all_text_contents() == ranked[:20]
    assert page.evaluate("document.documentElement.scrollHeight") < 3000
    more = page.get_by_role("button", name="Show all 200")
    more.press("Enter")
    assert rows.locator("th").all_text_contents() == ranked
    assert more.count() == 0
    assert page.evaluate("document.activeElement.innerText").startswith(ranked[20])


def test_words_are_coloured_by_what_they_add(page, address):
    send(page, text=TEXT)
    page.get_by_role("button", name="Explain sad").click()
    page.wait_for_selector("#explanation .weighed")
    [expected] = post(address, "/explain", inputs=TEXT, answer="sad")["explanations"]
    scores = expected["scores"]["integrated-gradients"]
    np.testing.assert_allclose(scores_of(page), scores, rtol=0.3, atol=0.001)
    assert page.locator("#explanation .text").text_content() == f"[CLS]{TEXT}[SEP]"
    largest = int(np.abs(scores).argmax())
    word = page.locator("#explanation .weighed").nth(largest)
    assert word.evaluate("one => one.style.getPropertyValue('--share')") == "1.000"
    assert ("for" in word.get_attribute("class").split()) == (scores[largest] > 0)
    word.hover()
    assert page.locator("#explanation .reading").inner_text() == word.get_attribute("title")
    choose(page, "Explain by", "relevance")
    page.get_by_role("button", name="Explain happy").click()
    page.locator("#explanation h3", has_text="happy").wait_for()
    assert min(scores_of(page)) >= 0


def test_attention_is_drawn_as_in_the_report(page, address):
    send(page, text=TEXT)
    page.get_by_role("button", name="Show attention").click()
    page.wait_for_selector("#grid[data-drawn]")
    assert page.locator("#grid canvas").count() == 6
    page.locator("[data-layer='1'][data-head='2']").click()
    assert page.locator("#head-title").inner_text() == "Layer 1, head 2"
    page.locator(".word[data-side=from][data-index='2']").hover()
    shown = page.locator(".word[data-side=to] .weight").all_text_contents()
    expected = post(address, "/attention", inputs=TEXT, layers=[1], heads=[2])["attention"]
    np.testing.assert_allclose([float(text) for text in shown], expected[0][0][2], atol=0.0045)
    page.locator("#field-text").fill("a bird")
    page.locator("#send").click()
    page.wait_for_selector("#heads", state="hidden")
    page.get_by_role("button", name="Show attention").click()
    page.wait_for_selector("#grid[data-drawn]")
    words = page.locator(".word[data-side=from] .label").all_text_contents()
    assert words == ["[CLS]", "a", "bird", "[SEP]"]


def test_entity_is_explained_by_the_place_where_it_is(page, address):
    choose(page, "Model", "tagger")
    text = "ann and ann"
    tags = post(address, "/tags", inputs=text, model="tagger")
    send(page, text=f"\U0001f600 {text}")  # an emoji is one character to the server, two to a page
    told = page.locator("#answer button.entity").evaluate_all(
        "all => all.map(one => one.firstChild.textContent)"
    )
    with_emoji = post(address, "/tags", inputs=f"\U0001f600 {text}", model="tagger")
    assert told == [f"\U0001f600 {text}"[tag["start"] : tag["end"]] for tag in with_emoji]
    send(page, text=text)
    entities = page.locator("#answer button.entity")
    assert entities.count() == len(tags) > 1
    assert tags[-1]["start"] > text.index("and")  # in the second "ann"
    entities.last.click()
    page.wait_for_selector("#explanation .weighed")
    assert page.locator("#explanation h3").inner_text().startswith("ann = ")
    start = tags[-1]["start"]
    [known] = post(address, "/explain", inputs=text, model="tagger", start=start)["explanations"]
    scores = known["scores"]["integrated-gradients"]
    np.testing.assert_allclose(scores_of(page), scores, rtol=0.3, atol=0.001)


def test_answer_is_marked_and_both_its_ends_are_explained(page, address):
    choose(page, "Model", "reader")
    send(page, question="who sees it", context=TEXT)
    [best] = post(address, "/answer", question="who sees it", context=TEXT, model="reader")
    if best["answer"]:
        assert page.locator("#answer mark").text_content() == best["answer"]
    page.locator("#answer button.explain").first.click()
    page.wait_for_selector("#explanation .weighed")
    assert page.locator("#explanation .explained").count() == 2
    texts = page.locator("#explanation .explained").first.locator(".text").all_text_contents()
    assert texts == ["[CLS]who sees it[SEP]", f"{TEXT}[SEP]"]


def test_page_is_used_by_keys(page):
    page.locator("#field-text").focus()
    page.keyboard.type("a bird")
    page.keyboard.press("Control+Enter")
    wait_for_answer(page)
    page.get_by_role("button", name="Explain sad").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#explanation .weighed")
    words = page.locator("#explanation .weighed")
    assert page.locator("#explanation .weighed[tabindex='0']").count() == 1
    words.first.focus()
    page.keyboard.press("ArrowRight")
    told = page.locator("#explanation .reading").inner_text()
    assert told == words.nth(1).get_attribute("title")


def test_texts_stay_when_another_model_is_chosen(page):
    page.locator("#field-text").fill(TEXT)
    page.locator("#field-text").blur()
    choose(page, "Model", "tagger")
    assert page.locator("#field-text").input_value() == TEXT


def test_refusals_are_told_in_the_servers_words(browser, address):
    page, problems = open_page(browser, address, allowed=("413",))
    send(page, text="a b " * 10)
    page.get_by_role("button", name="Explain sad").click()
    page.wait_for_selector("#problem:visible")
    assert "may have 16 tokens (--explain-max-tokens)" in page.locator("#problem").inner_text()
    assert page.locator("#status").inner_text() == ""
    send(page, text="a b")  # and the next call begins anew
    assert page.locator("#problem").is_hidden()
    page.close()
    assert problems == []


def test_key_is_asked_for_and_kept_nowhere(browser):
    models = {"classifier": tiny_model("BertForSequenceClassification")}
    with running(models, Keys(["right key"])) as (address, _):
        page, problems = open_page(browser, address, allowed=("401",))
        assert page.locator("#ask").is_hidden()
        assert page.evaluate("document.activeElement.id") == "key-input"
        page.keyboard.type("wrong key")
        page.keyboard.press("Enter")
        page.get_by_text("does not know this key").wait_for()
        page.keyboard.type("right key")
        page.keyboard.press("Enter")
        page.wait_for_selector("#field-text")
        assert page.locator("#key").is_hidden()
        send(page, text=TEXT)
        assert page.locator("#answer tbody tr").count() == 3
        # This server explains nothing, and the page offers nothing of it.
        assert page.locator("#answer button").count() == 0
        kept = page.evaluate(
            "[document.cookie, localStorage.length, sessionStorage.length, location.href,"
            " document.documentElement.outerHTML.includes('right key')]"
        )
        assert kept == ["", 0, 0, f"{address}/", False]
        page.reload()
        page.wait_for_selector("#key:visible")
        page.close()
        assert problems == []


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser, address, width):
    page, problems = open_page(browser, address, viewport={"width": width, "height": 800})
    send(page, text=f"the dog {'w' * 120}")
    page.locator("#answer tbody th").first.evaluate("one => { one.textContent = 'w'.repeat(300) }")
    page.locator("#field-text").fill("the dog sees a bird")
    send(page, text="the dog sees a bird")
    page.get_by_role("button", name="Explain sad").click()
    page.wait_for_selector("#explanation .weighed")
    page.locator("#explanation .weighed").nth(1).evaluate(
        "one => { one.textContent = 'w'.repeat(300) }"
    )
    page.get_by_role("button", name="Show attention").click()
    page.wait_for_selector("#grid[data-drawn]")
    page.locator("#reading").evaluate("one => { one.textContent = 'w'.repeat(300) }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
    assert problems == []


def test_theme_is_the_systems_or_the_readers(browser, address):
    color = "getComputedStyle(document.body).backgroundColor"
    for system in ("light", "dark"):
        page, problems = open_page(browser, address, color_scheme=system)
        own = page.evaluate(color)
        page.locator("#theme").click()
        page.locator("#theme").click()
        assert page.locator("#theme").inner_text() == "Theme: Dark"
        assert (page.evaluate(color) == own) == (system == "dark")
        page.close()
        assert problems == []
