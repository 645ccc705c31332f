"""Programs that compute on a CPU start themselves anew once, with huge pages for their buffers."""

import os
import subprocess
import sys

import pytest

from bertjax import __main__, cli
from bertjax.program import huge_pages

PROGRAM = """
import os, sys
from bertjax.program.huge_pages import restart_with_huge_pages
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], flush=True)
restart_with_huge_pages()
print("main")
"""


def run(tmp_path, **environment):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    kept = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    result = subprocess.run(
        [sys.executable, str(program), "--some", "a b"],
        env={**kept, "PYTHONPATH": os.getcwd(), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.splitlines()


@pytest.mark.skipif(not huge_pages._can_ask(), reason="no huge pages to ask for here")
def test_program_is_restarted_once_with_the_same_number_and_arguments(tmp_path):
    first, second, last = run(tmp_path)
    number = first.split()[0]
    assert first == f"{number} None ['--some', 'a b']"
    assert second == f"{number} {huge_pages.TUNABLE} ['--some', 'a b']"
    assert last == "main"


def test_own_setting_is_left_alone(tmp_path):
    first, last = run(tmp_path, GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert "hugetlb=0" in first
    assert last == "main"


@pytest.mark.parametrize("setting", ["[always] madvise never", "always madvise [never]", None])
def test_nothing_is_asked_where_nothing_can_be_had(tmp_path, monkeypatch, setting):
    monkeypatch.setattr(huge_pages, "_SETTING", tmp_path / "enabled")
    if setting:
        (tmp_path / "enabled").write_text(setting)
    assert not huge_pages._can_ask()


@pytest.mark.parametrize(
    ("words", "resumes", "restarts"),
    [
        (["analyze", "--model", "m"], False, True),
        (["pretrain", "--data", "rows"], True, True),
        (["adapt", "--model", "m"], True, True),
        (["finetune", "--task", "tagging"], True, True),
        (["sweep", "--config", "sweep.yaml"], True, True),
        (["bench", "attention"], False, True),
        (["fill-mask", "analyze"], False, False),
        (["--help"], False, False),
        ([], False, False),
    ],
)
def test_only_commands_that_compute_for_long_are_restarted(monkeypatch, words, resumes, restarts):
    called = []
    monkeypatch.setattr(__main__, "begin", lambda **given: called.append(given))
    monkeypatch.setattr(cli, "main", lambda given: called.append(given))
    monkeypatch.setattr(sys, "argv", ["bertjax", *words])
    __main__.main()
    assert called == [{"resumes": resumes, "huge_pages": restarts}, words]
    assert set(__main__.LONG) <= {*cli.PROGRAMS, *cli.COMMANDS}
