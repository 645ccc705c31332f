"""The comparison with other libraries: the same tokens for all, and no time for a wrong output."""

import argparse

import numpy as np
import pytest

from benchmarks import bench_peers
from benchmarks.peers import batches

LENGTHS = np.array([5, 3, 9, 3, 7, 4])


@pytest.fixture
def texts():
    tokens = np.arange(1, 1 + LENGTHS.sum())
    return batches.Texts(tokens, -tokens, tokens % 3 == 0, LENGTHS)


@pytest.mark.parametrize(
    "numbers", [batches.by_room(LENGTHS, 18), batches.by_steps(LENGTHS, 3)], ids=["room", "steps"]
)
def test_sorted_batches_hold_every_text_once(texts, numbers):
    assert sorted(np.concatenate(numbers)) == list(range(len(LENGTHS)))
    found = [batches.pad(texts, batch, masked=True) for batch in numbers]
    tokens = np.concatenate([batch.token_ids[batch.mask == 1] for batch in found])
    assert sorted(-tokens) == list(texts.original)
    labels = np.concatenate([batch.labels for batch in found])
    assert sorted(labels) == list(texts.original[texts.chosen])
    for batch in found:
        np.testing.assert_array_equal(batch.token_ids.reshape(-1)[batch.places], -batch.labels)
        assert batch.token_ids.shape[1] == batch.mask.sum(1).max()


def test_room_and_steps_are_kept():
    assert all(len(b) * LENGTHS[b].max() <= 18 for b in batches.by_room(LENGTHS, 18))
    sizes = [len(b) for b in batches.by_steps(np.full(8, 4), 4)]
    assert sizes == [2, 2, 2, 2]


class FakeWorker:
    """Stands for a peer's process."""

    def __init__(self, name, dtype, folder, python):
        self.name, self.dtype, self.file = name, dtype, folder / f"{name}-{dtype}.npz"
        self.about = {"settings": "none", "versions": {}}
        far = 0.01 if (name, dtype) == ("torch", "float32") else 0
        np.savez(self.file, hidden=np.ones((2, 3)) + far)
        self.seconds = {"ours": 1.0, "torch": 3.0}.get(name, 2.0)

    def ask(self, what):
        return {"outputs": str(self.file)} if what == "check" else {"seconds": self.seconds}

    def close(self):
        pass


def test_a_peer_with_other_outputs_is_not_timed(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_peers, "Worker", FakeWorker)
    job = {"case": "c", "kind": "inference", "text": True, "tokens": 10, "what": "w"}
    options = argparse.Namespace(peers=[*bench_peers.PEERS], rounds=2, venvs=tmp_path)
    measured = bench_peers.measure(tmp_path, job, options)
    assert list(measured["refused"]) == ["torch float32"]
    assert "differs by 0.01, more than 0.0001" in measured["refused"]["torch float32"]
    assert measured["peers"]["torch bfloat16"]["times ours float32"] == 3
    assert len(measured["peers"]["onnxruntime int8"]["times"]) == 2


def test_a_step_that_does_not_learn_is_refused():
    job, reference = {"kind": "training"}, {"loss": np.array(4.0)}
    outputs = {"loss": np.array(4.0), "after": np.array(4.1)}
    assert "do not lower" in bench_peers.compare(job, "float32", outputs, reference)[0]
    outputs = {"loss": np.array(4.0), "after": np.array(3.9)}
    assert bench_peers.compare(job, "float32", outputs, reference) == ("", 0.0)
    outputs = {"loss": np.array(4.1), "after": np.array(3.9)}
    assert "differs" in bench_peers.compare(job, "float32", outputs, reference)[0]
