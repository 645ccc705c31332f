"""The routes of text-embeddings-inference: their JSON, status codes, error bodies and limits."""

import asyncio
import json
import re
import threading

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.serving.heads import masks, tags
from bertjax.serving.served import Cut
from bertjax.serving.threads import LARGE, Threads
from bertjax.serving.wire import answers
from bertjax.tasks.question_answering import QuestionAnswering
from tests.serving.running import http

TEXTS = ["the old dog sees a red bird", "a cat hears"]
LONG = "the old dog " * 20


@pytest.fixture
def address(every_head):
    return every_head[0]


@pytest.fixture
def post(address):
    return lambda path, **call: http.post(address + path, json=call)


@pytest.fixture
def model(every_head):
    return every_head[1].models["vectors"].model


def test_embed(post, model):
    expected = model.embed(TEXTS, normalize=True)
    np.testing.assert_allclose(post("/embed", inputs=TEXTS).json(), expected, atol=1e-5)
    raw = post("/embed", inputs=TEXTS[0], normalize=False).json()
    np.testing.assert_allclose(raw, model.embed(TEXTS[:1], normalize=False), atol=1e-5)
    [short] = post("/embed", inputs=TEXTS[0], dimensions=7, normalize=False).json()
    np.testing.assert_allclose(short, raw[0][:7])


def test_prompt_is_put_before_every_text(post, model):
    expected = model.embed([f"the old {text}" for text in TEXTS])
    found = post("/embed", inputs=TEXTS, prompt_name="query").json()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    plain = post("/embed", inputs=TEXTS).json()
    assert post("/embed", inputs=TEXTS, prompt_name="document").json() == plain
    [tokens] = post("/tokenize", inputs=TEXTS[1], prompt_name="query").json()
    assert [token["text"] for token in tokens[1:4]] == ["the", "old", "a"]
    call = {"source_sentence": TEXTS[0], "sentences": [TEXTS[1]]}
    [found] = post("/similarity", inputs=call, parameters={"prompt_name": "query"}).json()
    assert found == pytest.approx(float(expected[0] @ expected[1]), abs=1e-5)
    ids = post("/embed", inputs=[[2, 5, 3]], prompt_name="query")
    assert (ids.status_code, ids.json()["error_type"]) == (424, "Backend")


def test_embed_all_has_a_vector_for_each_token(post, model):
    one, other = post("/embed_all", inputs=TEXTS).json()
    tokens = [len(ids) + 2 for ids in model.tokenizer.encode_batch(TEXTS)]
    assert [len(one), len(other)] == tokens
    # This model's vectors are the mean over tokens.
    [mean] = model.embed(TEXTS[:1], normalize=False)
    np.testing.assert_allclose(np.mean(one, axis=0), mean, atol=1e-5)


def test_truncation_keeps_the_end_that_is_asked_for_and_is_told(post, model):
    answer = post("/embed", inputs=LONG, normalize=False)
    assert answer.headers["x-truncated-texts"] == "1"
    ids = model.tokenizer.encode_batch([LONG])[0].tolist()
    frame = [model.tokenizer.cls_id, *ids[:14], model.tokenizer.sep_id]
    right = post("/embed", inputs=frame, normalize=False)
    assert right.headers["x-truncated-texts"] == "0"
    np.testing.assert_allclose(answer.json(), right.json(), atol=1e-6)
    left = post("/embed", inputs=LONG, normalize=False, truncation_direction="left").json()
    frame[1:-1] = ids[-14:]
    np.testing.assert_allclose(
        left, post("/embed", inputs=frame, normalize=False).json(), atol=1e-6
    )
    answer = post("/embed", inputs=[TEXTS[0], LONG], truncate=False)
    assert answer.status_code == 413
    assert "inputs[1] must have at most 16 tokens" in answer.json()["error"]


def test_left_cut_of_a_pair_keeps_both_ends(every_head):
    served = every_head[1].models["classes"]
    first, second = served.tokenizer.encode_batch(["a b c d e f g h", "the dog sees the cat"])
    [sequence] = served.frame_inputs(
        [("a b c d e f g h", "the dog sees the cat")], Cut(True, "Left", max_length=11)
    )
    ids = sequence.token_ids.tolist()
    special = served.tokenizer
    kept = sequence.second_start - 2
    assert ids[:1] + ids[kept + 1 : kept + 2] + ids[-1:] == [
        special.cls_id, special.sep_id, special.sep_id,
    ]  # fmt: skip
    assert ids[1 : kept + 1] == first[-kept:].tolist()
    assert ids[kept + 2 : -1] == second[-(11 - 3 - kept) :].tolist()


