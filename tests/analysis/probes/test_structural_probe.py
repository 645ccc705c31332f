import json

import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.probes.structural_probe import (
    TreeBatch,
    depth_loss,
    distance_loss,
    make_tree_batches,
    predict_distances,
    score_depths,
    score_distances,
    study_structure,
    train_structural_probe,
)
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.trees import attached_edges, rank_correlation, tree_distances
from bertjax.analysis.probes.word_vectors import WordVectors
from bertjax.program.errors import UserError

MOST_WORDS = 11
SIZE = 13


def make_sentence(random, size):
    order = random.permutation(size)
    heads = np.full(size, -1)
    for place in range(1, size):
        heads[order[place]] = order[random.integers(place)]
    tags = tuple("X" * size)
    return Sentence("", tags, heads, tags, tags, tags)


def paths(sentence):
    """Of each word which edges lead to it from the root; squared distances are those of the tree.

    The edge of a word to its head is the dimension of the word's place.
    """
    vectors = np.zeros((len(sentence.heads), SIZE))
    for word in range(len(sentence.heads)):
        place = word
        while sentence.heads[place] >= 0:
            vectors[word, place] = 1
            place = sentence.heads[place]
    return vectors


@pytest.fixture(scope="module")
def sentences():
    random = np.random.default_rng(0)
    return [make_sentence(random, random.integers(2, MOST_WORDS + 1)) for _ in range(900)]


@pytest.fixture(scope="module")
def splits():
    return {
        "train": np.arange(700),
        "validation": np.arange(700, 760),
        "test": np.arange(760, 900),
    }


@pytest.fixture(scope="module")
def planted(sentences):
    """Noise, then the paths, turned by chance and stretched."""
    random = np.random.default_rng(1)
    exact = np.concatenate([paths(sentence) for sentence in sentences])
    turn = np.linalg.qr(random.normal(size=(SIZE, SIZE)))[0] * random.uniform(1, 3, (SIZE, 1))
    vectors = np.stack([random.normal(size=exact.shape), exact @ turn]).astype(np.float32)
    starts = np.cumsum([0, *(len(sentence.words) for sentence in sentences)])
    return WordVectors(vectors, starts, np.zeros(len(exact), int))


def test_vectors_of_the_fixture_are_trees(sentences):
    for sentence in sentences[:20]:
        own = paths(sentence)
        squared = ((own[:, None] - own[None]) ** 2).sum(axis=-1)
        assert (squared == tree_distances(sentence.heads)).all()


@pytest.fixture(scope="module")
def figures(planted, sentences, splits):
    noise = planted._replace(vectors=planted.vectors[::-1])
    return study_structure(planted, noise, sentences, splits, rank=SIZE)


def test_probe_finds_planted_trees(figures):
    assert figures.uuas.model.value[1] > 0.99
    assert figures.distance_correlation.model.value[1] > 0.95
    assert figures.root_accuracy.model.value[1] > 0.99
    assert figures.depth_correlation.model.value[1] > 0.9
    assert (figures.distance_layer, figures.depth_layer) == (1, 1)
    assert figures.uuas.distinguishable[1]


def test_probe_of_noise_gives_what_chance_gives(figures, sentences, splits):
    random = np.random.default_rng(5)
    chance = np.zeros(2)
    for number in splits["test"]:
        size = len(sentences[number].words)
        hits, edges = attached_edges(
            random.uniform(size=(9, size, size)), sentences[number].heads, np.ones(size, bool)
        )
        chance += hits.mean(), edges
    assert abs(figures.uuas.model.value[0] - chance[0] / chance[1]) < 0.05
    assert abs(figures.uuas.control.value[1] - chance[0] / chance[1]) < 0.05
    # A word is nearest to itself whatever the vectors, so that chance is above 0.
    nothing = []
    for number in splits["test"]:
        size = len(sentences[number].words)
        if size >= 5:
            gold = tree_distances(sentences[number].heads)
            distances = random.uniform(1, 2, (99, size, size)) * (1 - np.eye(size))
            nothing.append((size, rank_correlation(distances, gold).mean()))
    by_size = [np.mean([c for size, c in nothing if size == s]) for s in {s for s, _ in nothing}]
    assert abs(figures.distance_correlation.model.value[0] - np.mean(by_size)) < 0.06
    assert abs(figures.depth_correlation.model.value[0]) < 0.2
    assert figures.root_accuracy.model.value[0] < 0.4


def test_figures_tell_of_their_company(figures, sentences, splits):
    words = [sentences[number] for number in splits["test"]]
    joined = sum(
        (abs(np.arange(len(own.heads)) - own.heads) == 1)[own.heads >= 0].sum() for own in words
    )
    edges = sum(len(own.heads) - 1 for own in words)
    np.testing.assert_allclose(figures.chain.value, joined / edges)
    assert figures.sentences == (700, 60, 140)
    assert figures.uuas.model.low[0] < figures.uuas.model.value[0] < figures.uuas.model.high[0]
    found = json.loads(json.dumps(figures.to_json()))
    assert len(found["uuas"]["control"]) == 2
    assert found["rank"] == SIZE


