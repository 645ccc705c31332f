"""Sweeps that are killed or stopped, and continue: no trial is lost, none is doubled."""

import os
import random
import re
import signal
import subprocess
import sys
import time

import pytest
import yaml

from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.sweeps.study import Lock
from tests.train.fake_sweep import FAKE, LAUNCH, SPACE, WAY, comparable, read_results, steps_taken


@pytest.fixture
def launch(tmp_path):
    """Starts a sweep of the fake program in `tmp_path / "sweep"`."""
    (tmp_path / "fake_program.py").write_text(FAKE)

    def start(output="sweep", space=SPACE, **fields):
        config = {"space": space, "score": "accuracy", "sampler": "random", **fields}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(config))
        path = os.pathsep.join([str(tmp_path), str(WAY)])
        command = [sys.executable, "-c", LAUNCH, "--config", str(tmp_path / "sweep.yaml")]
        return subprocess.Popen(
            [*command, "--output", str(tmp_path / output)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": path, "COLUMNS": "200"},
            cwd=tmp_path,
        )

    return start


def finish(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def wait_for(process, is_so):
    deadline = time.monotonic() + 60
    while not is_so():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.whole
def test_killed_sweep_resumed_loses_and_doubles_no_trial(launch, search, tmp_path):
    kill_and_resume(launch, search, tmp_path, "journal")


@pytest.mark.slow
def test_killed_sweep_in_sqlite_resumed_loses_and_doubles_no_trial(launch, search, tmp_path):
    kill_and_resume(launch, search, tmp_path, "sqlite")


def kill_and_resume(launch, search, tmp_path, storage):
    hold, output = tmp_path / "hold", tmp_path / "sweep"
    fields = {"trials": 6, "workers": 2, "storage": storage}
    fixed = {"pause": 0.1, "steps": 6, "hold": str(hold)}
    process = launch(**fields, fixed=fixed)
    wait_for(process, lambda: len(steps_taken(output)) == 4)
    hold.touch()  # the third and the fourth wait in their middle
    wait_for(process, lambda: [len(steps) for steps in steps_taken(output).values()][2:] == [3, 3])
    process.kill()  # and what it started lives on
    finish(process)
    process = launch(**fields, fixed=fixed)
    wait_for(process, lambda: count_starts(output) == 6)
    hold.unlink()
    code, _, errors = finish(process)
    assert code == 0, errors
    assert re.findall(r"trial (\d) continues", errors) == ["2", "3"]
    assert not re.search(r"trial [01] ", errors)
    assert steps_taken(output) == {f"{number:04}": list(range(1, 7)) for number in range(6)}
    rows = read_results(output)
    assert [(row["trial"], row["state"]) for row in rows] == [(n, "complete") for n in range(6)]
    assert search("whole", **fields, fixed={**fixed, "pause": 0.0}) == 0
    assert comparable(rows) == comparable(read_results(tmp_path / "whole"))


def count_starts(output):
    return sum(log.read_text().count("start") for log in output.glob("trials/*/work.log"))


@pytest.mark.slow
def test_sweep_killed_at_ten_moments_loses_and_doubles_no_trial(launch, tmp_path):
    draw = random.Random(7)
    fields = {"trials": 12, "workers": 2, "fixed": {"pause": 0.2, "steps": 6}, "pruner": "median"}
    output = tmp_path / "sweep"
    for _ in range(10):
        process = launch(**fields)
        before = journal_size(output)
        wait_for(process, lambda before=before: journal_size(output) > before)
        time.sleep(draw.random())
        process.kill()
        finish(process)
    code, _, errors = finish(launch(**fields))
    assert code == 0, errors
    rows = read_results(output)
    assert [row["trial"] for row in rows] == list(range(12))
    assert {row["state"] for row in rows} == {"complete", "pruned"}
    for row, steps in zip(rows, steps_taken(output).values(), strict=True):
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) == 6 or row["state"] == "pruned"


def journal_size(output):
    journal = output / "study.journal"
    return journal.stat().st_size if journal.exists() else 0


@pytest.mark.whole
def test_sweep_killed_with_its_trials_goes_on_from_their_checkpoints(launch, search, tmp_path):
    fields = {"trials": 3, "workers": 2, "fixed": {"pause": 0.2, "steps": 6}}
    output = tmp_path / "sweep"
    process = launch(**fields)
    wait_for(process, lambda: sum(map(len, steps_taken(output).values())) >= 7)
    for number in (0, 1):
        pid = (output / "locks" / f"{number:04}.process").read_text().split()[0]
        os.kill(int(pid), signal.SIGKILL)
    process.kill()
    finish(process)
    assert search(**fields) == 0
    assert [row["state"] for row in read_results(output)] == ["complete"] * 3
    for steps in steps_taken(output).values():
        assert sorted(set(steps)) == list(range(1, 7))
        assert len(steps) <= 7  # the step that the kill hit may have been taken again


@pytest.mark.whole
def test_two_sweeps_at_once_share_the_trials(launch, tmp_path):
    both = [launch(trials=7, workers=2, fixed={"pause": 0.3}) for _ in range(2)]
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0], results
    begun = [re.findall(r"trial (\d+) begins", errors) for _, _, errors in results]
    assert sorted(map(int, begun[0] + begun[1])) == list(range(7))
    assert all(begun)
    taken = steps_taken(tmp_path / "sweep")
    assert taken == {f"{number:04}": list(range(1, 6)) for number in range(7)}


@pytest.mark.whole
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_signal_stops_the_trials_and_the_same_command_goes_on(launch, search, tmp_path, number):
    fields = {"trials": 2, "workers": 2, "fixed": {"pause": 0.15, "steps": 8}}
    output = tmp_path / "sweep"
    process = launch(**fields)
    wait_for(process, lambda: len(steps_taken(output)) == 2)
    process.send_signal(number)
    code, _, errors = finish(process)
    assert code == STOPPED_EXIT_CODE, errors
    assert f"{number.name}: stopped; the same command continues from there" in errors
    assert {row["state"] for row in read_results(output)} == {"unfinished"}
    for n in range(2):  # nothing runs any more
        lock = Lock(output / "locks" / f"{n:04}.program")
        assert lock.take()
        lock.release()
    assert search(**fields) == 0
    assert steps_taken(output) == {f"{n:04}": list(range(1, 9)) for n in range(2)}
