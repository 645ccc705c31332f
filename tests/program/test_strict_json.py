"""JSON that every reader takes: what is no number is null, half a letter is escaped."""

import json
import math

import numpy as np
import pytest

from bertjax.commands.screen import print_json
from bertjax.program.strict_json import to_json


def refuse(name):
    raise AssertionError(f"{name} is no JSON")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, np.float64("nan")], ids=["nan", "inf", "-inf", "numpy"]
)
def test_what_is_no_number_is_null_at_any_depth(value, capsys):
    content = {"é": [1.5, value, {"b": (value, "x")}], "c": 2, "d": True}
    expected = {"é": [1.5, None, {"b": [None, "x"]}], "c": 2, "d": True}
    assert json.loads(to_json(content), parse_constant=refuse) == expected
    print_json(content)
    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == expected


def test_letters_stay_and_halves_of_letters_are_escaped():
    text = to_json({"a": "año", "b": "caf\udce9", "c": [1, 2]}, compact=True)
    assert text == '{"a":"año","b":"caf\\udce9","c":[1,2]}'
    assert json.loads(text)["b"] == "caf\udce9"
    assert text.encode("utf-8")


def test_other_things_are_refused():
    with pytest.raises(TypeError):
        to_json({"a": object()})
    with pytest.raises(TypeError):
        to_json([math.nan, np.float32(1)])
