"""What a person sees of a run."""

import contextlib
import io
import re
import sys

import jax.numpy as jnp
import pytest

from bertjax.commands.progress_bars import progress_bars
from bertjax.program import ending
from bertjax.training.progress import (
    RunProgress,
    Stopwatch,
    describe_duration,
    describe_scores,
    describe_training,
    read_window,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3.0, "0 s"),
        (0.4, "0 s"),
        (42.0, "42 s"),
        (59.6, "1 min 0 s"),
        (200.0, "3 min 20 s"),
        (3599.7, "1 h 0 min"),
        (18720.0, "5 h 12 min"),
        (738000.0, "8 d 13 h"),
    ],
)
def test_duration_is_said_in_two_units(seconds, words):
    assert describe_duration(seconds) == words


def test_without_a_terminal_every_report_is_a_plain_line(capsys):
    with RunProgress(100.0) as progress:
        progress.report(20.0, "step 20  loss 3.1")
        progress.say("saved")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == "step 20  loss 3.1\nsaved\n"


def test_brackets_in_a_line_are_no_markup(capsys):
    with RunProgress(100.0) as progress:
        progress.say("runs/[a]/model, a score in [/b]")
    assert capsys.readouterr().err == "runs/[a]/model, a score in [/b]\n"


def open_terminal(monkeypatch, width):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    return terminal


def test_terminal_shows_that_compilation_goes_on(monkeypatch):
    terminal = open_terminal(monkeypatch, 80)
    with RunProgress(100.0).during("compiling"):
        pass
    assert "compiling" in terminal.getvalue()


def test_without_a_terminal_nothing_is_said_of_compilation(capsys):
    with RunProgress(100.0).during("compiling"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [40, 200])
def test_terminal_of_any_width_keeps_all_figures(monkeypatch, width):
    terminal = open_terminal(monkeypatch, width)
    with RunProgress(100.0) as progress:
        progress.report(20.0, "step 20  loss 3.000 (mlm 2.250, nsp 0.750)  12,346 tokens/s  51%")
    shown = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", terminal.getvalue())
    # A terminal wraps a long line by itself, and a file of what it showed has it whole.
    assert screen_of(terminal.getvalue()) == [
        "step 20  loss 3.000 (mlm 2.250, nsp 0.750)  12,346 tokens/s  51%"
    ]
    bars = [line for line in re.split("[\r\n]+", shown) if "\u2501" in line]
    assert bars
    assert max(map(len, bars)) <= width


