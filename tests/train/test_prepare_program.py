"""`train.prepare` as a process: errors of its workers, how it is stopped, who else writes there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bertjax.commands.prepare import PrepareConfig
from bertjax.commands.tokenizer import TokenizerConfig
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.text import preparation
from bertjax.text.preparation import prepare
from bertjax.text.preparation_steps import Steps
from bertjax.text.rows import open_prepared
from bertjax.text.workers import start_workers
from tests.train.preparations import options, sha256_of_files

ROOT = Path(__file__).resolve().parents[2]


def test_error_of_a_reader_reaches_the_user_with_workers_running(tmp_path, tokenizer, corpus):
    path = tmp_path / "bad.txt"
    path.write_bytes(corpus.read_bytes() * 4 + b"caf\xe9\n")
    with pytest.raises(UserError, match=r"bad.txt:\d+.*UTF-8"):
        prepare(options(path), tokenizer, tmp_path / "rows", workers=2)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.txt"]


def kill_the_worker(steps: Steps, task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_worker_that_dies_is_an_error_and_no_hang():
    with pytest.raises(UserError, match="worker processes died"):  # noqa: SIM117
        with start_workers(dict, (), 2) as workers:
            list(workers.run(kill_the_worker, range(3)))


def run_program(*arguments: str | Path, **fields) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **fields,
    )


def test_both_programs_make_rows_from_the_command_line(corpus, tmp_path):
    made, rows = tmp_path / "tokenizer", tmp_path / "rows"
    arguments = ["train.tokenizer", "--input", corpus, "--output", made, "--vocab-size", 500]
    first = run_program(*arguments, "--json", "true")
    output, errors = first.communicate()
    assert first.returncode == 0, errors
    assert json.loads(output)["vocab_size"] == 500
    config = tmp_path / "prepare.yaml"
    config.write_text("max_length: 32\nvalidation_fraction: 0.2\ncleaning: {normalization: NFKC}\n")
    second = run_program(
        *("train.prepare", "--config", config, "--input", corpus, "--tokenizer", made),
        *("--output", rows, "--workers", 1, "--language", "xx"),
    )
    output, errors = second.communicate()
    assert second.returncode == 0, errors
    assert f"saved in     {rows}" in output
    # Nothing else: bars are for terminals.
    assert errors.startswith("sentencex has no rules of its own for 'xx': it uses those of")
    assert errors.count("\n") == 1
    assert " 1 exact, 1 near" in output
    card = open_prepared(rows).card
    assert card["max_length"] == 32
    assert card["options"]["cleaning"]["normalization"] == "NFKC"
    again = run_program(*arguments)
    _, errors = again.communicate()
    assert again.returncode == 2
    assert "exists; pass --overwrite" in errors
    assert "Traceback" not in errors


def test_option_without_effect_is_refused(corpus, tokenizer):
    paths = ["--input", str(corpus), "--output", "never"]
    with pytest.raises(UserError, match="boilerplate_documents"):
        parse(TokenizerConfig, "", [*paths, "--cleaning.boilerplate_documents", "3"])
    for option in ("--sentence-per-line", "--unwrap-lines"):  # words are the same either way
        with pytest.raises(UserError, match="unknown key"):
            parse(TokenizerConfig, "", [*paths, "--vocab-size", "99", option])
    given = [*paths, "--tokenizer", str(tokenizer), "--sentence-per-line", "true"]
    with pytest.raises(UserError, match="language=es has no effect with sentence_per_line"):
        parse(PrepareConfig, "", [*given, "--language", "es"])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("how", "sign"),
    [
        (signal.SIGKILL, "spool/clean"),
        (signal.SIGINT, "spool/clean"),
        (signal.SIGINT, "tokenizer"),  # the server of the workers has only begun to import
    ],
)
def test_stopped_program_leaves_no_directory(corpus, tokenizer, tmp_path, how, sign):
    """Stopped in the middle: nothing that looks whole, no process left, and the next run works."""
    large = tmp_path / "large.txt"
    words = corpus.read_text().split()
    generator = random.Random(0)
    with large.open("w") as file:
        for _ in range(800):
            file.write(" ".join(generator.choices(words, k=400)) + ".\n\n")
    arguments = ["train.prepare", "--input", large, "--tokenizer", tokenizer, "--max-length", 64]
    arguments += ["--output", tmp_path / "rows", "--workers", 2]
    # What a shell starts in the background ignores SIGINT, and hands that down to the program.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    program = run_program(*arguments, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    begun = tmp_path / "rows.partial" / sign
    deadline = time.monotonic() + 60
    while not (begun.exists() and begun.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    if sign == "tokenizer":
        time.sleep(0.1)
    # Ctrl-C goes to all processes of a terminal.
    (os.killpg if how == signal.SIGINT else os.kill)(program.pid, how)
    _, errors = program.communicate(timeout=60)
    assert program.returncode == (-9 if how == signal.SIGKILL else 130)
    assert "Traceback" not in errors
    # Of Python's tracker of semaphores, too, nothing.
    assert how == signal.SIGKILL or errors.endswith("interrupted\n"), errors
    assert not (tmp_path / "rows").exists()
    assert (tmp_path / "rows.partial").exists() == (how == signal.SIGKILL)
    while time.monotonic() < deadline:  # workers see that their parent is gone
        try:
            os.killpg(program.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        pytest.fail("a process is left")
    prepare(options(corpus), tokenizer, tmp_path / "rows")
    assert len(open_prepared(tmp_path / "rows").train) > 0
    assert not (tmp_path / "rows.partial").exists()


WAIT_WITHIN = """
import sys
from bertjax.program.output_directory import whole_directory
with whole_directory(sys.argv[1]) as partial:
    print("within", flush=True)
    sys.stdin.read()
    (partial / "whole").write_text("of the first")
"""


@pytest.mark.parametrize("killed", [False, True])
def test_second_program_with_the_same_output_is_refused_and_harms_nothing(
    corpus, tokenizer, tmp_path, killed
):
    output = tmp_path / "deep" / "rows"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    first = subprocess.Popen([sys.executable, "-c", WAIT_WITHIN, str(output)], **pipes)
    assert first.stdout.readline() == "within\n"
    with pytest.raises(UserError, match="rows: another process is making it now"):
        prepare(options(corpus), tokenizer, output)
    if killed:
        first.kill()
    first.communicate("")
    if not killed:
        assert (output / "whole").read_text() == "of the first"
        assert [entry.name for entry in output.parent.iterdir()] == ["rows"]
        shutil.rmtree(output)
    prepare(options(corpus), tokenizer, output)
    assert [entry.name for entry in output.parent.iterdir()] == ["rows"]


def test_full_disk_leaves_what_was_there(corpus, tokenizer, tmp_path, monkeypatch):
    prepare(options(corpus), tokenizer, tmp_path / "rows")
    before = sha256_of_files(tmp_path / "rows")

    def no_space(*arguments, **fields):
        raise OSError(28, "No space left on device", str(tmp_path / "rows.partial"))

    monkeypatch.setattr(preparation, "write_card", no_space)
    with pytest.raises(OSError, match="No space left"):
        prepare(options(corpus, seed=5), tokenizer, tmp_path / "rows", overwrite=True)
    assert sha256_of_files(tmp_path / "rows") == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["rows"]
