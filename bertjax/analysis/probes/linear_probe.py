"""Linear probes of every layer for parts of speech and dependency relations, with control tasks.

A control task gives every word type a label of its own, drawn at random with the frequencies of the
real labels. It can only be memorized: a probe that does as well on it as on the real task proves
nothing about the vectors. Selectivity is the difference of the two accuracies.

Source: Hewitt & Liang 2019.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.analysis.probes.label_tasks import (
    LabelName,
    LabelTask,
    find_labels,
    fit_labels,
    make_control_task,
    make_task,
    standardize_layers,
    sum_by_sentence,
    sum_label_losses,
)
from bertjax.analysis.probes.training import Fitted
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.word_vectors import WordVectors
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio
from bertjax.text.splits import Split


class LinearFigures(NamedTuple):
    """Scores on the test sentences for the embeddings' output and every layer's, `[L+1]` each.

    Attributes:
        task: what the labels are.
        classes: how many there are.
        items: how many there are in the test sentences.
        accuracy: on the labels; one that no training sentence has counts as wrong.
        control_accuracy: on the labels of the control task. (The control of these `Figures` is, as
            everywhere, the randomized body.)
        selectivity: accuracy minus control accuracy.
        majority: accuracy of always answering the most frequent label.
        by_type: accuracy of answering each word type's most frequent label, and for a new type
            the most frequent of all.
        layer: where the loss is lowest on the validation sentences; 0 is the embeddings' output.
    """

    task: str
    classes: int
    items: int
    accuracy: Figures
    control_accuracy: Figures
    selectivity: Figures
    majority: Interval
    by_type: Interval
    layer: int

    def to_json(self) -> dict[str, Any]:
        """Returns lists over the layers."""
        return {
            name: value.to_json()
            if isinstance(value, Figures)
            else {end: float(part) for end, part in value._asdict().items()}
            if isinstance(value, Interval)
            else value
            for name, value in self._asdict().items()
        }


def classify(
    params: Mapping[str, Float[Array, "probes ..."]],
    vectors: Float[Array, "probes words D"],
    words: Int[Array, "items places"],
) -> Float[Array, "probes items C"]:
    """Computes a linear classifier's logits over the concatenated vectors of an item's words.

    Args:
        params: of every probe, `kernel` and `bias`.
        vectors: of all words, a layer for each probe.
        words: the numbers of the words of each item.
    """
    chosen = vectors[:, words].reshape(vectors.shape[0], words.shape[0], -1)
    logits = jnp.einsum("pix,pxc->pic", chosen, params["kernel"], precision="highest")
    return logits + params["bias"][:, None]


def label_loss(
    params: Mapping[str, Float[Array, "probes ..."]],
    vectors: Float[Array, "probes words D"],
    batch: Any,
) -> tuple[Float[Array, " probes"], Float[Array, ""]]:
    """Computes the cross-entropy of the labels, in nats.

    Args:
        params: of every probe.
        vectors: of all words, a layer for each probe.
        batch: items: their `words`, and labels.
    """
    return sum_label_losses(classify(params, vectors, batch.words), batch)


def train_linear_probes(
    task: LabelTask,
    standardized: Float[Array, "probes words D"],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    *,
    seed: int = 0,
) -> Fitted:
    """Trains a linear classifier on the vectors of each layer; they start at 0.

    Args:
        task: what they learn.
        standardized: see `standardize`.
        splits: the sentences' numbers; train and validation are used.
        seed: that of the order.
    """
    layers, _, size = standardized.shape
    start = {
        "kernel": jnp.zeros((layers, task.words.shape[1] * size, len(task.classes))),
        "bias": jnp.zeros((layers, len(task.classes))),
    }
    return fit_labels(label_loss, start, task, standardized, splits, seed=seed)


def study_linear_probes(
    what: LabelName,
    model: WordVectors,
    control: WordVectors,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    *,
    seed: int = 0,
) -> LinearFigures:
    """Computes accuracy and selectivity of a model's layers and of its control's.

    Args:
        what: tags or relations.
        model: vectors of the body under study.
        control: vectors of a randomized body.
        sentences: the sentences of these vectors.
        splits: the sentences' numbers, see `split_sentences`.
        seed: that of the control task and of the order.

    Raises:
        UserError: see `make_task`.
    """
    task = make_task(what, model, sentences, splits)
    invented = make_control_task(task, splits["train"], seed)
    test, trained = task.of_split(splits["test"]), task.of_split(splits["train"])
    counts = sum_by_sentence(task, test, np.ones((1, len(test))))
    accuracies, controls, selectivities, layer = [], [], [], None
    for vectors in (model, control):
        standardized = standardize_layers(vectors, splits)
        hits = []
        for own in (task, invented):
            fitted = train_linear_probes(own, standardized, splits, seed=seed)
            if layer is None:  # the model's own task comes first
                layer = int(fitted.losses.argmin())
            predicted = find_labels(classify, fitted.params, standardized, own.words[test])
            right = predicted == own.labels[test]
            hits.append(sum_by_sentence(task, test, right))
        accuracies.append(bootstrap_ratio(hits[0], counts))
        controls.append(bootstrap_ratio(hits[1], counts))
        selectivities.append(bootstrap_ratio(hits[0] - hits[1], counts))
    majority, by_type = (
        bootstrap_ratio(sum_by_sentence(task, test, right[None])[:, 0], counts[:, 0])
        for right in _guess_by_type(task, trained, test)
    )
    return LinearFigures(
        what,
        len(task.classes),
        len(test),
        Figures(*accuracies),
        Figures(*controls),
        Figures(*selectivities),
        majority,
        by_type,
        layer,
    )


def _guess_by_type(
    task: LabelTask, trained: Int[np.ndarray, " some"], test: Int[np.ndarray, " others"]
) -> tuple[Any, Any]:
    """Checks the most frequent label, and that of the word type, against the test items."""
    counts = np.zeros((task.types.max() + 1, len(task.classes)))
    np.add.at(counts, (task.types[trained], task.labels[trained]), 1)
    most_frequent = counts.sum(axis=0).argmax()
    known = counts.any(axis=1)
    guesses = np.where(known, counts.argmax(axis=1), most_frequent)
    labels = task.labels[test]
    return labels == most_frequent, guesses[task.types[test]] == labels
