"""What stands on top of the encoder: pooler, masked-LM head, next-sentence head."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from bertjax.config import BertConfig
from bertjax.model.layers import LayerNorm, Linear, activate


class Pooler(nn.Module):
    """tanh(dense) of each example's [CLS].

    Source: google-research/bert `BertModel.pooled_output`.
    """

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, first_hidden: Float[Array, "B K D"]) -> Float[Array, "B K D"]:
        width = (self.config.hidden_size,)
        dense = Linear(width, width, self.config.initializer_range, self.dtype, name="dense")
        return jnp.tanh(dense(first_hidden))


class MaskedLanguageModelHead(nn.Module):
    """dense, activation, LayerNorm, then the token embedding as decoder (tied), a bias per token.

    Source: google-research/bert `get_masked_lm_output`.
    """

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "slots D"], word_embeddings: Float[Array, "V D"]
    ) -> Float[Array, "slots V"]:
        """Logits in float32 for the hidden states given, which training gathers beforehand."""
        config, width = self.config, (self.config.hidden_size,)
        dense = Linear(width, width, config.initializer_range, self.dtype, name="dense")
        transformed = activate(config.hidden_act, dense(hidden))
        transformed = LayerNorm(config.layer_norm_eps, name="layer_norm")(transformed)
        bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,))
        logits = transformed @ word_embeddings.astype(self.dtype).T
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32)) + bias


class NextSentenceHead(nn.Module):
    """Two logits from the pooled [CLS]: B is the next sentence (0), B is random (1).

    Source: google-research/bert `get_next_sentence_output`.
    """

    config: BertConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pooled: Float[Array, "B K D"]) -> Float[Array, "B K 2"]:
        width = (self.config.hidden_size,)
        dense = Linear((2,), width, self.config.initializer_range, self.dtype, name="dense")
        logits = dense(pooled)
        return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
