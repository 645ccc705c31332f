"""The start with patterns: heads look where they are said to look; the rest is a new BERT."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config import BertConfig
from bertjax.model.bert import BertForPreTraining
from bertjax.program.errors import UserError
from bertjax.training import pattern_start
from bertjax.training.pattern_start import start_with_patterns

CLS, SEP = 2, 3
WORDS, PLACE, FOUND = 20, 1, 12


@pytest.fixture(scope="module")
def config(config):
    """Two neighbour heads and two for the same word; D=64, H=16, M=24, the rest as ever."""
    return dataclasses.replace(
        config, hidden_size=64, max_position_embeddings=24, initializer_range=0.04
    )


@pytest.fixture(scope="module")
def log_frequencies():
    return jnp.log(jnp.arange(1, 100) / 4950)


@pytest.fixture(scope="module")
def params(config, log_frequencies):
    return start_with_patterns(config, log_frequencies, SEP, jax.random.key(3))


@pytest.fixture(scope="module")
def output(config, params):
    """Pairs of passages: word 30 + i is in both passages of row 2i, and in the first of row 2i+1.

    `PLACE` is where it stands in the first passage, `FOUND` where it does in the second.
    """
    rows = []
    for word in range(30, 30 + WORDS):
        for second in (word, 29):
            rows.append([CLS, word, *range(5, 11), SEP, 11, 12, 13, second, *range(14, 18), SEP])
    passages = jnp.array([[0] * 9 + [1] * 9] * len(rows))
    model = BertForPreTraining(config)
    apply = jax.jit(model.apply, static_argnames="trace")
    return apply({"params": params}, jnp.array(rows), passages, trace=True)


@pytest.mark.parametrize(("head", "offset"), [(0, -1), (1, 1)])
def test_neighbor_heads_look_at_the_token_before_and_after(output, head, offset):
    probs = np.asarray(output.encoder.trace.probs)[0, :, head]
    inner = np.arange(1, 17)
    assert probs[:, inner, inner + offset].min() > 0.4
    assert probs[:, inner, inner + offset].mean() > 0.6


@pytest.mark.parametrize("head", [2, 3])
def test_same_word_heads_find_the_word_in_the_other_passage(output, head):
    probs = np.asarray(output.encoder.trace.probs)[0, :, head, PLACE]
    there, not_there = probs[::2], probs[1::2]
    found = there[:, 9:17].argmax(axis=1) == FOUND - 9
    assert found.mean() > 0.9
    assert there[:, FOUND].mean() > 5 * not_there[:, FOUND].mean()


@pytest.mark.parametrize("head", [2, 3])
def test_same_word_heads_look_at_a_separator_when_there_is_none(output, head):
    to_separators = np.asarray(output.encoder.trace.probs)[0, :, head, PLACE][:, [8, 17]].sum(
        axis=1
    )
    there, not_there = to_separators[::2], to_separators[1::2]
    assert (not_there > there).mean() > 0.9
    assert not_there.mean() > 0.33  # three times what flat attention gives


def test_cls_says_how_much_was_not_found(output):
    found, nothing = np.asarray(output.encoder.hidden)[:, 0, -2].reshape(WORDS, 2).T
    assert (nothing > found).mean() > 0.9


def test_start_is_the_frequencies_of_words(output, log_frequencies):
    guesses = jax.nn.log_softmax(output.mlm_logits)
    assert float(jnp.abs(guesses - log_frequencies).mean()) < 1.0
    assert np.corrcoef(guesses.mean((0, 1)), log_frequencies)[0, 1] > 0.9


def test_parameters_have_the_names_and_shapes_of_any_new_bert(config, params):
    new = jax.eval_shape(
        BertForPreTraining(config).init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32)
    )["params"]
    assert jax.tree.structure(new) == jax.tree.structure(params)
    shapes, starts = (jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (new, params))
    assert shapes == starts


def test_another_key_draws_other_weights(config, log_frequencies, params):
    other = start_with_patterns(config, log_frequencies, SEP, jax.random.key(4))
    kernels = [x["bert"]["encoder"]["layers"]["intermediate"]["kernel"] for x in (params, other)]
    assert (kernels[0] != kernels[1]).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_hidden_layers": 1}, "at least 2, not 1; pass --model.num_hidden_layers 2, or"),
        ({"num_attention_heads": 2}, "at least 3, not 2: pass --model.num_attention_heads 4, or"),
        (
            {"num_attention_heads": 32},
            "even size of at least 4, not .* = 2: pass --model.num_attention_heads 16, or",
        ),
        (
            {"hidden_size": 10, "num_attention_heads": 2},
            "not 2: pass --model.hidden_size 64 --model.num_attention_heads 4, or",
        ),
    ],
)
def test_shape_without_room_for_the_patterns_is_refused(config, log_frequencies, fields, message):
    with pytest.raises(UserError, match=message):
        start_with_patterns(
            dataclasses.replace(config, **fields), log_frequencies, SEP, jax.random.key(0)
        )


def test_advised_heads_fit_every_published_size(log_frequencies):
    for size in ("tiny", "mini", "small", "medium"):
        config = BertConfig.of_size(size, vocab_size=99, num_hidden_layers=2, num_attention_heads=2)
        with pytest.raises(UserError, match="at least 3, not 2") as refused:
            start_with_patterns(config, log_frequencies, SEP, jax.random.key(0))
        heads = int(re.search(r"num_attention_heads (\d+)", str(refused.value))[1])
        fitting = dataclasses.replace(config, num_attention_heads=heads)
        assert pattern_start._check_shape(fitting) is None
