"""Losses as (sum, count): devices and microbatches add up and divide once, for a true mean."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer

from bertjax.numerics.placement import target_platform


class Total(NamedTuple):
    """A sum and the count to divide it by; totals of parts of a batch add up.

    Attributes:
        sum: the numerator.
        count: the denominator.
    """

    sum: Float[Array, ""]
    count: Float[Array, ""]

    def mean(self) -> Float[Array, ""]:
        """Returns sum / count; 0 where nothing was counted."""
        return self.sum / jnp.where(self.count > 0, self.count, 1)


def cross_entropy(
    logits: Float[Array, "*places C"],
    labels: Integer[Array, "*places"],
    weights: Float[Array, "*places"],
    smoothing: float = 0.0,
) -> Total:
    """Returns the weighted sum of -log softmax(logits)[label], in nats, and the sum of weights.

    A label out of range is permitted where its weight is 0.

    Args:
        logits: the classes' scores.
        labels: the right class.
        weights: each place's weight.
        smoothing: the share of the target that is spread evenly over all classes (Szegedy et al.
            2016, section 7; `torch.nn.CrossEntropyLoss(label_smoothing)`).
    """
    classes = logits.shape[-1]
    labels = jnp.clip(labels, 0, classes - 1).astype(jnp.int32)
    picked = _pick(logits, labels)
    if smoothing:
        picked = (1 - smoothing) * picked + smoothing * logits.mean(axis=-1)
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    return Total((losses * weights).sum(), weights.sum())


def squared_log_normalizers(
    logits: Float[Array, "*places C"], weights: Float[Array, "*places"]
) -> Total:
    """Returns the weighted sum of (log of the softmax's denominator)^2, and the sum of weights.

    Args:
        logits: of every place.
        weights: of every place in the loss.

    Source: Chowdhery et al. 2022 (PaLM), section 5, which adds 1e-4 of its mean to the loss.
    """
    squares = jnp.square(jax.nn.logsumexp(logits, axis=-1))
    return Total((squares * weights).sum(), weights.sum())


def _pick(logits: Float[Array, "*places C"], labels: Integer[Array, "*places"]) -> Array:
    """Returns the logit of each place's label.

    An accelerator picks by comparison: the gradient of a gather is an array of zeros as large as
    the logits, scattered on, for which a GPU has to sort.
    """
    if target_platform() == "cpu":
        return jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    is_label = labels[..., None] == jnp.arange(logits.shape[-1])
    return jnp.where(is_label, logits, 0).sum(axis=-1)


def binary_cross_entropy(
    logits: Float[Array, "*places C"],
    labels: Float[Array, "*places C"],
    weights: Float[Array, "*places"],
    smoothing: float = 0.0,
) -> Total:
    """Treats each class by itself: the weighted sum of the mean over classes, the sum of weights.

    Args:
        logits: the classes' scores.
        labels: 1 where the class applies, else 0.
        weights: each place's weight.
        smoothing: the share by which labels move towards 1/2.

    Source: `torch.nn.BCEWithLogitsLoss`, which takes the mean over places and classes.
    """
    labels = labels * (1 - smoothing) + smoothing / 2
    losses = jax.nn.softplus(logits) - logits * labels
    return Total((losses.mean(axis=-1) * weights).sum(), weights.sum())


def squared_error(
    values: Float[Array, "*places"],
    targets: Float[Array, "*places"],
    weights: Float[Array, "*places"],
) -> Total:
    """Returns the weighted sum of (value - target)^2, and the sum of weights.

    Args:
        values: that are predicted.
        targets: that are right.
        weights: of every place in the loss.
    """
    return Total((jnp.square(values - targets) * weights).sum(), weights.sum())


def span_cross_entropy(
    logits: Float[Array, "B T 2"],
    spans: Integer[Array, "B K 2"],
    sequence_ids: Integer[Array, "B T"],
    example_starts: Integer[Array, "B K"],
    weights: Float[Array, "B K"],
) -> Total:
    """Returns the mean cross-entropy of first and last token, over each example's own tokens.

    Args:
        logits: of each token being the first, the last.
        spans: first and last token of the answer, counted from the example's [CLS] (0 0 = none).
        sequence_ids: which example a token is of.
        example_starts: where each example's [CLS] is.
        weights: each example's weight.

    Source: google-research/bert `run_squad.compute_loss`. Differs: padding and other examples get
    no probability; there the softmax covers the whole padded row.
    """
    slots = jnp.arange(1, spans.shape[1] + 1)
    own = sequence_ids[:, None, :] == slots[:, None]  # [B, K, T]
    # [B, K, T, 2]
    scores = jnp.where(own[..., None], logits[:, None], jnp.finfo(logits.dtype).min)
    places = jnp.clip(example_starts[..., None] + spans, 0, logits.shape[1] - 1)
    picked = jnp.take_along_axis(scores, places[:, :, None, :], axis=2)[:, :, 0]
    losses = (jax.nn.logsumexp(scores, axis=2) - picked).mean(axis=-1)
    losses = jnp.where(weights > 0, losses, 0)  # a slot without tokens has no softmax
    return Total((losses * weights).sum(), weights.sum())


def choice_cross_entropy(
    scores: Float[Array, "B K"],
    questions: Integer[Array, "B K"],
    right: Float[Array, "B K"],
    smoothing: float = 0.0,
) -> Total:
    """Returns -log of the right choice's share of its question, summed; and the questions.

    Args:
        scores: every choice's score.
        questions: the question of the row that a choice belongs to, from 0; -1 = unused slot.
        right: 1 for the right choice of each question, else 0.
        smoothing: as in `cross_entropy`.

    Source: `transformers.BertForMultipleChoice`.
    """
    together = (questions[:, :, None] == questions[:, None, :]) & (questions >= 0)[:, None, :]
    rivals = jnp.where(together, scores[:, None, :], jnp.finfo(scores.dtype).min)
    losses = jax.nn.logsumexp(rivals, axis=-1) - scores
    if smoothing:
        number = jnp.maximum(together.sum(axis=-1), 1)
        mean = jnp.where(together, scores[:, None, :], 0).sum(axis=-1) / number
        losses += smoothing * (scores - mean)
    return Total(jnp.where(right > 0, losses, 0).sum(), (right > 0).sum().astype(scores.dtype))


def accuracy(
    logits: Float[Array, "*places C"],
    labels: Integer[Array, "*places"],
    weights: Float[Array, "*places"],
) -> Total:
    """Returns the weighted count of places whose largest logit is the label's, and of weights.

    Args:
        logits: of every place.
        labels: the numbers of the right classes.
        weights: of every place.
    """
    correct = (logits.argmax(axis=-1) == labels).astype(weights.dtype)
    return Total((correct * weights).sum(), weights.sum())
