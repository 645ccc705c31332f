"""Progress bars on a terminal: they name their stage, fit a line, and leave nothing behind."""

import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from tests.tiers import leave_whole

CODE = """
import time
from bertjax.commands.screen import stage_bars
from bertjax.program.stages import Stages
with stage_bars() as report:
    stages = Stages(3, report)
    for what, total in (("attention", 4), ("probes of a very long name", 2), ("heads", 3)):
        progress = stages.begin(what, total)
        for _ in range(total):
            progress(1)
            time.sleep(0.15)
        if what == "heads":
            {end}
"""


def run_on_terminal(code, columns):
    """What a program writes to a terminal of that width as stderr."""
    terminal, end = pty.openpty()
    termios.tcsetwinsize(end, (24, columns))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("COLUMNS", None)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=end, env=environment)
    os.close(end)
    written = b""
    while True:
        try:
            part = os.read(terminal, 1 << 16)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    os.close(terminal)
    return process.wait(), written.decode()


def last_screen(written):
    """The lines that stay on a terminal of endless width."""
    rows, row, column = [""], 0, 0
    for sequence, number, letter, text in re.findall(
        r"(\x1b\[([0-9;?]*)([A-Za-z]))|([^\x1b])", written
    ):
        if sequence and letter == "K":
            rows[row] = "" if number == "2" else rows[row][:column]
        elif sequence and letter == "A":
            row -= int(number or 1)
        elif text == "\n":
            row += 1
            rows += [""] * (row == len(rows))
        elif text == "\r":
            column = 0
        elif text:
            rows[row] = rows[row][:column].ljust(column) + text + rows[row][column + 1 :]
            column += 1
    return [line for line in rows if line.strip()]


@pytest.mark.parametrize("columns", leave_whole([40, 100], [100]))
@pytest.mark.parametrize("end", ["pass", "raise SystemExit(3)"])
def test_bars_fit_the_terminal_and_are_gone_at_the_end(columns, end):
    code, written = run_on_terminal(CODE.format(end=end), columns)
    assert code == (0 if end == "pass" else 3)
    assert last_screen(written) == []
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert max(map(len, lines)) <= columns - 4  # where a terminal shows ^C
    for stage in ("1 of 3: attention", "2 of 3: probes", "3 of 3: heads"):
        assert any(line.startswith(stage) for line in lines)
    assert max(int(share) for share in re.findall(r"(\d+)%", plain)) <= 100
