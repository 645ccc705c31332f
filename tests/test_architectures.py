"""The table of architectures: it names every class, and what it says of each is true of it."""

import inspect
from typing import get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from bertjax.architectures import (
    ARCHITECTURES,
    BODY,
    OF_A_TOKEN,
    Output,
    find_architecture,
    kind_of,
)
from bertjax.config import PROBLEM_TYPES, BertConfig
from bertjax.families.registry import FAMILIES
from bertjax.model import bert
from bertjax.tasks.data_config import TaskName
from bertjax.verification.outputs import quantities
from tests.families.tiny import tiny_config_of


def test_table_has_every_class_of_the_model():
    classes = {
        name: value
        for name, value in vars(bert).items()
        if inspect.isclass(value)
        and issubclass(value, nn.Module)
        and value.__module__ == bert.__name__
        and not name.startswith("_")
    }
    table = {one.module.__name__: one.module for one in ARCHITECTURES.values()}
    assert table == classes


def test_classes_are_named_as_the_modules_that_they_share():
    for one in ARCHITECTURES.values():
        module = one.module.__name__.removeprefix("Bert")
        assert one.name.endswith(FAMILIES[one.family].config.SUFFIXES.get(one.kind, module))
    discriminator = ARCHITECTURES["ElectraForPreTraining"]
    assert (discriminator.kind, discriminator.outputs) == ("replaced-tokens", ("replaced",))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_outputs_are_those_of_the_class(name):
    one = ARCHITECTURES[name]
    module, token_ids = (
        one.module(tiny_config_of(name, id2label=tuple("abcde"))),
        jnp.zeros((3, 7), jnp.int32),
    )

    are_of_tokens = set()

    def run():
        output, variables = module.init_with_output(jax.random.key(0), token_ids)
        answers = quantities(name, output)
        if one.kind != BODY:
            del answers["hidden"]
        are_of_tokens.update(answer.of_tokens for answer in answers.values())
        return answers, variables

    answers, variables = jax.eval_shape(run)
    body = variables["params"] if one.kind == BODY else variables["params"]["bert"]
    heads = set() if one.kind == BODY else {*variables["params"]} - {"bert"}
    assert heads | ({"pooler"} & {*body}) == set(one.parts)
    assert are_of_tokens == {output in OF_A_TOKEN for output in one.outputs}
    assert one.is_of_tokens == (are_of_tokens == {True})
    for answer in answers.values():
        assert answer.values.shape[:2] in ((3, 7), (3, 1))


def test_every_output_and_task_belongs_to_a_class():
    assert {output for one in ARCHITECTURES.values() for output in one.outputs} == {
        *get_args(Output)
    }
    for task in get_args(TaskName):
        one = find_architecture(kind_of(task), BertConfig())
        assert task in {one.task_of(meaning) for meaning in PROBLEM_TYPES}
    fitted = {one.task_of(meaning) for one in ARCHITECTURES.values() for meaning in PROBLEM_TYPES}
    assert fitted - {None} == {*get_args(TaskName)}
    assert ARCHITECTURES["BertModel"].task_of("regression") is None
