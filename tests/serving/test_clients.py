"""The clients that exist, unchanged, against a running server: every method and every head."""

import base64
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from bertjax.tasks.task import softmax
from tests.serving.running import http

TEXTS = ["the old dog sees a red bird", "a cat hears", "the good, good cat hears the bad dog?"]
LONG = " ".join(TEXTS * 9)


@pytest.fixture
def address(every_head):
    return every_head[0]


@pytest.fixture
def models(every_head):
    return {name: served.model for name, served in every_head[1].models.items()}


@pytest.fixture
def ask(address):
    """`InferenceClient` of a model by its name."""
    return lambda name: InferenceClient(model=f"{address}/models/{name}")


@pytest.fixture
def post(address):
    """The JSON that a route answers a call with."""

    def post(path, **call):
        answer = http.post(address + path, json=call)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return post


def test_feature_extraction_is_embed(ask, address, models):
    expected = models["vectors"].embed(TEXTS, normalize=False)
    np.testing.assert_allclose(
        ask("vectors").feature_extraction(TEXTS, normalize=False), expected, atol=1e-5
    )
    # The server's first model answers at its root.
    [vector] = InferenceClient(model=address).feature_extraction(TEXTS[0])
    np.testing.assert_allclose(vector, expected[0] / np.linalg.norm(expected[0]), atol=1e-5)
    [short] = ask("vectors").feature_extraction(TEXTS[0], dimensions=5, truncation_direction="left")
    np.testing.assert_allclose(short, expected[0, :5] / np.linalg.norm(expected[0, :5]), atol=1e-5)


