import numpy as np
import pytest
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import spearmanr

from bertjax.analysis.probes.trees import (
    LengthScores,
    attached_edges,
    bootstrap_by_length,
    chain_edges,
    rank_correlation,
    spanning_trees,
    tree_depths,
    tree_distances,
    tree_edges,
)

#   2 -> 0, 2 -> 3, 3 -> 1, 3 -> 4
HEADS = np.array([2, 3, -1, 2, 3])


def test_distances_and_depths_count_edges():
    assert tree_distances(HEADS).tolist() == [
        [0, 3, 1, 2, 3],
        [3, 0, 2, 1, 2],
        [1, 2, 0, 1, 2],
        [2, 1, 1, 0, 1],
        [3, 2, 2, 1, 0],
    ]
    assert tree_depths(HEADS).tolist() == [1, 2, 0, 1, 2]
    assert tree_distances(np.array([-1])).tolist() == [[0]]


def test_spanning_trees_are_those_of_the_library_one_by_one():
    costs = np.random.default_rng(0).normal(size=(7, 6, 6))
    found = spanning_trees(costs)
    for own, edges in zip(costs, found, strict=True):
        both = own + own.T
        tree = minimum_spanning_tree(np.triu(both - both.min() + 1, 1)).toarray() > 0
        assert (edges == (tree | tree.T)).all()
    assert not spanning_trees(np.ones((2, 1, 1))).any()


def test_a_tree_of_equal_costs_still_spans():
    assert spanning_trees(np.zeros((2, 4, 4))).sum(axis=(1, 2)).tolist() == [6, 6]


def test_attachment_is_of_the_words_that_count():
    everyone, without_last = np.ones(5, bool), np.arange(5) < 4
    costs = np.stack([tree_distances(HEADS), -tree_distances(HEADS)]).astype(float)
    hits, edges = attached_edges(costs, HEADS, everyone)
    assert (hits[0], edges) == (4, 4)
    assert hits[1] < 4
    assert attached_edges(costs, HEADS, without_last)[1] == 3
    assert attached_edges(costs, HEADS, without_last)[0][0] == 3


def test_chain_joins_the_next_word_that_counts():
    assert chain_edges(HEADS, np.ones(5, bool)) == 2  # 2-3, 3-4
    # Without word 2 there are 1-3 and 3-4; without word 1 there are 0-2, 2-3 and 3-4.
    assert chain_edges(HEADS, np.arange(5) != 2) == 2
    assert chain_edges(HEADS, np.arange(5) != 1) == 3
    assert tree_edges(HEADS).sum() == 8


def test_rank_correlation_is_spearmans():
    random = np.random.default_rng(1)
    found, wanted = random.normal(size=(3, 9)), random.integers(0, 4, 9)
    expected = [spearmanr(row, wanted).statistic for row in found]
    np.testing.assert_allclose(rank_correlation(found, wanted), expected, rtol=1e-12)
    assert rank_correlation(np.ones(4), np.arange(4)) == 0


def test_every_length_from_5_to_50_has_equal_weight():
    lengths = np.array([4, 5, 5, 9, 51])
    sums = np.array([[100.0], [5 * 0.2], [5 * 0.4], [9 * 0.9], [100.0]])
    found = bootstrap_by_length(LengthScores(sums, lengths.astype(float), lengths))
    np.testing.assert_allclose(found.value, [(0.3 + 0.9) / 2])
    # A draw may have sentences of one length only.
    np.testing.assert_allclose([found.low, found.high], [[0.2], [0.9]])


def test_intervals_by_length_hold_the_truth_where_most_lengths_are_rare():
    random = np.random.default_rng(2)
    held, trials = 0, 60
    for _ in range(trials):
        # Lengths with two sentences or one: drawn within their length, they would hardly vary.
        lengths = np.repeat(np.arange(5, 45), [2, 1] * 20)
        scores = random.normal(0.5, 0.2, len(lengths))[:, None]
        found = bootstrap_by_length(LengthScores(scores, np.ones(len(lengths)), lengths))
        held += bool(found.low[0] <= 0.5 <= found.high[0])
    assert held > 0.8 * trials


def test_without_a_sentence_of_these_lengths_there_is_no_figure():
    found = bootstrap_by_length(LengthScores(np.ones((1, 2)), np.ones(1), np.array([3])))
    assert np.isnan(found.value).all()
    assert found.value.shape == (2,)


@pytest.mark.parametrize("words", [2, 7])
def test_edges_of_a_tree_are_one_less_than_its_words(words):
    heads = np.arange(words) - 1
    assert tree_edges(heads).sum() == 2 * (words - 1)
    assert (
        tree_distances(heads) == abs(np.subtract.outer(np.arange(words), np.arange(words)))
    ).all()