def test_scores_of_known_projections(planted, sentences, splits):
    exact = WordVectors(
        np.concatenate([paths(sentence) for sentence in sentences])[None].astype(np.float32),
        planted.starts,
        planted.types,
    )
    identity = np.eye(SIZE, dtype=np.float32)[None]
    distances = score_distances(identity, exact, sentences, splits["test"])
    assert (distances.hits[:, 0] == distances.counts).all()
    correlations = distances.correlations
    np.testing.assert_allclose(correlations.sums[:, 0], correlations.counts)
    depths = score_depths(identity, exact, sentences, splits["test"])
    assert (depths.hits == 1).all()
    np.testing.assert_allclose(depths.correlations.sums, 1)
    assert (depths.correlations.lengths == np.sort(depths.correlations.lengths)).all()


def test_punctuation_is_no_root_and_has_no_edges(planted, sentences):
    sentence = sentences[0]
    root = int((sentence.heads == -1).argmax())
    tags = tuple("PUNCT" if word == root else "X" for word in range(len(sentence.words)))
    one = np.zeros(1, int)
    identity = np.eye(SIZE, dtype=np.float32)[None].repeat(2, 0)
    found = score_depths(identity, planted, [sentence._replace(upos=tags)], one)
    assert found.counts.tolist() == [0]
    assert (found.hits == 0).all()
    found = score_distances(identity, planted, [sentence._replace(upos=tags)], one)
    assert found.counts[0] == (sentence.heads[sentence.heads >= 0] != root).sum()


def test_root_is_sought_among_words_that_are_no_punctuation():
    tags = ("PUNCT", "X", "X")
    sentence = Sentence("", tags, np.array([1, -1, 1]), tags, tags, tags)
    lengths = np.array([0, 1, 2], np.float32)
    vectors = WordVectors(lengths[None, :, None], np.array([0, 3]), np.zeros(3, int))
    found = score_depths(np.ones((1, 1, 1), np.float32), vectors, [sentence], np.zeros(1, int))
    assert (found.hits, found.counts) == (1, 1)


def test_losses_are_means_over_pairs_and_words_of_each_sentence():
    random = np.random.default_rng(3)
    vectors = random.normal(size=(2, 6, 3)).astype(np.float32)
    projection = random.normal(size=(2, 3, 2)).astype(np.float32)
    gold, deep = np.zeros((3, 4, 4), np.float32), np.zeros((3, 4), np.float32)
    gold[0, :2, :2], gold[1] = [[0, 1], [1, 0]], abs(np.subtract.outer(np.arange(4), np.arange(4)))
    deep[0, :2], deep[1] = [0, 1], [0, 1, 2, 3]
    # The third row is none, and behind the first sentence there is padding.
    batch = TreeBatch(
        np.array([[4, 5, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]]), np.array([2, 4, 0]), gold, deep
    )
    near, low = np.zeros((2, 2))
    for probe in range(2):
        projected = vectors[probe] @ projection[probe]
        for row, words in enumerate(([4, 5], [0, 1, 2, 3])):
            own, size = projected[words], len(words)
            squared = ((own[:, None] - own[None]) ** 2).sum(axis=-1)
            near[probe] += abs(squared - gold[row, :size, :size]).mean()
            low[probe] += abs((own**2).sum(axis=-1) - deep[row, :size]).mean()
    for loss, expected in ((distance_loss, near), (depth_loss, low)):
        sums, count = loss(jnp.asarray(projection), jnp.asarray(vectors), batch)
        np.testing.assert_allclose(sums, expected, rtol=1e-5)
        assert count == 2


def test_batches_hold_every_sentence_once(planted, sentences, splits):
    batches = make_tree_batches(planted, sentences, splits["validation"])
    firsts = [batch.words[row, 0] for batch in batches for row in np.flatnonzero(batch.lengths)]
    assert sorted(firsts) == planted.starts[splits["validation"]].tolist()
    predicted = predict_distances(
        jnp.ones((2, SIZE, 1)), jnp.asarray(planted.vectors), batches[0].words
    )
    assert predicted.shape == (2, 20, 16, 16)


def test_what_cannot_be_trained_is_refused(planted, sentences, splits):
    with pytest.raises(UserError, match=f"rank=14 .* between 1 and D={SIZE}"):
        train_structural_probe("depth", planted, sentences, splits, rank=SIZE + 1)
    empty = {**splits, "validation": np.zeros(0, int)}
    with pytest.raises(UserError, match="validation part of the treebank has no sentence of two"):
        train_structural_probe("depth", planted, sentences, empty, rank=2)
    with pytest.raises(UserError, match="test part of the treebank has no sentence of two words"):
        study_structure(planted, planted, sentences, {**splits, "test": np.zeros(0, int)}, rank=2)
