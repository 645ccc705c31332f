"""Structural probes: whether trees are in the vectors as distances, and depths as lengths.

A probe is a matrix B. The squared distance of two words under it, `|B h_i - B h_j|^2`, should be
the number of edges between them, and the squared length `|B h_i|^2` that of edges to the root.

Source: Hewitt & Manning 2019.
"""

import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bertjax.analysis.probes.training import Fitted, fit
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.trees import (
    LengthScores,
    attached_edges,
    bootstrap_by_length,
    chain_edges,
    rank_correlation,
    tree_depths,
    tree_distances,
)
from bertjax.analysis.probes.word_vectors import WordVectors
from bertjax.program.errors import UserError
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio
from bertjax.text.splits import Split

# Rows of B; more gains nothing: Hewitt & Manning 2019, section 4.2 and figure 5.
RANK = 64
_SENTENCES_A_BATCH = 20
_WIDTH_STEP = 16
# B starts uniform in [-0.05, 0.05], as in the authors' code.
_START = 0.05


class TreeBatch(NamedTuple):
    """Sentences side by side, padded to the same number of words.

    Attributes:
        words: places of the words among all vectors; 0 after a sentence's end.
        lengths: words of each sentence; 0 for an empty row.
        distances: edges between every two words.
        depths: edges between each word and the root.
    """

    words: Int[np.ndarray, "B W"]
    lengths: Int[np.ndarray, " B"]
    distances: Float[np.ndarray, "B W W"]
    depths: Float[np.ndarray, "B W"]


class TreeScores(NamedTuple):
    """What probes get right in every sentence.

    Attributes:
        hits: how many edges the spanning tree of the distances has, or roots have the smallest
            depth.
        counts: how many there are: edges, or one root.
        correlations: those of ranks, by length.
    """

    hits: Float[np.ndarray, "sentences probes"]
    counts: Float[np.ndarray, " sentences"]
    correlations: LengthScores


