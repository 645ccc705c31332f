"""The backends by name: who runs where, and that the model computes the same with each."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.kernels import splash
from bertjax.kernels.backends import BACKENDS, LONGEST_DENSE, Need, choose_backend
from bertjax.kernels.visibility import see_own_sequence
from bertjax.model.bert import BertModel
from bertjax.program.errors import UserError

RUN_ON = {
    platform: [name for name, backend in BACKENDS.items() if platform in backend.platforms]
    for platform in ("cpu", "tpu")
}
PLAIN = Need("cpu", "float32", 512, 64)
LONG = PLAIN._replace(length=LONGEST_DENSE + 1)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("flash", {}, "not one of auto, explicit, dense, xla"),
        ("splash", {}, f"runs on tpu, not on cpu; choose auto, {', '.join(RUN_ON['cpu'])}$"),
        ("cudnn", {"platform": "tpu"}, f"choose auto, {', '.join(RUN_ON['tpu'])}$"),
        ("cudnn", {"platform": "gpu"}, "computes in bfloat16 or float16, not in float32; choose"),
        (
            "xla",
            {"dropout": True},
            r"; choose auto, explicit, dense, or pass --model.attention_pro",
        ),
        ("dense", {"maps": True}, "no probabilities to read or edit; choose auto, explicit$"),
    ],
)
def test_backend_that_cannot_do_it_is_refused(name, changes, message):
    with pytest.raises(UserError, match=message):
        choose_backend(name, PLAIN._replace(**changes))


def test_backends_that_can_do_it_are_taken():
    for name in ("explicit", "dense", "xla"):
        assert choose_backend(name, PLAIN) == name
    assert choose_backend("splash", PLAIN._replace(platform="tpu")) == "splash"


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (PLAIN, "dense"),
        (PLAIN._replace(dropout=True), "dense"),
        (PLAIN._replace(platform="gpu", dtype="bfloat16"), "dense"),
        (PLAIN._replace(maps=True), "explicit"),
        (LONG, "blockwise"),
        (LONG._replace(dropout=True), "dense"),
        (LONG._replace(maps=True), "explicit"),
        (LONG._replace(platform="tpu"), "splash"),
        (LONG._replace(platform="gpu"), "blockwise"),
        (LONG._replace(platform="gpu", dtype="bfloat16"), "cudnn"),
        (LONG._replace(platform="gpu", dtype="bfloat16", head_size=12), "blockwise"),
    ],
)
def test_auto_takes_what_fits(need, expected):
    assert choose_backend("auto", need) == expected


def test_window_is_drawn_as_told():
    drawn = see_own_sequence(np.array([[1, 1, 1, 1, 2, 0]]), reach=1)[0, 0]
    expected = ["xx....", "xxx...", ".xxx..", "..xx..", "....x.", "......"]
    assert ["".join("x" if seen else "." for seen in row) for row in drawn] == expected


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("name", [name for name in RUN_ON["cpu"] if name != "explicit"])
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
    variables = {"params": params["bert"]}
    for name in ("xla", "dense"):
        model = BertModel(config, pooling=False, attention=name)
        with pytest.raises(UserError, match=f"{name} has no probabilities to read or edit"):
            model.apply(variables, batch.token_ids, trace=True)
    dropping = dataclasses.replace(config, attention_probs_dropout_prob=0.1)
    model = BertModel(dropping, pooling=False, attention="xla")
    with pytest.raises(UserError, match="attention_probs_dropout_prob is above 0"):
        model.apply(variables, batch.token_ids, dropout=True, rngs={"dropout": jax.random.key(0)})


def test_table_names_functions_that_exist_and_take_what_it_says():
    for name, backend in BACKENDS.items():
        assert set(backend.platforms) <= {"cpu", "gpu", "tpu"}
        assert backend.summary
        options = set(inspect.signature(backend.attention).parameters)
        assert ("dropout" in options, "dtype" in options, "interpret" in options) == (
            backend.dropout, backend.narrows, backend.interpreted,
        ), name  # fmt: skip
        assert "window" in options


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


def test_splash_of_local_and_global_layers_in_a_scan_is_a_program_for_tpus():
    """Its kernels are made while the scan is traced, and used in the traces of its gradient."""

    def layer(hidden, local):
        query = hidden.reshape(2, 256, 2, 64)
        ids = jnp.ones((2, 256), jnp.int32)
        context = splash.attention(query, query, query, ids, window=5, local=local)
        return hidden + context.reshape(hidden.shape), None

    def loss(hidden, kinds):
        remade = jax.checkpoint(layer, prevent_cse=False)
        return jax.lax.scan(remade, hidden, kinds)[0].sum()

    inputs = jnp.ones((512, 128)), jnp.array([False, True, True])
    traced = jax.jit(jax.grad(loss)).trace(*inputs)
    # Of each kind the forward kernel, made twice, and the two of its gradient.
    assert traced.lower(lowering_platforms=("tpu",)).as_text().count("tpu_custom_call") == 8
