"""A model with embeddings for more tokens: each begins as the mean of those that it stands for."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.interop.tensor_names import flatten, parts_of, put, rows_of


def grow_vocabulary(
    config: BertConfig, params: Mapping[str, Any], pieces: Mapping[int, Sequence[int]]
) -> tuple[BertConfig, dict[str, Any]]:
    """Returns the model with more tokens; all that is not of a token stays as it is.

    The embedding of a new token, which is tied to its output, is the mean of the embeddings of the
    pieces that its text was cut into before, and so is its output bias.

    Args:
        config: of the model.
        params: of its class, numpy arrays; those of the body under "bert".
        pieces: by the id of each new token the ids that it stands for. Ids may be those of rows
            that pad the table.

    Source: the mean as in AVocaDo's and others' extensions; Differs: the bias, too, so that a new
        token is at first as likely as its pieces.
    """
    size = max(config.vocab_size, *(id + 1 for id in pieces))
    of_tokens = {
        path
        for row in rows_of(config, parts_of(config))
        if row.ours_axes.startswith("V")
        for path in row.paths
    }
    grown: dict[str, Any] = {}
    for path, value in flatten(params):
        if path in of_tokens:
            old = np.asarray(value)
            value = np.zeros((size, *old.shape[1:]), old.dtype)
            value[: len(old)] = old
            for id, parts in pieces.items():
                value[id] = old[list(parts)].mean(axis=0)
        put(grown, path, value)
    return dataclasses.replace(config, vocab_size=size), grown
