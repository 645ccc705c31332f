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
    """Stands for a peer's process. `ends`: label and question with which one ends."""

    ends = ("", "")

    def __init__(self, name, dtype, folder, python):
        self.name, self.dtype, self.file = name, dtype, folder / f"{name}-{dtype}.npz"
        self.about = {"settings": "none", "versions": {}}
        far = 0.01 if (name, dtype) == ("torch", "float32") else 0
        np.savez(self.file, hidden=np.ones((2, 3)) + far)
        self.seconds = {"ours": 1.0, "torch": 3.0}.get(name, 2.0)

    def ask(self, what):
        if (f"{self.name} {self.dtype}", what) == self.ends:
            raise RuntimeError("it ended with -9: Killed")
        return {"outputs": str(self.file)} if what == "check" else {"seconds": self.seconds}

    def close(self):
        pass


@pytest.fixture
def measure(tmp_path, monkeypatch):
    """Measures inference of fake peers, of which one ends."""

    def measure_fakes(*ends):
        monkeypatch.setattr(bench_peers, "Worker", FakeWorker)
        monkeypatch.setattr(FakeWorker, "ends", ends)
        job = {"case": "embed-tweets", "kind": "inference", "text": True, "tokens": 10, "what": "w"}
        options = argparse.Namespace(peers=[*bench_peers.PEERS], rounds=2, venvs=tmp_path)
        return bench_peers.measure(tmp_path, job, options)

    return measure_fakes


def test_a_peer_with_other_outputs_is_not_timed(measure):
    measured = measure()
    assert list(measured["refused"]) == ["torch float32"]
    assert "differs by 0.01, more than 0.0001" in measured["refused"]["torch float32"]
    assert measured["peers"]["torch bfloat16"]["times ours float32"] == 3
    assert len(measured["peers"]["onnxruntime int8"]["times"]) == 2


def test_none_is_timed_without_the_one_that_all_are_compared_with(measure):
    measured = measure("ours float32", "check")
    assert measured["peers"] == {}
    refused = measured["refused"]
    assert refused.pop("ours float32") == "it ended with -9: Killed"
    assert len(refused) == 5
    absent = "ours float32, with which it would be compared, ended"
    assert set(refused.values()) == {absent}


def test_a_peer_that_ends_while_it_is_timed_fails_alone(measure, capsys):
    measured = measure("torch bfloat16", "run")
    assert list(measured["refused"]) == ["torch float32", "torch bfloat16"]
    assert measured["refused"]["torch bfloat16"] == "in round 0 it ended with -9: Killed"
    assert {len(peer["times"]) for peer in measured["peers"].values()} == {2}
    assert "onnxruntime int8" in measured["peers"]
    bench_peers.print_table("c", measured)
    lines = capsys.readouterr().out.splitlines()
    assert "| torch bfloat16 | failed |  |  |  |  |  |" in lines
    assert "Not timed: torch bfloat16: in round 0 it ended with -9: Killed" in lines


@pytest.mark.parametrize(("ends", "code"), [(("ours float32", "check"), 1), ((), 0)])
def test_a_case_without_figures_is_told_by_the_exit_code(
    measure, monkeypatch, tmp_path, ends, code
):
    measured = measure(*ends)
    monkeypatch.setattr(bench_peers, "measure", lambda *_: measured)
    monkeypatch.setattr(bench_peers.jobs, "write", lambda *_: {})
    words = ["", "--venvs", str(tmp_path), "--cases", "base-inference", "--peers", "ours"]
    monkeypatch.setattr("sys.argv", words)
    assert bench_peers.main() == code


def test_a_worker_tells_how_it_ended(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho '{}'; echo why >&2; exit 3\n")
    python.chmod(0o755)
    worker = bench_peers.Worker("torch", "float32", tmp_path, python)
    worker.process.wait()  # so that nobody is there to read what is asked
    with pytest.raises(RuntimeError, match=r"^it ended with 3: why$"):
        worker.ask("run")
    worker.close()


def test_a_step_that_does_not_learn_is_refused():
    job, reference = {"kind": "training"}, {"loss": np.array(4.0)}
    outputs = {"loss": np.array(4.0), "after": np.array(4.1)}
    assert "do not lower" in bench_peers.compare(job, "float32", outputs, reference)[0]
    outputs = {"loss": np.array(4.0), "after": np.array(3.9)}
    assert bench_peers.compare(job, "float32", outputs, reference) == ("", 0.0)
    outputs = {"loss": np.array(4.1), "after": np.array(3.9)}
    assert "differs" in bench_peers.compare(job, "float32", outputs, reference)[0]
