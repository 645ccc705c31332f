"""The backends by name: who runs where, and that the model computes the same with each."""

import dataclasses

import jax
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.kernels.backends import BACKENDS, check_backend
from bertjax.kernels.visibility import see_own_sequence
from bertjax.model.bert import BertModel
from bertjax.program.errors import UserError


@pytest.mark.parametrize(
    ("name", "platform", "message"),
    [
        ("flash", "cpu", "not one of explicit, xla"),
        ("splash", "cpu", "runs on tpu, not on cpu; choose explicit, xla, blockwise"),
        ("cudnn", "tpu", "choose explicit, xla, blockwise, splash"),
    ],
)
def test_backend_of_another_device_is_refused(name, platform, message):
    with pytest.raises(UserError, match=message):
        check_backend(name, platform)


def test_backends_of_the_device_are_taken():
    check_backend("explicit")
    check_backend("xla")
    check_backend("splash", "tpu")


def test_window_is_drawn_as_told():
    drawn = see_own_sequence(np.array([[1, 1, 1, 1, 2, 0]]), window=1)[0, 0]
    expected = ["xx....", "xxx...", ".xxx..", "..xx..", "....x.", "......"]
    assert ["".join("x" if seen else "." for seen in row) for row in drawn] == expected


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("name", ["xla", "blockwise"])
def test_model_computes_the_same_with_each(config, params, batch, name, window):
    config = dataclasses.replace(config, attention_window=window)
    inputs = batch.token_ids, batch.token_type_ids, batch.sequence_ids, batch.position_ids

    def hidden(attention):
        model = BertModel(config, pooling=False, attention=attention)
        output = jax.jit(model.apply)({"params": params["bert"]}, *inputs)
        return np.asarray(output.hidden)

    real = np.asarray(batch.sequence_ids) != 0
    expected = hidden("explicit")
    np.testing.assert_allclose(hidden(name)[real], expected[real], atol=1e-4)
    if window is not None:
        whole = BertModel(dataclasses.replace(config, attention_window=None), pooling=False)
        without = jax.jit(whole.apply)({"params": params["bert"]}, *inputs).hidden
        assert np.abs(expected - without)[real].max() > 1e-3


def test_what_has_no_probabilities_says_so(config, params, batch):
    model = BertModel(config, pooling=False, attention="xla")
    variables = {"params": params["bert"]}
    with pytest.raises(UserError, match="a trace needs attention=explicit"):
        model.apply(variables, batch.token_ids, trace=True)
    dropping = dataclasses.replace(config, attention_probs_dropout_prob=0.1)
    model = BertModel(dropping, pooling=False, attention="xla")
    with pytest.raises(UserError, match="set attention_probs_dropout_prob to 0"):
        model.apply(variables, batch.token_ids, dropout=True, rngs={"dropout": jax.random.key(0)})


def test_every_backend_says_where_it_runs():
    for backend in BACKENDS.values():
        assert set(backend.platforms) <= {"cpu", "gpu", "tpu"}
        assert backend.summary


def test_window_makes_another_kind_of_model():
    """Another library must not take it for a BERT that sees all."""
    config = BertConfig(attention_window=5)
    written = config.to_dict()
    assert written["model_type"] != "bert"
    assert BertConfig.from_dict(written) == config
    with pytest.raises(UserError, match="model_type"):
        BertConfig.from_dict(written | {"attention_window": None})
    with pytest.raises(UserError, match="attention_window=0"):
        BertConfig(attention_window=0)
