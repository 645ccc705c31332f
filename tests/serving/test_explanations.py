"""Explanations and attention over HTTP: those of the library, within limits, compiling nothing."""

import asyncio
import base64
import contextlib
import threading

import httpx
import jax
import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts, merge_subwords
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.explain import named_targets
from bertjax.analysis.explain.attribution import METHODS
from bertjax.serving.engine import Engine, OverloadedError
from bertjax.serving.explaining import MOST_ANSWERS, MOST_WAITING, Explainer
from bertjax.serving.problems import RefusedError
from bertjax.serving.wire import explanations
from tests.serving.running import http, running
from tests.serving.served_models import tiny_model

TEXT = "the dog sees a bird"
DEVICE = jax.devices()[0]


@pytest.fixture(scope="module")
def server():
    model = tiny_model("BertForSequenceClassification")
    with running({"classes": model}, explain=True, explain_max_tokens=16) as (address, server):
        yield httpx.Client(base_url=address, timeout=60), server


@contextlib.contextmanager
def explaining(architecture):
    """An `Explainer` of a tiny model, and its engine."""
    engine = Engine([DEVICE], most_waiting=40)
    yield Explainer(tiny_model(architecture), engine, DEVICE, 16), engine
    engine.close()


def post(server, route, **call):
    """The answer to a call, which must be one."""
    answer = server[0].post(route, json=call)
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(server, route, **call):
    answer = server[0].post(route, json=call)
    return answer.status_code, answer.json()["error"]


def compiled(server):
    return server[1].metrics.compilations._value.get()


def test_explanation_is_that_of_the_library(server):
    found = post(server, "/explain", inputs=TEXT, methods=METHODS)
    with jax.default_device(DEVICE):  # as the engine's, so that nothing is compiled again
        [known] = tiny_model("BertForSequenceClassification").explain(TEXT, methods=METHODS)
    [one] = found["explanations"]
    assert (one["answer"], one["place"], found["left_out"]) == (known.named.answer, "", 0)
    assert one["probability"] == pytest.approx(known.probability, abs=1e-5)
    assert tuple(one["scores"]) == METHODS
    for method, scores in one["scores"].items():
        np.testing.assert_allclose(scores, known.attributions[method].word_scores, atol=1e-4)
    assert [word["word"] for word in found["words"]] == list(known.encoded.words)


def test_examples_of_the_documentation_are_answered(server):
    paths = server[0].get("/openapi.json").json()["paths"]
    for route in ("/explain", "/attention"):
        content = paths[route]["post"]["requestBody"]["content"]["application/json"]
        assert len(content["examples"]) == 2
        for example in content["examples"].values():
            assert post(server, route, **example["value"])["words"]


def test_headers_say_what_a_call_has_cost(server):
    for route in ("/explain", "/attention"):
        headers = server[0].post(route, json={"inputs": TEXT}).headers
        assert headers["x-compute-tokens"] == "7"
        assert headers["x-compute-characters"] == str(len(TEXT))


def test_answer_that_is_named_is_explained(server):
    for answer in ("sad", "happy"):
        found = post(server, "/explain", inputs=TEXT, answer=answer, methods=["rollout"])
        assert found["explanations"][0]["answer"] == answer


def test_words_have_their_characters(server):
    texts = ["who  sees it", "the dog sees a bird"]
    words = post(server, "/explain", inputs=texts, methods=["rollout"])["words"]
    assert [one["word"] for one in words if one["special"]] == ["[CLS]", "[SEP]", "[SEP]"]
    for one in words:
        spelt = texts[one["text"]][one["start"] : one["end"]]
        assert spelt == ("" if one["special"] else one["word"])
    assert [one["text"] for one in words] == [0] * 5 + [1] * 6


def test_answers_beyond_the_limit_are_counted():
    with explaining("BertForMaskedLM") as (explainer, _):
        text = " ".join(["[MASK]"] * (MOST_ANSWERS + 3))
        found = asyncio.run(explainer.explain(text, methods=["gradient-x-input"]))
        assert len(found.explanations) == MOST_ANSWERS
        assert found.left_out == 3
        compiled = named_targets._apply._cache_size()
        one = asyncio.run(explainer.explain("a [MASK]", methods=["gradient-x-input"]))
        assert len(one.explanations) == 1
        # A part of a word, as /fill-mask tells it.
        part = asyncio.run(explainer.explain("a [MASK]", "##s", methods=["gradient-x-input"]))
        assert part.explanations[0].named.answer == "##s"
        # However many masks there are.
        assert named_targets._apply._cache_size() == compiled


def test_attention_is_that_of_the_library(server):
    text = "the ox bird"
    with jax.default_device(DEVICE):
        model = tiny_model("BertForSequenceClassification").as_architecture("BertModel")
        encoded = encode_texts(model.tokenizer, [text], 16)
        [captured] = capture(model, encoded)
    found = post(server, "/attention", inputs=text)
    assert (found["layers"], found["heads"]) == ([0, 1], [0, 1, 2])
    words = merge_subwords(captured.probs, captured.encoded)
    assert words.shape[-1] < captured.probs.shape[-1]
    np.testing.assert_allclose(found["attention"], words, atol=1e-5)
    found = post(server, "/attention", inputs=text, layers=[1], heads=[2, 0], units="tokens")
    assert found["tokens"] == list(captured.tokens)
    np.testing.assert_allclose(found["attention"], captured.probs[[1]][:, [2, 0]], atol=1e-5)
    packed = post(server, "/attention", inputs=text, encoding="base64")["attention"]
    steps = np.frombuffer(base64.b64decode(packed["weights"][1]), np.uint8)
    np.testing.assert_allclose(np.square(steps / 255).reshape(words[1].shape), words[1], atol=0.004)


