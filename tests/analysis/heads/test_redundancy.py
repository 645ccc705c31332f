"""Divergences between heads equal scipy's, with whole maps and without; the map of the heads."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from bertjax.analysis.capture.maps import capture
from bertjax.analysis.capture.rows import make_inputs
from bertjax.analysis.heads.redundancy import (
    measure_redundancy,
    sum_divergences,
    sum_divergences_blockwise,
)
from bertjax.program.errors import UserError
from tests.analysis.tiny_bodies import make_body, make_texts
from tests.kernels.compiled_programs import largest_buffer


@pytest.fixture(scope="module", params=["layers that see all", "a local layer"])
def body(request):
    if request.param == "layers that see all":
        return make_body()
    return make_body(family="modernbert", local_attention=8)


@pytest.fixture(scope="module")
def texts(body):
    return make_texts(body, (9, 3, 12, 7))


@pytest.fixture(scope="module")
def measured(body, texts):
    return measure_redundancy(body, texts)


def test_divergences_equal_scipy(body, texts, measured):
    assert measured.counts.tolist() == [len(text.tokens) for text in texts]
    for number, captured in enumerate(capture(body, texts)):
        maps = captured.probs.astype(np.float64).reshape(8, *captured.probs.shape[2:])
        expected = jensenshannon(maps[:, None], maps[None], axis=-1) ** 2
        np.testing.assert_allclose(measured.sums[number], expected.sum(axis=-1), atol=1e-4)
    assert measured.sums[measured.sums > 0].min() > 0.01
    np.testing.assert_array_equal(measured.sums, np.swapaxes(measured.sums, 1, 2))


@pytest.mark.parametrize("heads", [1, 2, 5, 6])
def test_every_pair_of_heads_is_compared(heads):
    maps = np.random.default_rng(heads).dirichlet(np.ones(7), (heads, 7)).astype(np.float32)
    by_shift = np.asarray(sum_divergences(maps[:, None]))[..., 0]
    assert by_shift.shape == (heads // 2 + 1, heads)
    pairs = {frozenset((i, (i + d) % heads)) for d in range(heads // 2 + 1) for i in range(heads)}
    assert len(pairs) == heads * (heads + 1) // 2
    for shift in range(heads // 2 + 1):
        other = np.roll(maps, -shift, axis=0)
        expected = (jensenshannon(maps, other, axis=-1) ** 2).sum(axis=-1)
        np.testing.assert_allclose(by_shift[shift], expected, atol=1e-5)


def test_heads_that_share_no_token_are_log_two_apart():
    maps = np.stack([np.eye(6), np.roll(np.eye(6), 1, axis=1)]).astype(np.float32)
    by_shift = np.asarray(sum_divergences(maps[:, None]))[..., 0]
    np.testing.assert_allclose(by_shift, [[0, 0], [6 * np.log(2)] * 2], rtol=1e-5)


def test_blockwise_divergences_are_the_same(body, texts, measured):
    done = []
    blockwise = measure_redundancy(body, texts, blockwise=True, progress=done.append)
    assert sum(done) == len(texts)
    np.testing.assert_array_equal(blockwise.counts, measured.counts)
    np.testing.assert_allclose(blockwise.sums, measured.sums, atol=1e-4)


def test_blockwise_divergences_hold_no_map():
    length = 192
    body = make_body(positions=length)
    text = make_texts(body, (140, 4))[:1]
    inputs = make_inputs(body.config, text, 1, length, body.tokenizer.pad_id)
    small, whole = (
        sum_divergences_blockwise.lower(body.module, body.params, inputs, size, size).compile()
        for size in (16, length)
    )
    assert largest_buffer(small) < length**2 <= largest_buffer(whole)


def test_no_texts_are_refused(body):
    with pytest.raises(UserError, match="no texts to compare"):
        measure_redundancy(body, [])


def test_empty_rows_of_a_batch_add_nothing(body, texts):
    inputs = make_inputs(body.config, texts[:1], 1, 16, body.tokenizer.pad_id)
    padded = jax.tree.map(lambda part: np.concatenate([part, 0 * part]), inputs)
    by_shift = np.asarray(sum_divergences_blockwise(body.module, body.params, padded))
    assert (by_shift[..., 1] == 0).all()
    assert (by_shift[1:, :, 0] > 0.01).all()