def test_predict_of_a_text_a_pair_and_a_batch(post, every_head):
    model = every_head[1].models["classes"].model

    def as_predicted(texts):
        [found] = model.predict([texts])
        return {label: pytest.approx(one, abs=1e-5) for label, one in found.probabilities.items()}

    def by_label(scores):
        assert scores == sorted(scores, key=lambda one: -one["score"])
        return {one["label"]: one["score"] for one in scores}

    one = post("/predict", model="classes", inputs=TEXTS[0]).json()
    assert by_label(one) == as_predicted(TEXTS[0])
    pair = post("/predict", model="classes", inputs=TEXTS).json()
    assert by_label(pair) == as_predicted(tuple(TEXTS))
    batch = post("/predict", model="classes", inputs=[[TEXTS[0]], TEXTS]).json()
    assert [by_label(scores) for scores in batch] == [
        as_predicted(TEXTS[0]),
        as_predicted(tuple(TEXTS)),
    ]
    raw = post("/predict", model="classes", inputs=TEXTS[0], raw_scores=True).json()
    logits = np.exp([one["score"] for one in raw])
    np.testing.assert_allclose(logits / logits.sum(), [x["score"] for x in one], atol=1e-5)


def test_similarity_of_identical_texts_is_one(post):
    call = {"source_sentence": TEXTS[0], "sentences": [TEXTS[1], TEXTS[0]]}
    other, same = post("/similarity", inputs=call).json()
    assert same == pytest.approx(1, abs=1e-5)
    assert other < 1


def test_tokenize_and_decode(post):
    [tokens] = post("/tokenize", inputs="the döG").json()
    assert tokens[:2] == [
        {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None},
        {"id": 5, "text": "the", "special": False, "start": 0, "stop": 3},
    ]
    # Bytes, as text-embeddings-inference counts them.
    assert tokens[-2]["stop"] == len("the döG".encode())
    [wide] = post("/tokenize", inputs="é 中 😀 a", add_special_tokens=False).json()
    assert [(one["text"], one["start"], one["stop"]) for one in wide] == [
        ("é", 0, 2), ("中", 3, 6), ("😀", 7, 11), ("a", 12, 13),
    ]  # fmt: skip
    ids = [[token["id"] for token in tokens]]
    assert post("/decode", ids=ids).json() == ["the dog"]
    assert post("/decode", ids=ids[0], skip_special_tokens=False).json() == ["[CLS] the dog [SEP]"]
    [bare] = post("/tokenize", inputs=["the"], add_special_tokens=False).json()
    assert [token["id"] for token in bare] == [5]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vectors", "embedding"),
        ("classes", "classifier"),
        ("relevance", "reranker"),
        ("next", "other"),
    ],
)
def test_info(address, name, kind):
    info = http.get(f"{address}/info", params={"model": name}).json()
    assert list(info["model_type"]) == [kind]
    assert info["served_model_name"] == name
    assert info["max_input_length"] == 16
    assert info["max_client_batch_size"] == 8
    if kind == "classifier":
        assert info["model_type"]["classifier"]["id2label"]["0"] == "sad"


