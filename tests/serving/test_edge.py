"""What every call goes through: limits, deadlines, hang-ups, overload, counting, the log."""

import json
import logging
import socket
import threading

import httpx
import jax
import numpy as np
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bertjax.loaded import load
from bertjax.serving.programs import Program
from tests.serving.running import count, http, running, until
from tests.serving.served_models import save_tiny

CALL = {"inputs": "a b"}
HEAD = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("edge"), "BertForSequenceClassification")


@pytest.fixture(scope="module")
def served(folder):
    settings = {"payload_limit": 5000, "request_timeout": 1.0, "max_concurrent_requests": 4}
    with running({"tiny": load(folder)}, **settings) as (address, server):
        yield address, server


@pytest.fixture
def gate(monkeypatch):
    """What the device waits for before every batch."""
    gate, run = threading.Event(), Program.run
    gate.reached = threading.Event()

    def wait(self, rows, device):
        gate.reached.set()
        assert gate.wait(30)
        return run(self, rows, device)

    monkeypatch.setattr(Program, "run", wait)
    yield gate
    gate.set()


def connect(address):
    host, port = address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def test_answer_says_what_it_cost_and_keeps_the_callers_id(served):
    answer = http.post(f"{served[0]}/predict", json=CALL, headers={"x-request-id": "mine"})
    assert answer.headers["x-request-id"] == "mine"
    assert answer.headers["x-compute-type"] == jax.devices()[0].platform
    assert answer.headers["x-compute-tokens"] == "4"
    assert answer.headers["x-compute-characters"] == "3"
    times = [f"x-{part}-time" for part in ("total", "tokenization", "queue", "inference")]
    assert all(int(answer.headers[name]) >= 0 for name in times)
    other = http.post(f"{served[0]}/predict", json=CALL)
    assert len(other.headers["x-request-id"]) == 32


def test_body_that_is_too_large_is_refused_before_it_has_arrived(served):
    with connect(served[0]) as connection:
        connection.sendall(HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 6000)
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_packed_body_is_refused(served):
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    answer = http.post(f"{served[0]}/predict", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415
    assert "content-encoding: gzip" in answer.json()["error"]


def test_paths_that_callers_make_up_are_counted_as_one(served):
    address, _ = served
    http.get(f"{address}/made/up")
    http.post(f"{address}/made/up/too", content=b"x" * 6000)
    with connect(address) as connection:
        connection.sendall(
            b"POST /made/up/and/left HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n"
        )
    until(lambda: count(address, "te_request_count_total", method="unknown") >= 3)
    assert "made/up" not in http.get(f"{address}/metrics").text


def test_body_that_does_not_arrive_is_refused(served):
    with connect(served[0]) as connection:
        connection.sendall(HEAD + b"content-length: 100\r\n\r\n{")
        assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_call_that_takes_too_long_is_told_so_and_dropped(served, gate):
    answer = http.post(f"{served[0]}/predict", json=CALL, timeout=20)
    assert answer.status_code == 504
    assert "1 seconds (--request-timeout)" in answer.json()["error"]
    assert served[1].engine.waiting == 0


def test_client_that_hangs_up_costs_nothing_more(served, gate):
    address, server = served
    before = count(address, "te_request_failure_total", err="dropped")
    ran = count(address, "te_batch_next_size_sum")
    first = connect(address)  # holds the device
    body = json.dumps(CALL).encode()
    whole = HEAD + b"content-length: %d\r\n\r\n" % len(body) + body
    first.sendall(whole)
    assert gate.reached.wait(20)
    second = connect(address)
    second.sendall(whole)
    until(lambda: server.engine.waiting >= 1)
    second.close()
    until(lambda: count(address, "te_request_failure_total", err="dropped") == before + 1)
    gate.set()
    assert first.recv(100).startswith(b"HTTP/1.1 200")
    first.close()
    assert count(address, "te_batch_next_size_sum") == ran + 1


def test_client_that_is_gone_when_its_answer_is_written_is_no_error(served, caplog, monkeypatch):
    address, _ = served
    before = count(address, "te_request_failure_total", err="dropped")

    async def fail(self, message):
        self.transport.close()
        self.disconnected = True
        raise RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")

    with monkeypatch.context() as patched:
        patched.setattr(RequestResponseCycle, "send", fail)
        with pytest.raises(httpx.RemoteProtocolError):
            http.post(f"{address}/predict", json=CALL)
    assert count(address, "te_request_failure_total", err="dropped") == before + 1
    assert "Traceback" not in caplog.text


def test_full_queue_is_told_with_when_to_try_again(served, gate):
    address, _ = served
    answers = []
    call = {"inputs": [["a"], ["b"], ["c"], ["d"]]}

    def send():
        answers.append(http.post(f"{address}/predict", json=call, timeout=20))

    threads = [threading.Thread(target=send) for _ in range(2)]
    threads[0].start()
    assert gate.reached.wait(20)
    # One batch is taken by the device; the other call fills the queue.
    threads[1].start()
    until(lambda: served[1].engine.waiting == 4)
    refused = http.post(f"{address}/predict", json=call)
    gate.set()
    for thread in threads:
        thread.join()
    assert refused.status_code == 429
    assert refused.json()["error_type"] == "Overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in answers] == [200, 200]


def test_server_that_ends_finishes_what_it_took_and_refuses_the_rest(served, gate, monkeypatch):
    address, server = served
    body = json.dumps(CALL).encode()
    with connect(address) as taken:
        taken.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
        assert gate.reached.wait(20)
        monkeypatch.setattr(server, "is_ending", True)
        refused = http.post(f"{address}/predict", json=CALL)
        assert refused.status_code == 503
        assert refused.json()["error_type"] == "Unhealthy"
        assert refused.headers["retry-after"] == "5"
        assert http.get(f"{address}/health").status_code == 503
        gate.set()
        assert taken.recv(100).startswith(b"HTTP/1.1 200")


def test_log_has_a_line_for_each_call_and_no_text(served, caplog):
    with caplog.at_level(logging.INFO, "bertjax.serving.access"):
        http.post(f"{served[0]}/predict", json={"inputs": "qqq"}, headers={"x-request-id": "7"})
        until(lambda: '"id": "7"' in caplog.text)
    own = [record.message for record in caplog.records if record.name == "bertjax.serving.access"]
    [line] = (one for one in map(json.loads, own) if one["id"] == "7")
    assert (line["path"], line["status"]) == ("/predict", 200)
    assert line["tokens"] == 5
    assert "qqq" not in caplog.text


def test_error_of_the_server_shows_no_traceback(served, monkeypatch, caplog):
    def break_down(self, rows, device):
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(Program, "run", break_down)
    answer = http.post(f"{served[0]}/predict", json=CALL)
    assert answer.status_code == 500
    assert answer.json()["error_type"] == "Backend"
    assert "secret" not in answer.text
    until(lambda: "the secret of the house" in caplog.text)
    monkeypatch.undo()
    assert http.post(f"{served[0]}/predict", json=CALL).status_code == 200


def test_output_that_is_not_finite_is_no_answer(served, monkeypatch):
    monkeypatch.setattr(Program, "run", lambda self, rows, device: np.full((9, 16, 3), np.nan))
    answer = http.post(f"{served[0]}/predict", json=CALL)
    assert answer.status_code == 424
    assert "not finite" in answer.json()["error"]
