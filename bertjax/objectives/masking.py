"""Masking for the masked language model, on the device: a pure function of (seed, epoch, row).

Three ways to choose what is masked, one mechanism: every token gets the rank of its group (the
token itself, its word, or the first span that covers it) in a random order, and the first tokens in
rank order are masked until the row's budget is spent.
"""

import dataclasses
import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from bertjax.program.errors import UserError
from bertjax.types import MaskedTokens, RowBatch

# Source: Devlin et al. 2019, section 3.1.
SHARE_MASK_TOKEN, SHARE_RANDOM_TOKEN = 0.8, 0.1
EVALUATION_RATE = 0.15

# Source: Joshi et al. 2020 (SpanBERT), section 3.1: lengths in words, geometric, cut at 10.
SPAN_PROBABILITY, SPAN_MAX_WORDS = 0.2, 10

# A key of its own for evaluation: the same tokens are masked whatever the run's seed.
EVALUATION_SEED = 15

# A share of the budget: a number, or an array where the program that runs is given it.
Progress = float | Float[Array, ""]

_LAST = jnp.iinfo(jnp.int32).max


class Replacements(NamedTuple):
    """What becomes of the chosen tokens; the rest of them stays as it is.

    Attributes:
        mask_token: the share that becomes [MASK].
        random_token: the share that becomes any ordinary token.
    """

    mask_token: float
    random_token: float


