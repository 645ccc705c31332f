"""The objective of pretraining: masked language model and next sentence; and its evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, Key

from bertjax.objectives import losses, masking
from bertjax.objectives.losses import Total
from bertjax.objectives.masking import MaskedTokens, MaskingConfig, Vocabulary
from bertjax.types import PreTrainingOutput, RowBatch


class PretrainingObjective:
    """Mean masked-LM loss + mean next-sentence loss (`training.steps.Objective`).

    Args:
        model: a `BertForPreTraining`.
        masking_config: which tokens are masked.
        vocabulary: of the rows' tokenizer.
        seed: of the masks.

    Source: Devlin et al. 2019, section A.2.
    """

    terms = ("mlm", "nsp")

    def __init__(
        self, model: Any, masking_config: MaskingConfig, vocabulary: Vocabulary, seed: int
    ) -> None:
        self._model, self._config, self._vocabulary = model, masking_config, vocabulary
        self._key = jax.random.split(jax.random.key(seed))[0]  # the other half is dropout's

    def prepare(
        self, batch: RowBatch
    ) -> tuple[tuple[RowBatch, MaskedTokens], dict[str, Float[Array, ""]]]:
        """The batch, its masked tokens, and how many of them and of pairs there are."""
        masked = masking.mask_tokens(self._key, batch, self._config, self._vocabulary)
        _, pairs = _next_sentence_labels(batch)
        return (batch, masked), {"mlm": masked.weights.sum(), "nsp": pairs.sum()}

    def totals(
        self,
        params: Any,
        statistics: Any,
        part: tuple[RowBatch, MaskedTokens],
        row_ids: Integer[Array, " B"],
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[dict[str, Total], Any]:
        """The two losses of some of the rows; `statistics` are empty and stay so."""
        batch, masked = part
        options = {} if dropout_key is None else {"rngs": {"dropout": dropout_key}}
        output = _apply(
            self._model,
            params,
            batch,
            masked,
            row_ids=row_ids,
            dropout=dropout_key is not None,
            **options,
        )
        mlm = losses.cross_entropy(output.mlm_logits, masked.labels, masked.weights)
        nsp = losses.cross_entropy(output.nsp_logits, *_next_sentence_labels(batch))
        return {"mlm": mlm, "nsp": nsp}, statistics


class Scores(NamedTuple):
    """Totals of an evaluation. They add up over batches."""

    mlm: Total
    mlm_correct: Total
    nsp: Total
    nsp_correct: Total
    unigram: Total
    unigram_correct: Total


def make_eval_step(
    model: Any, vocabulary: Vocabulary, unigram_log_probs: Float[Array, " V"]
) -> Callable[[Any, RowBatch], Scores]:
    """The function that `jax.jit` compiles for evaluation: 15 % of the tokens, always the same.

    Beside the model's scores stand those of the unigram baseline on the same masked tokens: the
    loss of a model that knows only how frequent each token is, and the accuracy of always naming
    the most frequent one.
    """
    key = jax.random.key(masking.EVALUATION_SEED)
    config = MaskingConfig("token", masking.EVALUATION_RATE)
    most_frequent = unigram_log_probs.argmax()

    def step(params: Any, batch: RowBatch) -> Scores:
        masked = masking.mask_tokens(key, batch, config, vocabulary)
        output = _apply(model, params, batch, masked)
        next_sentence = output.nsp_logits, *_next_sentence_labels(batch)
        labels, weights = masked.labels, masked.weights
        guessed = (labels == most_frequent) * weights
        return Scores(
            losses.cross_entropy(output.mlm_logits, labels, weights),
            losses.accuracy(output.mlm_logits, labels, weights),
            losses.cross_entropy(*next_sentence),
            losses.accuracy(*next_sentence),
            Total(-(unigram_log_probs[labels] * weights).sum(), weights.sum()),
            Total(guessed.sum(), weights.sum()),
        )

    return step


def _apply(
    model: Any, params: Any, batch: RowBatch, masked: MaskedTokens, **options: Any
) -> PreTrainingOutput:
    return model.apply(
        {"params": params},
        masked.token_ids,
        batch.token_type_ids,
        batch.sequence_ids,
        batch.position_ids,
        batch.example_starts,
        masked_positions=masked.positions,
        **options,
    )


def _next_sentence_labels(batch: RowBatch) -> tuple[Array, Array]:
    """The labels, and the weights that leave out slots without a pair."""
    labels = batch.next_sentence_labels
    return labels, (labels >= 0).astype(jnp.float32)
