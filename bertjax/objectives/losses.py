"""Losses as (sum, count): those of devices and microbatches add up and divide once, a true mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer


class Total(NamedTuple):
    """A sum and the count that it is to be divided by. Totals of parts of a batch add up."""

    sum: Float[Array, ""]
    count: Float[Array, ""]

    def mean(self) -> Float[Array, ""]:
        """sum / count; 0 where nothing was counted."""
        return self.sum / jnp.maximum(self.count, 1)


def cross_entropy(
    logits: Float[Array, "*places C"],
    labels: Integer[Array, "*places"],
    weights: Float[Array, "*places"],
) -> Total:
    """Weighted sum of -log softmax(logits)[label], in nats, and the sum of weights.

    A label out of range is permitted where its weight is 0.
    """
    classes = logits.shape[-1]
    labels = jnp.clip(labels, 0, classes - 1).astype(jnp.int32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return Total((losses * weights).sum(), weights.sum())


def accuracy(
    logits: Float[Array, "*places C"],
    labels: Integer[Array, "*places"],
    weights: Float[Array, "*places"],
) -> Total:
    """Weighted count of the places whose largest logit is the label's, and the sum of weights."""
    correct = (logits.argmax(axis=-1) == labels).astype(weights.dtype)
    return Total((correct * weights).sum(), weights.sum())
