"""How well a masked LM restores the words of raw texts, beside the unigram baseline."""

import collections
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.analysis.capture.encoding import EncodedText, encode_stream
from bertjax.analysis.heads.objective import (
    NumberedText,
    batch_for_masking,
    nothing_to_mask,
)
from bertjax.architectures import is_exported
from bertjax.inference.batches import Place, run, take_row
from bertjax.inference.task_outputs import check_finite
from bertjax.loaded import Model
from bertjax.objectives.masking import Vocabulary
from bertjax.objectives.pretraining import (
    MaskedScores,
    mask_for_evaluation,
    score_masked_tokens,
    unigram_log_probs,
)
from bertjax.program.errors import UserError
from bertjax.program.wording import counted, with_article
from bertjax.statistics.drawn_units import number_units, sum_by_unit
from bertjax.statistics.intervals import bootstrap_ratio
from bertjax.text.given_texts import Text
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import MaskedTokens, RowBatch

# The task of a masked LM, in the result of an evaluation.
MASKED_LM = "masked-lm"


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
        """Returns scores, intervals and an outcome for each text, as `evaluate --output` has them.

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
            interval = bootstrap_ratio(sum_by_unit(values, units), counts)
            both = {name: (float(interval.value), [float(interval.low), float(interval.high)])}
            if name.endswith("loss"):
                value, ends = both[name]
                perplexity = name.replace("loss", "perplexity")
                both[perplexity] = (float(np.exp(value)), [float(np.exp(end)) for end in ends])
            for score, (value, ends) in both.items():
                scores[score] = value
                if np.isfinite(ends).all():
                    intervals[score] = ends
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


def evaluate_texts(
    model: Model,
    texts: Sequence[tuple[str, Text]],
    *,
    max_length: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> tuple[dict[str, Any], list[str]]:
    """Scores a masked LM on raw texts; returns also notes about how they were read.

    Args:
        model: with a masked-LM head.
        texts: each a place for messages, and a text or a pair; a long text is cut into windows.
        max_length: of a window, in tokens; the model's positions when left out.
        progress: called with the number of windows done since the last call.

    Returns:
        `task` and what `MaskedTextScores.evaluation` returns.

    Raises:
        UserError: no masked-LM head, no text, or no token that can be masked.
    """
    if not texts:
        raise UserError("there is no text to measure the model on")
    length = max_length or model.config.max_length
    notes = model.tokenizer.describe_readings(text for _, text in texts)
    encoded = list(encode_stream(model.tokenizer, texts, length, too_long="windows"))
    windows = collections.Counter(text.source for text in encoded)
    if cut := [number for number in windows.values() if number > 1]:
        notes.append(
            f"{len(cut):,} of {counted(len(texts), 'text')} are longer than {length} tokens and"
            f" were cut between words into {sum(cut):,} windows, each scored by itself"
        )
    scores = score_masked_texts(model, encoded, progress=progress)
    return {"task": MASKED_LM, **scores.evaluation()}, notes


def score_masked_texts(
    whole: Model,
    texts: Sequence[EncodedText],
    *,
    progress: Callable[[int], None] = lambda done: None,
) -> MaskedTextScores:
    """Masks 15 % of each text's tokens, the same at every call, and asks for them.

    The tokens are those that pretraining's evaluation masks in the same texts, one a row in this
    order, however long its rows are; so are the figures. The unigram baseline knows how often each
    token occurs in these texts, which is the best that any unigram model could know of them.

    Args:
        whole: a BertForMaskedLM or BertForPreTraining; the next-sentence head is not used.
        texts: encoded by its tokenizer.
        progress: called with the number of texts done since the last call.

    Raises:
        UserError: no masked-LM head, or no token that can be masked.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """
    if not whole.restores_words:
        raise UserError(f"{with_article(whole.architecture)} has no masked-LM head")
    vocabulary, score = _make_score(whole.module, whole.tokenizer)
    every = np.concatenate([text.token_ids for text in texts])
    log_probs = unigram_log_probs(np.bincount(every, minlength=vocabulary.size), vocabulary)

    def take(
        output: tuple[MaskedScores, np.ndarray], numbered: NumberedText, place: Place
    ) -> tuple[list[float], bytes]:
        scores, masked_ids = take_row(output, numbered, place)
        ids = numbered[1].token_ids
        asked = b"".join(part.astype(np.int32).tobytes() for part in (ids, masked_ids[: len(ids)]))
        sums = (scores.mlm.sum, scores.mlm_correct.sum, scores.mlm.count, scores.unigram.sum,
                scores.unigram_correct.sum)  # fmt: skip
        return sums, asked

    batching = batch_for_masking(whole, take)
    inputs = whole.params, log_probs
    scored = run(score, inputs, enumerate(texts), batching, mesh=whole.mesh, progress=progress)
    sums, asked = zip(*scored, strict=True)
    check_finite(sums)
    figures = np.array(sums, np.float64).T
    if not figures[2].any():
        raise nothing_to_mask()
    sources = np.array([text.source for text in texts], np.int64)
    return MaskedTextScores(*figures, sources, hashlib.sha256(b"|".join(asked)).hexdigest())


@functools.lru_cache(maxsize=4)
def _make_score(
    module: Any, tokenizer: Tokenizer
) -> tuple[Vocabulary, Callable[[tuple[Any, Any], RowBatch], tuple[MaskedScores, Array]]]:
    """Returns what masking knows of the tokenizer, and the compiled scores of a batch."""
    vocabulary = Vocabulary.of(tokenizer)
    mask: Any = functools.partial(mask_for_evaluation, vocabulary=vocabulary)
    judge: Any = _score

    def score(inputs: tuple[Any, Any], batch: RowBatch) -> tuple[MaskedScores, Array]:
        params, log_probs = inputs
        masked = mask(batch)
        output = module.apply(
            {"params": params},
            masked.token_ids,
            batch.token_type_ids,
            batch.sequence_ids,
            masked_positions=masked.positions,
        )
        logits = output.mlm_logits if hasattr(output, "mlm_logits") else output.logits
        return judge(logits, log_probs, masked), masked.token_ids

    if is_exported(module):  # no program of jax, so that what is before and behind it is compiled
        mask, judge = jax.jit(mask), jax.jit(judge)
        return vocabulary, score
    return vocabulary, jax.jit(score)


def _score(
    logits: Float[Array, "B P V"], log_probs: Float[Array, " V"], masked: MaskedTokens
) -> MaskedScores:
    """Computes the scores of each row."""
    each = jax.vmap(score_masked_tokens, (0, 0, 0, None))
    # A padded vocabulary has rows that are no token's.
    missing = logits.shape[-1] - log_probs.shape[0]
    known = jnp.pad(log_probs, (0, missing), constant_values=-jnp.inf)
    return each(logits, masked.labels, masked.weights, known)
