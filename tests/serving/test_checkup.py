"""`bertjax serve`: what it would serve, what it says as it starts, and how it ends."""

import json
import re
import signal
import subprocess
import sys

import pytest

from tests.serving.running import http
from tests.serving.served_models import save_tiny

SMALL = ["--no-explain", "--max-batch-tokens", "32"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"), "BertForSequenceClassification")


def test_check_tells_what_would_be_served(bertjax_command, directory, monkeypatch):
    monkeypatch.setenv("API_KEY", "one\ntwo")
    monkeypatch.setattr("bertjax.serving.checkup.SECONDS", 0.01)
    code, out, err = bertjax_command(
        "serve", "--model", f"tiny={directory}", *SMALL, "--check", "--json"
    )
    assert code == 0, err
    found = json.loads(out)
    own = found["models"]["tiny"]
    assert own["architecture"] == "BertForSequenceClassification"
    assert own["labels"] == ["sad", "so so", "happy"]
    assert own["programs"]["class"]["shapes"] == ["1 x 16", "1 x 32"]
    rates = own["programs"]["class"]
    assert rates["tokens_per_second"] == pytest.approx(32 * rates["texts_per_second"])
    assert rates["texts_per_second"] > 0
    assert own["explains"] == {"answers": False, "attention": False, "max_tokens": 0}
    assert {"POST /predict", "POST /explain", "GET /health"} <= set(found["routes"])
    assert found["limits"]["max_batch_tokens"] == 32
    assert found["api_keys"] == 2
    assert found["memory_bytes"]["process_at_most"] > found["memory_bytes"]["parameters"] > 40_000
    assert found["compiled_under_traffic"] == 0
    assert f"tiny ({directory}): BertForSequenceClassification" in err
    assert "ready: 2 shapes are compiled" in err
    code, out, err = bertjax_command("serve", "--model", directory, *SMALL, "--check")
    assert code == 0, err
    assert "texts_per_second" in out


def test_json_of_nothing_is_refused(bertjax_command, directory):
    code, _, err = bertjax_command("serve", "--model", directory, "--json")
    assert code == 2
    assert "pass both" in err


@pytest.mark.slow
def test_server_says_where_it_is_and_ends_when_it_is_told_to(directory):
    command = [sys.executable, "-m", "bertjax", "serve", "--model", directory, "--port", "0"]
    with subprocess.Popen([*command, *SMALL], stderr=subprocess.PIPE, text=True) as server:
        lines = []
        while not any("ready: " in line for line in lines):
            lines.append(server.stderr.readline())
            assert lines[-1], "".join(lines)
        [url] = re.findall(r"^(http://127.0.0.1:\d+) ", "".join(lines), re.M)
        assert http.get(f"{url}/health").status_code == 200
        assert http.post(f"{url}/predict", json={"inputs": "a b"}).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
