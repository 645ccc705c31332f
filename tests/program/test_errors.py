"""A program's end: the user's mistakes in a paragraph, bugs of ours with their traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bertjax.program.entry import program
from bertjax.program.errors import UserError


def end_of(main, capsys):
    """The exit code and what stands on stderr."""
    with pytest.raises(SystemExit) as end:
        program(main)()
    return end.value.code, capsys.readouterr().err


def test_result_is_the_exit_code(capsys):
    assert end_of(lambda: 75, capsys) == (75, "")
    assert end_of(lambda: None, capsys) == (0, "")


def test_users_mistake_is_one_paragraph_and_code_2(capsys):
    def main():
        raise UserError("corpus.txt:3: empty")

    assert end_of(main, capsys) == (2, "error: corpus.txt:3: empty\n")


def test_missing_file_is_a_users_mistake(capsys):
    code, told = end_of(Path("/no/such/file").read_text, capsys)
    assert (code, told) == (2, "error: /no/such/file: No such file or directory\n")


def test_full_disk_names_the_file_and_the_way_out(capsys):
    def main():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "rows.arrow")

    code, told = end_of(main, capsys)
    assert code == 2
    assert told.startswith(
        "error: rows.arrow: the disk is full; free some space, or write to another"
    )


def test_interrupt_has_the_shells_code(capsys):
    def main():
        raise KeyboardInterrupt

    assert end_of(main, capsys) == (130, "interrupted\n")


# What each program writes when nobody reads it any more: rich, Python's own buffer, argparse.
CLOSED = {
    "rich": "from rich.console import Console; Console().print('x')",
    "print": "print('x')",
    "argparse": "print('x'); raise SystemExit(0)",
}


@pytest.mark.parametrize("how", CLOSED)
def test_closed_pipe_is_no_mistake(how):
    code = (
        "from bertjax.program.entry import program\n"
        f"def main():\n    {CLOSED[how]}\nprogram(main)()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_other_ends_of_the_program_keep_their_code(capsys):
    def main():
        raise SystemExit(3)

    assert end_of(main, capsys) == (3, "")


def test_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        program(main)()
