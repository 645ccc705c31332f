"""Opening a run: begun anew, continued, or refused."""

import contextlib
import fcntl
import json
import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from bertjax.program.errors import UserError
from bertjax.training.checkpoint import CheckpointConfig
from bertjax.training.run_directory import check_run, open_run, write_provenance
from bertjax.training.state import TrainState, empty_window

IDENTITY = {"data": "abc", "seed": 0, "model": {"hidden_size": 32}}


@pytest.fixture
def begun(tmp_path):
    """A run directory with one checkpoint."""
    run = tmp_path / "run"
    checkpoints = open_run(run, CheckpointConfig(), IDENTITY, resume=True)
    step = jnp.asarray(3, jnp.int32)
    state = TrainState({"bias": jnp.ones(5)}, {}, (), step, step, step, empty_window(()))
    checkpoints.save(state, {"identity": IDENTITY})
    checkpoints.close()
    return run


def test_new_directory_is_made(tmp_path):
    run = tmp_path / "deep" / "run"
    checkpoints = open_run(run, CheckpointConfig(), IDENTITY, resume=False)
    assert checkpoints.steps() == []
    assert run.is_dir()


def test_run_goes_on_with_the_same_settings(begun):
    assert open_run(begun, CheckpointConfig(), IDENTITY, resume=True).steps() == [3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, r"seed: 0 then, 1 now"),
        ({"data": "xyz"}, r"data: abc then, xyz now"),
        ({"model": {"hidden_size": 64}}, r"\(model.hidden_size: 32 then, 64 now\)"),
        ({"model": {"hidden_size": 32, "act": "relu"}}, r"\(model.act: None then, relu now\)"),
        ({"model": {}}, r"\(model.hidden_size: 32 then, None now\)"),
        ({f"x{n}": n for n in range(7)}, r"x4: None then, 4 now; and 2 more\)"),
        ({"optimizer": "lamb"}, r"optimizer: None then, lamb now"),
    ],
)
def test_run_of_something_else_is_not_continued(begun, change, said):
    with pytest.raises(UserError, match=rf"was begun with other settings.*{said}"):
        open_run(begun, CheckpointConfig(), IDENTITY | change, resume=True)
    assert (begun / "checkpoints" / "3").is_dir()


def test_paths_are_shown_and_not_compared(tmp_path):
    run = tmp_path / "run"
    identity = {"data": "abc", "paths": {"data": "/a", "init": None}}
    checkpoints = open_run(run, CheckpointConfig(), identity, resume=True)
    step = jnp.asarray(3, jnp.int32)
    state = TrainState({"bias": jnp.ones(5)}, {}, (), step, step, step, empty_window(()))
    checkpoints.save(state, {"identity": identity})
    checkpoints.close()
    moved = {"data": "abc", "paths": {"data": "/b", "init": None}}
    assert open_run(run, CheckpointConfig(), moved, resume=True).steps() == [3]
    with pytest.raises(UserError, match=r"\(data: /a then, /b now, and what is there differs\)"):
        open_run(run, CheckpointConfig(), moved | {"data": "xyz"}, resume=True)


def test_check_says_what_opening_would_say_and_writes_nothing(begun, tmp_path):
    half_written = begun / "checkpoints" / "4.orbax-checkpoint-tmp"
    half_written.mkdir()
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    check_run(begun, CheckpointConfig(), IDENTITY, resume=True)
    check_run(tmp_path / "new", CheckpointConfig(), IDENTITY, resume=True)
    with pytest.raises(UserError, match=r"was begun with other settings.*seed: 0 then, 1 now"):
        check_run(begun, CheckpointConfig(), IDENTITY | {"seed": 1}, resume=True)
    with pytest.raises(UserError, match=r"has checkpoints and --resume is false"):
        check_run(begun, CheckpointConfig(), IDENTITY, resume=False)
    with pytest.raises(UserError, match=r"holds something that is not a run"):
        check_run(tmp_path, CheckpointConfig(), IDENTITY, resume=True)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@contextlib.contextmanager
def lock_of_another_process(run):
    """The lock, taken through a file of its own as another process would."""
    with (run / ".lock").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write("process 7 on node3\n")
        file.flush()
        yield


def test_one_process_at_a_time_trains_in_a_run_directory(begun, tmp_path):
    run = tmp_path / "free"
    shutil.copytree(begun, run)
    with lock_of_another_process(run):
        for open_or_check in (open_run, check_run):
            with pytest.raises(UserError, match=r"free: process 7 on node3 is training in it"):
                open_or_check(run, CheckpointConfig(), IDENTITY, resume=True)
    # Its name is still in the file, but it is gone.
    check_run(run, CheckpointConfig(), IDENTITY, resume=True)
    assert open_run(run, CheckpointConfig(), IDENTITY, resume=True).steps() == [3]
    assert str(os.getpid()) in (run / ".lock").read_text()
    with pytest.raises(BlockingIOError), lock_of_another_process(run):
        pass


def test_run_that_is_refused_is_not_locked(begun, tmp_path):
    run = tmp_path / "free"
    shutil.copytree(begun, run)
    with pytest.raises(UserError, match="was begun with other settings"):
        open_run(run, CheckpointConfig(), IDENTITY | {"seed": 1}, resume=True)
    with lock_of_another_process(run):
        pass
    with pytest.raises(UserError, match="was begun with other settings"):
        open_run(begun, CheckpointConfig(), IDENTITY | {"seed": 1}, resume=True)
    with pytest.raises(BlockingIOError), lock_of_another_process(begun):  # which began it
        pass


def test_directory_of_a_run_that_was_killed_at_once_is_begun_anew(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").write_text("process 7 on node3")
    assert open_run(tmp_path / "run", CheckpointConfig(), IDENTITY, resume=True).steps() == []


@pytest.mark.parametrize("attention", ["auto", "dense", "xla"])
def test_run_goes_on_with_another_backend(begun, attention):
    identity = IDENTITY | {"attention": attention}
    assert open_run(begun, CheckpointConfig(), identity, resume=True).steps() == [3]


def test_run_of_the_time_when_explicit_was_another_backend_says_how_to_go_on(begun):
    with pytest.raises(UserError, match="pass --attention dense to continue it"):
        open_run(begun, CheckpointConfig(), IDENTITY | {"attention": "explicit"}, resume=True)


def test_run_is_not_continued_when_that_is_forbidden(begun):
    with pytest.raises(UserError, match=r"has checkpoints and --resume is false"):
        open_run(begun, CheckpointConfig(), IDENTITY, resume=False)


def test_file_is_no_run(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"run: is a file; name a directory"):
        open_run(tmp_path / "run", CheckpointConfig(), IDENTITY, resume=True)


def test_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"holds something that is not a run; name a new directory"):
        open_run(tmp_path, CheckpointConfig(), IDENTITY, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_run_tells_where_it_comes_from(tmp_path):
    write_provenance(tmp_path, "seed: 3\n", {"program": "train.pretrain"})
    assert (tmp_path / "config.yaml").read_text() == "seed: 3\n"
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["program"] == "train.pretrain"
    assert about["devices"] == 8
    assert about["packages"]["jax"] == jax.__version__
    assert about["git_commit"] is None or len(about["git_commit"]) >= 40
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "run.json"}
