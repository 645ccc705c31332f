"""Replaced-token detection: a small generator fills masks, and a discriminator finds what it wrote.

Source: Clark et al. 2020 (ELECTRA), section 2; google-research/electra `run_pretraining.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Integer, Key

from bertjax.config import BertConfig
from bertjax.numerics.dropout import draw_bits
from bertjax.objectives import losses
from bertjax.objectives.losses import Total
from bertjax.objectives.masking import (
    EVALUATION_SEED,
    MaskingConfig,
    Progress,
    Replacements,
    Vocabulary,
    key_of_row,
    mask_tokens,
    write_tokens,
)
from bertjax.objectives.pretraining import (
    mask_for_evaluation,
    score_masked_tokens,
    summarize_masked_scores,
)
from bertjax.program.errors import UserError
from bertjax.types import MaskedTokens, RowBatch

# Source: google-research/electra `pretrain_helpers.mask`. The paper has [MASK] in all of them.
OF_ELECTRA = Replacements(0.85, 0.0)
# The discriminator's loss counts so many times. Source: google-research/electra
# `configure_pretraining.py`, disc_weight.
DISCRIMINATOR_WEIGHT = 50.0
# Which of a row's keys samples; `mask_tokens` has the three before it.
_SAMPLING = 3


@dataclasses.dataclass(frozen=True)
class ReplacedTokensConfig:
    """Replaced-token detection (Clark et al. 2020), for objective=replaced-tokens.

    Attributes:
        generator_size: the share of the discriminator's width, heads and feed-forward part that
            the generator has, in whole heads; it has as many layers. 0.25 when not given, and
            there is no generator beside model.init
        discriminator_weight: the discriminator's loss counts so many times in the sum
        temperature: the generator's logits are divided by it before tokens are sampled
    """

    generator_size: float | None = None
    discriminator_weight: float = DISCRIMINATOR_WEIGHT
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.generator_size is not None and not 0 < self.generator_size <= 1:
            raise UserError(
                f"replaced_tokens.generator_size={self.generator_size} must be above 0 and at"
                " most 1"
            )
        for name in ("discriminator_weight", "temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"replaced_tokens.{name}={getattr(self, name)} must be above 0")


class GeneratorAndDiscriminator(NamedTuple):
    """The two models that are trained together, the discriminator being the one that is wanted.

    Their parameters are {"discriminator": ..., "generator": ...}. The embeddings, all but their
    projection to the hidden size, are the discriminator's alone, and the generator computes with
    them (section 3.2; google-research/electra shares positions, token types and LayerNorm, too).

    Attributes:
        generator: a `BertForMaskedLM`.
        discriminator: a `BertForReplacedTokenDetection`.
    """

    generator: nn.Module
    discriminator: nn.Module

    @property
    def config(self) -> BertConfig:
        """The discriminator's shape."""
        return self.discriminator.config

    @property
    def dtype(self) -> Any:
        """Of the matrix products."""
        return self.discriminator.dtype

    @property
    def remat(self) -> str:
        """Of both, see `BertModel`."""
        return self.discriminator.remat

    @property
    def attention(self) -> str:
        """The backend of both."""
        return self.discriminator.attention

    def clone(self, **fields: Any) -> "GeneratorAndDiscriminator":
        """Returns both with other fields, as `nn.Module.clone`."""
        return GeneratorAndDiscriminator(*(model.clone(**fields) for model in self))

    def init(self, key: Key[Array, ""], token_ids: Integer[Array, "B T"]) -> dict[str, Any]:
        """Draws the parameters of both, as `nn.Module.init`."""
        of_discriminator, of_generator = jax.random.split(key)
        discriminator = self.discriminator.init(of_discriminator, token_ids)["params"]
        generator = without_tables(self.generator.init(of_generator, token_ids)["params"])
        return {"params": {"discriminator": discriminator, "generator": generator}}


def _tables_of(model: Mapping[str, Any]) -> dict[str, Any]:
    embeddings = model["bert"]["embeddings"]
    return {name: values for name, values in embeddings.items() if name != "projection"}


