"""The letters of every shape, and the values that pass between the parts.

One letter, one meaning, in annotations, comments and (in lower case) einsums:

    B  rows of a batch            T  query positions        S  key positions (T = S in an encoder)
    D  hidden size                N  attention heads        H  head size (N * H is D, or less where
                                                               heads were removed)
    F  intermediate size          V  vocabulary             L  layers
    P  masked slots a row         K  examples a row         M  max positions
    G  token types                C  classes                W  words
    E  width of the embeddings' tables (D, but where they are projected)

Arrays over tokens are flat inside the encoder, `[tokens, D]` with tokens = B*T: on XLA:CPU a matrix
product on the flat shape is about a quarter faster than on `[B, T, D]`, and elsewhere it costs
nothing.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Shaped


class RowBatch(NamedTuple):
    """Rows of a prepared directory as model input: several examples packed into each row.

    `sequence_ids` is the only mask: a token attends to another iff both have the same id and it is
    not 0 (padding).

    Attributes:
        token_ids: vocabulary ids.
        token_type_ids: 0 for segment A, 1 for segment B.
        sequence_ids: 0 = padding, k = the k-th example packed into the row.
        position_ids: from 0 in every example.
        example_starts: where each example's [CLS] is; 0 in unused slots.
        next_sentence_labels: 0 = B is the next sentence, 1 = B is random, -1 = unused slot.
        row_numbers: each row's number in the split; with `epochs` it keys the masking.
        epochs: how many times the whole split has been seen before.
    """

    token_ids: Integer[Array, "B T"]
    token_type_ids: Integer[Array, "B T"]
    sequence_ids: Integer[Array, "B T"]
    position_ids: Integer[Array, "B T"]
    example_starts: Integer[Array, "B K"]
    next_sentence_labels: Integer[Array, "B K"]
    row_numbers: Integer[Array, " B"]
    epochs: Integer[Array, " B"]


class TaskBatch(NamedTuple):
    """Rows of a supervised task: several examples packed into each, with their targets.

    The first five are those of `RowBatch`.

    Attributes:
        token_ids, token_type_ids, sequence_ids, position_ids, example_starts: as of `RowBatch`.
        labels: of every slot or token, as the task defines them (see `bertjax.tasks`).
        weights: of every slot or token in the loss; 0 where there is no target.
    """

    token_ids: Integer[Array, "B T"]
    token_type_ids: Integer[Array, "B T"]
    sequence_ids: Integer[Array, "B T"]
    position_ids: Integer[Array, "B T"]
    example_starts: Integer[Array, "B K"]
    labels: Shaped[Array, "B places ..."]
    weights: Float[Array, "B places"]


class MaskedTokens(NamedTuple):
    """A batch after masking: what the model sees, and what it must restore.

    Attributes:
        token_ids: the ids with the chosen positions replaced (80 % [MASK], 10 % random, 10 % kept).
        positions: the chosen positions; unused slots point at position 0 with weight 0.
        labels: the original ids at `positions`.
        weights: 1 for a used slot, 0 for an unused one.
    """

    token_ids: Int[Array, "B T"]
    positions: Int[Array, "B P"]
    labels: Int[Array, "B P"]
    weights: Float[Array, "B P"]


class Trace(NamedTuple):
    """The requested values inside the model; None for the rest (see `model.probe_points`).

    Attributes:
        embedded: the embeddings' output, which enters the first layer.
        probs: attention probabilities before dropout; rows sum to 1 over the visible keys.
        context: each head's weighted sum of values, before the output projection.
        attention: attention's projected output, before dropout and residual.
        inner: activations of the feed-forward block.
        hidden: every layer's output.
    """

    embedded: Float[Array, "B T D"] | None = None
    probs: Float[Array, "L B N T S"] | None = None
    context: Float[Array, "L B T N H"] | None = None
    attention: Float[Array, "L B T D"] | None = None
    inner: Float[Array, "L B T F"] | None = None
    hidden: Float[Array, "L B T D"] | None = None

    @property
    def hidden_states(self) -> Float[Array | np.ndarray, "states B T D"]:
        """The embeddings' output, then every layer's, L + 1; both have to be asked for."""
        states = [self.embedded[None], self.hidden]
        # jax would make float32 of what is on the host in float64.
        on_host = isinstance(self.hidden, np.ndarray)
        return np.concatenate(states) if on_host else jnp.concatenate(states)


class EncoderOutput(NamedTuple):
    """What a BERT body returns.

    Attributes:
        hidden: the last layer's output.
        pooled: tanh(dense) of every example's [CLS]; None for a body without a pooler.
        trace: what `trace` asks for; None where it asks for nothing.
    """

    hidden: Float[Array, "B T D"]
    pooled: Float[Array, "B K D"] | None
    trace: Trace | None


class PreTrainingOutput(NamedTuple):
    """What a model that is pretrained returns, in float32.

    Attributes:
        mlm_logits: over the vocabulary, at the requested masked positions (P), or at all of them.
        nsp_logits: [is next, is random] for every example; None without such a head.
        encoder: the body's output.
    """

    mlm_logits: Float[Array, "B P V"]
    nsp_logits: Float[Array, "B K 2"] | None
    encoder: EncoderOutput


class SentenceOrderOutput(NamedTuple):
    """What an ALBERT with both heads of its pretraining returns, in float32.

    Attributes:
        mlm_logits: as of `PreTrainingOutput`.
        order_logits: [in order, swapped] for every example.
        encoder: the body's output.
    """

    mlm_logits: Float[Array, "B P V"]
    order_logits: Float[Array, "B K 2"]
    encoder: EncoderOutput


class HeadOutput(NamedTuple):
    """What a model with one head returns, in float32.

    Attributes:
        logits: the head's: `[B, P, V]` masked LM, `[B, K, 2]` next sentence, `[B, K, C]` sequence
            classification, `[B, T, C]` token classification, `[B, T, 2]` spans (start, end),
            `[B, K]` multiple choice (one score per sequence).
        encoder: the body's output.
    """

    logits: Float[Array, "B places ..."]
    encoder: EncoderOutput
