"""Attention through all layers: how much of a token reaches a token, from maps alone."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

# The library's flow is of whole numbers; a row of capacities sums to this.
_UNITS = 1 << 30


def add_residual(probs: Float[np.ndarray, "L N T T"]) -> Float[np.ndarray, "L T T"]:
    """Averages the layers' maps over heads and adds the residual as half of each token's weight.

    Returns:
        Maps whose rows sum to 1.

    Source: Abnar & Zuidema 2020, section 3.
    """
    mean = np.asarray(probs, np.float64).mean(axis=1)
    mixed = (mean + np.eye(mean.shape[-1])) / 2
    return mixed / mixed.sum(axis=-1, keepdims=True)


def roll_out(probs: Float[np.ndarray, "L N T T"]) -> Float[np.ndarray, "L T T"]:
    """Computes attention rollout: the product of the layers' maps up to every layer.

    Args:
        probs: attention probabilities of a text.

    Returns:
        `[l, t, s]`: the share of token s in what layer l has at token t; rows sum to 1.

    Source: Abnar & Zuidema 2020, section 3.1.
    """
    rolled = add_residual(probs)
    for layer in range(1, len(rolled)):
        rolled[layer] = rolled[layer] @ rolled[layer - 1]
    return rolled


def flow_attention(
    probs: Float[np.ndarray, "L N T T"], positions: Sequence[int]
) -> Float[np.ndarray, "targets T"]:
    """Computes attention flow: the maximum flow from a token at the top to each at the bottom.

    The network's nodes are the tokens at every layer, its capacities the maps with the residual.

    Args:
        probs: attention probabilities of a text.
        positions: the tokens at the top from which the flow is wanted; each costs T maximum flows.

    Returns:
        Between 0 and 1. Rows do not sum to 1: each flow has the network to itself.

    Source: Abnar & Zuidema 2020, section 3.2.
    """
    maps = add_residual(probs)
    layers, tokens, _ = maps.shape
    # Node l * T + t is token t above l layers.
    above, below = np.meshgrid(np.arange(tokens), np.arange(tokens), indexing="ij")
    rows = np.concatenate([((layer + 1) * tokens + above).ravel() for layer in range(layers)])
    columns = np.concatenate([(layer * tokens + below).ravel() for layer in range(layers)])
    capacities = np.rint(maps.ravel() * _UNITS).astype(np.int32)
    nodes = (layers + 1) * tokens
    network = csr_array((capacities, (rows, columns)), shape=(nodes, nodes))
    network.indices, network.indptr = (
        part.astype(np.int32) for part in (network.indices, network.indptr)
    )
    flows = [
        [
            maximum_flow(network, layers * tokens + top, bottom).flow_value
            for bottom in range(tokens)
        ]
        for top in positions
    ]
    return np.array(flows, np.float64).reshape(len(positions), tokens) / _UNITS


def propagate_relevance(
    probs: Float[np.ndarray, "L N T T"], gradients: Float[np.ndarray, "L N T T"]
) -> Float[np.ndarray, "T T"]:
    """Computes class-specific relevance: attention weighted by its gradient, rolled out.

    Args:
        probs: attention probabilities of a text.
        gradients: of the output with respect to them.

    Returns:
        `[t, s]`: what token t of the last layer has of token s, at least 0; 0 where attention
        brought nothing.

    Source: Chefer, Gur & Wolf 2021, "Generic attention-model explainability", eq. 5 and 6. Differs:
        the identity that the recursion starts from is taken off at the end, so that a token's own
        place counts what attention brought and nothing else.
    """
    tokens = probs.shape[-1]
    relevance = np.eye(tokens)
    for layer, gradient in zip(probs, gradients, strict=True):
        weighed = np.maximum(np.asarray(layer, np.float64) * gradient, 0).mean(axis=0)
        relevance = relevance + weighed @ relevance
    return relevance - np.eye(tokens)
