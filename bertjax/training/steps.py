"""One training step and one evaluation step, as pure functions of (state, batch)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from bertjax.objectives import losses, masking
from bertjax.objectives.losses import Total
from bertjax.objectives.masking import MaskedTokens, MaskingConfig, Vocabulary
from bertjax.training.state import TrainState, Window, empty_window
from bertjax.types import PreTrainingOutput, RowBatch


class StepReport(NamedTuple):
    """What a step tells beside its new state.

    Attributes:
        loss: of this batch: mean masked-LM loss + mean next-sentence loss, in nats.
        gradient_norm: before clipping.
        learning_rate: of this step.
        skipped_in_a_row: not-finite steps up to this one.
    """

    loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    skipped_in_a_row: Array


class Scores(NamedTuple):
    """Totals of an evaluation. They add up over batches."""

    mlm: Total
    mlm_correct: Total
    nsp: Total
    nsp_correct: Total
    unigram: Total
    unigram_correct: Total


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    learning_rate: Callable[[Array], Array],
    masking_config: MaskingConfig,
    vocabulary: Vocabulary,
    seed: int,
    *,
    microbatches: int = 1,
    clip_norm: float = 0.0,
    log_every: int = 1,
    most_skipped: int = 2**31 - 1,
    dropout: bool = True,
) -> Callable[[TrainState, RowBatch, Array], tuple[TrainState, StepReport]]:
    """The function that `jax.jit` compiles for training.

    The loss is a true mean over the global batch: the counts are known from the masking before the
    model runs, each microbatch adds its share of sum / count, and the gradients add up. A loss or
    gradient that is not finite changes nothing but the count of skipped steps.

    Args:
        model: a `BertForPreTraining`.
        optimizer: of `make_optimizer`, at learning rate 1.
        learning_rate: the rate as a function of the clock.
        masking_config: which tokens are masked.
        vocabulary: of the rows' tokenizer.
        seed: of masks and dropout.
        microbatches: the batch is worked through in so many parts, one after the other; must divide
            it.
        clip_norm: global norm that gradients are scaled down to; 0 = off.
        log_every: the state's window starts anew after so many steps.
        most_skipped: `skipped_in_a_row` stays where it is once it has come so far, so that it need
            not be looked at after every step.
        dropout: False turns it off, whatever the rates in the config.
    """
    mask_key, dropout_key = jax.random.split(jax.random.key(seed))

    def loss_of_part(
        params: Any,
        part: tuple[RowBatch, MaskedTokens, Array],
        counts: tuple[Array, Array],
        key: Array,
    ) -> tuple[Array, tuple[Total, Total]]:
        batch, masked, row_ids = part
        output = _apply(
            model, params, batch, masked, row_ids=row_ids, dropout=dropout, rngs={"dropout": key}
        )
        mlm = losses.cross_entropy(output.mlm_logits, masked.labels, masked.weights)
        nsp = losses.cross_entropy(output.nsp_logits, *_next_sentence_labels(batch))
        mlm_count, nsp_count = counts
        loss = mlm.sum / jnp.maximum(mlm_count, 1) + nsp.sum / jnp.maximum(nsp_count, 1)
        return loss, (mlm, nsp)

    def step(
        state: TrainState, batch: RowBatch, clock: Float[Array, ""]
    ) -> tuple[TrainState, StepReport]:
        masked = masking.mask_tokens(mask_key, batch, masking_config, vocabulary)
        counts = masked.weights.sum(), (batch.next_sentence_labels >= 0).sum()
        rows = batch.token_ids.shape[0]
        key = jax.random.fold_in(dropout_key, state.step)
        differentiate = jax.value_and_grad(loss_of_part, has_aux=True)

        whole = (batch, masked, jnp.arange(rows))
        if microbatches == 1:
            (loss, totals), gradients = differentiate(state.params, whole, counts, key)
        else:
            # Part i takes rows i, i + microbatches, ...: each device keeps the rows it has.
            parts = jax.tree.map(
                lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), whole
            )

            def add_part(total: Any, part: Any) -> tuple[Any, None]:
                return jax.tree.map(
                    jnp.add, total, differentiate(state.params, part, counts, key)
                ), None

            shapes = jax.eval_shape(
                differentiate, state.params, jax.tree.map(lambda x: x[0], parts), counts, key
            )
            zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
            ((loss, totals), gradients), _ = jax.lax.scan(add_part, zeros, parts)

        norm = optax.tree.norm(gradients)
        if clip_norm:
            scale = jnp.minimum(1, clip_norm / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny))
            gradients = jax.tree.map(lambda g: g * scale, gradients)
        rate = learning_rate(clock)
        finite = jnp.isfinite(loss) & jnp.isfinite(norm)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        params = jax.tree.map(lambda p, u: p + rate * u, state.params, updates)
        params, optimizer_state = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (params, optimizer_state),
            (state.params, state.optimizer_state),
        )

        mlm, nsp = jax.tree.map(lambda total: jnp.where(finite, total, 0), totals)
        tokens = (batch.sequence_ids != 0).sum(dtype=jnp.float32)
        window = jax.tree.map(
            lambda old, empty: jnp.where(state.step % log_every == 0, empty, old),
            state.window,
            empty_window(),
        )
        window = jax.tree.map(jnp.add, window, Window(mlm, nsp, tokens, jnp.ones(())))
        bad = ~finite
        going_on = bad | (state.skipped_in_a_row >= most_skipped)
        in_a_row = jnp.where(going_on, state.skipped_in_a_row + bad, 0)
        new_state = TrainState(
            params, optimizer_state, state.step + 1, state.skipped + bad, in_a_row, window
        )
        return new_state, StepReport(loss, norm, rate, in_a_row)

    return step


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