OF_BERT = Replacements(SHARE_MASK_TOKEN, SHARE_RANDOM_TOKEN)


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are masked.

    Attributes:
        strategy: token = each token by itself; whole-word = all pieces of a word together;
            span = runs of 1 to 10 words (SpanBERT)
        rate: share of a row's tokens that is masked, above 0 and at most 0.8
        end_rate: the share at the end of the budget, to which it runs in a straight line (Ankner et
            al. 2024); the same throughout when not given
    """

    strategy: Literal["token", "whole-word", "span"] = "token"
    rate: float = 0.15
    end_rate: float | None = None

    def __post_init__(self) -> None:
        for name in ("rate", "end_rate"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate <= 0.8:
                raise UserError(f"masking.{name}={rate} must be above 0 and at most 0.8")

    def rate_at(self, progress: Progress) -> Progress:
        """Returns the share of tokens that is masked when so much of the budget is over, 0 to 1.

        Args:
            progress: the share of the budget that is over, 0 to 1.
        """
        if self.end_rate is None:
            return self.rate
        return self.rate + (self.end_rate - self.rate) * progress

    def slots(self, max_length: int, span: tuple[float, float] = (0.0, 1.0)) -> int:
        """Returns P, the number of masked slots a row of `max_length` tokens needs.

        Args:
            max_length: T.
            span: the stretch of the budget in which it has to do.
        """
        return max(1, math.ceil(max(map(self.rate_at, span)) * max_length))


class Vocabulary:
    """What masking must know about the tokenizer.

    Attributes:
        size: V.
        mask_id: the id of [MASK].
        special: [V] bool, tokens never masked and never used as random replacements.
        continues_word: [V] bool, tokens that continue the word before them.
    """

    def __init__(
        self,
        size: int,
        mask_id: int,
        special_ids: list[int],
        continues_word: Bool[Array | np.ndarray, " V"],
    ) -> None:
        self.size, self.mask_id = size, mask_id
        self.special = jnp.zeros(size, bool).at[jnp.array(special_ids)].set(True)
        self.continues_word = jnp.asarray(continues_word)
        self.ordinary_ids = jnp.array([i for i in range(size) if i not in set(special_ids)])

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """Makes that of a `bertjax.text.tokenizer.Tokenizer`.

        Args:
            tokenizer: the model's.
        """
        special_ids, continues = list(tokenizer.special_ids), tokenizer.continues_word
        return cls(tokenizer.vocab_size, tokenizer.mask_id, special_ids, continues)


def key_of_row(
    key: Key[Array, ""], epoch: Integer[Array, ""], row_number: Integer[Array, ""]
) -> Key[Array, ""]:
    """Returns the key of what is drawn for a row: the same on any devices, after any restart.

    Args:
        key: of the run.
        epoch: the number of the epoch.
        row_number: the number of the row in the data.
    """
    return jax.random.fold_in(jax.random.fold_in(key, epoch), row_number)


def mask_tokens(
    key: Key[Array, ""],
    batch: RowBatch,
    config: MaskingConfig,
    vocabulary: Vocabulary,
    progress: Progress = 0.0,
    span: tuple[float, float] = (0.0, 1.0),
    replacements: Replacements = OF_BERT,
) -> MaskedTokens:
    """Chooses tokens, remembers them and replaces them, most of them by [MASK].

    Each row's randomness is keyed by its epoch and its number, so the same tokens are masked on any
    number of devices, in any order, after any restart. Special tokens and padding are never masked,
    and every ordinary token can be a random replacement.

    Args:
        key: the run's, or the fixed one of evaluation.
        batch: the rows; `row_numbers` and `epochs` key the randomness.
        config: the strategy and rate.
        vocabulary: that of the rows' tokenizer.
        progress: the share of the budget that is over, for a rate that changes.
        span: the stretch of the budget that `progress` stays in, which decides P.
        replacements: what becomes of the chosen tokens.

    Returns:
        As many masked slots as the rate asks for, at least 1 where a row has an ordinary token;
        with whole words and spans, the last group, if it does not fit, is left out (words) or cut
        (spans).

    Source: Devlin et al. 2019, section 3.1 and appendix A.1; google-research/bert
        `create_masked_lm_predictions`. Differs: the original draws once, at preparation; this
        draws anew in each epoch (RoBERTa's dynamic masking, Liu et al. 2019, section 4.1).
    """
    slots = config.slots(batch.token_ids.shape[1], span)
    rate = config.rate_at(progress)

    def mask_row(
        token_ids: Integer[Array, " T"],
        sequence_ids: Integer[Array, " T"],
        row_number: Integer[Array, ""],
        epoch: Integer[Array, ""],
    ) -> MaskedTokens:
        row_key = key_of_row(key, epoch, row_number)
        order_key, kind_key, token_key = jax.random.split(row_key, 3)
        token_ids = token_ids.astype(jnp.int32)
        candidates = (sequence_ids != 0) & ~vocabulary.special[token_ids]
        ranks = _rank_groups(order_key, token_ids, sequence_ids, candidates, config, vocabulary)

        wanted = jnp.round(rate * candidates.sum()).astype(jnp.int32)
        wanted = jnp.clip(wanted, jnp.minimum(1, candidates.sum()), slots)
        order = jnp.argsort(ranks, stable=True)[:slots]
        used = jnp.arange(slots) < wanted
        if config.strategy == "whole-word":
            used = _drop_cut_word(used, ranks, order, wanted)

        positions = jnp.where(used, order, 0).astype(jnp.int32)
        labels = token_ids[positions]
        draw = jax.random.uniform(kind_key, (slots,))
        random_index = jax.random.randint(token_key, (slots,), 0, vocabulary.ordinary_ids.size)
        replacement = jnp.where(
            draw < replacements.mask_token,
            vocabulary.mask_id,
            jnp.where(
                draw < replacements.mask_token + replacements.random_token,
                vocabulary.ordinary_ids[random_index],
                labels,
            ),
        )
        masked = write_tokens(token_ids, positions, used, replacement)
        return MaskedTokens(masked, positions, labels, used.astype(jnp.float32))

    return jax.vmap(mask_row)(batch.token_ids, batch.sequence_ids, batch.row_numbers, batch.epochs)


def aim_at_next_tokens(batch: RowBatch) -> MaskedTokens:
    """Makes every token but the last of its example a place whose next token is to be predicted.

    Nothing is masked: it is the model that does not look ahead.

    Args:
        batch: the rows.
    """
    rows, length = batch.token_ids.shape
    follows = (batch.sequence_ids[:, 1:] == batch.sequence_ids[:, :-1]) & (
        batch.sequence_ids[:, 1:] != 0
    )
    return MaskedTokens(
        batch.token_ids,
        jnp.broadcast_to(jnp.arange(length - 1, dtype=jnp.int32), (rows, length - 1)),
        batch.token_ids[:, 1:].astype(jnp.int32),
        follows.astype(jnp.float32),
    )


def write_tokens(
    token_ids: Int[Array, " T"],
    positions: Int[Array, " P"],
    used: Bool[Array, " P"],
    written: Integer[Array, " P"],
) -> Int[Array, " T"]:
    """Returns a row with other tokens at the positions of the slots in use.

    Args:
        token_ids: the row.
        positions: of the slots.
        used: which slots are in use.
        written: the token of each slot.
    """
    # Unused slots write past the end, which `drop` ignores: position 0 is [CLS] and stays.
    target = jnp.where(used, positions, token_ids.size)
    # With x64 the indices are wider.
    return token_ids.at[target].set(written.astype(token_ids.dtype), mode="drop")


def _rank_groups(
    key: Key[Array, ""],
    token_ids: Int[Array, " T"],
    sequence_ids: Integer[Array, " T"],
    candidates: Bool[Array, " T"],
    config: MaskingConfig,
    vocabulary: Vocabulary,
) -> Int[Array, " T"]:
    """Ranks each token's group in a random order; `_LAST` for tokens that are no candidates."""
    length = token_ids.size
    if config.strategy == "token":
        ranks = jnp.argsort(jnp.argsort(jax.random.uniform(key, (length,))))
        return jnp.where(candidates, ranks, _LAST)

    follows = jnp.concatenate([jnp.zeros(1, bool), candidates[:-1]])
    starts_word = candidates & ~(vocabulary.continues_word[token_ids] & follows)
    word = jnp.cumsum(starts_word) - 1  # the number of each candidate's word
    order_key, length_key = jax.random.split(key)
    rank_of_word = jnp.argsort(jnp.argsort(jax.random.uniform(order_key, (length,))))
    if config.strategy == "whole-word":
        return jnp.where(candidates, rank_of_word[word], _LAST)

    # A span starts at a word and runs over the words after it, never across a special token.
    uniform = jax.random.uniform(length_key, (length,), minval=jnp.finfo(jnp.float32).tiny)
    words = 1 + jnp.floor(jnp.log(uniform) / math.log(1 - SPAN_PROBABILITY)).astype(jnp.int32)
    words = jnp.minimum(words, SPAN_MAX_WORDS)
    segment = jnp.cumsum(~candidates)
    segment_of_word = (
        jnp.full(length, -1).at[jnp.where(starts_word, word, length)].set(segment, mode="drop")
    )
    numbers = jnp.arange(length)
    best = jnp.full(length, _LAST)
    for back in range(SPAN_MAX_WORDS):
        start = numbers - back
        covers = (start >= 0) & (words[start] > back) & (segment_of_word[start] == segment_of_word)
        best = jnp.minimum(best, jnp.where(covers, rank_of_word[start], _LAST))
    return jnp.where(candidates, best[word], _LAST)


def _drop_cut_word(
    used: Bool[Array, " P"],
    ranks: Int[Array, " T"],
    order: Int[Array, " P"],
    wanted: Int[Array, ""],
) -> Bool[Array, " P"]:
    """Leaves out the last word when the budget cuts it in two, unless it is the only one."""
    chosen = ranks[order]
    last = chosen[wanted - 1]
    pieces_chosen = (used & (chosen == last)).sum()
    cut = pieces_chosen < (ranks == last).sum()
    kept = used & ~(cut & (chosen == last))
    return jnp.where(kept.any(), kept, used)