@pytest.mark.parametrize(
    ("path", "call", "status", "kind", "message"),
    [
        ("/embed", {"inputs": []}, 400, "Empty", "`inputs` cannot be empty"),
        ("/embed", {"inputs": ["a", ""]}, 400, "Empty", "`inputs[1]` cannot be empty"),
        ("/embed", {"inputs": [[]]}, 400, "Empty", "`inputs[0]` cannot be empty"),
        ("/embed", {"inputs": ["a"] * 9}, 422, "Validation", "9 texts, and a call may have 8"),
        ("/embed", {"inputs": 3}, 422, "Validation", "inputs: Input should be"),
        ("/embed", {"inputs": [99]}, 422, "Validation", "token id 99 is not one of 0 to"),
        ("/embed", {"inputs": [-1]}, 422, "Validation", "inputs"),
        ("/embed", {"inputs": [2.5]}, 422, "Validation", "inputs"),
        ("/embed", {"input": "a"}, 422, "Validation", "inputs: Field required"),
        ("/embed", {"inputs": "a", "normalise": 1}, 422, "Validation", "normalise: Extra"),
        ("/embed", {"inputs": "a", "dimensions": 25}, 422, "Validation", "dimensions=25"),
        ("/embed", {"inputs": "a", "dimensions": 0}, 422, "Validation", "dimensions=0"),
        ("/embed", {"inputs": "a", "prompt_name": "q"}, 422, "Validation", "(query, document)"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, 422, "Validation", "direction"),
        ("/embed", {"inputs": "a", "model": "x"}, 404, "Validation", "'x' is not served here; vec"),
        ("/embed", {"inputs": "a", "model": "classes"}, 424, "Backend", "has no output vector"),
        ("/embed_all", {"inputs": "a", "model": "next"}, 424, "Backend", "has no output hidden"),
        ("/embed_sparse", {"inputs": "a"}, 424, "Backend", "SPLADE"),
        ("/predict", {"inputs": "a"}, 424, "Backend", "has no output class"),
        ("/predict", {"inputs": [["a", "b", "c"]], "model": "classes"}, 422, "Validation",
         "3 texts"),
        ("/predict", {"inputs": [["", ""]], "model": "classes"}, 400, "Empty", "inputs[0]"),
        ("/predict", {"inputs": [[]], "model": "classes"}, 400, "Empty", "inputs[0]"),
        ("/rerank", {"query": "a", "texts": []}, 400, "Empty", "`texts` cannot be empty"),
        ("/rerank", {"query": "a", "text": []}, 422, "Validation", "texts: Field required"),
        ("/rerank", {"query": "a", "texts": ["b"], "model": "answers"}, 424, "Backend",
         "no output"),
        ("/similarity", {"inputs": {"source_sentence": "a"}}, 422, "Validation",
         "inputs.sentences"),
        ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 400, "Empty",
         "inputs.sentences"),
        ("/tokenize", {"inputs": ""}, 400, "Empty", "inputs[0]"),
        ("/decode", {"ids": [9999]}, 422, "Validation", "token id 9999"),
        ("/decode", {"ids": []}, 400, "Empty", "`ids`"),
        ("/answer", {"question": "", "context": "b", "model": "answers"}, 400, "Empty",
         "`question`"),
        ("/answer", {"question": "a", "context": "b", "model": "answers", "max_seq_len": 99}, 422,
         "Validation", "max_seq_len=99 must be at most 16"),
        ("/answer", {"question": "a " * 40, "context": "b", "model": "answers"}, 422, "Validation",
         "leaves no room"),
        ("/answer", {"question": "a", "context": "b " * 9000, "model": "answers"}, 413,
         "Validation", "--max-concurrent-requests"),
        ("/fill-mask", {"inputs": "[MASK]", "top_k": 0, "model": "masks"}, 422, "Validation",
         "top_k"),
        ("/fill-mask", {"inputs": "[MASK]", "top_k": 999, "model": "masks"}, 422, "Validation",
         "top_k=999 must be from 1 to vocab_size="),
        ("/tags", {"inputs": "a " * 9000, "model": "entities"}, 413, "Validation", "may wait"),
        ("/zero-shot", {"inputs": "a", "candidate_labels": ["b"] * 600, "model": "entailment"}, 413,
         "Validation", "600 sequences"),
        ("/answer", {"question": "a", "context": "b " * 600, "doc_stride": 1, "model": "answers"},
         413, "Validation", "may wait"),
        ("/tags", {"inputs": "a", "stride": 2, "aggregation_strategy": "none", "model": "entities"},
         422, "Validation", "stride needs"),
        ("/zero-shot", {"inputs": "a", "candidate_labels": [], "model": "entailment"}, 422,
         "Validation", "candidate_labels must have"),
        ("/zero-shot", {"inputs": "a", "candidate_labels": "b, c", "hypothesis_template": "x",
         "model": "entailment"}, 422, "Validation", "hypothesis_template must have {}"),
        ("/next-sentence", {"inputs": ["a"], "model": "next"}, 422, "Validation", "inputs"),
        ("/next-sentence", {"inputs": [["a", ""]], "model": "next"}, 400, "Empty", "inputs[0][1]"),
        ("/multiple-choice", {"context": "a", "choices": ["b"], "model": "choices"}, 422,
         "Validation", "choices"),
    ],
)  # fmt: skip
def test_refusal_names_the_field_and_the_way_out(post, path, call, status, kind, message):
    answer = post(path, **call)
    body = answer.json()
    assert (answer.status_code, body["error_type"]) == (status, kind), body
    assert message in body["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "the body: must be a JSON object"),
        (b'{"inputs": "\\ud800"}', "the body is not JSON: .*surrogate"),
        (b'{"inputs": "\xed\xa0\x80"}', "the body is not JSON"),
        (b'{"inputs": "a", "\\udfff": 1}', "the body is not JSON"),
        (b'{"inputs": NaN}', "the body is not JSON"),
    ],
)
def test_body_that_is_no_json_is_told(address, body, message):
    headers = {"content-type": "application/json"}
    answer = http.post(f"{address}/embed", content=body, headers=headers)
    assert answer.status_code == 422
    assert re.search(message, answer.json()["error"]), answer.text


