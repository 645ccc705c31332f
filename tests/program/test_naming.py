"""Messages name options to those who typed a command, and arguments to a Python program."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import bertjax
from bertjax.program.errors import UserError
from bertjax.program.naming import command_line, name_arguments, names_arguments
from tests.interop.test_hub import TINY

BASE = bertjax.BertConfig(vocab_size=99)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("pass --max-length 8, or --data.text_column", "pass max_length 8, or data.text_column"),
        ("(--too-long windows).", "(too_long windows)."),
        (
            "try `bertjax predict --model DIR`, or --run",
            "try `bertjax predict --model DIR`, or run",
        ),
        ("set XLA_FLAGS=--xla_force_x=N -- or a--b", "set XLA_FLAGS=--xla_force_x=N -- or a--b"),
        ("a -- b, well-known, --5, --", "a -- b, well-known, --5, --"),
    ],
)
def test_options_become_arguments(message, expected):
    assert name_arguments(message) == expected
    with command_line():
        assert name_arguments(message) == message
    assert name_arguments(message) == expected


def test_functions_name_arguments_and_commands_options(bertjax_command):
    model = bertjax.load(TINY)
    with pytest.raises(UserError, match=r"^max_length 99 must be between 3 and the model's 17"):
        model.embed(["a"], max_length=99)
    with pytest.raises(UserError, match=r"^answer a b: is 2 tokens of the model's vocabulary"):
        model.explain("a [MASK]", answer="a b")
    with pytest.raises(UserError, match=r"into windows \(too_long windows\)"):
        model.trace(["a " * 40])
    assert len(model.trace(["a " * 40], too_long="windows")) > 1
    with pytest.raises(UserError, match=r"9 tokens, more than the 5 that are"):
        model.trace(["a " * 7], max_length=5)
    words = ["explain", "a [MASK]", "--model", TINY, "--answer", "a b"]
    code, _, err = bertjax_command(*words)
    assert code == 2
    assert "--answer a b: is 2 tokens" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": 1.5}, r"^top=1.5 must be a whole number$"),
        ({"top": -1}, r"^top=-1 must be 0 or more$"),
        ({"top": True}, r"^top=True must be a whole number$"),
        ({"share": "much"}, r"^share='much' must be a number or None$"),
        ({"kind": "mien"}, r"^kind='mien' must be one of mean, max; did you mean 'mean'\?$"),
        ({"progress": 3}, r"^progress=3 must be a function or None$"),
        ({"where": 3}, r"^where=3 must be a path or a string$"),
        ({"start": None}, r"^start=None must be a BertConfig$"),
        ({"open_it": True}, r"^/nowhere: No such file or directory$"),
    ],
)
def test_arguments_of_plain_types_are_checked(arguments, message):
    @names_arguments
    def call(
        top: int = 3,
        share: float | None = None,
        kind: Literal["mean", "max"] = "mean",
        progress: Callable[[int], None] | None = None,
        where: Path | str = "here",
        start: bertjax.BertConfig = BASE,
        anything: Any = None,
        open_it: bool = False,
    ):
        if open_it:
            Path("/nowhere").read_text()

    with pytest.raises(UserError, match=message):
        call(**arguments)
    call(np.int64(2), np.float32(0.5), "max", print, Path("there"), anything=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'tops'"):
        call(tops=3)


def test_warnings_name_the_line_that_called():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bertjax.load(TINY).trace(["it was [SEP]"])
    [warning] = caught
    assert warning.filename == __file__
