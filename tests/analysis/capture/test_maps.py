"""What is captured of a body: the same alone and together, in order, in bounded memory."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.capture import maps as capture_module
from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import (
    capture,
)
from bertjax.analysis.capture.rows import make_inputs, shapes_of_maps
from bertjax.loaded import load
from bertjax.program.errors import UserError

TINY = Path(__file__).parents[2] / "parity" / "golden" / "tiny_bert"
# 3 to 17 tokens, in no order; one that fills the model, one pair.
TEXTS = [
    "this is what they had",
    "a",
    "the one of all is in it and they had all of this there.",
    ("it was", "the cat [MASK]"),
    "they had.",
]


@pytest.fixture(scope="module")
def body():
    return load(TINY, "BertModel")


@pytest.fixture(scope="module")
def texts(body):
    return encode_texts(body.tokenizer, TEXTS, 17)


@pytest.fixture(scope="module")
def captures(body, texts):
    return list(capture(body, texts, hidden=True, context=True))


def test_captures_come_in_the_order_of_the_texts(texts, captures):
    assert [id(one.encoded) for one in captures] == [id(text) for text in texts]
    lengths = [len(text.tokens) for text in texts]
    assert max(lengths) == 17
    assert lengths != sorted(lengths)
    for one, length in zip(captures, lengths, strict=True):
        assert one.probs.shape == (5, 4, length, length)
        assert one.hidden.shape == (6, length, 24)
        assert one.context.shape == (5, length, 4, 6)
        assert {part.dtype for part in one[1:]} == {np.dtype(np.float32)}
        np.testing.assert_allclose(one.probs.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_text_alone_without_padding_gives_the_same(body, texts, captures, number):
    text = texts[number]
    output = jax.jit(
        lambda *inputs: body.module.apply({"params": body.params}, *inputs, trace=True)
    )(jnp.asarray(text.token_ids[None]), jnp.asarray(text.token_type_ids[None]))
    trace = output.trace
    alone = trace.probs, trace.hidden_states, trace.context
    for part, expected in zip(captures[number][1:], alone, strict=True):
        np.testing.assert_allclose(part, expected[:, 0], atol=2e-4)


def test_segment_is_seen(body, texts, captures):
    alone = texts[3]._replace(token_type_ids=np.zeros_like(texts[3].token_type_ids))
    [other] = capture(body, [alone])
    assert np.abs(other.probs - captures[3].probs).max() > 1e-3


def test_only_what_is_asked_for_is_given(body, texts, captures):
    for options in ({}, {"hidden": True}, {"context": True}):
        one, *_ = capture(body, texts[:2], **options)
        np.testing.assert_allclose(one.probs, captures[0].probs, atol=5e-5)
        assert (one.hidden is not None, one.context is not None) == (
            "hidden" in options,
            "context" in options,
        )


def test_memory_is_bounded_and_the_result_the_same(body, texts, captures, monkeypatch):
    """Small windows and batches: texts are taken as they are needed, a few at a time."""
    monkeypatch.setattr(capture_module, "_WINDOW_BYTES", 3 * 4 * 20 * 17**2)
    taken, done = [], []

    def many():
        for number in range(60):
            taken.append(number)
            yield texts[number % 5]

    for number, one in enumerate(capture(body, many(), progress=done.append)):
        assert len(taken) - number < 40
        np.testing.assert_allclose(one.probs, captures[number % 5].probs, atol=5e-5)
    assert number == 59
    assert sum(done) == 60
    assert len(done) > 5


def test_one_row_at_a_time_gives_the_same(body, texts, captures, monkeypatch):
    monkeypatch.setattr(capture_module, "BATCH_BYTES", 1)
    assert {shape.rows for shape in shapes_of_maps(body.config, 1)} == {1}
    for one, expected in zip(capture(body, texts), captures, strict=True):
        np.testing.assert_allclose(one.probs, expected.probs, atol=5e-5)


def test_captures_that_were_taken_are_not_kept(body, texts):
    import weakref

    stream = capture(body, texts)
    first = weakref.ref(next(stream).probs)
    next(stream)
    assert first() is None


def test_gate_takes_a_head_out(body, texts, captures):
    gates = jnp.ones((5, 4)).at[1, 2].set(0)
    one, *_ = capture(body, texts[:2], context=True, head_gates=gates)
    assert (one.context[1, :, 2] == 0).all()
    assert (one.context[1, :, 3] != 0).any()
    np.testing.assert_allclose(one.probs[:2], captures[0].probs[:2], atol=5e-5)
    assert np.abs(one.probs[2:] - captures[0].probs[2:]).max() > 1e-3


def test_products_are_in_full_precision(body, texts):
    """GPUs and TPUs round float32 factors unless told not to."""
    inputs = make_inputs(body.config, texts[:1], 1, 16, body.tokenizer.pad_id)
    lowered = capture_module._trace.lower(body.module, ("probs",), body.params, inputs, None)
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert len(products) >= 8
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_longer_text_than_the_model_has_positions_for_is_refused(body):
    texts = encode_texts(body.tokenizer, ["the", "the " * 16], 30)
    with pytest.raises(UserError, match=r"text 2: 18 tokens, more than .*_embeddings=17"):
        list(capture(body, texts))
