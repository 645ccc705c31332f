"""Linear probes of every layer for parts of speech and dependency relations, with control tasks.

A control task gives every word type a label of its own, drawn at random with the frequencies of the
real labels. It can only be memorized: a probe that does as well on it as on the real task proves
nothing about the vectors. Selectivity is the difference of the two accuracies.

Source: Hewitt & Liang 2019.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from bertjax.analysis.probes.training import Fitted, fit
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.word_vectors import WordVectors, standardize
from bertjax.program.errors import UserError
from bertjax.statistics.intervals import Figures, Interval, bootstrap_ratio
from bertjax.text.splits import Split

_ITEMS_A_BATCH = 256


LabelName = Literal["upos", "xpos", "relation"]
NAMES: dict[LabelName, str] = {
    "upos": "part of speech", "xpos": "tag of the language", "relation": "relation"
}  # fmt: skip


class LabelTask(NamedTuple):
    """Words, or pairs of words, each with a label.

    Attributes:
        name: what the labels are.
        words: the places of a word, or of a dependent and its head, among all vectors.
        sentences: the number of the sentence that each item is from.
        types: the type of each item's first word.
        labels: class numbers; -1 for a label that no training sentence has.
        classes: the labels of the training sentences, in alphabetical order.
    """

    name: str
    words: Int[np.ndarray, "items places"]
    sentences: Int[np.ndarray, " items"]
    types: Int[np.ndarray, " items"]
    labels: Int[np.ndarray, " items"]
    classes: tuple[str, ...]

    def of_split(self, numbers: Int[np.ndarray, " some"]) -> Int[np.ndarray, " own"]:
        """Returns the items from the sentences of these numbers."""
        return np.flatnonzero(np.isin(self.sentences, numbers))


class LabelBatch(NamedTuple):
    """Items; `weights` are 0 in the padding, and may have an axis for probes."""

    words: Int[np.ndarray, "items places"]
    labels: Int[np.ndarray, " items"]
    weights: Float[np.ndarray, "items ..."]


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


def make_task(
    what: LabelName,
    vectors: WordVectors,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
) -> LabelTask:
    """Makes the task of naming each word's tag, or its relation to its head.

    Relations are those of pairs (dependent, head), with subtypes, without roots. Words without a
    tag (`_`) are skipped.

    Raises:
        UserError: there are fewer than two classes, or a split has no items.
    """
    classes = check_labels(what, sentences, splits)
    places, labels, numbers = [], [], []
    for number, sentence in enumerate(sentences):
        first = vectors.starts[number]
        for word, label in _asked_of(what, sentence):
            head = first + sentence.heads[word]
            places.append((first + word, head) if what == "relation" else (first + word,))
            labels.append(label)
            numbers.append(number)
    sources = np.array(numbers, np.int64)
    ids = {label: number for number, label in enumerate(classes)}
    words = np.array(places, np.int64)
    return LabelTask(
        what,
        words,
        sources,
        vectors.types[words[:, 0]],
        np.array([ids.get(label, -1) for label in labels]),
        classes,
    )


def check_labels(
    what: LabelName,
    sentences: Sequence[Sentence],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
) -> tuple[str, ...]:
    """Checks that there is something to learn and to test, and returns the training classes.

    It looks at the labels alone, so that problems are reported before vectors are computed.

    Raises:
        UserError: there are fewer than two classes, a split has no items, or no label of the
            validation part occurs in the training part.
    """
    present = {
        split: {label for number in own for _, label in _asked_of(what, sentences[number])}
        for split, own in splits.items()
    }
    for split, labels in present.items():
        if not labels:
            raise UserError(
                f"the {split} part of the treebank has no word with {NAMES[what]}; give a larger"
                " treebank"
            )
    classes = present["train"]
    if len(classes) < 2:
        raise UserError(
            f"all words of the treebank's training part have the same {NAMES[what]},"
            f" {min(classes)!r}; a probe needs at least two"
        )
    if not classes & present["validation"]:
        raise UserError(
            f"no {NAMES[what]} of the validation part of the treebank occurs in its training part;"
            " give a larger treebank"
        )
    return tuple(sorted(classes))


def _asked_of(what: LabelName, sentence: Sentence) -> list[tuple[int, str]]:
    """Yields the words that have a label, with it."""
    named = sentence.relations if what == "relation" else getattr(sentence, what)
    return [
        (word, label)
        for word, (label, head) in enumerate(zip(named, sentence.heads, strict=True))
        if label != "_" and (what != "relation" or head >= 0)
    ]


def make_control_task(task: LabelTask, train: Int[np.ndarray, " some"], seed: int = 0) -> LabelTask:
    """Makes a task of the same items, with labels drawn at random for each word type.

    For pairs it is the dependent's type. Labels are as frequent among the types as the real ones
    are among the words of the training sentences.

    Source: Hewitt & Liang 2019, section 2.1.
    """
    known = task.labels[task.of_split(train)]
    frequencies = np.bincount(known, minlength=len(task.classes)) / len(known)
    random = np.random.default_rng(seed)
    drawn = random.choice(len(task.classes), size=task.types.max() + 1, p=frequencies)
    return task._replace(labels=drawn[task.types])


def make_label_batches(
    task: LabelTask,
    items: Int[np.ndarray, " some"],
    weights: Float[np.ndarray, "items ..."] | None = None,
    seed: int = 0,
) -> list[LabelBatch]:
    """Makes batches of the items in random order; the last is padded with weight 0.

    Args:
        task: the items' task.
        items: their numbers.
        weights: those of all items of the task; 1 when omitted.
        seed: that of the order.
    """
    if weights is None:
        weights = np.ones(len(task.labels), np.float32)
    shuffled = np.random.default_rng(seed).permutation(items)
    batches = []
    for first in range(0, len(shuffled), _ITEMS_A_BATCH):
        own = shuffled[first : first + _ITEMS_A_BATCH]
        padding = _ITEMS_A_BATCH - len(own)
        # A label that no training sentence has can only be missed; its loss would be infinite.
        known = task.labels[own] >= 0
        own_weights = weights[own] * known.reshape(-1, *[1] * (weights.ndim - 1))
        parts = (task.words[own], task.labels[own], own_weights.astype(np.float32))
        batches.append(LabelBatch(*(_fill(part, padding) for part in parts)))
    return batches


def classify(
    params: Mapping[str, Float[Array, "probes ..."]],
    vectors: Float[Array, "probes words D"],
    words: Int[Array, "items places"],
) -> Float[Array, "probes items C"]:
    """Computes a linear classifier's logits over the concatenated vectors of an item's words."""
    chosen = vectors[:, words].reshape(vectors.shape[0], words.shape[0], -1)
    logits = jnp.einsum("pix,pxc->pic", chosen, params["kernel"], precision="highest")
    return logits + params["bias"][:, None]


def label_loss(
    params: Mapping[str, Float[Array, "probes ..."]],
    vectors: Float[Array, "probes words D"],
    batch: Any,
) -> tuple[Float[Array, " probes"], Float[Array, ""]]:
    """Computes the cross-entropy of the labels, in nats."""
    logits = classify(params, vectors, batch.words)
    labels = jnp.broadcast_to(batch.labels, logits.shape[:-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * batch.weights).sum(axis=-1), batch.weights.sum()


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
    batches = [
        make_label_batches(task, task.of_split(splits[split]), seed=seed)
        for split in ("train", "validation")
    ]
    return fit(label_loss, start, standardized, *batches, seed=seed)


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
        standardized = standardize(vectors.vectors, vectors_of(vectors, splits["train"]))
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


def find_labels(
    logits: Callable[[Any, Any, Any], Float[Array, "probes items C"]],
    params: Any,
    vectors: Float[Array, "... words D"],
    words: Int[np.ndarray, "items places"],
) -> Int[np.ndarray, "probes items"]:
    """Returns every probe's most probable label for every item; `logits` is a module's function."""
    chosen = [
        np.asarray(_choose(logits, params, vectors, _fill(part, _ITEMS_A_BATCH - len(part))))
        for part in np.split(words, range(_ITEMS_A_BATCH, len(words), _ITEMS_A_BATCH))
    ]
    return np.concatenate(chosen, axis=1)[:, : len(words)]


def sum_by_sentence(
    task: LabelTask, items: Int[np.ndarray, " some"], values: Float[np.ndarray, "probes some"]
) -> Float[np.ndarray, "sentences probes"]:
    """Sums values over the items of each sentence."""
    _, numbers = np.unique(task.sentences[items], return_inverse=True)
    sums = np.zeros((numbers.max() + 1, len(values)))
    np.add.at(sums, numbers, np.asarray(values, float).T)
    return sums


def vectors_of(
    vectors: WordVectors, numbers: Int[np.ndarray, " some"]
) -> Int[np.ndarray, " words"]:
    """Returns the places of the words of these sentences."""
    return np.concatenate(
        [np.arange(vectors.starts[number], vectors.starts[number + 1]) for number in numbers]
    )


@functools.partial(jax.jit, static_argnums=0)
def _choose(
    logits: Any,
    params: Any,
    vectors: Float[Array, "... words D"],
    words: Int[Array, "items places"],
) -> Int[Array, "probes items"]:
    return logits(params, vectors, words).argmax(axis=-1)


def _fill(values: Any, padding: int) -> Any:
    """Pads the values with zeros along the first axis."""
    return np.pad(values, [(0, padding), *[(0, 0)] * (values.ndim - 1)])


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
