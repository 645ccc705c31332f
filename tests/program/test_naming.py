"""Messages name options to those who typed a command, and arguments to a Python program."""

import warnings

import pytest

import bertjax
from bertjax.program.errors import UserError
from bertjax.program.naming import command_line, name_arguments
from tests.interop.test_hub import TINY


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


def test_warnings_name_the_line_that_called():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bertjax.load(TINY).trace(["it was [SEP]"])
    [warning] = caught
    assert warning.filename == __file__
