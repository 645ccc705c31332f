"""The layers that a linear classifier draws on when it may mix them.

It sees the word's vector `scale * sum_l weights_l h_l` with weights that are a softmax over the
layers and are learned with the classifier. Their centre of gravity, `sum_l l weights_l`, says how
far up the information is.

Source: Peters et al. 2018 (ELMo), equation 1; Tenney et al. 2019 ("BERT rediscovers the classical
NLP pipeline"), sections 3.1 and 3.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.analysis.probes.label_tasks import (
    LabelName,
    LabelTask,
    find_labels,
    fit_labels,
    make_task,
    standardize_layers,
    sum_by_sentence,
    sum_label_losses,
)
from bertjax.analysis.probes.training import Fitted
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.word_vectors import WordVectors
from bertjax.statistics.bootstrap import find_ends
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio
from bertjax.text.splits import Split

RESAMPLES = 40
# The weights are a softmax of this many times their parameters, so that at the classifier's
# learning rate they move as fast as it does.
_STEEPNESS = 20.0


class MixingFigures(NamedTuple):
    """Weights of the embeddings' output and every layer's.

    Attributes:
        task: what the classifier learned.
        weights: `[L+1]`, sums to 1.
        centre: their centre of gravity, in layers; 0 is the embeddings' output.
        accuracy: its accuracy on the test sentences.
    """

    task: str
    weights: Figures
    centre: Figures
    accuracy: Figures

    def to_json(self) -> dict[str, Any]:
        """Returns lists over the layers."""
        return {
            name: value.to_json() if isinstance(value, Figures) else value
            for name, value in self._asdict().items()
        }


def mix_layers(
    params: Mapping[str, Float[Array, "probes ..."]],
    vectors: Float[Array, "L+1 words D"],
    words: Int[Array, "items places"],
) -> Float[Array, "probes items C"]:
    """Computes the logits of every classifier over its own mixture of the layers.

    Args:
        params: of every probe: `layers`, `scale`, `kernel` and `bias`.
        vectors: of all words in all layers.
        words: the numbers of the words of each item.
    """
    chosen = vectors[:, words].reshape(vectors.shape[0], words.shape[0], -1)
    weights = layer_weights(params) * params["scale"][:, None]
    mixed = jnp.einsum("pl,lix->pix", weights, chosen, precision="highest")
    logits = jnp.einsum("pix,pxc->pic", mixed, params["kernel"], precision="highest")
    return logits + params["bias"][:, None]


def layer_weights(
    params: Mapping[str, Float[Array, "probes ..."]],
) -> Float[Array, "probes L+1"]:
    """Returns the share of every layer in each mixture.

    Args:
        params: of every probe, of which `layers` counts.
    """
    return jax.nn.softmax(_STEEPNESS * params["layers"], axis=-1)


def mixing_loss(
    params: Mapping[str, Float[Array, "probes ..."]],
    vectors: Float[Array, "L+1 words D"],
    batch: Any,
) -> tuple[Float[Array, " probes"], Float[Array, " probes"]]:
    """Computes the cross-entropy of the labels, in nats, each item with the probe's weight.

    Args:
        params: of every probe.
        vectors: of all words in all layers.
        batch: items: their `words`, and labels.
    """
    return sum_label_losses(mix_layers(params, vectors, batch.words), batch)


def train_mixing(
    task: LabelTask,
    standardized: Float[Array, "L+1 words D"],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Fitted:
    """Trains a classifier on the sentences and one on each reweighting of them, side by side.

    Args:
        task: what they learn.
        standardized: see `standardize`; otherwise a layer of long vectors would need less weight.
        splits: the sentences' numbers; train and validation are used.
        resamples: how often the training sentences are reweighted (Bayesian bootstrap: no
            sentence is lost, as it would be when drawing with replacement).
        seed: that of the weights, the start and the order.

    Source: Rubin 1981, "The Bayesian Bootstrap".
    """
    layers, _, size = standardized.shape
    random = np.random.default_rng(seed)
    train = splits["train"]
    weights = np.ones((max(map(int, task.sentences)) + 1, 1 + resamples), np.float32)
    weights[train, 1:] = len(train) * random.dirichlet(np.ones(len(train)), resamples).T
    width, classes = task.words.shape[1] * size, len(task.classes)
    start = {
        "layers": np.zeros((1 + resamples, layers)),
        "scale": np.ones(1 + resamples),
        # Not 0, where the weights of the layers would have no gradient.
        "kernel": np.tile(random.normal(0, width**-0.5, (width, classes)), (1 + resamples, 1, 1)),
        "bias": np.zeros((1 + resamples, classes)),
    }
    start = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    own = weights[task.sentences]
    return fit_labels(mixing_loss, start, task, standardized, splits, own, seed)


def study_mixing(
    what: LabelName,
    model: WordVectors,
    control: WordVectors,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> MixingFigures:
    """Computes the mixture of a model's layers and of its control's.

    The intervals of the weights are over reweightings of the training sentences, each of which
    trained a classifier of its own; that of the accuracy is over the test sentences.

    Args:
        what: tags or relations, see `make_task`.
        model: vectors of the body under study.
        control: vectors of a randomized body.
        sentences: the sentences of these vectors.
        splits: the sentences' numbers, see `split_sentences`.
        resamples: see `train_mixing`.
        seed: that of the draws, the start and the order.

    Raises:
        UserError: see `make_task`.
    """
    task = make_task(what, model, sentences, splits)
    test = task.of_split(splits["test"])
    counts = sum_by_sentence(task, test, np.ones((1, len(test))))[:, 0]
    intervals: list[tuple[Interval, ...]] = []
    for vectors in (model, control):
        standardized = standardize_layers(vectors, splits)
        fitted = train_mixing(task, standardized, splits, resamples=resamples, seed=seed)
        weights = np.asarray(layer_weights(fitted.params), np.float64)
        first = {name: value[:1] for name, value in fitted.params.items()}
        right = find_labels(mix_layers, first, standardized, task.words[test]) == task.labels[test]
        accuracy = bootstrap_ratio(sum_by_sentence(task, test, right)[:, 0], counts)
        centres = weights @ np.arange(weights.shape[1])
        both = (Interval(values[0], *find_ends(values[1:])) for values in (weights, centres))
        intervals.append((*both, accuracy))
    return MixingFigures(what, *(Figures(*pair) for pair in zip(*intervals, strict=True)))
