"""The objective of pretraining, masked language model and next sentence, and its evaluation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from bertjax.objectives import losses, masking
from bertjax.objectives.losses import Total
from bertjax.objectives.masking import MaskingConfig, Progress, Vocabulary
from bertjax.types import MaskedTokens, PreTrainingOutput, RowBatch


class PretrainingObjective:
    """Mean masked-LM loss + mean next-sentence loss (`training.steps.Objective`).

    With a causal model the first is that of predicting every next token, and there is no second, as
    a [CLS] sees nothing but itself.

    Args:
        model: a `BertForPreTraining`; of families without a next-sentence head (Liu et al. 2019),
            a `BertForMaskedLM`, whose loss is the first of the two alone.
        masking_config: which tokens are masked.
        vocabulary: of the rows' tokenizer.
        seed: the masks' seed.
        span: the stretch of the budget that it is minimised in.
        z_loss: weight of the mean square of the log of the softmax's denominator, which keeps it
            near 1 (Chowdhery et al. 2022, section 5); 0 = none.
        pairs: whether the model has a next-sentence head; None = as its family has.

    Source: Devlin et al. 2019, section A.2.
    """

    def __init__(
        self,
        model: Any,
        masking_config: MaskingConfig,
        vocabulary: Vocabulary,
        seed: int,
        *,
        span: tuple[float, float] = (0.0, 1.0),
        z_loss: float = 0.0,
        pairs: bool | None = None,
    ) -> None:
        self._model, self._config, self._vocabulary = model, masking_config, vocabulary
        self._span = span
        if pairs is None:
            pairs = model.config.pretraining == "pretraining"
        self.terms = {
            "mlm": 1.0,
            **({"nsp": 1.0} if pairs else {}),
            **({"z": z_loss} if z_loss else {}),
        }
        self._key = jax.random.split(jax.random.key(seed))[0]  # the other half is dropout's

    def slots(self, max_length: int) -> int:
        """Returns P, how many places of a row of `max_length` tokens have something to predict.

        Args:
            max_length: of a row, in tokens.
        """
        if self._model.causal:
            return max_length - 1
        return self._config.slots(max_length, self._span)

    def prepare(
        self, batch: RowBatch, progress: Progress
    ) -> tuple[tuple[RowBatch, MaskedTokens], dict[str, Float[Array, ""]]]:
        """Returns the batch, its masked tokens, and how many of them and of pairs there are.

        Args:
            batch: the rows of a step.
            progress: the share of the budget that is over, 0 to 1.
        """
        if self._model.causal:
            batch = batch._replace(next_sentence_labels=-jnp.ones_like(batch.next_sentence_labels))
            masked = masking.aim_at_next_tokens(batch)
        else:
            masked = masking.mask_tokens(
                self._key, batch, self._config, self._vocabulary, progress, self._span
            )
        _, pairs = _next_sentence_labels(batch)
        words = masked.weights.sum()
        counts = {"mlm": words, "nsp": pairs.sum(), "z": words}
        return (batch, masked), {term: counts[term] for term in self.terms}

    def totals(
        self,
        params: Any,
        statistics: Any,
        part: tuple[RowBatch, MaskedTokens],
        row_ids: Integer[Array, " B"],
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[dict[str, Total], Any]:
        """Returns the two losses of some of the rows; `statistics` stays empty.

        Args:
            params: of the model.
            statistics: running ones, of which there are none.
            part: rows and their masked tokens, as `prepare` returns them.
            row_ids: numbers of the rows in the whole batch, which dropout depends on.
            dropout_key: of the step; None = no dropout.
        """
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
        found = {"mlm": losses.cross_entropy(output.mlm_logits, masked.labels, masked.weights)}
        if output.nsp_logits is not None:
            found["nsp"] = losses.cross_entropy(output.nsp_logits, *_next_sentence_labels(batch))
        if "z" in self.terms:
            found["z"] = losses.squared_log_normalizers(output.mlm_logits, masked.weights)
        return found, statistics


class Scores(NamedTuple):
    """Totals of an evaluation, which add up over batches.

    Attributes:
        mlm: the masked-LM loss, in nats a token.
        mlm_correct: masked tokens whose likeliest token is the right one.
        nsp: the next-sentence loss, in nats a pair.
        nsp_correct: pairs that are told right.
        unigram: the loss of the unigram baseline, in nats a token.
        unigram_correct: masked tokens that are the most frequent one.
    """

    mlm: Total
    mlm_correct: Total
    nsp: Total
    nsp_correct: Total
    unigram: Total
    unigram_correct: Total

    def summarize(self) -> dict[str, float]:
        """Returns the figures of a log's line."""
        mlm, nsp = float(self.mlm.mean()), float(self.nsp.mean())
        return {
            "loss": mlm + nsp,
            **summarize_masked_scores(self),
            "nsp_loss": nsp,
            "nsp_accuracy": float(self.nsp_correct.mean()),
            "examples": float(self.nsp.count),
        }