def without_tables(generator: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a generator's parameters without the embeddings that it shares."""
    shared = _tables_of(generator)
    own = {k: v for k, v in generator["bert"]["embeddings"].items() if k not in shared}
    body = {name: part for name, part in generator["bert"].items() if name != "embeddings"}
    return {**generator, "bert": {**body, "embeddings": own} if own else body}


def generator_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the generator's parameters, the embeddings that it shares among them."""
    generator, shared = params["generator"], _tables_of(params["discriminator"])
    body = generator["bert"]
    return {
        **generator,
        "bert": {**body, "embeddings": {**shared, **body.get("embeddings", {})}},
    }


class Detection(NamedTuple):
    """Rows that a generator has filled, and what the discriminator says of them.

    Attributes:
        token_ids: what the discriminator sees.
        replaced: whether a token is another than was there.
        logits: above 0 where the discriminator says so.
    """

    token_ids: Int[Array, "B T"]
    replaced: Bool[Array, "B T"]
    logits: Float[Array, "B T"]

    def loss(self, real: Float[Array, "B T"]) -> Total:
        """Returns the discriminator's binary cross-entropy over the real tokens."""
        labels = self.replaced.astype(self.logits.dtype)
        return losses.binary_cross_entropy(self.logits[..., None], labels[..., None], real)


def restore_words(
    models: GeneratorAndDiscriminator,
    params: Mapping[str, Any],
    batch: RowBatch,
    masked: MaskedTokens,
    **options: Any,
) -> Float[Array, "B P V"]:
    """Computes the generator's logits at the masked places; options as of `BertModel`."""
    return models.generator.apply(
        {"params": generator_of(params)},
        masked.token_ids,
        *batch[1:5],
        masked_positions=masked.positions,
        **options,
    ).logits


def detect(
    models: GeneratorAndDiscriminator,
    params: Mapping[str, Any],
    batch: RowBatch,
    masked: MaskedTokens,
    sampled: Int[Array, "B P"],
    **options: Any,
) -> Detection:
    """Fills the masked places with sampled tokens, and lets the discriminator judge every token.

    A token is replaced where it differs from what was there: a right guess is an original token.

    Args:
        models: both.
        params: of both.
        batch: the rows, as they were.
        masked: their masked places.
        sampled: a token for each.
        options: as of `BertModel`.
    """
    original = batch.token_ids.astype(jnp.int32)
    filled = jax.vmap(write_tokens)(original, masked.positions, masked.weights > 0, sampled)
    logits = models.discriminator.apply(
        {"params": params["discriminator"]}, filled, *batch[1:5], **options
    ).logits
    return Detection(filled, filled != original, logits)


def sample_tokens(
    key: Key[Array, ""],
    batch: RowBatch,
    logits: Float[Array, "B P V"],
    temperature: float = 1.0,
) -> Int[Array, "B P"]:
    """Samples a token for every slot, from softmax(logits / temperature); it has no gradient.

    The largest sum of a logit and Gumbel noise is such a sample. The noise is keyed by the row's
    epoch and number, as the masks are, so that the same tokens are sampled on any number of
    devices, after any restart and in microbatches. (To compare a single number with cumulated
    probabilities would need less of it. But of 8,192 tokens whose logits are off by 1e-6, as they
    are on other devices, it samples another one once in 1,600 times; noise, once in 400,000.)

    Args:
        key: the run's, of the masks.
        batch: whose `row_numbers` and `epochs` key the noise.
        logits: the generator's.
        temperature: above 1 evens the probabilities out.

    Source: google-research/electra `sample_from_softmax`.
    """

    def key_of(epoch: Array, row_number: Array) -> Array:
        return jax.random.fold_in(key_of_row(key, epoch, row_number), _SAMPLING)

    bits = draw_bits(jax.vmap(key_of)(batch.epochs, batch.row_numbers), logits.shape[1:])
    # In (0, 1]; what is near 0, the likeliest to be chosen, is the most finely resolved.
    uniform = (bits.astype(jnp.float32) + 0.5) * 2.0**-32
    noise = -jnp.log(-jnp.log1p(-uniform))
    return (logits / temperature + noise).argmax(axis=-1).astype(jnp.int32)


class ReplacedTokenObjective:
    """Generator's masked-LM loss + weight x discriminator's loss (`training.steps.Objective`).

    The discriminator's loss is the mean over all real tokens, special ones among them.

    Args:
        models: the two.
        config: the weight and the temperature.
        masking_config: which tokens are masked.
        vocabulary: of the rows' tokenizer.
        seed: of the masks and samples.
        span: as `z_loss`, of `PretrainingObjective`; the latter is the generator's.
        z_loss: see there.

    Source: Clark et al. 2020, section 2. Differs from google-research/electra: no position is
        chosen twice in a row.
    """

    def __init__(
        self,
        models: GeneratorAndDiscriminator,
        config: ReplacedTokensConfig,
        masking_config: MaskingConfig,
        vocabulary: Vocabulary,
        seed: int,
        *,
        span: tuple[float, float] = (0.0, 1.0),
        z_loss: float = 0.0,
    ) -> None:
        self._models, self._config = models, config
        self._masking, self._vocabulary, self._span = masking_config, vocabulary, span
        self.terms = {
            "mlm": 1.0,
            "replaced": config.discriminator_weight,
            **({"z": z_loss} if z_loss else {}),
        }
        self._key = jax.random.split(jax.random.key(seed))[0]  # the other half is dropout's

    def slots(self, max_length: int) -> int:
        """Returns P, how many places of a row of `max_length` tokens the generator may fill."""
        return self._masking.slots(max_length, self._span)

    def prepare(
        self, batch: RowBatch, progress: Progress
    ) -> tuple[tuple[RowBatch, MaskedTokens], dict[str, Float[Array, ""]]]:
        """Returns the batch, its masked tokens, and the number of them and of real tokens."""
        masked = mask_tokens(
            self._key, batch, self._masking, self._vocabulary, progress, self._span, OF_ELECTRA
        )
        words = masked.weights.sum()
        counts = {"mlm": words, "replaced": _real(batch).sum(), "z": words}
        return (batch, masked), {term: counts[term] for term in self.terms}

    def totals(
        self,
        params: Any,
        statistics: Any,
        part: tuple[RowBatch, MaskedTokens],
        row_ids: Integer[Array, " B"],
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[dict[str, Total], Any]:
        """Returns the two losses of some of the rows; `statistics` stays empty."""
        batch, masked = part
        of_generator, of_discriminator = options = [{"row_ids": row_ids}, {"row_ids": row_ids}]
        if dropout_key is not None:
            for own, key in zip(options, jax.random.split(dropout_key), strict=True):
                own |= {"dropout": True, "rngs": {"dropout": key}}
        mlm_logits = restore_words(self._models, params, batch, masked, **of_generator)
        sampled = sample_tokens(self._key, batch, mlm_logits, self._config.temperature)
        found = detect(self._models, params, batch, masked, sampled, **of_discriminator)
        totals = {
            "mlm": losses.cross_entropy(mlm_logits, masked.labels, masked.weights),
            "replaced": found.loss(_real(batch)),
        }
        if "z" in self.terms:
            totals["z"] = losses.squared_log_normalizers(mlm_logits, masked.weights)
        return totals, statistics


def _real(batch: RowBatch) -> Float[Array, "B T"]:
    return (batch.sequence_ids != 0).astype(jnp.float32)


class ReplacedScores(NamedTuple):
    """Totals of an evaluation, which add up over batches.

    Attributes:
        mlm: as the next three, of `MaskedScores`: the generator's.
        mlm_correct, unigram, unigram_correct: see there.
        detection: the discriminator's loss.
        detected: of the replaced tokens, those that the discriminator says are.
        kept: of the original tokens, those that the discriminator says are.
        replaced: of all tokens, those that are replaced.
        by_frequency: the discriminator's loss on tokens drawn by their frequency.
    """

    mlm: Total
    mlm_correct: Total
    unigram: Total
    unigram_correct: Total
    detection: Total
    detected: Total
    kept: Total
    replaced: Total
    by_frequency: Total

    def summarize(self) -> dict[str, float]:
        """Returns the figures of a log's line.

        `loss` is the sum that is minimised, by the paper's weights whatever the run's, so that runs
        of different weights compare, and with the discriminator's loss on tokens that no model
        chose (see `make_detection_eval_step`).
        """
        of_words, share = summarize_masked_scores(self), float(self.replaced.mean())
        by_frequency = float(self.by_frequency.mean())
        return {
            "loss": of_words["mlm_loss"] + DISCRIMINATOR_WEIGHT * by_frequency,
            **of_words,
            "by_frequency_loss": by_frequency,
            "replaced_loss": float(self.detection.mean()),
            "replaced_accuracy": float(self.detected.mean()),
            "original_accuracy": float(self.kept.mean()),
            "replaced_share": share,
            "share_loss": -sum(p * math.log(p) for p in (share, 1 - share) if p > 0),
        }


def make_detection_eval_step(
    models: GeneratorAndDiscriminator,
    vocabulary: Vocabulary,
    unigram_log_probs: Float[Array, " V"],
) -> Callable[[Any, RowBatch], ReplacedScores]:
    """Makes the evaluation step for `jax.jit`: the same masks and noise whatever the run.

    The generator is scored as any masked language model is (`pretraining.make_eval_step`), and the
    discriminator on what it writes there. That task becomes harder as the generator learns, so that
    its loss cannot say which of two models is better. Hence the discriminator is also scored where
    the same places have tokens drawn by their frequency, the same ones for every model. That says
    nothing of the generator, which is saved and continued beside it, so that what chooses between
    models is a sum of this loss and the generator's (`ReplacedScores.summarize`).
    """
    key = jax.random.key(EVALUATION_SEED)

    def step(params: Any, batch: RowBatch) -> ReplacedScores:
        masked = mask_for_evaluation(batch, vocabulary)
        mlm_logits = restore_words(models, params, batch, masked)
        judged = score_masked_tokens(mlm_logits, masked.labels, masked.weights, unigram_log_probs)
        sampled = sample_tokens(key, batch, mlm_logits)
        found = detect(models, params, batch, masked, sampled)
        frequencies = jnp.broadcast_to(unigram_log_probs, mlm_logits.shape)
        drawn = sample_tokens(key, batch, frequencies)
        by_frequency = detect(models, params, batch, masked, drawn)
        real = _real(batch)
        replaced = real * found.replaced
        original = real - replaced
        right = (found.logits > 0) == found.replaced
        return ReplacedScores(
            *judged,
            found.loss(real),
            Total((right * replaced).sum(), replaced.sum()),
            Total((right * original).sum(), original.sum()),
            Total(replaced.sum(), real.sum()),
            by_frequency.loss(real),
        )

    return step
