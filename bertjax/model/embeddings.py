"""Token + position + token-type embeddings, summed, normalised, dropped out."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from bertjax.config import BertConfig
from bertjax.model.layers import LayerNorm, Linear, initialize_waves, initialize_weights
from bertjax.numerics.dropout import drop_out
from bertjax.numerics.placement import hold_vectors, look_up_vectors
from bertjax.numerics.products import hidden_dtype


class Embeddings(nn.Module):
    """The sum of three learned embeddings of every token, normalised.

    Attributes:
        config: of the model.
        dtype: of the matrix products, and so of what comes out (`products.hidden_dtype`).

    Source: Devlin et al. 2019, figure 2; google-research/bert `embedding_postprocessor`. Other
    families: no token types (Sanh et al. 2019, DistilBERT), positions from another row on (Liu et
    al. 2019, RoBERTa), tables that are narrower than the hidden states (Clark et al. 2020,
    ELECTRA), tokens alone (Warner et al. 2024, ModernBERT).
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        config = self.config
        initialize = initialize_weights(config.initializer_range, config.initializer_cutoff)
        width = config.embedding_size
        self.word_embeddings = self.param("word_embeddings", initialize, (config.vocab_size, width))
        if config.LEARNED_POSITIONS:
            self.position_embeddings = self.param(
                "position_embeddings",
                initialize_waves if config.sinusoidal_positions else initialize,
                (config.max_position_embeddings, width),
            )
        if config.type_vocab_size:
            self.token_type_embeddings = self.param(
                "token_type_embeddings", initialize, (config.type_vocab_size, width)
            )
        self.layer_norm = LayerNorm(config.layer_norm_eps, config.norm_bias)
        if config.projects_embeddings:
            self.projection = Linear(
                (config.hidden_size,), (width,), config.initializer_range, self.dtype
            )

    def __call__(
        self,
        token_ids: Integer[Array, "B T"],
        token_type_ids: Integer[Array, "B T"],
        position_ids: Integer[Array, "B T"],
        row_ids: Integer[Array, " B"],
        dropout: bool,
    ) -> Float[Array, "B*T D"]:
        """Computes the hidden states that enter the first layer, flat over tokens."""
        config = self.config
        summed = look_up_vectors(self.word_embeddings, token_ids.reshape(-1))
        if config.LEARNED_POSITIONS:
            places = position_ids.reshape(-1) + config.first_position
            summed += look_up_vectors(self.position_embeddings, places)
        if config.type_vocab_size:
            if not config.SEGMENTS_ARE_TYPES:
                token_type_ids = jnp.zeros_like(token_type_ids)
            # A table of two rows: picking by comparison has a cheap gradient, a gather's scatters.
            kinds = jnp.arange(config.type_vocab_size)
            chosen = (token_type_ids.reshape(-1, 1) == kinds).astype(summed.dtype)
            summed += jnp.matmul(chosen, self.token_type_embeddings, precision="highest")
        hidden = self.layer_norm(summed).astype(hidden_dtype(self.dtype))
        rate = config.hidden_dropout_prob
        if dropout and rate > 0:
            hidden = drop_out(hidden, rate, self.make_rng("dropout"), row_ids)
        if config.projects_embeddings:
            # Otherwise XLA (jaxlib 0.10.2) computes other hidden states where a mesh has `data`,
            # `fsdp` and `tensor`.
            hidden = hold_vectors(self.projection(hidden))
        return hidden