def screen_of(text):
    """The lines that a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for part in re.split(r"(\x1b\[[?0-9;]*[a-zA-Z]|\r|\n)", text):
        if part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif part.startswith("\x1b["):
            if part.endswith("A"):
                row -= int(part[2:-1])
            elif part == "\x1b[2K":
                lines[row] = ""
            else:
                assert part[-1] in "mhl", part  # colours, and whether the cursor is shown
        else:
            lines[row] = f"{lines[row][:column]:{column}}{part}{lines[row][column + len(part) :]}"
            column += len(part)
    return [line.rstrip() for line in lines if line.strip()]


class Interrupt(BaseException):
    pass


@pytest.mark.parametrize("end", [None, Interrupt])
def test_no_bar_is_left_on_the_terminal(monkeypatch, end):
    terminal = open_terminal(monkeypatch, 60)
    with contextlib.suppress(Interrupt), RunProgress(100.0) as progress:
        progress.say("begun")
        progress.report(20.0, "step 20  12 s left")
        with progress.during("step 20: validation"):
            progress.say("step 20: validation loss 0.5")
        progress.report(120.0, "step 40  0 s left")
        shown = terminal.getvalue()
        if end:
            raise end
        progress.say("over")
    assert "validation" in shown
    expected = ["begun", "step 20  12 s left", "step 20: validation loss 0.5"]
    expected += ["step 40  0 s left", *([] if end else ["over"])]
    assert screen_of(terminal.getvalue()) == expected
    assert terminal.getvalue().count("\x1b[?25h") == terminal.getvalue().count("\x1b[?25l")


def test_sudden_end_takes_the_bar_away(monkeypatch):
    """The process ends without unwinding: see `program.ending`."""
    terminal = open_terminal(monkeypatch, 60)
    with RunProgress(100.0) as progress:
        progress.report(20.0, "step 20  12 s left")
        for clean in reversed(ending._cleanups):
            clean()
        assert screen_of(terminal.getvalue()) == ["step 20  12 s left"]
    terminal = open_terminal(monkeypatch, 60)
    with RunProgress(100.0).during("compiling"):
        for clean in reversed(ending._cleanups):
            clean()
        assert screen_of(terminal.getvalue()) == []
    assert ending._cleanups == []


def test_bars_of_stages_stay_below_full_and_leave_nothing(monkeypatch):
    terminal = open_terminal(monkeypatch, 60)
    with contextlib.suppress(Interrupt), progress_bars() as report:
        report("reading", 0, 100)
        report("training", 150, 100)  # more than it was said to be
        report("writing", 0, None)
        shown = terminal.getvalue()
        raise Interrupt
    assert "reading" in terminal.getvalue()
    percentages = [int(number) for number in re.findall(r"(\d+)%", shown)]
    assert max(percentages, default=0) <= 100
    assert "150%" not in shown
    assert screen_of(terminal.getvalue()) == []


def test_figures_of_a_step_stand_in_one_line():
    values = {"loss": 3.0, "mlm_loss": 2.25, "nsp_loss": 0.75}
    timing = {"tokens_per_second": 12345.6, "share_of_matmul_rate": 0.514}
    assert describe_training(20, values, timing, 200.0) == (
        "step 20  loss 3.000 (mlm 2.250, nsp 0.750)  12,346 tokens/s  51% of matmul rate  "
        "3 min 20 s left"
    )
    timing = timing | {"share_of_matmul_rate": 1.31}
    assert "over 100% of matmul rate (measured while the machine was busy)  3 min" in (
        describe_training(20, values, timing, 200.0)
    )


def test_scores_stand_beside_their_baseline():
    scores = {
        "mlm_loss": 2.5,
        "unigram_loss": 6.25,
        "mlm_accuracy": 0.5,
        "unigram_accuracy": 0.0625,
        "nsp_accuracy": 0.875,
        "examples": 8.0,
    }
    assert describe_scores(scores) == (
        "loss 2.500 (unigram baseline 6.250), masked accuracy 50.0% (baseline 6.2%), "
        "NSP accuracy 87.5%"
    )
    assert describe_scores(scores | {"examples": 0.0}).endswith("(baseline 6.2%)")


def test_scores_of_a_discriminator_come_before_those_of_its_generator():
    scores = {
        "mlm_loss": 2.5,
        "unigram_loss": 6.25,
        "mlm_accuracy": 0.5,
        "unigram_accuracy": 0.0625,
        "loss": 18.125,
        "by_frequency_loss": 0.3125,
        "replaced_loss": 0.25,
        "share_loss": 0.375,
        "replaced_accuracy": 0.75,
        "original_accuracy": 0.9375,
        "replaced_share": 0.125,
    }
    assert describe_scores(scores) == (
        "loss 18.125 = the generator's + 50 x 0.312 on tokens drawn by frequency; on the"
        " generator's 0.250 (baseline of their share 0.375), found 75.0% of the 12.5% replaced and"
        " 93.8% of the others; generator: loss 2.500 (unigram baseline 6.250), masked accuracy"
        " 50.0% (baseline 6.2%)"
    )


def test_window_is_read_as_means_and_rates(step, start, rows):
    clock = jnp.float32(1)
    state, _ = step(start, rows, clock)
    state, report = step(state, rows, clock)
    values, timing = read_window(state, report, seconds=4.0, steps=2, ideal_seconds_a_step=0.5)
    assert values["mlm_loss"] == pytest.approx(float(state.window.totals["mlm"].sum) / 14)
    assert values["nsp_loss"] == pytest.approx(float(state.window.totals["nsp"].sum) / 8)
    assert values["loss"] == pytest.approx(values["mlm_loss"] + values["nsp_loss"], rel=1e-6)
    assert (values["tokens"], values["skipped"]) == (44, 0)
    assert values["learning_rate"] == pytest.approx(0.1)
    assert timing == {"tokens_per_second": 11, "share_of_matmul_rate": 0.25, "seconds_a_step": 2}
    # After a resume the window may hold a step of the sitting before.
    _, timing = read_window(state, report, seconds=4.0, steps=1, ideal_seconds_a_step=0.5)
    assert timing == {"tokens_per_second": 5.5, "share_of_matmul_rate": 0.125, "seconds_a_step": 4}


def test_pauses_do_not_count(monkeypatch):
    import bertjax.training.progress as progress

    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    watch = Stopwatch()
    now[0] += 3
    watch.pause()
    now[0] += 50
    watch.resume()
    now[0] += 4
    assert watch.lap() == 7
    now[0] += 2
    assert watch.lap() == 2
