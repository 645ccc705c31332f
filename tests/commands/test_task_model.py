"""What `predict` and `evaluate` read: files in every way in which fine-tuning reads them."""

import argparse
import dataclasses

import pytest

from bertjax.commands.arguments import choose_length
from bertjax.commands.task_model import add_task_model, read_data_config
from bertjax.config import BertConfig
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.data_format import REMEMBERED, remember

SPLITS = ("train", "validation", "test", "validation_share", "test_share")


def parse(*words):
    parser = argparse.ArgumentParser()
    add_task_model(parser)
    return parser.parse_args(["--model", "m", *words])


def test_every_way_to_read_is_an_option():
    fields = {field.name for field in dataclasses.fields(DataConfig)} - {*SPLITS}
    assert fields == {*REMEMBERED, "encoding", "errors"}
    assert vars(read_data_config(parse())) == {**vars(DataConfig()), "remembered": frozenset()}
    values = {"quoting": "double", "errors": "replace", "scheme": "IOB1", "format": "csv"}
    values |= {"extra_columns": "ignore", "spelling": "keep"}
    for field in fields:
        value = values.get(field, "a")
        given = getattr(read_data_config(parse(f"--{field.replace('_', '-')}", value)), field)
        assert given in (value, [value])


def test_files_are_read_as_the_model_was_fitted_unless_said(tmp_path, capsys):
    remember(tmp_path, DataConfig(text_column="body", label_column="x", spelling="merge"))
    (tmp_path / "config.json").write_text(
        to_json(BertConfig(id2label=("no", "yes")).to_dict()), encoding="utf-8"
    )
    options = parse("--label-column", "y")
    options.model = str(tmp_path)
    config = read_data_config(options)
    assert (config.text_column, config.label_column) == ("body", "y")
    assert config.labels == ["no", "yes"]
    assert f"as {tmp_path} was fitted (bertjax_data.json): text_column=body, spelling=merge" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(("words", "length"), [((), 40), (("--max-length", "9"), 9)])
def test_length_is_the_option_or_what_holds_without_it(words, length):
    assert choose_length(parse(*words), 512, 40) == length
    assert choose_length(parse(*words), 512) == (length if words else 512)


@pytest.mark.parametrize("length", [0, 7, 513])
def test_length_without_positions_is_refused(length):
    with pytest.raises(UserError, match=f"--max-length {length} must be between 8 and .* 512"):
        choose_length(parse("--max-length", str(length)), 512, 40)