def unigram_log_probs(
    token_counts: Integer[np.ndarray, " V"], vocabulary: Vocabulary
) -> Float[Array, " V"]:
    """Returns the log of each token's share of the training rows; special tokens get almost none.

    Every count is raised by one: what training never saw is not impossible.

    Args:
        token_counts: of the training rows.
        vocabulary: of the model.
    """
    special = np.asarray(vocabulary.special)
    counts = np.where(special, 1e-3, token_counts + 1.0)
    return jnp.asarray(np.log(counts / counts[~special].sum()), jnp.float32)


class MaskedScores(NamedTuple):
    """Totals over masked tokens, for a model and for the unigram baseline on the same tokens.

    Attributes:
        mlm: the masked-LM loss, in nats a token.
        mlm_correct: masked tokens whose likeliest token is the right one.
        unigram: the loss of the unigram baseline, in nats a token.
        unigram_correct: masked tokens that are the most frequent one.
    """

    mlm: Total
    mlm_correct: Total
    unigram: Total
    unigram_correct: Total


def summarize_masked_scores(totals: Any) -> dict[str, float]:
    """Returns the figures of totals that have the fields of `MaskedScores`.

    Args:
        totals: of all batches.
    """
    return {
        "mlm_loss": float(totals.mlm.mean()),
        "mlm_accuracy": float(totals.mlm_correct.mean()),
        "unigram_loss": float(totals.unigram.mean()),
        "unigram_accuracy": float(totals.unigram_correct.mean()),
        "masked_tokens": float(totals.mlm.count),
    }


def mask_for_evaluation(batch: RowBatch, vocabulary: Vocabulary) -> MaskedTokens:
    """Masks 15 % of the tokens, always the same ones, whatever the seed of a run.

    Args:
        batch: the rows.
        vocabulary: of the model.
    """
    key = jax.random.key(masking.EVALUATION_SEED)
    config = MaskingConfig("token", masking.EVALUATION_RATE)
    return masking.mask_tokens(key, batch, config, vocabulary)


def score_masked_tokens(
    logits: Float[Array, "*places V"],
    labels: Integer[Array, "*places"],
    weights: Float[Array, "*places"],
    unigram_log_probs: Float[Array, " V"],
) -> MaskedScores:
    """Scores a model's predictions of masked tokens, and those of the unigram baseline.

    The baseline's loss is that of a model that knows only how frequent each token is; its accuracy
    is that of always predicting the most frequent one.

    Args:
        logits: at the masked places.
        labels: the tokens that were there.
        weights: 0 where there is no target.
        unigram_log_probs: see the function of that name.
    """
    guessed = (labels == unigram_log_probs.argmax()) * weights
    return MaskedScores(
        losses.cross_entropy(logits, labels, weights),
        losses.accuracy(logits, labels, weights),
        Total(-(unigram_log_probs[labels] * weights).sum(), weights.sum()),
        Total(guessed.sum(), weights.sum()),
    )


def make_eval_step(
    model: Any, vocabulary: Vocabulary, unigram_log_probs: Float[Array, " V"]
) -> Callable[[Any, RowBatch], Scores]:
    """Makes the evaluation step for `jax.jit`: 15 % of the tokens, always the same ones.

    The unigram baseline's scores come with the model's (see `score_masked_tokens`).

    Args:
        model: the module.
        vocabulary: of the model.
        unigram_log_probs: of the baseline (`unigram_log_probs`).
    """

    def step(params: Any, batch: RowBatch) -> Scores:
        masked = mask_for_evaluation(batch, vocabulary)
        output = _apply(model, params, batch, masked)
        nothing = Total(jnp.zeros(()), jnp.zeros(()))
        nsp = nsp_correct = nothing
        if output.nsp_logits is not None:
            next_sentence = output.nsp_logits, *_next_sentence_labels(batch)
            nsp, nsp_correct = losses.cross_entropy(*next_sentence), losses.accuracy(*next_sentence)
        judged = score_masked_tokens(
            output.mlm_logits, masked.labels, masked.weights, unigram_log_probs
        )
        return Scores(
            judged.mlm,
            judged.mlm_correct,
            nsp,
            nsp_correct,
            judged.unigram,
            judged.unigram_correct,
        )

    return step


def _apply(
    model: Any, params: Any, batch: RowBatch, masked: MaskedTokens, **options: Any
) -> PreTrainingOutput:
    """Returns the output of either class; without the head there are no next-sentence logits."""
    output = model.apply(
        {"params": params},
        masked.token_ids,
        batch.token_type_ids,
        batch.sequence_ids,
        batch.position_ids,
        batch.example_starts,
        masked_positions=masked.positions,
        **options,
    )
    if isinstance(output, PreTrainingOutput):
        return output
    return PreTrainingOutput(output.logits, None, output.encoder)


def _next_sentence_labels(batch: RowBatch) -> tuple[Array, Array]:
    """Returns the labels, and the weights that leave out slots without a pair."""
    labels = batch.next_sentence_labels
    return labels, (labels >= 0).astype(jnp.float32)
