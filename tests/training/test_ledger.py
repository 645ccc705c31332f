"""Where the time of a run goes, over processes that end, are killed, and do things again."""

import json
import os

import pytest

from bertjax.training.ledger import LEDGER_NAME, Ledger, read_ledger


def write_lines(run, *lines):
    text = "".join(
        json.dumps({"at": at, "activity": activity, "step": step, **more}) + "\n"
        for at, activity, step, more in ((*line, {})[:4] for line in lines)
    )
    (run / LEDGER_NAME).write_text(text)


FIRST = [
    (0, "import", 0), (2, "load", 0), (5, "compile", 0), (9, "train", 0),
    (19, "evaluate", 40, {"waited": 0.5}), (21, "save", 40), (22, "train", 40),
]  # fmt: skip


def test_activities_add_up_to_the_wall_clock(tmp_path):
    write_lines(tmp_path, *FIRST, (30, "evaluate", 60, {"waited": 1.5}), (36, "end", 60))
    assert read_ledger(tmp_path) == {
        "wall_seconds": 36,
        "goodput": round(16 / 36, 4),
        "sittings": 1,
        "killed": 0,
        "seconds": {
            "import": 2, "load": 3, "compile": 4, "train": 16, "wait": 2, "evaluate": 8, "save": 1,
        },
    }  # fmt: skip


def test_what_was_done_behind_the_last_checkpoint_is_lost(tmp_path):
    again = [(50, "import", 0), (51, "load", 0), (52, "compile", 40), (53, "train", 40)]
    between = [(30, "evaluate", 60), (33, "train", 60), (40, "killed", 60)]
    write_lines(tmp_path, *FIRST, *between, *again, (60, "end", 90))
    ledger = read_ledger(tmp_path)
    assert (ledger["sittings"], ledger["killed"]) == (2, 1)
    seconds = ledger["seconds"]
    # From 22 on, where step 40 had been saved; its own evaluation counts.
    assert (seconds["lost"], seconds["down"], seconds["evaluate"]) == (18, 10, 2)
    assert seconds["train"] == 9.5 + 7
    assert sum(seconds.values()) == ledger["wall_seconds"] == 60


def test_run_without_a_checkpoint_has_lost_all_its_training(tmp_path):
    again = [(42, "import", 0), (43, "compile", 0), (44, "train", 0), (50, "end", 70)]
    write_lines(tmp_path, *FIRST, (40, "killed", 40), *again)
    seconds = read_ledger(tmp_path)["seconds"]
    assert (seconds["train"], seconds["lost"]) == (6, 10 + 2 + 1 + 18)


def test_killed_process_is_dated_by_its_last_sign_of_life(tmp_path):
    write_lines(tmp_path, *FIRST)
    path = tmp_path / LEDGER_NAME
    with path.open("a") as file:
        file.write('{"at": 23, "act')
    os.utime(path, (25, 25))
    assert read_ledger(tmp_path)["wall_seconds"] == 25
    ledger = Ledger(tmp_path, 30.0, 31.0)
    ledger.turn_to("compile", 40)
    ledger.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["activity"] for line in lines[-5:]] == [
        "killed", "import", "load", "compile", "end",
    ]  # fmt: skip
    assert [line["at"] for line in lines[-5:-2]] == [25, 30, 31]


def test_process_that_started_before_the_last_ended_counts_no_time_twice(tmp_path):
    write_lines(tmp_path, *FIRST, (36, "end", 60))
    os.utime(tmp_path / LEDGER_NAME, (36, 36))
    ledger = Ledger(tmp_path, 34.0, 35.0)
    ledger.close()
    lines = [json.loads(line) for line in (tmp_path / LEDGER_NAME).read_text().splitlines()]
    assert [line["at"] for line in lines[len(FIRST) : -1]] == [36, 36, 36]


def test_open_ledger_shows_that_its_process_lives(tmp_path):
    ledger = Ledger(tmp_path, 0.0, 1.0)
    os.utime(tmp_path / LEDGER_NAME, (0, 0))
    for _ in range(200):
        if (tmp_path / LEDGER_NAME).stat().st_mtime > 0:
            break
        ledger._stopped.wait(0.05)
    assert (tmp_path / LEDGER_NAME).stat().st_mtime > 0
    ledger.close()


def test_inner_activity_ends_in_the_outer_one_and_waits_are_counted(tmp_path):
    ledger = Ledger(tmp_path, 0.0, 1.0)
    ledger.turn_to("train", 7)
    assert list(ledger.waiting([1, 2])) == [1, 2]
    with ledger.spending("evaluate", 8), ledger.spending("save", 9):
        pass
    ledger.close()
    lines = [json.loads(line) for line in (tmp_path / LEDGER_NAME).read_text().splitlines()]
    assert [(line["activity"], line["step"]) for line in lines[2:]] == [
        ("train", 7), ("evaluate", 8), ("save", 9), ("evaluate", 9), ("train", 9), ("end", 9),
    ]  # fmt: skip
    assert "waited" in lines[3]
    assert not any("waited" in line for line in lines[4:])


def test_sitting_that_found_nothing_to_do_leaves_no_trace(tmp_path):
    write_lines(tmp_path, *FIRST, (36, "end", 60))
    before = (tmp_path / LEDGER_NAME).read_bytes()
    ledger = Ledger(tmp_path, 99.0, 99.0)
    assert not ledger.has_worked
    ledger.close(nothing_done=True)
    assert (tmp_path / LEDGER_NAME).read_bytes() == before


def test_process_that_writes_nothing_makes_no_file(tmp_path):
    ledger = Ledger(tmp_path, 0.0, 1.0, writes=False)
    with ledger.spending("train"):
        list(ledger.waiting([1]))
    ledger.close()
    assert not list(tmp_path.iterdir())


def test_run_without_a_ledger_has_none(tmp_path):
    assert read_ledger(tmp_path) == {}


@pytest.mark.parametrize("cut", [1, 2])
def test_damaged_line_ends_what_is_read(tmp_path, cut):
    write_lines(tmp_path, *FIRST[:cut])
    with (tmp_path / LEDGER_NAME).open("a") as file:
        file.write("{")
    os.utime(tmp_path / LEDGER_NAME, (10, 10))
    assert read_ledger(tmp_path)["wall_seconds"] == 10
