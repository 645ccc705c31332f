"""Every number of every command has bounds, every text of the command line is UTF-8."""

import argparse
import math

import pytest

from bertjax.cli import COMMANDS, run
from bertjax.commands.arguments import Number, utf8_text
from bertjax.program.errors import UserError

# Options of words that are file names, columns, choices: any bytes, or compared with what is there.
OF_TEXTS = {"TEXT", "WORD", "ANSWER", "NEW"}


def actions_of(command):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return [action for action in parser._actions if action.nargs != 0]


NUMBERS = [
    pytest.param(
        name, action.option_strings[0], action.type, id=f"{name}{action.option_strings[0]}"
    )
    for name, command in COMMANDS.items()
    for action in actions_of(command)
    if action.type not in (None, utf8_text)
]


def test_every_number_has_bounds_and_every_text_is_checked():
    """A new option with `type=int` fails here."""
    kinds = {
        (name, action.dest): action
        for name, command in COMMANDS.items()
        for action in actions_of(command)
    }
    assert len(kinds) > 100
    loose = [
        place
        for place, action in kinds.items()
        if not (action.type is None or action.type is utf8_text or isinstance(action.type, Number))
    ]
    assert loose == []
    texts = [action for action in kinds.values() if action.metavar in OF_TEXTS]
    assert len(texts) >= 8
    assert {action.dest for action in texts if action.type is not utf8_text} == {"label_separator"}


def words_of(command, option, value):
    """A command line with the option, and a word for all that is required."""
    parser = argparse.ArgumentParser()
    COMMANDS[command].add_arguments(parser)
    words = [command]
    for action in parser._actions:
        if action.required:
            words += [*action.option_strings[:1], (action.choices or ["x"])[0]]
    for group in parser._mutually_exclusive_groups:
        if group.required:
            words += [group._group_actions[0].option_strings[0], "x"]
    return [*words, f"{option}={value}"]


@pytest.mark.parametrize(("command", "option", "number"), NUMBERS)
def test_number_out_of_its_bounds_is_told_before_anything_is_read(command, option, number):
    below = number.least - 1 if math.isfinite(number.least) else number.above
    above = number.most + 1 if number.below > number.most else number.below
    assert math.isfinite(below)
    for value in [below, above, *(["nan", "inf", "-inf"] if number.__name__ == "float" else [])]:
        with pytest.raises(UserError, match=rf"^{option} .* must be "):
            run(words_of(command, option, value))


def test_text_that_is_no_utf8_is_told_with_its_byte():
    with pytest.raises(argparse.ArgumentTypeError, match=r"not UTF-8 \(byte 0xe9 at column 4\)"):
        utf8_text("caf\udce9 [MASK]")
    # In a locale without letters the same bytes come as halves.
    assert utf8_text("caf\udcc3\udca9") == utf8_text("café") == "café"


@pytest.mark.parametrize("command", ["fill-mask", "explain", "predict"])
def test_command_refuses_such_a_text(bertjax_command, command):
    code, _, err = bertjax_command(command, "caf\udce9 [MASK]", "--model", "no")
    assert code == 2
    assert "is not UTF-8 (byte 0xe9 at column 4)" in err


@pytest.mark.parametrize(
    ("command", "name", "option"),
    [("predict", "a.jsonl", "--input"), ("embed", "a.parquet", "--input"),
     ("evaluate", "a.json", "--data")],
)  # fmt: skip
def test_output_of_a_command_is_never_its_input(bertjax_command, tmp_path, command, name, option):
    file = tmp_path / name
    file.write_text("mine")
    words = (command, "--model", tmp_path / "model", option, file, "--output", file)
    code, _, err = bertjax_command(*words)
    assert (code, "is the input; name another place" in err) == (2, True), err
    assert file.read_text() == "mine"
