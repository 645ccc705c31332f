"""What nobody should send: an answer of 4xx that names what is wrong, never 500, never silence."""

import json

import httpx
import hypothesis
import pytest
import schemathesis

from tests.serving.running import http

JSON = {"content-type": "application/json"}
# Bodies, whatever the route.
BODIES = [
    b"", b"{", b"[]", b"null", b"3", b'"text"', b"{}", b"\xff\xfe", b'{"inputs"', b"\x00", b"NaN",
    b'{"inputs": NaN}', b'{"inputs": null}', b'{"inputs": 3}', b'{"inputs": {}}', b'{"inputs": []}',
    b'{"inputs": [[]]}', b'{"inputs": [[[]]]}', b'{"inputs": [["a", "b", "c"]]}',
    b'{"inputs": ["a", 3]}', b'{"inputs": "a", "unknown": 1}', b'{"inputs": "\\ud800"}',
    b'{"inputs": "a", "truncate": "perhaps"}', b'{"inputs": "a", "parameters": 3}',
    b'{"inputs": "a", "parameters": {"top_k": -1}}', b'{"inputs": "a", "model": 3}',
    b'{"inputs": {"question": "", "context": ""}, "parameters": {}}',
    b'{"inputs": {"question": 1}, "parameters": {}}',
    b'{"inputs": {"source_sentence": "a"}, "parameters": {}}',
    b'{"inputs": "a", "parameters": {"candidate_labels": []}}', b'{"input": []}',
    b'{"input": [[99999999]]}', b'{"input": [[-1]]}', b'{"input": "a", "dimensions": 0}',
    b'{"input": "a", "encoding_format": "hex"}', b'{"query": "a", "texts": []}',
    b'{"query": "a", "documents": [1]}', b'{"ids": [1e99]}', b'{"ids": [-5]}', b'{"ids": ["a"]}',
    json.dumps({"inputs": "a" * 100_000, "truncate": False}).encode(),
    json.dumps({"inputs": ["a"] * 1000}).encode(),
    b'{"inputs": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"inputs": 1' + b"0" * 5000 + b"}",
]  # fmt: skip


def check(answer):
    """An answer in time, and not one of a server that broke down."""
    assert answer.status_code < 500, answer.text
    assert "Traceback" not in answer.text
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        said = answer.json()
        assert said.get("error") or said.get("message") or said.get("detail"), answer.text


@pytest.fixture(scope="module")
def document(every_head):
    return http.get(f"{every_head[0]}/openapi.json").json()


def paths_of(document):
    return [path for path, methods in document["paths"].items() if "post" in methods]


def test_bodies_written_by_hand_are_refused_by_every_route(every_head, document):
    paths = paths_of(document)
    assert len(paths) >= 20
    with httpx.Client(base_url=every_head[0], timeout=30) as client:
        for path in paths:
            own = path.replace("{name}", "classes").replace("{name:path}", "classes")
            for body in BODIES:
                check(client.post(own, content=body, headers=JSON))


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/embed", {}, 405),
        ("POST", "/health", {}, 405),
        ("GET", "/nothing", {}, 404),
        ("GET", "/../../etc/passwd", {}, 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, 404),
        ("POST", "/embed", {"content-type": "text/plain"}, 422),
        ("DELETE", "/models/classes", {}, None),
        ("POST", "/models/nothing", {}, None),
        ("POST", "/embed", {"content-length": "5"}, None),
    ],
)
def test_calls_of_no_route_are_told_so(every_head, method, path, headers, status):
    content = b'{"inputs": "a"}' if method == "POST" and "content-length" not in headers else b""
    if "content-length" in headers:
        content = b"{....."[:5]
    answer = http.request(method, every_head[0] + path, headers=headers, content=content)
    check(answer)
    assert answer.status_code >= 400
    assert status in (None, answer.status_code), answer.text


@pytest.mark.parametrize(
    "body",
    [
        b'{"inputs": "a", "inputs": "b"}',
        b'{"inputs": {"source_sentence": "a", "sentences": ["b"], "sentences": ["c"]}}',
    ],
)
def test_name_that_is_there_twice_is_refused(every_head, body):
    answer = http.post(every_head[0], content=body, headers=JSON)
    assert answer.status_code == 422
    assert "not JSON: an object has the name" in answer.json()["error"]


def test_depth_of_a_body_is_no_error_of_ours(every_head):
    for depth in range(850, 1100, 10):
        body = b'{"inputs": ' + b"[" * depth + b"]" * depth + b"}"
        answer = http.post(f"{every_head[0]}/embed", content=body, headers=JSON)
        assert answer.status_code == 422, depth


def test_message_does_not_repeat_all_that_was_sent(every_head):
    answer = http.post(f"{every_head[0]}/embed", json={"inputs": "a", "model": "b" * 100_000})
    assert answer.status_code == 404
    assert len(answer.json()["error"]) < 3000
    assert "choices" in answer.json()["error"][-100:]


@pytest.mark.whole
def test_bodies_made_from_the_schema_are_never_an_error_of_ours(every_head, document):
    address, sent = every_head[0], []
    schema = schemathesis.openapi.from_dict(document)
    negative = schemathesis.GenerationMode.NEGATIVE
    with httpx.Client(base_url=address, timeout=30) as client:
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.method != "post":
                continue

            @hypothesis.settings(
                max_examples=20,
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=negative))
            def send(case):
                body = {} if isinstance(case.body, schemathesis.core.NotSet) else case.body
                try:
                    content = json.dumps(body).encode("utf-8", "surrogatepass")
                except (TypeError, ValueError):
                    return
                path = case.path.replace("{name}", "classes")
                check(client.post(path, content=content, headers=JSON))
                sent.append(path)

            send()
    assert len(sent) >= 200
    assert http.get(f"{address}/health").status_code == 200
