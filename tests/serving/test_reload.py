"""A model that is read again from its directory, while its server answers."""

import shutil
import threading
import time

import httpx
import jax
import numpy as np
import pytest

from bertjax.loaded import load
from bertjax.serving.engine import ClosingError
from bertjax.serving.programs import Program
from tests.serving.running import count, http, running
from tests.serving.served_models import save_tiny

CALL = {"inputs": "a b"}
TIMEOUT = 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("reloaded"), "BertForSequenceClassification")


@pytest.fixture(scope="module")
def served(folder):
    settings = {"request_timeout": TIMEOUT, "allow_reload": True, "max_batch_tokens": 32}
    with running({"tiny": load(folder)}, **settings) as (address, server):
        yield address, server


@pytest.fixture(autouse=True)
def what_it_had(served, folder, tmp_path):
    """Puts back the model that the directory had."""
    server, before = served[1], dict(served[1].models)
    kept = shutil.copytree(folder, tmp_path / "kept")
    yield
    put(kept, folder)
    server.models.update(before)


def put(source, folder):
    shutil.rmtree(folder)
    shutil.copytree(source, folder)


def reload(address, name="tiny"):
    return http.post(f"{address}/models/{name}/reload", timeout=120)


def test_weights_are_taken_and_nothing_is_compiled(served, folder, tmp_path):
    address, _ = served
    before = http.post(f"{address}/predict", json=CALL).json()
    compiled = count(address, "bertjax_compilations_total")
    other = load(folder)
    params = dict(other.params)
    params["sequence_head"] = jax.tree.map(
        lambda value: -np.asarray(value), params["sequence_head"]
    )
    other.replace(params=params).save(tmp_path / "other")
    put(tmp_path / "other", folder)
    assert reload(address).json()["model"] == "tiny"
    after = http.post(f"{address}/predict", json=CALL).json()
    assert [one["label"] for one in after] == [one["label"] for one in before[::-1]]
    assert count(address, "bertjax_compilations_total") == compiled


def test_broken_directory_leaves_the_old_model_and_is_told(served, folder):
    address, _ = served
    before = http.post(f"{address}/predict", json=CALL).json()
    (folder / "model.safetensors").write_bytes(b"broken")
    refused = reload(address)
    assert refused.status_code == 424
    assert "stays as it was" in refused.json()["error"]
    assert "model.safetensors" in refused.json()["error"]
    assert http.post(f"{address}/predict", json=CALL).json() == before
    assert reload(address, "other").status_code == 404


def test_other_labels_another_head_and_another_family_lose_no_call(served, folder, tmp_path):
    address, _ = served
    models = {
        "labels": ("BertForSequenceClassification", {"id2label": ("one", "two")}),
        "head": ("BertForTokenClassification", {}),
        "family": ("DistilBertForSequenceClassification", {"id2label": ("old", "new")}),
    }
    answers, is_over = [], threading.Event()

    def call():
        with httpx.Client(timeout=60) as client:
            while not is_over.is_set():
                answer = client.post(f"{address}/predict", json=CALL)
                labels = [one["label"] for one in answer.json()] if answer.is_success else []
                answers.append((answer.status_code, frozenset(labels)))

    caller = threading.Thread(target=call)
    caller.start()
    try:
        for name, (architecture, fields) in models.items():
            (tmp_path / name).mkdir()
            put(save_tiny(tmp_path / name, architecture, **fields), folder)
            assert reload(address).json()["architecture"] == architecture
            if name == "head":
                assert http.post(f"{address}/tags", json=CALL).status_code == 200
    finally:
        is_over.set()
        caller.join()
    served_labels = [{"sad", "so so", "happy"}, {"one", "two"}, {"old", "new"}]
    expected = {(200, frozenset(labels)) for labels in served_labels} | {(424, frozenset())}
    assert {*answers} <= expected
    assert (200, frozenset(served_labels[0])) in answers


def test_reload_may_take_longer_than_a_call(served, monkeypatch):
    warm_up = Program.warm_up

    def take_long(self, progress):
        time.sleep(1.2 * TIMEOUT)
        warm_up(self, progress)

    monkeypatch.setattr(Program, "warm_up", take_long)
    assert reload(served[0]).status_code == 200


def test_server_that_ends_gives_a_reload_up(served, monkeypatch):
    _, server = served
    before = server.models["tiny"]
    monkeypatch.setattr(server, "is_ending", True)
    with pytest.raises(ClosingError):
        server.reload("tiny")
    assert server.models["tiny"] is before