def test_no_call_compiles_anything(server):
    def count():
        return server[1].metrics.compilations._value.get()

    before = count()
    for length in (1, 5, 13):
        text = " ".join("a" * length)
        for inputs in (text, ["b", text[4:] or "a"]):
            post(server, "/explain", inputs=inputs, methods=METHODS)
            for units in ("words", "tokens"):
                post(server, "/attention", inputs=inputs, units=units)
    assert count() == before > 0


@pytest.mark.parametrize(
    ("call", "status", "message"),
    [
        ({"inputs": "a " * 15}, 413, "has 17 tokens, .* may have 16 tokens (--explain"),
        ({"inputs": "a" * 1601}, 413, "has 1,601 characters, .* may have 16 tokens"),
        ({"inputs": ""}, 400, "`inputs` cannot be empty"),
        ({"inputs": ["a", " "]}, 400, "cannot be empty"),
        ({"inputs": ["a", "b", "c"]}, 422, "one text, or a pair; it is 3 texts"),
        ({"inputs": "a", "methods": []}, 422, "methods"),
        ({"inputs": "a", "methods": ["guess"]}, 422, "methods"),
        ({"inputs": "a", "answer": "merry"}, 422, "answer merry: the model knows sad"),
        ({"inputs": "a", "word": "a"}, 422, "word is for taggers"),
        ({"inputs": "a", "model": "none"}, 404, "'none' is not served"),
    ],
)
def test_call_that_cannot_be_explained_is_refused(server, call, status, message):
    got, error = refused(server, "/explain", **call)
    assert got == status, error
    for part in message.split(".*"):
        assert part in error


def test_attention_beyond_the_limit_is_refused_with_the_way_out(server, monkeypatch):
    monkeypatch.setattr(explanations, "MOST_NUMBERS", 6 * 5**2)
    assert post(server, "/attention", inputs="a b c")
    status, error = refused(server, "/attention", inputs="a b c d")
    assert status == 413
    assert "are 216 numbers, and a call may have 150" in error
    post(server, "/attention", inputs="a b c d", layers=[0])
    post(server, "/attention", inputs="a b c d", encoding="base64")
    status, error = refused(server, "/attention", inputs="a", layers=[2])
    assert status == 422
    assert "the model has layers 0 to 1" in error


def test_server_that_explains_nothing_says_so():
    with running({"tiny": tiny_model("BertForSequenceClassification")}) as (address, _):
        for route in ("/explain", "/attention"):
            answer = http.post(f"{address}{route}", json={"inputs": "a"})
            assert answer.status_code == 424
            assert "--no-explain" in answer.json()["error"]


def test_model_without_a_head_answers_nothing_to_explain():
    with explaining("BertModel") as (explainer, _), pytest.raises(RefusedError, match="no head"):
        asyncio.run(explainer.explain("a"))


@pytest.fixture
def classifier():
    with explaining("BertForSequenceClassification") as made:
        yield made


def test_explanation_asks_for_the_device_piece_by_piece(classifier, monkeypatch):
    explainer, engine = classifier
    pieces, call = [], engine.call

    async def count(work):
        def note():
            pieces.append(threading.current_thread().name)
            return work()

        return await call(note)

    monkeypatch.setattr(engine, "call", count)
    assert asyncio.run(explainer.explain("the dog sees a bird")).explanations
    # The answer, its probability, the embeddings of text and baseline, the steps in batches.
    assert len(pieces) >= 6
    assert set(pieces) == {f"device {DEVICE.id}"}


def test_explanation_whose_client_went_away_ends_at_the_next_piece(classifier):
    explainer, engine = classifier
    begun, goes_on = threading.Event(), threading.Event()

    async def go():
        blocking = asyncio.create_task(engine.call(lambda: begun.set() or goes_on.wait(20)))
        await asyncio.to_thread(begun.wait, 20)
        task = asyncio.create_task(explainer.explain("the dog sees a bird"))
        while not engine.waiting:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(20):  # before the device is free for it
            while engine.waiting:
                await asyncio.sleep(0.001)
        goes_on.set()
        await blocking
        return (await explainer.explain("a bird")).explanations

    assert asyncio.run(go())


def test_explanations_that_wait_are_limited(classifier):
    explainer, _ = classifier

    async def go():
        calls = [explainer.explain("a bird") for _ in range(MOST_WAITING + 3)]
        return await asyncio.gather(*calls, return_exceptions=True)

    results = asyncio.run(go())
    overloaded = [one for one in results if isinstance(one, OverloadedError)]
    assert len(overloaded) == 2
    assert all(one.seconds > 0 for one in overloaded)
    assert sum(hasattr(one, "explanations") for one in results) == MOST_WAITING + 1
