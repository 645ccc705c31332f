"""Words, or pairs of words, with labels: the tasks of probes, their batches, fits and answers."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from bertjax.analysis.probes.training import Fitted, Loss, fit
from bertjax.analysis.probes.treebank import Sentence
from bertjax.analysis.probes.word_vectors import WordVectors, standardize
from bertjax.program.errors import UserError
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
    """Lists the words that have a label, with it."""
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


def sum_label_losses(
    logits: Float[Array, "probes items C"], batch: Any
) -> tuple[Float[Array, " probes"], Float[Array, "..."]]:
    """Sums the cross-entropy of the labels and its weights, which may differ between probes."""
    labels = jnp.broadcast_to(batch.labels, logits.shape[:-1])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return (losses * batch.weights.T).sum(axis=-1), batch.weights.sum(axis=0)


def fit_labels(
    loss: Loss,
    start: Mapping[str, Array],
    task: LabelTask,
    standardized: Float[Array, "layers words D"],
    splits: Mapping[Split, Int[np.ndarray, " some"]],
    weights: Float[np.ndarray, "items ..."] | None = None,
    seed: int = 0,
) -> Fitted:
    """Fits classifiers of a task's items.

    Args:
        loss: with its gradient by the parameters.
        start: the parameters at the beginning.
        task: what they learn.
        standardized: see `standardize`.
        splits: the sentences' numbers; train and validation are used.
        weights: those of all items of the task; 1 when omitted.
        seed: that of the order.
    """
    batches = [
        make_label_batches(task, task.of_split(splits[split]), weights, seed)
        for split in ("train", "validation")
    ]
    return fit(loss, start, standardized, *batches, seed=seed)


def standardize_layers(
    vectors: WordVectors, splits: Mapping[Split, Int[np.ndarray, " some"]]
) -> Float[Array, "layers words D"]:
    """Scales the vectors of each layer by the words of the training sentences."""
    return standardize(vectors.vectors, vectors_of(vectors, splits["train"]))


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
