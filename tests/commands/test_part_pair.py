"""A line that is a text, or two of a pair parted by a tab."""

import pytest

from bertjax.commands.texts import part_pair


@pytest.mark.parametrize(
    ("line", "parts"),
    [("one two", "one two"), ("one\ttwo", ("one", "two")), ("one\t", "one"), ("\t two ", "two")],
)
def test_tab_at_an_end_parts_nothing(line, parts):
    assert part_pair("f:1", line) == ("f:1", parts)
