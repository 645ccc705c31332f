"""Rollout, flow and relevance: closed forms, and the flow that networkx finds."""

import networkx
import numpy as np
import pytest

from bertjax.analysis.explain.attention_flow import (
    add_residual,
    flow_attention,
    propagate_relevance,
    roll_out,
)

L, N, T = 3, 2, 5


@pytest.fixture
def probs():
    """Random maps, some of whose entries are 0."""
    weights = np.random.default_rng(0).exponential(size=(L, N, T, T))
    weights[weights < 0.3] = 0
    weights[..., 0] += 0.1
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(np.float32)


def test_rows_of_rollout_sum_to_one(probs):
    rolled = roll_out(probs)
    assert rolled.shape == (L, T, T)
    np.testing.assert_allclose(rolled.sum(axis=-1), 1, rtol=1e-12)
    assert rolled.min() >= 0


def test_rollout_of_attention_to_the_previous_token():
    previous = np.eye(T, k=-1)
    previous[0, 0] = 1
    rolled = roll_out(np.stack([previous, previous])[:, None])
    np.testing.assert_allclose(rolled[0, 3], [0, 0, 1 / 2, 1 / 2, 0])
    np.testing.assert_allclose(rolled[1, 3], [0, 1 / 4, 1 / 2, 1 / 4, 0])
    np.testing.assert_allclose(rolled[1, 1], [3 / 4, 1 / 4, 0, 0, 0])


def test_flow_is_the_maximum_flow_of_networkx(probs):
    maps = add_residual(probs)
    network = networkx.DiGraph()
    for layer, top, bottom in np.ndindex(maps.shape):
        capacity = float(maps[layer, top, bottom])
        network.add_edge((layer + 1, top), (layer, bottom), capacity=capacity)
    expected = [
        [
            networkx.maximum_flow_value(network, (L, top), (0, bottom))
            for bottom in range(T)
        ]
        for top in (3, 0)
    ]  # fmt: skip
    flows = flow_attention(probs, [3, 0])
    np.testing.assert_allclose(flows, expected, atol=1e-7)
    assert np.ptp(flows) > 0.1
    # Several ways in lead from the top, so that flows are more than the rolled out shares.
    assert (flows + 1e-7 >= roll_out(probs)[-1, [3, 0]]).all()


def test_relevance_of_one_layer_is_attention_times_positive_gradient(probs):
    gradients = np.random.default_rng(1).normal(size=(1, N, T, T))
    relevance = propagate_relevance(probs[:1], gradients)
    np.testing.assert_allclose(relevance, (probs[0] * gradients[0]).clip(0).mean(axis=0))


def test_relevance_goes_through_the_layers_below(probs):
    probs = probs + np.float32(0.1)
    # Token 4 has something of token 2 above, token 2 of token 1 below: 4 has of 1 by that way only.
    gradients = np.zeros((2, N, T, T))
    gradients[0, 0, 2, 1], gradients[1, 1, 4, 2] = 6, 8
    below, above = probs[0, 0, 2, 1] * 6 / N, probs[1, 1, 4, 2] * 8 / N
    expected = np.zeros((T, T))
    expected[2, 1], expected[4, 2], expected[4, 1] = below, above, above * below
    assert expected[4, 1] > 0
    np.testing.assert_allclose(propagate_relevance(probs[:2], gradients), expected, rtol=1e-5)
    np.testing.assert_array_equal(propagate_relevance(probs[:2], -gradients), 0)
