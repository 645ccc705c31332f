"""The model classes: composition only."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Integer

from bertjax.config import BertConfig
from bertjax.model.attention import see_own_sequence
from bertjax.model.embeddings import Embeddings
from bertjax.model.encoder import Encoder
from bertjax.model.heads import MaskedLanguageModelHead, NextSentenceHead, Pooler
from bertjax.types import EncoderOutput, PreTrainingOutput, Trace


class BertModel(nn.Module):
    """BERT's body: embeddings, encoder, pooler.

    Attributes:
        config: the shape.
        dtype: of the matrix products; parameters, softmax and statistics are float32 whatever it
            is.
        remat: a key of `encoder.REMAT_POLICIES`.

    Source: Devlin et al. 2019; google-research/bert `BertModel`.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        self.embeddings = Embeddings(self.config, self.dtype)
        self.encoder = Encoder(self.config, self.dtype, self.remat)
        self.pooler = Pooler(self.config, self.dtype)

    def __call__(
        self,
        token_ids: Integer[Array, "B T"],
        token_type_ids: Integer[Array, "B T"] | None = None,
        sequence_ids: Integer[Array, "B T"] | None = None,
        position_ids: Integer[Array, "B T"] | None = None,
        example_starts: Integer[Array, "B K"] | None = None,
        *,
        row_ids: Integer[Array, " B"] | None = None,
        head_gates: Float[Array, "L N"] | None = None,
        dropout: bool = False,
        trace: bool = False,
    ) -> EncoderOutput:
        """Hidden states of every token and the pooled [CLS] of every example.

        Args:
            token_ids: vocabulary ids.
            token_type_ids: 0 or 1; all 0 when left out.
            sequence_ids: 0 = padding, k = k-th example of the row (see `types.RowBatch`); when left
                out, every token that is not `config.pad_token_id` belongs to one example.
            position_ids: when left out, 0, 1, 2, ...
            example_starts: where each example's [CLS] is; when left out, one example that starts at
                0.
            row_ids: places in the global batch, which key the dropout; 0, 1, 2, ... when left out.
            head_gates: each head's output is multiplied by its gate; ones when left out.
            dropout: static; needs `rngs={"dropout": key}`.
            trace: static; fills `EncoderOutput.trace`.
        """
        config, (rows, length) = self.config, token_ids.shape
        if sequence_ids is None:
            sequence_ids = (token_ids != config.pad_token_id).astype(jnp.int32)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(token_ids)
        if position_ids is None:
            position_ids = jnp.broadcast_to(jnp.arange(length), (rows, length))
        if example_starts is None:
            example_starts = jnp.zeros((rows, 1), jnp.int32)
        if row_ids is None:
            row_ids = jnp.arange(rows)
        if head_gates is None:
            head_gates = jnp.ones((config.num_hidden_layers, config.num_attention_heads))

        embedded = self.embeddings(token_ids, token_type_ids, position_ids, row_ids, dropout)
        visible = see_own_sequence(sequence_ids)
        hidden, layers = self.encoder(embedded, head_gates, visible, row_ids, dropout, trace)
        hidden = hidden.reshape(rows, length, -1)
        pooled = self.pooler(jnp.take_along_axis(hidden, example_starts[:, :, None], axis=1))
        if layers is None:
            return EncoderOutput(hidden, pooled, None)
        probs, context, layer_hidden = layers
        all_hidden = jnp.concatenate([embedded[None], layer_hidden])
        return EncoderOutput(
            hidden,
            pooled,
            Trace(probs, context, all_hidden.reshape(-1, rows, length, hidden.shape[-1])),
        )


class BertForPreTraining(nn.Module):
    """The body with both heads of pretraining: masked language model and next sentence."""

    config: BertConfig
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def setup(self) -> None:
        self.bert = BertModel(self.config, self.dtype, self.remat)
        self.mlm_head = MaskedLanguageModelHead(self.config, self.dtype)
        self.nsp_head = NextSentenceHead(self.config, self.dtype)

    def __call__(
        self,
        token_ids: Integer[Array, "B T"],
        *model_inputs: Integer[Array, "B _"] | None,
        masked_positions: Int[Array, "B P"] | None = None,
        **options: object,
    ) -> PreTrainingOutput:
        """Logits of both heads.

        Args:
            token_ids: vocabulary ids, masked.
            model_inputs: token_type_ids, sequence_ids, position_ids, example_starts of `BertModel`.
            masked_positions: where masked-LM logits are wanted; all T positions when left out.
            options: the keyword arguments of `BertModel`.
        """
        body = self.bert(token_ids, *model_inputs, **options)
        hidden = body.hidden
        if masked_positions is not None:
            hidden = jnp.take_along_axis(hidden, masked_positions[:, :, None], axis=1)
        flat = hidden.reshape(-1, hidden.shape[-1])
        logits = self.mlm_head(flat, self.bert.embeddings.word_embeddings)
        mlm_logits = logits.reshape(*hidden.shape[:2], -1)
        return PreTrainingOutput(mlm_logits, self.nsp_head(body.pooled), body)
