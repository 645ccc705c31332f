"""Every number in the config of every program has a least."""

import dataclasses

import pytest

from bertjax.commands.prepare import PrepareConfig
from bertjax.commands.tokenizer import TokenizerConfig
from bertjax.program.config_fields import flat_fields, kinds_of
from bertjax.program.config_parser import parse
from bertjax.program.errors import UserError
from bertjax.sweeps.sweep import SweepConfig
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.pretrain_config import PretrainConfig

PROGRAMS = {
    PretrainConfig: ["--data", "d", "--run", "r", "--budget.steps", "3"],
    FinetuneConfig: [
        *["--data.train", "x.csv", "--run", "r", "--model.init", "m"],
        *["--task", "classification"],
    ],
    PrepareConfig: ["--input", "t.txt", "--tokenizer", "t", "--output", "o"],
    TokenizerConfig: ["--input", "t.txt", "--output", "o", "--vocab-size", "99"],
    SweepConfig: ["--output", "o"],
}
# What is refused later, for the reason that stands here, or means something.
NEGATIVE = {
    "mesh.data": "-1 = all the devices that the other axes leave",
    "schedule.decay": "checked where the schedule is that it belongs to",
    "data.token_column": "the name of a field may be a number",
    "data.tag_column": "the same",
    **dict.fromkeys(
        [
            f"model.{name}"
            for name in (
                *("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size"),
                *("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
                *("initializer_range", "max_position_embeddings", "attention_window"),
                *("local_attention", "global_attn_every_n_layers"),
            )
        ],
        "checked in the config of the model that they make",
    ),
}


def numbers_of(config_class):
    """The dotted names of the number fields, each with -1 of its kind."""
    for name, hint in flat_fields(config_class):
        kinds = kinds_of(hint)
        if (int in kinds or float in kinds) and bool not in kinds:
            yield name, -1.0 if float in kinds else -1


def with_field(config, name, value):
    """The config with another value in one field, everything checked anew."""
    section, _, rest = name.partition(".")
    inner = with_field(getattr(config, section), rest, value) if rest else value
    return dataclasses.replace(config, **{section: inner})


@pytest.mark.parametrize("config_class", PROGRAMS)
def test_number_below_its_least_is_refused(config_class):
    config = parse(config_class, "", PROGRAMS[config_class])
    accepted = []
    names = list(numbers_of(config_class))
    assert names
    for name, value in names:
        try:
            with_field(config, name, value)
        except UserError as error:
            if name.rpartition(".")[2] not in str(error):
                accepted.append((name, str(error)))
        else:
            accepted.append((name, "accepted"))
    assert [one for one in accepted if one[0] not in NEGATIVE] == []


@pytest.mark.parametrize("config_class", PROGRAMS)
def test_section_is_by_default_what_the_command_makes_of_nothing(config_class):
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(field.default_factory):
            continue
        made = field.default_factory() if field.default_factory is not dataclasses.MISSING else None
        assert not dataclasses.is_dataclass(made), field.name
