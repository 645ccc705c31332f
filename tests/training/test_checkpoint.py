"""Checkpoints: saved while training goes on, verified when read, and none that is whole is lost."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bertjax.program.errors import UserError
from bertjax.training.checkpoint import CheckpointConfig, Checkpoints, abstract
from bertjax.training.state import TrainState, empty_window


def make_state(step, size=7):
    """A small state whose every leaf depends on the step."""
    rng = np.random.default_rng(step)
    params = {
        "embeddings": {"word_embeddings": jnp.asarray(rng.normal(size=(size, 3)), jnp.float32)},
        "bias": jnp.asarray(rng.normal(size=5), jnp.float32),
    }
    number = jnp.asarray(step, jnp.int32)
    optimizer_state = optax.adam(1.0).init(params)
    moments = jax.tree.map(lambda x: x + 0.5 * step, optimizer_state)
    return TrainState(params, {}, moments, number, number * 0, number * 0, empty_window(()))


def assert_same(actual, expected):
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    ):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, err_msg=str(path))


@pytest.fixture
def open_checkpoints(tmp_path):
    """Opens the checkpoints in one directory; whatever was opened is closed at the end."""
    opened = []

    def open_them(**options):
        checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointConfig(**options))
        opened.append(checkpoints)
        return checkpoints

    yield open_them
    for checkpoints in opened:
        checkpoints.close()


@pytest.fixture
def three(open_checkpoints):
    """A directory with the checkpoints of steps 2, 5 and 9."""
    checkpoints = open_checkpoints(keep_newest=3)
    for step in (2, 5, 9):
        checkpoints.save(make_state(step), {"best": 1 / step})
    checkpoints.finish()
    return checkpoints


def data_files(directory, step):
    """The files of a checkpoint that hold arrays."""
    files = sorted((directory / "checkpoints" / str(step)).rglob("d/*"))
    assert files
    return files


# ------------------------------------------------------------------ save and restore


def test_restored_state_is_the_saved_one_to_the_bit(three):
    told = []
    restored = three.restore(abstract(make_state(0)), told.append)
    assert told == []
    assert_same(restored.state, make_state(9))
    assert restored.notes == {"best": 1 / 9}
    assert three.newest_notes() == {"best": 1 / 9}


def test_restore_from_an_empty_directory_is_none(open_checkpoints):
    checkpoints = open_checkpoints()
    assert checkpoints.restore(abstract(make_state(0))) is None
    assert checkpoints.newest_notes() is None
    assert checkpoints.steps() == []


def test_state_may_change_while_it_is_saved(open_checkpoints):
    """Steps that take over the memory of the state, right after `save`: none of it gets in."""
    take_step = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    # Copies, as no leaf may share its memory with another.
    state, other = (jax.tree.map(jnp.copy, make_state(3, size=400_000)) for _ in range(2))
    before = jax.tree.map(np.array, state)
    take_step(other)
    assert other.params["bias"].is_deleted()  # or the test shows nothing
    checkpoints = open_checkpoints()
    checkpoints.save(state, {})
    for _ in range(20):
        state = take_step(state)
    checkpoints.finish()
    assert_same(checkpoints.restore(abstract(state)).state, before)


def test_state_comes_back_on_the_devices_it_was_on(open_checkpoints, eight_devices):
    def place(spec):
        return jax.sharding.NamedSharding(eight_devices, jax.sharding.PartitionSpec(*spec))

    state = jax.device_put(make_state(4, size=8), place([]))
    state.params["embeddings"] = jax.device_put(state.params["embeddings"], place(["fsdp"]))
    checkpoints = open_checkpoints()
    checkpoints.save(state, {})
    checkpoints.finish()
    restored = checkpoints.restore(abstract(state)).state
    assert_same(restored, make_state(4, size=8))
    assert restored.params["embeddings"]["word_embeddings"].sharding == place(["fsdp"])
    # On one device it is the same state.
    assert_same(checkpoints.restore(abstract(make_state(0, size=8))).state, state)


def test_same_step_is_saved_once(three):
    three.save(make_state(9), {"best": 7})
    three.finish()
    assert three.restore(abstract(make_state(0))).notes == {"best": 1 / 9}


def test_newest_and_best_are_kept(open_checkpoints, tmp_path):
    losses = {1: 5.0, 2: 3.0, 3: None, 4: 4.0, 5: None, 6: 4.5}
    for step, loss in losses.items():
        if step in (1, 4):  # a restart does not forget which one was best
            checkpoints = open_checkpoints(keep_newest=2, keep_best=1)
        checkpoints.save(make_state(step), {}, loss)
        checkpoints.finish()
    assert checkpoints.steps() == [2, 5, 6]
    assert_same(checkpoints.restore(abstract(make_state(0))).state, make_state(6))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "5", "6"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 0}, r"checkpoint.every=0 must be at least 1 step"),
        ({"keep_newest": 1}, r"checkpoint.keep_newest=1 must be at least 2"),
        ({"keep_best": -1}, r"checkpoint.keep_best=-1 must not be negative"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        CheckpointConfig(**options)


# ------------------------------------------------------------------ damage


def cut(directory, step):
    """The files lose their second half, as after a loss of power."""
    for path in data_files(directory, step):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(directory, step):
    """One bit in the middle of every file of arrays is another."""
    for path in data_files(directory, step):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


def swap(directory, step):
    """The arrays are those of another step, in perfect order: only the checksums can tell."""
    state = directory / "checkpoints" / str(step) / "state"
    shutil.rmtree(state)
    shutil.copytree(directory / "checkpoints" / "5" / "state", state)


def lose(directory, step):
    """The files are gone."""
    for path in data_files(directory, step):
        path.unlink()


def spoil_notes(directory, step):
    """The checksums cannot be read."""
    notes = directory / "checkpoints" / str(step) / "notes"
    for path in notes.iterdir():
        path.write_text("{")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [cut, flip, swap, lose, spoil_notes])
def test_damaged_newest_is_set_aside_and_the_one_before_taken(
    three, open_checkpoints, tmp_path, damage
):
    three.close()
    damage(tmp_path, 9)
    checkpoints, told = open_checkpoints(keep_newest=3), []
    restored = checkpoints.restore(abstract(make_state(0)), told.append)
    assert_same(restored.state, make_state(5))
    assert restored.notes == {"best": 1 / 5}
    assert len(told) == 1
    assert told[0].startswith("checkpoint 9 is damaged (")
    assert told[0].endswith("and took checkpoint 5")
    assert (tmp_path / "damaged" / "9").is_dir()
    assert checkpoints.steps() == [2, 5]
    # The run goes on, and saves the step anew.
    checkpoints.save(make_state(9), {"best": 0.5})
    checkpoints.finish()
    assert_same(checkpoints.restore(abstract(make_state(0))).state, make_state(9))


def test_notes_of_a_damaged_newest_are_passed_over(three, open_checkpoints, tmp_path):
    three.close()
    spoil_notes(tmp_path, 9)
    assert open_checkpoints(keep_newest=3).newest_notes() == {"best": 1 / 5}


def test_nothing_is_moved_when_no_checkpoint_can_be_read(three, open_checkpoints, tmp_path):
    three.close()
    for step in (2, 5, 9):
        cut(tmp_path, step)
    with pytest.raises(UserError, match=r"none of the checkpoints can be read \(9: .*; 5: .*; 2: "):
        open_checkpoints(keep_newest=3).restore(abstract(make_state(0)))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"2", "5", "9"}
    assert not (tmp_path / "damaged").exists()


def test_reader_that_fails_leaves_whole_checkpoints_alone(three, monkeypatch):
    with monkeypatch.context() as broken:

        def fail(step, like):
            raise OSError(5, "Input/output error")

        broken.setattr(three, "_read", fail)
        with pytest.raises(UserError, match="Input/output error"):
            three.restore(abstract(make_state(0)))
    assert_same(three.restore(abstract(make_state(0))).state, make_state(9))


def test_half_written_checkpoint_is_no_checkpoint(three, open_checkpoints, tmp_path):
    three.close()
    whole = tmp_path / "checkpoints" / "9"
    whole.rename(whole.with_name("9.orbax-checkpoint-tmp"))
    checkpoints = open_checkpoints(keep_newest=3)
    assert checkpoints.steps() == [2, 5]
    told = []
    restored = checkpoints.restore(abstract(make_state(0)), told.append)
    assert_same(restored.state, make_state(5))
    assert told == []


def test_notes_are_json_that_others_can_read(three, tmp_path):
    path = tmp_path / "checkpoints" / "9" / "notes" / "metadata"
    content = json.loads(path.read_text())
    assert content["notes"] == {"best": 1 / 9}
    assert len(content["checksums"]) == len(jax.tree.leaves(make_state(9)))


def test_full_disk_is_the_users_to_mend(three, monkeypatch):
    def fail(*arguments, **options):
        try:
            raise OSError(28, "Failed to write 7 bytes: No space left on device")
        except OSError as error:
            raise ValueError("the writer failed") from error

    with monkeypatch.context() as full:
        full.setattr(three._manager, "save", fail)
        with pytest.raises(UserError, match=r"checkpoints: the disk is full; .* the same command"):
            three.save(make_state(11), {})
    assert_same(three.restore(abstract(make_state(0))).state, make_state(9))


def test_other_failure_of_a_write_is_not_a_full_disk(three, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("the writer failed")

    with monkeypatch.context() as broken:
        broken.setattr(three._manager, "save", fail)
        with pytest.raises(ValueError, match="the writer failed"):
            three.save(make_state(11), {})
