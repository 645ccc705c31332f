"""Who may call: keys, what is public without one, and origins that pages may call from."""

import logging

import pytest

from bertjax.program.errors import UserError
from bertjax.serving.keys import Keys, read_keys
from tests.serving.running import http, running
from tests.serving.served_models import tiny_model

CALL = {"inputs": "a b"}


@pytest.fixture(scope="module")
def address():
    model = tiny_model("BertForSequenceClassification")
    settings = {"cors_allow_origin": ("https://example.org",)}
    with running({"tiny": model}, Keys(["first secret", "zweiter-schlüssel"]), **settings) as (
        address,
        _,
    ):
        yield address


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer first secret", 200),
        ("bearer first secret", 200),
        ("Bearer zweiter-schlüssel", 200),
        ("Bearer first secre", 401),
        ("Bearer first", 401),
        ("Basic first secret", 401),
        ("first secret", 401),
    ],
)
def test_call_needs_one_of_the_keys(address, header, status):
    headers = {} if header is None else {"authorization": header.encode()}
    answer = http.post(f"{address}/predict", json=CALL, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 401:
        assert answer.json()["error_type"] == "Unauthorized"
        assert "Authorization: Bearer KEY" in answer.json()["error"]
        assert answer.headers["www-authenticate"] == "Bearer"


def test_refusal_comes_before_the_body_and_before_the_route(address):
    big = b"x" * 5_000_000
    assert http.post(f"{address}/predict", content=big).status_code == 401
    assert http.get(f"{address}/nothing").status_code == 401


@pytest.mark.parametrize("path", ["/", "/health", "/metrics", "/openapi.json"])
def test_health_and_metrics_are_public(address, path):
    assert http.get(f"{address}{path}").status_code == 200


def test_post_to_the_page_needs_a_key(address):
    assert http.post(f"{address}/", json=CALL).status_code == 401


def test_keys_are_in_no_log_and_no_metric(address):
    records = []
    log, handler = logging.getLogger("bertjax.serving.access"), logging.Handler()
    handler.emit = records.append
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        for key in ("first secret", "wrong secret"):
            http.post(f"{address}/predict", json=CALL, headers={"authorization": f"Bearer {key}"})
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
    ours = "\n".join(record.getMessage() for record in records)
    assert ours.count('"path": "/predict"') == 2
    metrics = http.get(f"{address}/metrics").text
    assert 'te_request_failure_total{err="unauthorized"}' in metrics
    assert "secret" not in ours + metrics + repr(Keys(["first secret"]))


def test_pages_of_named_origins_alone_may_call(address):
    def ask(origin):
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return http.options(f"{address}/predict", headers=headers)

    allowed = ask("https://example.org")  # without a key: a browser asks first
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://example.org"
    assert "access-control-allow-origin" not in ask("https://example.com").headers
    refused = http.post(f"{address}/predict", json=CALL, headers={"origin": "https://example.org"})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://example.org"


def test_keys_are_read_a_line_each(tmp_path):
    file = tmp_path / "keys"
    file.write_text("one\n\n  two \n")
    keys = read_keys(file, "three\nfour")
    assert len(keys) == 4
    for key in ("one", "two", "three", "four"):
        assert keys.allow("POST", "/embed", f"Bearer {key}".encode())
    assert not keys.allow("POST", "/embed", b"Bearer ")
    assert len(read_keys(None, None)) == len(read_keys(None, " \n")) == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b" \n\n", "no key is in it"), (b"\xff", "not UTF-8")],
)
def test_file_without_keys_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_keys(tmp_path / "keys", "one")
