"""The program itself: what it prints, its log, and how it ends."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.serving.running import http
from tests.serving.served_models import save_tiny

# A call of many texts, so that the signal comes while it is answered.
CALL = {"inputs": [["a b c d e f g h"]] * 200}


@pytest.mark.whole
def test_server_says_where_it_is_logs_its_calls_and_finishes_what_it_took(tmp_path):
    folder = save_tiny(tmp_path, "BertForSequenceClassification")
    words = ["--model", f"tiny={folder}", "--port", "0", "--max-batch-tokens", "32"]
    words += ["--no-explain", "--max-client-batch-size", "200"]
    process = subprocess.Popen(
        [sys.executable, "-m", "bertjax", "serve", *words], stderr=subprocess.PIPE, text=True
    )
    try:
        printed = iter(process.stderr.readline, "")
        address = next(line.split()[0] for line in printed if line.startswith("http"))
        logged = []
        reading = threading.Thread(target=lambda: logged.extend(printed))
        reading.start()
        until = time.monotonic() + 120
        while http.get(f"{address}/health").status_code != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        answers = []
        caller = threading.Thread(
            target=lambda: answers.append(
                http.post(
                    f"{address}/predict", json=CALL, timeout=60, headers={"x-request-id": "7"}
                )
            )
        )
        caller.start()
        while "te_queue_size 0.0" in http.get(f"{address}/metrics").text and not answers:
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        caller.join()
        assert process.wait(60) == 0
        reading.join()
    finally:
        process.kill()
    assert answers[0].status_code == 200
    assert len(answers[0].json()) == 200
    calls = [json.loads(line) for line in logged if line.startswith("{")]
    [call] = (call for call in calls if call["id"] == "7")
    assert (call["path"], call["status"], call["tokens"]) == ("/predict", 200, 2000)
    assert not any("a b c" in line for line in logged)
    assert not any("Traceback" in line for line in logged)
