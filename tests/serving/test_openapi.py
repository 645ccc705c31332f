"""The OpenAPI document: every route is described, and each of its examples is answered."""

import re

import pytest

from bertjax.serving.wire.hub import EXAMPLES
from tests.serving.running import http

# The model that has the head of a route's example; the others are answered by the first model.
HEAD_OF = {
    "/predict": "classes", "/classify": "classes",
    "/v1/score": "relevance", "/v1/rerank": "relevance",
    "/rerank": "relevance", "/tags": "entities", "/answer": "answers", "/fill-mask": "masks",
    "/zero-shot": "entailment", "/next-sentence": "next", "/multiple-choice": "choices",
    "text_classification": "classes", "zero_shot_classification": "entailment",
    "token_classification": "entities", "question_answering": "answers", "fill_mask": "masks",
    "rerank": "relevance",
}  # fmt: skip
# What is no model's: it refuses every call.
REFUSES = {"/embed_sparse"}
# Of a server that was started with --no-explain; test_explanations.py has another.
EXPLAIN = {"/explain", "/attention"}


@pytest.fixture(scope="module")
def document(every_head):
    return http.get(f"{every_head[0]}/openapi.json").json()


def test_every_call_has_examples_that_are_answered(every_head, document):
    address, answered = every_head[0], 0
    for path, methods in document["paths"].items():
        if "post" not in methods or path in REFUSES | EXPLAIN:
            continue
        examples = methods["post"]["requestBody"]["content"]["application/json"].get("examples", {})
        assert examples, f"{path}: has no example"
        for name, example in examples.items():
            call = example["value"]
            head = HEAD_OF.get(name, HEAD_OF.get(path, "vectors"))
            body = call if "{name}" in path else {**call, "model": head}
            answer = http.post(address + path.replace("{name}", head), json=body)
            assert answer.status_code == 200, f"{path} {name}: {answer.text}"
            answered += 1
    assert answered > 2 * len(EXAMPLES)


def test_every_get_is_answered(every_head, document):
    for path, methods in document["paths"].items():
        if "get" in methods:
            answer = http.get(every_head[0] + path.replace("{name}", "vectors"))
            assert answer.status_code == 200, path


def test_every_route_says_what_it_is_and_what_it_answers(document):
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            assert route.get("summary"), path
            assert route.get("tags"), path
            schema = route["responses"]["200"].get("content", {}).get("application/json", {})
            if method == "post" and path not in REFUSES:
                assert schema.get("schema"), f"{path}: its answer is not described"


def test_every_field_of_a_call_is_typed(document):
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            if name != "HubCall":
                assert re.search(r"type|\$ref|enum|const|anyOf", str(described)), f"{name}.{field}"


def test_page_of_routes_has_all_of_them_and_loads_nothing(every_head, document):
    page = http.get(f"{every_head[0]}/docs").text
    for path in document["paths"]:
        assert f"{path}</code></h3>" in page
    assert "&quot;inputs&quot;" in page
    assert not re.search(r"(src|href)=.?(https?:)?//|<script|@import|url\(", page)