def test_body_needs_the_type_of_json(address):
    answer = http.post(f"{address}/embed", content=json.dumps({"inputs": "a"}))
    assert answer.status_code == 422
    assert "content-type: application/json" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings", "/classify", "/v1/rerank"])
def test_routes_of_openai_and_vllm_refuse_in_their_form(post, path):
    body = post(path, model="x", input="a", query="a", documents=["b"]).json()
    assert body.keys() == {"message", "code", "type"}


def test_route_that_is_none_is_refused_in_the_same_form(address):
    answer = http.post(f"{address}/embedd", json={"inputs": "a"})
    assert (answer.status_code, answer.json()["error_type"]) == (404, "Validation")
    assert "POST /embedd: Not Found; GET /docs lists" in answer.json()["error"]
    answer = http.get(f"{address}/embed")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("module", "name", "path", "call"),
    [
        (tags, "_tag_text", "/tags", {"inputs": "a", "model": "entities"}),
        (masks, "_fill", "/fill-mask", {"inputs": "[MASK]", "model": "masks"}),
        (
            QuestionAnswering,
            "decode",
            "/answer",
            {"question": "a", "context": "b", "model": "answers"},
        ),
    ],
)
def test_answers_are_made_outside_the_event_loop(post, monkeypatch, module, name, path, call):
    made, threads = getattr(module, name), []

    def watched(*arguments):
        threads.append(threading.current_thread().name)
        return made(*arguments)

    monkeypatch.setattr(module, name, watched)
    assert post(path, **call).status_code == 200
    assert threads
    assert all(one.startswith(("small work", "large work")) for one in threads)


def test_call_has_so_many_masks_and_words_at_most(post, monkeypatch):
    call = {"inputs": ["[MASK] a [MASK]"] * 3, "top_k": 4, "model": "masks"}
    for name, most in (("MOST_MASKS", 5), ("MOST_WORDS", 23)):
        assert post("/fill-mask", **call).status_code == 200
        with monkeypatch.context() as smaller:
            smaller.setattr(masks, name, most)
            answer = post("/fill-mask", **call)
        assert answer.status_code == 413
        assert "inputs have 6 masks with 4 words each" in answer.json()["error"]


def test_what_the_models_files_do_not_allow_is_refused_in_their_words(post, monkeypatch):
    def refuse(served):
        raise UserError("tokenizer.json: it is unknown where a word begins")

    monkeypatch.setattr(tags, "usual_strategy", refuse)
    answer = post("/tags", inputs="a", model="entities")
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")
    assert answer.json()["error"] == "tokenizer.json: it is unknown where a word begins"


def test_small_work_does_not_wait_behind_large_work():
    threads, goes_on = Threads(1), threading.Event()

    async def go():
        large = asyncio.create_task(threads.run(goes_on.wait, 20, size=LARGE))
        await asyncio.sleep(0)  # it is in its thread
        assert await threads.run(lambda: "small", size=LARGE - 1) == "small"
        goes_on.set()
        return await large

    assert asyncio.run(go())
    threads.close()


def test_large_answer_is_written_as_a_small_one_in_another_thread(post, monkeypatch):
    calls = {
        "/embed": {"inputs": ["a", "b c"], "model": "vectors"},
        "/embed_all": {"inputs": ["a", "b c"], "model": "vectors"},
        "/v1/embeddings": {"input": ["a", "b c"], "model": "vectors"},
        "/tokenize": {"inputs": ["a " * 300, "b"], "model": "vectors"},
    }
    small = {path: post(path, **call).content for path, call in calls.items()}
    monkeypatch.setattr("bertjax.serving.wire.answers.LARGE", 1)
    made, writers = answers._answer_in_pieces, []

    def watched(value):
        writers.append(threading.current_thread().name)
        return made(value)

    monkeypatch.setattr(answers, "_answer_in_pieces", watched)
    for path, call in calls.items():
        assert post(path, **call).content == small[path]
    assert len(writers) == len(calls)
    assert all(one.startswith(("small work", "large work")) for one in writers)


@pytest.mark.parametrize("value", [{}, [], [[]], {"a": []}, [{}], np.zeros((2, 3, 0)).tolist()])
def test_empty_parts_of_an_answer_are_written_as_such(value):
    assert answers._answer_in_pieces(value).body == answers.answer(value).body
