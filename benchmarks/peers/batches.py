"""Batches as a user of a peer makes them: texts sorted by length, padded to their batch's longest.

numpy only, since it runs in every peer's environment.
"""

from typing import NamedTuple

import numpy as np


class Texts(NamedTuple):
    """Token sequences, one after the other.

    Attributes:
        original: [tokens] ids, [CLS] and [SEP] included.
        masked: [tokens] the same, some replaced for the masked language model.
        chosen: [tokens] bool, which ones are to be restored.
        lengths: [texts] tokens of each.
    """

    original: np.ndarray
    masked: np.ndarray
    chosen: np.ndarray
    lengths: np.ndarray


class Padded(NamedTuple):
    """A batch.

    Attributes:
        texts: [b] the number of each text.
        token_ids: [b, t], 0 = padding.
        mask: [b, t], 1 for a token, 0 for padding.
        places: [m] where the masked tokens are among the b * t.
        labels: [m] what they were.
    """

    texts: np.ndarray
    token_ids: np.ndarray
    mask: np.ndarray
    places: np.ndarray
    labels: np.ndarray


def load_texts(folder):
    """The texts of a job's folder."""
    with np.load(folder / "texts.npz") as arrays:
        return Texts(**arrays)


def pad(texts, numbers, masked=False):
    """The texts of these numbers as one batch."""
    lengths = texts.lengths[numbers]
    starts = (np.cumsum(texts.lengths) - texts.lengths)[numbers]
    columns = np.arange(lengths.max())
    mask = columns < lengths[:, None]
    source = np.where(mask, starts[:, None] + columns, 0)
    ids = np.where(mask, (texts.masked if masked else texts.original)[source], 0)
    places = np.flatnonzero(texts.chosen[source] & mask)
    labels = texts.original[source].reshape(-1)[places]
    return Padded(
        numbers, ids.astype(np.int64), mask.astype(np.int64), places, labels.astype(np.int64)
    )


def by_room(lengths, room):
    """The numbers of each batch's texts: sorted by length, at most `room` places with padding."""
    batches, batch = [], []
    for number in np.argsort(-lengths, kind="stable"):
        if batch and (len(batch) + 1) * lengths[batch[0]] > room:
            batches.append(np.array(batch))
            batch = []
        batch.append(number)
    return [*batches, np.array(batch)]


def by_steps(lengths, steps):
    """The numbers of each batch's texts: sorted by length, as many real tokens in every batch."""
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    step = np.minimum((ends - 1) * steps // ends[-1], steps - 1)
    return [order[step == number] for number in range(steps)]
