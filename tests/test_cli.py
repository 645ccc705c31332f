"""The `bertjax` command as a user meets it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bertjax
from bertjax.commands import info, screen
from bertjax.program import outputs
from bertjax.program.errors import UserError

TINY = Path(__file__).parent / "parity" / "golden" / "tiny_bert"


def test_help_lists_the_commands_and_imports_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bertjax", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for word in ("fill-mask", "info", "--version", "pretrain", "sweep"):
        assert word in done.stdout
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "bertjax.cli" in imported
    heavy = {"jax", "jaxlib", "flax", "numpy", "rich", "tokenizers", "datasets", "docstring_parser"}
    assert imported & heavy == set()
    assert len(imported) < 300  # 131 today; numpy alone is 100 more


def test_version_is_the_packages(bertjax_command):
    assert bertjax_command("--version")[:2] == (0, f"bertjax {bertjax.__version__}\n")


def test_help_of_a_command_shows_its_defaults(bertjax_command):
    _, out, _ = bertjax_command("fill-mask", "--help")
    assert "(default: 5)" in out
    assert "(default: the files of --input, or standard" in " ".join(out.split())
    assert "(required)" in out


@pytest.mark.parametrize("arguments", [(), ("fill",), ("info",), ("fill-mask", "a [MASK]")])
def test_incomplete_command_line_is_the_users_mistake(bertjax_command, arguments):
    code, out, err = bertjax_command(*arguments)
    assert code == 2
    assert out == ""
    assert "usage: bertjax" in err


def test_unknown_option_is_told_by_its_command(bertjax_command):
    code, out, err = bertjax_command("fill-mask", "--model", TINY, "--topk", 2, "a [MASK]")
    assert (code, out) == (2, "")
    assert err.startswith("usage: bertjax fill-mask ")
    assert err.endswith("error: unknown argument --topk; did you mean '--top-k'?\n")


def test_user_error_leaves_no_traceback(bertjax_command, monkeypatch):
    def fail(options):
        raise UserError("the field x=3 must be 4")

    monkeypatch.setattr(info, "run", fail)
    assert bertjax_command("info", TINY) == (2, "", "error: the field x=3 must be 4\n")


@pytest.mark.parametrize("command", ["attention", "contexts", "embed", "analyze"])
def test_way_out_of_another_encoding_is_an_option_of_the_command(
    bertjax_command, tmp_path, command
):
    text = tmp_path / "text.txt"
    text.write_bytes("caf\xe9 au lait\n".encode("latin-1"))
    words = {
        "attention": ["--input", text, "--output", tmp_path / "x.npz"],
        "contexts": ["--word", "a", "a b", "--input", text],
        "embed": ["--input", text, "--output", tmp_path / "x.npy"],
        "analyze": ["--text", text, "--output", tmp_path / "x"],
    }[command]
    code, _, err = bertjax_command(command, "--model", TINY, *words)
    assert (code, "pass --encoding cp1252 or --errors replace" in err) == (2, True)
    text.write_bytes("caf\xe9\tau\tlait\n".encode("latin-1"))
    for way_out in (("--encoding", "latin-1"), ("--errors", "replace")):
        code, _, err = bertjax_command(command, "--model", TINY, *words, *way_out)
        # Read so, it goes on to the next mistake, which is none to embed.
        assert (code, "2 tabs" in err) == ((0, False) if command == "embed" else (2, True))


@pytest.mark.parametrize(
    ("command", "suffix"), [("predict", ".jsonl"), ("embed", ".npy"), ("evaluate", ".json")]
)
def test_output_that_cannot_be_written_is_refused_before_the_work(
    bertjax_command, tmp_path, monkeypatch, command, suffix
):
    def refuse(prefix, dir):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), dir)

    monkeypatch.chdir(tmp_path)
    (tmp_path / f"folder{suffix}").mkdir()
    words = {"evaluate": ["--data", "no"], "predict": [], "embed": []}[command]
    for output, message in (
        (f"no/x{suffix}", f"--output no/x{suffix}: there is no folder no; make it first"),
        (f"folder{suffix}", f"--output folder{suffix}: is a folder; name a file"),
    ):
        code, _, err = bertjax_command(command, "--model", "no", *words, "--output", output)
        assert (code, message in err) == (2, True)
    with monkeypatch.context() as patch:  # root may write everywhere
        patch.setattr(outputs.tempfile, "mkdtemp", refuse)
        code, _, err = bertjax_command(command, "--model", "no", *words, "--output", f"x{suffix}")
    told = f"--output x{suffix}: nothing can be written there (Permission denied)"
    assert (code, told in err) == (2, True)
    if command == "predict":
        (tmp_path / "file").touch()
        for output in ("file", "file/x"):
            _, _, err = bertjax_command(command, "--model", "no", "--output", output)
            assert f"--output {output}: " in err
            assert "file is a file; name a folder" in err


def test_brackets_are_printed_as_they_are(capsys):
    screen.console().print("pip install 'bertjax[plan]'")
    assert capsys.readouterr().out == "pip install 'bertjax[plan]'\n"
