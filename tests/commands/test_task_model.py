"""What `predict` and `evaluate` read: files in every way in which fine-tuning reads them."""

import argparse
import dataclasses

import pytest

from bertjax.commands.task_model import DATA_FIELDS, add_model, choose_length, read_data_config
from bertjax.errors import UserError
from bertjax.tasks.reading import DataConfig

SPLITS = ("train", "validation", "test", "validation_share", "test_share")


def parse(*words):
    parser = argparse.ArgumentParser()
    add_model(parser)
    return parser.parse_args(["--model", "m", *words])


def test_every_way_to_read_is_an_option():
    fields = {field.name for field in dataclasses.fields(DataConfig)} - {*SPLITS}
    assert fields == {*DATA_FIELDS}
    assert vars(read_data_config(parse())) == vars(DataConfig())
    for field in fields:
        values = {"quoting": "double", "errors": "replace", "scheme": "IOB1", "spelling": "merge"}
        value = values.get(field, "a")
        given = getattr(read_data_config(parse(f"--{field.replace('_', '-')}", value)), field)
        assert given in (value, [value])


@pytest.mark.parametrize(("words", "length"), [((), 40), (("--max-length", "9"), 9)])
def test_length_is_the_option_or_what_holds_without_it(words, length):
    assert choose_length(parse(*words), 512, 40) == length
    assert choose_length(parse(*words), 512) == (length if words else 512)


@pytest.mark.parametrize("length", [0, 7, 513])
def test_length_without_positions_is_refused(length):
    with pytest.raises(UserError, match=f"--max-length {length} must lie between 8 and .* 512"):
        choose_length(parse("--max-length", str(length)), 512, 40)
