"""Trees over the words of a sentence: distances, depths, spanning trees, and how they agree.

Scores are sums and counts per sentence, ready for `intervals.bootstrap_ratio`.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.statistics.bootstrap import RESAMPLES, count_draws, draw_samples, find_ends
from bertjax.statistics.intervals import Interval

# Rank correlations are means over sentences of these lengths, every length with equal weight.
# Source: Hewitt & Manning 2019, section 3.1.
LENGTHS = range(5, 51)


def tree_distances(heads: Int[np.ndarray, " W"]) -> Int[np.ndarray, "W W"]:
    """Returns the number of edges between every two words.

    Args:
        heads: the number of each word's head, -1 for the root.
    """
    from scipy.sparse.csgraph import shortest_path

    # Hop by hop on the whole graph; a tree of W words is small.
    graph = tree_edges(heads).astype(np.float64)
    return shortest_path(graph, directed=False, unweighted=True).astype(np.int64)


def tree_depths(heads: Int[np.ndarray, " W"]) -> Int[np.ndarray, " W"]:
    """Returns the number of edges between each word and the root."""
    return tree_distances(heads)[int(np.flatnonzero(heads == -1)[0])]


def tree_edges(heads: Int[np.ndarray, " W"]) -> Bool[np.ndarray, "W W"]:
    """Returns whether two words are connected, in either direction."""
    edges = np.zeros((len(heads), len(heads)), bool)
    dependents = np.flatnonzero(heads >= 0)
    edges[dependents, heads[dependents]] = edges[heads[dependents], dependents] = True
    return edges


def spanning_trees(costs: Float[np.ndarray, "matrices W W"]) -> Bool[np.ndarray, "matrices W W"]:
    """Finds the edges, in either direction, of the cheapest tree over all words by each matrix.

    The cost of an edge is the mean of both directions. All trees are grown in one call of the
    library, as parts of one graph.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    many, words, _ = costs.shape
    edges = np.zeros(costs.shape, bool)
    if words < 2:
        return edges
    first, second = np.triu_indices(words, 1)
    weights = costs[:, first, second].astype(np.float64) + costs[:, second, first]
    weights -= weights.min() - 1  # above 0 throughout: for the library 0 is no edge
    offsets = words * np.arange(many)[:, None]
    places = (offsets + first).ravel(), (offsets + second).ravel()
    graph = coo_array((weights.ravel(), places), shape=(many * words,) * 2)
    tree = minimum_spanning_tree(graph.tocsr()).tocoo()
    matrix, row, column = tree.row // words, tree.row % words, tree.col % words
    edges[matrix, row, column] = edges[matrix, column, row] = True
    return edges


def attached_edges(
    costs: Float[np.ndarray, "matrices W W"],
    heads: Int[np.ndarray, " W"],
    counted: Bool[np.ndarray, " W"],
) -> tuple[Int[np.ndarray, " matrices"], int]:
    """Counts the tree's edges that the cheapest spanning tree has, and all of them.

    Their ratio over sentences is the undirected unlabelled attachment score (UUAS).

    Args:
        costs: those of connecting two words.
        heads: the number of each word's head, -1 for the root.
        counted: words that count, without punctuation for instance; neither tree has edges to
            others.

    Source: Hewitt & Manning 2019, section 3.1. Differs: an edge that goes to punctuation in the
    treebank is left out, not replaced by one between the words it separates; with Universal
    Dependencies punctuation has no dependents, so both are the same.
    """
    gold = tree_edges(heads)[np.ix_(counted, counted)]
    trees = spanning_trees(costs[:, counted][:, :, counted])
    return (trees & gold).sum(axis=(1, 2)) // 2, int(gold.sum()) // 2


def chain_edges(heads: Int[np.ndarray, " W"], counted: Bool[np.ndarray, " W"]) -> int:
    """Counts the tree's edges in the chain of every word to the next one that counts."""
    gold = tree_edges(heads)[np.ix_(counted, counted)]
    return int(np.diagonal(gold, 1).sum())


def rank_correlation(
    predicted: Float[np.ndarray, "... W"], wanted: Float[np.ndarray, "... W"]
) -> Float[np.ndarray, "..."]:
    """Computes Spearman's correlation along the last axis; 0 where either does not vary."""
    from scipy.stats import rankdata

    centred = []
    for values in np.broadcast_arrays(predicted, wanted):
        ranks = rankdata(values, axis=-1)
        centred.append(ranks - ranks.mean(axis=-1, keepdims=True))
    product = (centred[0] * centred[1]).sum(axis=-1)
    size = np.sqrt((centred[0] ** 2).sum(axis=-1) * (centred[1] ** 2).sum(axis=-1))
    return np.divide(product, size, out=np.zeros_like(product), where=size > 0)


class LengthScores(NamedTuple):
    """Figures of sentences that are averaged over sentences of the same length.

    Attributes:
        sums: those of some figures.
        counts: the number of summands.
        lengths: the words of each sentence.
    """

    sums: Float[np.ndarray, "sentences figures"]
    counts: Float[np.ndarray, " sentences"]
    lengths: Int[np.ndarray, " sentences"]


def bootstrap_by_length(scores: LengthScores, seed: int = 0) -> Interval:
    """Averages over lengths of 5 to 50 words the mean within each, with its interval.

    Sentences are resampled from all lengths; a length that a resample lacks is left out of it. If
    they were resampled within each length, the only sentence of a rare length would never vary, and
    two not enough: of 95 % intervals for 350 sentences as long as a treebank's, 73 % contained the
    true value, as against 88 % of these.

    Source: Hewitt & Manning 2019, section 3.1, footnote on the lengths; Efron & Tibshirani 1993,
    chapter 13.
    """
    texts, figures = scores.sums.shape
    draws = np.concatenate([*map(count_draws, draw_samples(texts, seed=seed))])
    value, resampled = np.zeros(figures), np.zeros((RESAMPLES, figures))
    lengths, drawn_lengths = 0, np.zeros((RESAMPLES, 1))
    for length in LENGTHS:
        own = scores.lengths == length
        if not own.any():
            continue
        sums, counts = scores.sums[own], scores.counts[own]
        drawn = draws[:, own] @ counts
        value += sums.sum(axis=0) / counts.sum()
        resampled += draws[:, own] @ sums / np.where(drawn > 0, drawn, 1)[:, None]
        lengths += 1
        drawn_lengths += drawn[:, None] > 0
    if not lengths:
        return Interval(*np.full((3, figures), np.nan))
    # A resample may have none of these lengths.
    means = resampled / np.where(drawn_lengths > 0, drawn_lengths, np.nan)
    return Interval(value / lengths, *find_ends(means))