def test_sentence_similarity_is_the_cosine(ask, models):
    vectors = models["vectors"].embed(TEXTS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = ask("vectors").sentence_similarity(TEXTS[0], other_sentences=TEXTS)
    np.testing.assert_allclose(found, vectors @ vectors[0], atol=1e-5)
    assert found[0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("head", ["classes", "topics"])
def test_text_classification_is_predict(ask, models, head):
    [expected] = models[head].predict(TEXTS[:1])
    found = ask(head).text_classification(TEXTS[0])
    assert {
        one.label: pytest.approx(one.score, abs=1e-5) for one in found
    } == expected.probabilities
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    [best] = ask(head).text_classification(TEXTS[0], top_k=1)
    assert best == found[0]


def test_text_classification_of_one_output(ask, models):
    [expected] = models["stars"].predict(TEXTS[:1])
    [found] = ask("stars").text_classification(TEXTS[0])
    assert (found.label, found.score) == ("stars", pytest.approx(expected.value, abs=1e-5))
    [found] = ask("stars").text_classification(TEXTS[0], function_to_apply="sigmoid")
    assert found.score == pytest.approx(1 / (1 + np.exp(-expected.value)), abs=1e-5)


@pytest.mark.parametrize("head", ["entities", "speech"])
def test_token_classification_is_predict_at_the_first_token_of_words(ask, models, head):
    text = TEXTS[0]
    [expected] = models[head].predict([text])
    found = ask(head).token_classification(text, aggregation_strategy="none", ignore_labels=[])
    firsts = [one for one in found if not one.word.startswith("##")]
    assert [text[one.start : one.end] for one in firsts] == text.split()
    assert [one.entity for one in firsts] == expected.tags
    np.testing.assert_allclose([one.score for one in firsts], expected.probabilities, atol=1e-5)


@pytest.mark.parametrize("how", [{}, {"aggregation_strategy": "none"}])
def test_token_classification_reads_all_of_a_long_text(ask, how):
    found = ask("entities").token_classification(LONG, ignore_labels=[], **how)
    covered = np.zeros(len(LONG), bool)
    for one in found:
        assert not covered[one.start : one.end].any()
        covered[one.start : one.end] = True
    assert all(covered[place] or letter == " " for place, letter in enumerate(LONG))


def test_text_without_a_token_has_no_tags(post):
    assert post("/tags", model="entities", inputs=[" ", "\u200b"]) == [[], []]


def test_tokens_of_a_long_text_have_the_scores_of_the_window_with_most_context(ask):
    words = TEXTS[0].split() * 3  # 21 tokens, in windows of 14 that share seven

    def scores(part):
        found = ask("entities").token_classification(
            " ".join(part), aggregation_strategy="none", ignore_labels=[]
        )
        return [one.score for one in found]

    expected = scores(words[:14])[:11] + scores(words[7:])[4:]
    np.testing.assert_allclose(scores(words), expected, atol=1e-5)
    assert abs(np.subtract(scores(words[:14])[7:], scores(words[7:])[:7])).max() > 1e-3


@pytest.mark.parametrize("context", [TEXTS[2], LONG])
def test_question_answering_is_predict(ask, models, context):
    [expected] = models["answers"].predict([("what hears?", context)])
    found = ask("answers").question_answering("what hears?", context)
    assert (found.answer, found.start, found.end) == (expected.answer, expected.start, expected.end)
    several = ask("answers").question_answering("what hears?", context, top_k=3)
    assert [(one.answer, one.score) for one in several] == [
        (one["text"], pytest.approx(one["probability"], abs=1e-5)) for one in expected.nbest[:3]
    ]


def test_question_answering_heeds_what_it_is_asked_for(ask):
    def answers(**how):
        how = {"top_k": 20, **how}
        found = ask("answers").question_answering("what hears?", LONG, **how)
        return found if isinstance(found, list) else [found]

    usual = answers()
    assert all(one.answer == LONG[one.start : one.end] for one in usual)
    assert "" not in [one.answer for one in usual]
    [empty] = [one for one in answers(top_k=99, handle_impossible_answer=True) if not one.answer]
    assert (empty.start, empty.end) == (0, 0)
    tokens = [len(one.answer.split()) for one in answers(max_answer_len=2)]
    assert max(tokens) == 2 < max(len(one.answer.split()) for one in usual)

    assert answers(max_seq_len=12, doc_stride=4, max_question_len=2) != usual


def test_question_answering_widens_answers_to_whole_words_when_asked(ask):
    context = "zebras run, unheard"  # words of several tokens

    def cut_words(**how):
        found = ask("answers").question_answering("what?", context, top_k=20, **how)
        bounds = [place for one in found for place in (one.start, one.end)]
        return [at for at in bounds if 0 < at < len(context) and context[at - 1 : at + 1].isalnum()]

    assert cut_words()
    assert cut_words(align_to_words=True) == []


def test_fill_mask_is_fill_mask(ask, models):
    text = "the [MASK] sees"
    [expected] = models["masks"].fill_mask([text], top_k=4)
    found = ask("masks").fill_mask(text, top_k=4)
    assert [(one.token, one.score) for one in found] == [
        (one.token_id, pytest.approx(one.probability, abs=1e-5))
        for one in expected.masks[0].candidates
    ]
    assert len(ask("masks").fill_mask(text)) == 5
    among = ask("masks").fill_mask(text, targets=["dog", "Bird", "dog"])
    assert {one.token_str for one in among} == {"dog", "bird"}
    assert [one.sequence for one in among] == [f"the {one.token_str} sees" for one in among]
    assert among[0].score >= among[1].score


def test_zero_shot_classification_is_entailment(ask, models):
    labels = ["dog", "bad bird", "cat"]
    pairs = [(TEXTS[0], f"a {label}.") for label in labels]
    judged = [one.probabilities for one in models["entailment"].predict(pairs)]
    found = ask("entailment").zero_shot_classification(
        TEXTS[0], labels, hypothesis_template="a {}.", multi_label=True
    )
    assert {one.label: one.score for one in found} == {
        label: pytest.approx(
            one["entailment"] / (one["entailment"] + one["contradiction"]), abs=1e-5
        )
        for label, one in zip(labels, judged, strict=True)
    }
    found = ask("entailment").zero_shot_classification(TEXTS[0], labels)
    assert sum(one.score for one in found) == pytest.approx(1)
    assert found[0].score > found[1].score > found[2].score


@pytest.mark.parametrize(
    ("head", "call", "message"),
    [
        (
            "classes",
            lambda client: client.zero_shot_classification("a", ["b"]),
            "begins with entail",
        ),
        (
            "entailment",
            lambda client: client.zero_shot_classification("a", ["the" + " dog" * 11]),
            "dog dog.' has 16 tokens, and leaves the text beside it no room in 16",
        ),
        ("vectors", lambda client: client.question_answering("a", "b"), "has no output span"),
        ("vectors", lambda client: client.text_classification("a", top_k=1), "parameters"),
        ("answers", lambda client: client.text_classification("a"), "answers questions; send"),
        ("choices", lambda client: client.text_classification("a"), "POST /multiple-choice"),
        ("next", lambda client: client.text_classification("a"), "POST /next-sentence"),
        ("masks", lambda client: client.fill_mask("a cat"), r"no \[MASK\] in it"),
        ("masks", lambda client: client.fill_mask("[MASK]", targets=["a b"]), "not a token"),
        ("entities", lambda client: client.token_classification("a", stride=99), "stride=99"),
        (
            "entities",
            lambda client: client.token_classification("a", aggregation_strategy="last"),
            "parameters.aggregation_strategy",
        ),
        ("nothing", lambda client: client.feature_extraction("a"), "'nothing' is not served"),
    ],
)
def test_client_is_told_what_is_wrong_and_the_way_out(ask, head, call, message):
    with pytest.raises(HfHubHTTPError, match=message) as caught:
        call(ask(head))
    assert caught.value.response.status_code in (404, 413, 422, 424)


def test_client_asks_for_health_and_info_below_its_address(address):
    client = InferenceClient(model=f"{address}/models/entities", provider="hf-inference")
    assert client.health_check()
    info = client.get_endpoint_info()
    assert info["served_model_name"] == "entities"
    assert info["outputs"] == ["tag"]


@pytest.fixture
def openai_client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="-", max_retries=0) as client:
        yield client


def test_openai_embeddings_are_embed(openai_client, models):
    expected = models["vectors"].embed(TEXTS, normalize=True)
    for how in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
        found = openai_client.embeddings.create(model="vectors", input=TEXTS, **how)
        rows = [one.embedding for one in found.data]
        if how.get("encoding_format") == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        assert [one.index for one in found.data] == [0, 1, 2]
    tokens = sum(len(ids) + 2 for ids in models["vectors"].tokenizer.encode_batch(TEXTS))
    assert found.usage.prompt_tokens == found.usage.total_tokens == tokens
    short = openai_client.embeddings.create(model="vectors", input=TEXTS[0], dimensions=3)
    cut = expected[0, :3] / np.linalg.norm(expected[0, :3])
    np.testing.assert_allclose(short.data[0].embedding, cut, atol=1e-5)


def test_openai_embeddings_of_token_ids_are_those_of_the_text(openai_client, post, models):
    [tokens] = post("/tokenize", inputs=TEXTS[0])
    ids = [token["id"] for token in tokens]
    expected = models["vectors"].embed(TEXTS[:1], normalize=True)[0]
    for given in (ids, [ids]):
        [found] = openai_client.embeddings.create(model="vectors", input=given).data
        np.testing.assert_allclose(found.embedding, expected, atol=1e-5)


def test_openai_client_lists_models_and_is_told_the_names(openai_client, models):
    assert [one.id for one in openai_client.models.list()] == list(models)
    assert openai_client.models.retrieve("entities").architecture == "BertForTokenClassification"
    with pytest.raises(openai.NotFoundError, match="'gpt' is not served here; vectors, masks"):
        openai_client.embeddings.create(model="gpt", input="a")
    with pytest.raises(openai.BadRequestError, match=r"`input\[1\]` cannot be empty"):
        openai_client.embeddings.create(model="vectors", input=["a", ""])
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions=99 must be from 1 to 24"):
        openai_client.embeddings.create(model="vectors", input="a", dimensions=99)


def test_vllm_classify(post, models):
    [expected] = models["classes"].predict(TEXTS[:1])
    found = post("/classify", model="classes", input=TEXTS[0])
    [one] = found["data"]
    assert (one["index"], one["label"], one["num_classes"]) == (0, expected.label, 3)
    np.testing.assert_allclose(one["probs"], [*expected.probabilities.values()], atol=1e-5)
    [raw] = post("/classify", model="classes", input=TEXTS[:1], use_activation=False)["data"]
    np.testing.assert_allclose(softmax(np.array(raw["probs"])), one["probs"], atol=1e-5)


PAIRS = [(TEXTS[0], other) for other in TEXTS]


def expected_relevance(models, head):
    if head == "vectors":
        vectors = models["vectors"].embed(TEXTS, normalize=True)
        return vectors @ vectors[0]
    if head == "relevance":
        values = np.array([one.value for one in models["relevance"].predict(PAIRS)])
        return 1 / (1 + np.exp(-values))
    return np.array([one.probabilities["happy"] for one in models["classes"].predict(PAIRS)])


@pytest.mark.parametrize("head", ["vectors", "relevance", "classes"])
def test_relevance_is_the_same_on_every_route(post, models, head):
    expected = expected_relevance(models, head)
    own = {"model": head} | ({"label": "happy"} if head == "classes" else {})
    order = np.argsort(-expected).tolist()
    for path in ("/v1/score", "/score"):
        for names in (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")):
            call = dict(zip(names, (TEXTS[0], TEXTS), strict=True))
            scores = [one["score"] for one in post(path, **call, **own)["data"]]
            np.testing.assert_allclose(scores, expected, atol=1e-5)
    for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
        found = post(path, query=TEXTS[0], documents=TEXTS, top_n=2, **own)["results"]
        assert [one["index"] for one in found] == order[:2]
        assert [one["document"]["text"] for one in found] == [TEXTS[place] for place in order[:2]]
        assert found[0]["relevance_score"] == pytest.approx(expected.max(), abs=1e-5)
    as_objects = [{"text": text} for text in TEXTS]
    found = post("/v2/rerank", query=TEXTS[0], documents=as_objects, return_documents=False, **own)
    assert [one["index"] for one in found["results"]] == order
    assert all("document" not in one for one in found["results"])
    for path in ("/rerank", f"/models/{head}"):
        found = post(path, query=TEXTS[0], texts=TEXTS, return_text=True, **own)
        assert [one["index"] for one in found] == order
        assert [one["text"] for one in found] == [TEXTS[place] for place in order]
        np.testing.assert_allclose([one["score"] for one in found], expected[order], atol=1e-5)


def test_several_outputs_need_the_name_of_the_one_that_counts(address):
    call = {"query": "a", "texts": ["b"], "model": "classes"}
    answer = http.post(f"{address}/rerank", json=call)
    assert answer.status_code == 424
    assert "3 outputs, sad, so so, happy, and the field `label`" in answer.json()["error"]


def test_own_routes(post, models):
    [expected] = models["choices"].predict([("the dog", *TEXTS)])
    found = post("/multiple-choice", model="choices", context="the dog", choices=TEXTS)
    assert found["choice"] == expected.choice
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-5)
    one = post("/next-sentence", model="next", inputs=TEXTS[:2])
    first, _ = post("/next-sentence", model="next", inputs=[TEXTS[:2], TEXTS[1:]])
    assert first["probability"] == pytest.approx(one["probability"], abs=1e-5)
    assert one["follows"] is (one["probability"] >= 0.5)
    text = "the [MASK] sees a [MASK]"
    [expected] = models["masks"].fill_mask([text], top_k=2)
    found = post("/fill-mask", model="masks", inputs=text, top_k=2)
    assert [[one["token"] for one in mask] for mask in found] == [
        [one.token_id for one in mask.candidates] for mask in expected.masks
    ]
    assert found[0][0]["sequence"].endswith("sees a [MASK] [SEP]")
    first, _ = post("/tags", model="entities", inputs=TEXTS[:2])
    alone = post("/tags", model="entities", inputs=TEXTS[0])
    assert [one["word"] for one in first] == [one["word"] for one in alone]
    [answer] = post("/answer", model="answers", question="what?", context=TEXTS[0])
    same = post("/models/answers", inputs={"question": "what?", "context": TEXTS[0]})
    assert answer == {**same, "score": pytest.approx(same["score"], abs=1e-5)}


def test_next_sentence_is_the_head_itself(post, models):
    model = models["next"]
    first, second = model.tokenizer.encode_batch(TEXTS[:2])
    special = model.tokenizer
    ids = [special.cls_id, *first, special.sep_id, *second, special.sep_id]
    types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
    output = model.module.apply({"params": model.params}, jnp.array([ids]), jnp.array([types]))
    share = softmax(np.asarray(output.logits)[0, 0])[0]
    found = post("/next-sentence", model="next", inputs=TEXTS[:2])
    assert found["probability"] == pytest.approx(float(share), abs=1e-5)


def test_call_at_the_root_is_read_by_its_form_then_by_the_head(post, models):
    text = "the [MASK] sees"
    flat = post("/models/classes", inputs=TEXTS[0])  # as text-embeddings-inference's clients call
    [nested] = post("/models/classes", inputs=TEXTS[0], parameters={})
    assert [one["label"] for one in flat] == [one["label"] for one in nested]
    assert post("/models/masks", inputs=text)[0].keys() == {
        "score", "token", "token_str", "word", "sequence",
    }  # fmt: skip
    [vector] = post("/models/masks", inputs="the dog sees")
    expected = models["masks"].embed(["the dog sees"], normalize=True)[0]
    np.testing.assert_allclose(vector, expected, atol=1e-5)
    pair = {"text": TEXTS[0], "text_pair": TEXTS[1]}
    [scores] = post("/models/classes", inputs=pair)
    [expected] = models["classes"].predict([(TEXTS[0], TEXTS[1])])
    assert {one["label"]: pytest.approx(one["score"], abs=1e-5) for one in scores} == (
        expected.probabilities
    )
    several = post("/models/classes", inputs=TEXTS[:2], parameters={"top_k": 1})
    assert [len(one) for one in several] == [1, 1]
    assert len(post("/models/entities", inputs=TEXTS[:2])) == 2


def test_example_of_the_readme_runs(address, capsys):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(from huggingface_hub.*?)```", readme, re.S)
    assert "http://127.0.0.1:3000" in example
    exec(example.replace("http://127.0.0.1:3000", address), {})
    lines = capsys.readouterr().out.splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"(PER|LOC) .+ \d+ \d+", line), line
