"""The blockwise sweep gives the sums of whole maps, and never holds one."""

import jax
import numpy as np
import pytest

from bertjax.analysis.capture.maps import capture
from bertjax.analysis.heads.blockwise_patterns import make_batch, sum_batch, sum_maps_blockwise
from bertjax.analysis.heads.patterns import sum_maps
from bertjax.analysis.heads.targets import mark_tokens
from bertjax.program.errors import UserError
from tests.analysis.tiny_bodies import make_body, make_texts
from tests.kernels.compiled_programs import largest_buffer
from tests.tiers import leave_whole


@pytest.fixture(scope="module", params=["layers that see all", "a local layer"])
def body(request):
    if request.param == "layers that see all":
        return make_body()
    return make_body(family="modernbert", local_attention=8)


@pytest.fixture(scope="module")
def texts(body):
    return make_texts(body, (28, 5, 30, 8, 4))


@pytest.mark.parametrize("block", leave_whole([13, 256], [256]))
def test_sums_are_those_of_whole_maps_in_the_order_of_the_texts(body, texts, block):
    done = []
    found = list(sum_maps_blockwise(body, iter(texts), block=block, progress=done.append))
    assert sum(done) == len(texts) == 5
    for ours, captured in zip(found, capture(body, texts), strict=True):
        expected = sum_maps(captured.probs, mark_tokens(captured.encoded))
        for name in expected._fields:
            our, their = getattr(ours, name), getattr(expected, name)
            assert our.shape == their.shape
            np.testing.assert_allclose(our, their, rtol=1e-5, atol=1e-5, err_msg=name)
        assert expected.entropy.min() > 1


def test_a_text_longer_than_the_model_is_refused(body):
    long = make_texts(make_body(positions=90), (60, 4))
    with pytest.raises(UserError, match=r"text 1: \d+ tokens, more than the model's max_position"):
        next(sum_maps_blockwise(body, long))


def test_no_buffer_is_as_large_as_a_map():
    """Of no head, in no layer, though the text is longer than a block."""
    length = 192
    body = make_body(positions=length)
    text = make_texts(body, (160, 4))[:1]
    batch = make_batch(body, text, 1, length)
    assert len(text[0].token_ids) < length
    compiled = sum_batch.lower(body.module, 16, body.params, batch).compile()
    whole = sum_batch.lower(body.module, length, body.params, batch).compile()
    assert largest_buffer(compiled) < length**2 <= largest_buffer(whole)
    results = [
        jax.tree.leaves(sum_batch(body.module, size, body.params, batch)) for size in (16, length)
    ]
    for our, their in zip(*results, strict=True):
        np.testing.assert_allclose(our, their, rtol=1e-4, atol=1e-4)
