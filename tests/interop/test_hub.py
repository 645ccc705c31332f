"""Names on the Hugging Face hub: what they mean, what is downloaded, and what is said without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertjax.interop.hub import HubName, find_model, hub_name
from bertjax.program.errors import UserError
from tests.interop.stand_in_hub import COMMIT, StandInHub

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "parity" / "golden" / "tiny_bert"

# Prints for each name the directory that it is, or the message; with ! of pickled weights too.
SCRIPT = """
import json, sys
from bertjax.interop.hub import find_model
from bertjax.program.errors import UserError
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = str(find_model(name.rstrip("!"), pickled=name.endswith("!")))
    except UserError as error:
        found[name] = f"error: {error}"
print(json.dumps(found))
"""


def test_names_of_the_hub_and_of_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "org" / "here").mkdir(parents=True)
    assert hub_name("google/bert_tiny-1.5") == HubName("google/bert_tiny-1.5", None)
    assert hub_name("google/bert@refs/pr/3") == HubName("google/bert", "refs/pr/3")
    assert str(hub_name("google/bert@v1")) == "google/bert@v1"
    # A folder of that name wins; so does one that the path begins with, without a revision.
    for place in (
        "org/here",
        "runs/mistyped",
        "model",
        "a/b/c",
        "/a/b",
        "./a",
        "../a",
        "~/a",
        "a/",
    ):
        assert hub_name(place) is None, place
        assert find_model(place) == Path(place)
    assert hub_name("runs/mistyped@main") == HubName("runs/mistyped", "main")


def test_directory_that_was_never_finished_is_refused(tmp_path):
    left = tmp_path / "exported.partial"
    left.mkdir()
    with pytest.raises(UserError, match=r"exported.partial: is not whole, .*; make exported again"):
        find_model(left)
    assert find_model(tmp_path / "other.partial") == tmp_path / "other.partial"  # for its reader


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """What `find_model` says of names, online and then offline, and what the hub was asked."""
    folder = tmp_path_factory.mktemp("hub")
    good, pickled, nothing = (folder / name for name in ("good", "pickled", "nothing"))
    for path in (good / "1_Pooling", good / "onnx", pickled, nothing):
        path.mkdir(parents=True)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (good / file).write_bytes((TINY / file).read_bytes())
    for name in ("vocab.txt", "1_Pooling/config.json", "pytorch_model.bin", "onnx/config.json"):
        (good / name).write_text("{}")
    for file in ("config.json", "pytorch_model.bin"):
        (pickled / file).write_text("{}")
    (nothing / "README.md").write_text("")
    hub = StandInHub(
        {"org/good": good, "org/pickled": pickled, "org/nothing": nothing},
        {
            "org/gated": (403, "GatedRepo"), "org/private": (401, "RepoNotFound"),
            "org/forbidden": (403, ""), "org/broken": (501, ""),
        },
    )  # fmt: skip
    names = [
        "org/good", "org/good!", "org/good@v1", "org/good@v9", "org/none", "org/pickled",
        "org/nothing",
        *hub.refusals,
    ]  # fmt: skip

    def ask(*names, **variables):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *names],
            capture_output=True,
            text=True,
            cwd=folder,
            env={
                **os.environ, "HF_HOME": str(folder / "home"), "HF_ENDPOINT": hub.endpoint,
                "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **variables,
            },
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout), done.stderr

    with hub:
        online, printed = ask(*names)
        requests = list(hub.requests)
        online |= ask("org/pickled!")[0]
        hub.requests.clear()
        offline, _ = ask("org/good", "org/other", HF_HUB_OFFLINE="1")
        assert hub.requests == []
    unreached, _ = ask("org/good", "org/other")
    return online, printed, requests, offline, unreached


def test_model_is_downloaded_to_the_cache_without_pickles(asked):
    online, printed, requests, *_ = asked
    folder = Path(online["org/good"])
    assert folder.name == COMMIT
    assert folder.is_relative_to(folder.parents[4] / "home" / "hub")
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert files == {
        "config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "1_Pooling/config.json"
    }  # fmt: skip
    assert (folder / "model.safetensors").read_bytes() == (TINY / "model.safetensors").read_bytes()
    assert online["org/good@v1"] == online["org/good"]
    assert not any("pytorch_model.bin" in request for request in requests)
    # The same commit is downloaded once.
    assert sum("GET" in one and "model.safetensors" in one for one in requests) == 1
    assert "Traceback" not in printed


def test_pickles_are_downloaded_to_be_converted(asked):
    online, _, requests, *_ = asked
    assert online["org/good!"] == online["org/good"]
    assert not any("pytorch_model.bin" in request for request in requests)
    files = {file.name for file in Path(online["org/pickled!"]).iterdir()}
    assert files == {"config.json", "pytorch_model.bin"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/good@v9", "has org/good, and no branch, tag or commit v9 of it"),
        (
            "org/none",
            "no such directory, and the Hugging Face hub has no public model of this name",
        ),
        ("org/private", "If it is private, sign in with `hf auth login`, or set HF_TOKEN"),
        ("org/gated", "accept them on the page of the model, then sign in with"),
        ("org/forbidden", "does not give the model (403): it is private, or has terms to accept"),
        ("org/broken", "answers with an error"),
        ("org/pickled", "has pytorch_model.bin and no safetensors; it is not read because unpick"),
        ("org/pickled", "with `bertjax convert --model org/pickled --output DIR`, or take a revis"),
        ("org/nothing", "has no safetensors, so that it is no model that bertjax reads"),
    ],
)
def test_what_the_hub_does_not_give_is_an_error_with_a_way_out(asked, name, message):
    said = asked[0][name]
    assert said.startswith(f"error: {name}: ")
    assert message in said


def test_cache_is_used_where_the_hub_is_not_asked_or_not_reached(asked):
    online, _, _, offline, unreached = asked
    assert offline["org/good"] == unreached["org/good"] == online["org/good"]
    assert "not in the cache" in offline["org/other"]
    assert "HF_HUB_OFFLINE forbids to ask" in offline["org/other"]
    assert "the Hugging Face hub is not reached" in unreached["org/other"]
    assert "try again with a connection" in unreached["org/other"]