class StructuralFigures(NamedTuple):
    """Scores on the test sentences for the embeddings' output and every layer's, `[L+1]` each.

    Attributes:
        rank: that of the probes.
        uuas: share of the trees' edges that the spanning tree of the distances has, without words
            that are punctuation.
        distance_correlation: Spearman's, of distances from a word (DSpr); the word itself, which
            always is at distance 0, is included, so that chance is above 0.
        root_accuracy: share of sentences whose root has the smallest depth, without punctuation.
        depth_correlation: Spearman's, of depths (NSpr).
        chain: UUAS of joining every word to the next: the baseline.
        distance_layer: where the loss of the distances is lowest on the validation sentences; 0 is
            the embeddings' output.
        depth_layer: the same for the depths.
        sentences: how many in train, validation and test.
        seconds: training time, of the model and its control.
    """

    rank: int
    uuas: Figures
    distance_correlation: Figures
    root_accuracy: Figures
    depth_correlation: Figures
    chain: Interval
    distance_layer: int
    depth_layer: int
    sentences: tuple[int, int, int]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns lists over the layers."""
        figures = {
            name: value.to_json() if isinstance(value, Figures) else value
            for name, value in self._asdict().items()
        }
        chain = {name: float(part) for name, part in self.chain._asdict().items()}
        return figures | {"chain": chain, "sentences": list(self.sentences)}


def predict_distances(
    projection: Float[Array, "probes D R"],
    vectors: Float[Array, "probes words D"],
    words: Int[Array, "B W"],
) -> Float[Array, "probes B W W"]:
    """Returns `|B h_i - B h_j|^2` of every two words.

    Args:
        projection: B, of rank R, for each probe.
        vectors: of all words, a layer for each probe.
        words: the numbers of the words of each sentence.
    """
    projected = _project(projection, vectors, words)
    lengths = (projected**2).sum(axis=-1)
    products = jnp.einsum("pbwr,pbvr->pbwv", projected, projected, precision="highest")
    return lengths[..., :, None] + lengths[..., None, :] - 2 * products


def predict_depths(
    projection: Float[Array, "probes D R"],
    vectors: Float[Array, "probes words D"],
    words: Int[Array, "B W"],
) -> Float[Array, "probes B W"]:
    """Returns `|B h_i|^2` of every word.

    Args:
        projection: B, of rank R, for each probe.
        vectors: of all words, a layer for each probe.
        words: the numbers of the words of each sentence.
    """
    return (_project(projection, vectors, words) ** 2).sum(axis=-1)


def distance_loss(
    projection: Float[Array, "probes D R"], vectors: Float[Array, "probes words D"], batch: Any
) -> tuple[Float[Array, " probes"], Int[Array, ""]]:
    """Sums over sentences the mean error of the distances of all W^2 pairs.

    Args:
        projection: B, of rank R, for each probe.
        vectors: of all words, a layer for each probe.
        batch: sentences: their `words`, `lengths` and `distances` in the tree.

    Source: Hewitt & Manning 2019, equation 2.
    """
    real = _real(batch)
    errors = jnp.abs(predict_distances(projection, vectors, batch.words) - batch.distances)
    errors = jnp.where(real[:, :, None] & real[:, None, :], errors, 0).sum(axis=(-1, -2))
    means = errors / jnp.maximum(batch.lengths, 1) ** 2
    return means.sum(axis=-1), (batch.lengths > 0).sum()


def depth_loss(
    projection: Float[Array, "probes D R"], vectors: Float[Array, "probes words D"], batch: Any
) -> tuple[Float[Array, " probes"], Int[Array, ""]]:
    """Sums over sentences the mean error of the depths of the words.

    Args:
        projection: B, of rank R, for each probe.
        vectors: of all words, a layer for each probe.
        batch: sentences: their `words`, `lengths` and `depths` in the tree.
    """
    errors = jnp.abs(predict_depths(projection, vectors, batch.words) - batch.depths)
    means = jnp.where(_real(batch), errors, 0).sum(axis=-1) / jnp.maximum(batch.lengths, 1)
    return means.sum(axis=-1), (batch.lengths > 0).sum()


def make_tree_batches(
    vectors: WordVectors, sentences: Sequence[Sentence], numbers: Int[np.ndarray, " some"]
) -> list[TreeBatch]:
    """Makes batches of sentences of similar length, the shortest first.

    Args:
        vectors: those that the places refer to.
        sentences: all sentences.
        numbers: those of the sentences to use, which are sorted by length.
    """
    batches = []
    ordered = by_length(sentences, numbers)
    for _, group in itertools.groupby(ordered, lambda number: _width(sentences[number])):
        own = list(group)
        for first in range(0, len(own), _SENTENCES_A_BATCH):
            batches.append(_make_batch(vectors, sentences, own[first : first + _SENTENCES_A_BATCH]))
    return batches


def by_length(
    sentences: Sequence[Sentence], numbers: Int[np.ndarray, " some"]
) -> Int[np.ndarray, " some"]:
    """Sorts sentence numbers by length, in a stable order.

    Args:
        sentences: all of them.
        numbers: of those to sort.
    """
    lengths = [len(sentences[number].words) for number in numbers]
    return numbers[np.argsort(lengths, kind="stable")]


def train_structural_probe(
    kind: str,
    vectors: WordVectors,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    *,
    rank: int = RANK,
    seed: int = 0,
) -> Fitted:
    """Trains one probe on the vectors of each layer, all side by side.

    Args:
        kind: distance or depth.
        vectors: those of all sentences.
        sentences: all sentences.
        splits: their numbers; train and validation are used.
        rank: R, rows of B, at most D.
        seed: that of the start and of the order.

    Raises:
        UserError: the rank is impossible, or no sentence of two words is there to train on or to
            validate with.
    """
    layers, _, size = vectors.vectors.shape
    if not 1 <= rank <= size:
        raise UserError(f"rank={rank} of the structural probe must be between 1 and D={size}")
    batches = [
        make_tree_batches(vectors, sentences, long_enough(split, sentences, splits))
        for split in ("train", "validation")
    ]
    start = np.random.default_rng(seed).uniform(-_START, _START, (layers, size, rank))
    loss = {"distance": distance_loss, "depth": depth_loss}[kind]
    return fit(
        loss, jnp.asarray(start, jnp.float32), jnp.asarray(vectors.vectors), *batches, seed=seed
    )


def score_distances(
    projection: Float[np.ndarray, "probes D R"],
    vectors: WordVectors,
    sentences: Sequence[Sentence],
    numbers: Int[np.ndarray, " some"],
) -> TreeScores:
    """Computes UUAS and rank correlations of the sentences of these numbers, sorted by length.

    Args:
        projection: B, of rank R, for each probe.
        vectors: of all words.
        sentences: all of them.
        numbers: of those to score.

    Source: Hewitt & Manning 2019, section 3.1.
    """
    ordered = by_length(sentences, numbers)
    predicted = _predict(predict_distances, projection, vectors, sentences, ordered)
    hits, counts, correlations = [], [], []
    for number, distances in zip(ordered, predicted, strict=True):
        sentence = sentences[number]
        attached, edges = attached_edges(distances, sentence.heads, ~sentence.punctuation)
        hits.append(attached)
        counts.append(edges)
        gold = tree_distances(sentence.heads)
        correlations.append(rank_correlation(distances, gold).sum(axis=-1))
    lengths = np.array([len(sentences[number].words) for number in ordered])
    return TreeScores(
        np.array(hits, float),
        np.array(counts, float),
        LengthScores(np.array(correlations), lengths.astype(float), lengths),
    )


def score_depths(
    projection: Float[np.ndarray, "probes D R"],
    vectors: WordVectors,
    sentences: Sequence[Sentence],
    numbers: Int[np.ndarray, " some"],
) -> TreeScores:
    """Computes roots found and rank correlations, as `score_distances` does.

    Sentences whose root is punctuation are not tested for it.

    Args:
        projection: B, of rank R, for each probe.
        vectors: of all words.
        sentences: all of them.
        numbers: of those to score.
    """
    ordered = by_length(sentences, numbers)
    predicted = _predict(predict_depths, projection, vectors, sentences, ordered)
    hits, counts, correlations = [], [], []
    for number, depths in zip(ordered, predicted, strict=True):
        sentence = sentences[number]
        root, counted = sentence.heads == -1, ~sentence.punctuation
        is_root = np.where(counted, depths, np.inf).argmin(axis=-1) == root.argmax()
        hits.append(is_root & counted[root])
        counts.append(counted[root].sum())
        correlations.append(rank_correlation(depths, tree_depths(sentence.heads)))
    lengths = np.array([len(sentences[number].words) for number in ordered])
    return TreeScores(
        np.array(hits, float),
        np.array(counts, float),
        LengthScores(np.array(correlations), np.ones(len(lengths)), lengths),
    )


def long_enough(
    split: Split,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
) -> Int[np.ndarray, " some"]:
    """Returns the sentences of a split that have a distance: those of two words or more.

    Args:
        split: its name.
        sentences: all of them.
        splits: the numbers of the sentences of each split.

    Raises:
        UserError: there are none.
    """
    numbers = [number for number in splits[split] if len(sentences[number].words) > 1]
    if not numbers:
        raise UserError(
            f"the {split} part of the treebank has no sentence of two words; give a larger treebank"
        )
    return np.array(numbers, np.int64)


def study_structure(
    model: WordVectors,
    control: WordVectors,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    *,
    rank: int = RANK,
    seed: int = 0,
) -> StructuralFigures:
    """Trains and scores probes of a model's layers and of its control's.

    Args:
        model: vectors of the body under study.
        control: vectors of a randomized body.
        sentences: the sentences of these vectors.
        splits: the sentences' numbers, see `split_sentences`.
        rank: see `train_structural_probe`.
        seed: that of the start and of the order.

    Raises:
        UserError: see `train_structural_probe`, also of the test sentences.
    """
    test = by_length(sentences, long_enough("test", sentences, splits))  # the order of the scores
    scores: dict[str, list[TreeScores]] = {"distance": [], "depth": []}
    layers = {}
    score = {"distance": score_distances, "depth": score_depths}
    training = 0.0
    for vectors in (model, control):
        for kind, values in scores.items():
            begin = time.perf_counter()
            fitted = train_structural_probe(kind, vectors, sentences, splits, rank=rank, seed=seed)
            training += time.perf_counter() - begin
            layers.setdefault(kind, int(fitted.losses.argmin()))  # the model's comes first
            values.append(score[kind](fitted.params, vectors, sentences, test))
    shares = {
        kind: Figures(*(bootstrap_ratio(own.hits, own.counts[:, None]) for own in values))
        for kind, values in scores.items()
    }
    correlations = {
        kind: Figures(*(bootstrap_by_length(own.correlations) for own in values))
        for kind, values in scores.items()
    }
    chained = [
        chain_edges(sentences[number].heads, ~sentences[number].punctuation) for number in test
    ]
    return StructuralFigures(
        rank,
        shares["distance"],
        correlations["distance"],
        shares["depth"],
        correlations["depth"],
        bootstrap_ratio(np.array(chained, float), scores["distance"][0].counts),
        layers["distance"],
        layers["depth"],
        (len(splits["train"]), len(splits["validation"]), len(test)),
        training,
    )


def _project(
    projection: Float[Array, "probes D R"],
    vectors: Float[Array, "probes words D"],
    words: Int[Array, "B W"],
) -> Float[Array, "probes B W R"]:
    # Flat over the words, as everywhere: that is faster on a CPU.
    of_words = vectors[:, words.reshape(-1)]
    flat = jnp.einsum("pwd,pdr->pwr", of_words, projection, precision="highest")
    return flat.reshape(flat.shape[0], *words.shape, -1)


def _real(batch: Any) -> Bool[Array, "B W"]:
    return jnp.arange(batch.words.shape[1]) < batch.lengths[:, None]


def _width(sentence: Sentence) -> int:
    return -(-len(sentence.words) // _WIDTH_STEP) * _WIDTH_STEP


def _make_batch(
    vectors: WordVectors, sentences: Sequence[Sentence], numbers: Sequence[int]
) -> TreeBatch:
    rows, width = _SENTENCES_A_BATCH, _width(sentences[numbers[-1]])
    words, lengths = np.zeros((rows, width), np.int32), np.zeros(rows, np.int32)
    distances = np.zeros((rows, width, width), np.float32)
    depths = np.zeros((rows, width), np.float32)
    for row, number in enumerate(numbers):
        first, end = vectors.starts[number : number + 2]
        size = end - first
        words[row, :size], lengths[row] = np.arange(first, end), size
        gold = tree_distances(sentences[number].heads)
        distances[row, :size, :size] = gold
        depths[row, :size] = gold[sentences[number].heads == -1]
    return TreeBatch(words, lengths, distances, depths)


def _predict(
    predict: Any,
    projection: Float[np.ndarray, "probes D R"],
    vectors: WordVectors,
    sentences: Sequence[Sentence],
    ordered: Int[np.ndarray, " some"],
) -> list[Float[np.ndarray, "probes W ..."]]:
    """Returns what the probes predict for each sentence, cut to its words."""
    compiled, data = jax.jit(predict), jnp.asarray(vectors.vectors)
    predicted = []
    for batch in make_tree_batches(vectors, sentences, ordered):
        values = np.asarray(compiled(projection, data, batch.words), np.float64)
        for row, length in enumerate(batch.lengths[batch.lengths > 0]):
            predicted.append(values[:, row][(slice(None), *[slice(length)] * (values.ndim - 2))])
    return predicted
