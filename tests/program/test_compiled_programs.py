"""What XLA compiled is kept on disk: where, for whom, and what happens where it cannot be."""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from bertjax.program import compiled_programs
from bertjax.program.compiled_programs import keep_compiled_programs

WAY = Path(__file__).parents[2]
# Some compilation, and what became of it.
PROGRAM = """
import json, sys
from bertjax.program.compiled_programs import keep_compiled_programs
if sys.argv[1:] == ["jax first"]:
    import jax
keep_compiled_programs()
import jax, jax.numpy as jnp, numpy as np
events = []
jax.monitoring.register_event_listener(lambda event, **details: events.append(event))

@jax.jit
def work(x):
    for _ in range(3):
        x = jnp.sin(x @ x) + jnp.sort(x, axis=0)
    return x

answer = np.asarray(work(jnp.ones((9, 9))))
print(json.dumps({
    "folder": jax.config.jax_compilation_cache_dir,
    "most": jax.config.jax_compilation_cache_max_size,
    "hits": sum(event.endswith("/cache_hits") for event in events),
    "answer": answer.tobytes().hex(),
}))
"""


@pytest.fixture
def start(tmp_path):
    """Starts the program with a home of its own."""

    def run(*words):
        own = (
            compiled_programs.PLACE,
            compiled_programs.SWITCH,
            "JAX_COMPILATION_CACHE_MAX_SIZE",
            "XDG_CACHE_HOME",
        )
        kept = {name: value for name, value in os.environ.items() if name not in own}
        given = {
            "HOME": str(tmp_path),
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # however fast the machine is
        }
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            env=kept | given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return json.loads(output), errors


@pytest.mark.whole
def test_second_start_takes_the_program_of_the_first(start, tmp_path):
    first, said = finish(start())
    folder = tmp_path / ".cache" / "bertjax" / "compiled" / compiled_programs._processor()
    assert (first["folder"], first["most"], first["hits"], said) == (
        str(folder), compiled_programs.MOST_BYTES, 0, ""
    )  # fmt: skip
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.glob("jit_work-*-cache"))
    second, said = finish(start("jax first"))
    assert second == first | {"hits": second["hits"]}
    assert second["hits"] >= 1
    assert said == ""


@pytest.mark.whole
def test_two_at_once_and_damaged_entries_give_the_same_answer(start, tmp_path):
    one, other = start(), start()
    (first, said), (second, also_said) = finish(one), finish(other)
    assert first["answer"] == second["answer"]
    assert (said, also_said) == ("", "")
    for file in (tmp_path / ".cache").rglob("*-cache"):
        file.write_bytes(file.read_bytes()[:100])
    third, said = finish(start())
    assert third["answer"] == first["answer"]
    assert third["hits"] == 0
    assert "Error reading persistent compilation cache entry" in said


def test_program_runs_where_nothing_can_be_kept(start, tmp_path):
    (tmp_path / ".cache").write_text("a file")
    result, said = finish(start())
    assert (result["folder"], result["hits"], said) == (None, 0, "")


# ------------------------------------------------------------------ in this process: all return


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Nothing is set, and the home is empty; a program that keeps something fails the test."""
    for name in (compiled_programs.PLACE, compiled_programs.SWITCH, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    assert not os.environ.get(compiled_programs.PLACE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (compiled_programs.PLACE, ""),
        (compiled_programs.SWITCH, "false"),
        ("HOME", "/proc/nobody"),
        ("XDG_CACHE_HOME", "/dev/null"),
    ],
)
def test_nothing_is_kept_where_jax_is_told_or_no_folder_can_be(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    keep_compiled_programs()
    assert list(home.iterdir()) == []


def test_folder_of_another_user_or_open_to_others_is_not_trusted(home, monkeypatch):
    folder = home / ".cache" / "bertjax" / "compiled" / compiled_programs._processor()
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    keep_compiled_programs()
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    keep_compiled_programs()


def test_half_written_entry_is_removed_once_nobody_writes_it(tmp_path):
    old = time.time() - 2 * compiled_programs._LONG_DONE
    for name in ("whole-cache", "whole-atime", "killed-cache", "new-cache"):
        (tmp_path / name).write_bytes(b"12345678")
        if not name.startswith("new"):
            os.utime(tmp_path / name, (old, old))
    compiled_programs._remove_broken(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {
        "whole-cache", "whole-atime", "new-cache"
    }  # fmt: skip


def test_least_recently_used_programs_go_where_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled_programs, "MOST_PROGRAMS", 3)
    for age, name in enumerate("abcde"):
        for suffix in ("cache", "atime"):
            (tmp_path / f"{name}-{suffix}").write_bytes(b"12345678")
        os.utime(tmp_path / f"{name}-atime", (0, 1000 - age))
    with FileLock(tmp_path / ".lockfile"):  # jax is at work
        compiled_programs._remove_oldest(tmp_path)
    assert len([*tmp_path.glob("*-cache")]) == 5
    compiled_programs._remove_oldest(tmp_path)
    kept = {file.name for file in tmp_path.iterdir()} - {".lockfile"}
    assert kept == {f"{name}-{suffix}" for name in "abc" for suffix in ("cache", "atime")}


def test_folder_is_named_after_the_processor(monkeypatch):
    here = compiled_programs._processor()
    monkeypatch.setattr(compiled_programs.platform, "machine", lambda: "another")
    assert compiled_programs._processor() != here


@pytest.mark.parametrize("value", ["nonsense", ""])
def test_switch_that_jax_would_not_read_is_told(monkeypatch, bertjax_command, value):
    monkeypatch.setenv(compiled_programs.SWITCH, value)
    message = f"error: JAX_ENABLE_COMPILATION_CACHE={value} must be true or false"
    code, out, err = bertjax_command("info", "none")
    assert (code, out) == (2, "")
    assert err.startswith(message)
    command = [sys.executable, "-m", "train.pretrain"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=WAY)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(message)
