"""How well a masked LM restores the words of raw texts, beside the unigram baseline."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.rows import make_inputs
from bertjax.analysis.explain.answers import WholeModel
from bertjax.analysis.heads.objective import fill_rows, group_rows, nothing_to_mask
from bertjax.objectives.masking import EVALUATION_RATE, MaskingConfig, Vocabulary
from bertjax.objectives.pretraining import (
    MaskedScores,
    mask_for_evaluation,
    score_masked_tokens,
    unigram_log_probs,
)
from bertjax.program.errors import UserError
from bertjax.statistics.drawn_units import number_units, sum_by_unit
from bertjax.statistics.intervals import bootstrap_ratio
from bertjax.types import RowBatch


class MaskedTextScores(NamedTuple):
    """Sums over the masked tokens of each text, or window of one.

    Attributes:
        losses: of the model, in nats.
        right: how many tokens the model names.
        counts: how many are masked.
        unigram_losses: of the baseline.
        unigram_right: how many it names.
        sources: which text each window is of.
        fingerprint: sha256 of what was asked: the tokens of all texts, and which are masked.
    """

    losses: Float[np.ndarray, " windows"]
    right: Float[np.ndarray, " windows"]
    counts: Float[np.ndarray, " windows"]
    unigram_losses: Float[np.ndarray, " windows"]
    unigram_right: Float[np.ndarray, " windows"]
    sources: Int[np.ndarray, " windows"]
    fingerprint: str

    def evaluation(self) -> dict[str, Any]:
        """Scores, their intervals and an outcome for each text, as `evaluate --output` has them.

        A perplexity is that of a masked token: the exponential of the mean loss.
        """
        sums = {
            "loss": self.losses,
            "accuracy": self.right,
            "unigram_loss": self.unigram_losses,
            "unigram_accuracy": self.unigram_right,
        }
        units = number_units(self.sources)
        counts = sum_by_unit(self.counts, units)
        scores: dict[str, Any] = {}
        intervals: dict[str, list[float]] = {}
        for name, values in sums.items():
            found = bootstrap_ratio(sum_by_unit(values, units), counts)
            both = {name: (float(found.value), [float(found.low), float(found.high)])}
            if name.endswith("loss"):
                value, ends = both[name]
                perplexity = name.replace("loss", "perplexity")
                both[perplexity] = (float(np.exp(value)), [float(np.exp(end)) for end in ends])
            for one, (value, ends) in both.items():
                scores[one] = value
                if np.isfinite(ends).all():
                    intervals[one] = ends
        texts = np.bincount(self.sources, self.counts)
        asked = texts > 0
        outcomes = -np.bincount(self.sources, self.losses)[asked] / texts[asked]
        return {
            "examples": len(texts),
            "fingerprint": self.fingerprint,
            "scores": {**scores, "masked_tokens": int(self.counts.sum())},
            "intervals": intervals,
            "slice_score": "log probability of a text's masked tokens",
            "slices": {},
            "outcomes": outcomes.tolist(),
        }


def score_masked_texts(
    whole: WholeModel,
    texts: Sequence[EncodedText],
    max_length: int,
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> MaskedTextScores:
    """Masks 15 % of each text's tokens, the same at every call, and asks for them.

    The tokens are those that pretraining's evaluation masks in the same texts as rows of
    `max_length`, one a row in this order; so are the figures. The unigram baseline knows how often
    each token occurs in these texts, which is the best that any unigram model could know of them.

    Args:
        whole: a BertForMaskedLM or BertForPreTraining; the next-sentence head is not used.
        texts: encoded by its tokenizer.
        max_length: tokens of the longest text that is allowed.
        progress: is called with the number of texts done since the call before.

    Raises:
        UserError: no masked-LM head, or no token that can be masked.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """
    if not whole.restores_words:
        raise UserError(f"a {whole.architecture} has no masked-LM head")
    vocabulary = Vocabulary.of(whole.tokenizer)
    every = np.concatenate([text.token_ids for text in texts])
    log_probs = unigram_log_probs(np.bincount(every, minlength=vocabulary.size), vocabulary)
    mask = jax.jit(lambda batch: mask_for_evaluation(batch, vocabulary))
    score = jax.jit(lambda *inputs: _score(whole.model, *inputs))
    found = np.zeros((5, len(texts)))
    asked: list[bytes] = [b""] * len(texts)
    for numbers, rows, length in group_rows([len(one.token_ids) for one in texts], whole.config):
        filled = fill_rows(numbers, rows)
        some = [texts[number] for number in filled]
        # Which tokens are masked depends on the length of the row; it is the same for all texts.
        ids, types, sequence_ids = make_inputs(
            whole.config, some, rows, max_length, whole.tokenizer.pad_id
        )
        nothing = np.zeros((rows, 1), np.int32)
        keys = np.array(filled, np.uint32), np.zeros(rows, np.uint32)
        masked = jax.device_get(
            mask(RowBatch(ids, types, sequence_ids, nothing, nothing, nothing, *keys))
        )
        slots = MaskingConfig("token", EVALUATION_RATE).slots(length)
        inputs = (
            masked.token_ids[:, :length], types[:, :length], sequence_ids[:, :length],
            masked.positions[:, :slots], masked.labels[:, :slots], masked.weights[:, :slots],
        )  # fmt: skip
        part: MaskedScores = jax.device_get(score(whole.params, log_probs, *inputs))
        sums = (part.mlm.sum, part.mlm_correct.sum, part.mlm.count, part.unigram.sum,
                part.unigram_correct.sum)  # fmt: skip
        found[:, numbers] = [one[: len(numbers)] for one in sums]
        for row, number in enumerate(numbers):
            own = texts[number].token_ids, masked.token_ids[row, :length]
            asked[number] = b"".join(one.astype(np.int32).tobytes() for one in own)
        progress(len(numbers))
    if not found[2].any():
        raise nothing_to_mask()
    sources = np.array([text.source for text in texts], np.int64)
    return MaskedTextScores(*found, sources, hashlib.sha256(b"|".join(asked)).hexdigest())


def _score(
    model: Any,
    params: Mapping[str, Any],
    log_probs: Float[Array, " V"],
    token_ids: Int[Array, "B T"],
    types: Int[Array, "B T"],
    sequence_ids: Int[Array, "B T"],
    positions: Int[Array, "B P"],
    labels: Int[Array, "B P"],
    weights: Float[Array, "B P"],
) -> MaskedScores:
    """The scores of each row."""
    output = model.apply(
        {"params": params}, token_ids, types, sequence_ids, masked_positions=positions
    )
    logits = output.mlm_logits if hasattr(output, "mlm_logits") else output.logits
    each = jax.vmap(score_masked_tokens, (0, 0, 0, None))
    # A padded vocabulary has rows that are no token's.
    missing = logits.shape[-1] - log_probs.shape[0]
    return each(logits, labels, weights, jnp.pad(log_probs, (0, missing), constant_values=-jnp.inf))
