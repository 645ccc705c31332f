"""A layer that normalizes what enters its two parts, not what leaves them: ModernBERT's."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer

from bertjax.config import BertConfig
from bertjax.model.attention import Backend, SelfAttention
from bertjax.model.layers import LayerNorm, Linear, activate
from bertjax.model.probe_points import Edits, Probes
from bertjax.model.rotary import Rotation
from bertjax.numerics.dropout import drop_out


class LayerKind(NamedTuple):
    """What a layer is, where layers differ, for a scan over them.

    Attributes:
        first: its input is normalized already, by the embeddings.
        local: it has the window; None = all layers are as `config.window` says.
    """

    first: Bool[Array, "*L"]
    local: Bool[Array, "*L"] | None


def kinds_of_layers(config: BertConfig) -> LayerKind:
    """Returns the kinds of all layers."""
    local = jnp.array(config.local_layers)
    differ = len(set(config.local_layers)) > 1
    return LayerKind(jnp.arange(config.num_hidden_layers) == 0, local if differ else None)


class PreNormLayer(nn.Module):
    """One pre-LN transformer layer with rotary positions and a gated feed-forward part.

    Called as `encoder.EncoderLayer`, with the layer's kind, and the rotations of both kinds.

    Source: Warner et al. 2024, section 2.1 (ModernBERT); Xiong et al. 2020 (pre-LN); Shazeer 2020
    (gated feed-forward); Su et al. 2021 (rotary positions); `transformers`
    `ModernBertEncoderLayer`.
    """

    config: BertConfig
    dtype: DTypeLike
    dropout: bool
    trace: tuple[str, ...]
    backend: Backend

    def setup(self) -> None:
        config, dtype = self.config, self.dtype
        width, inner = (config.hidden_size,), (config.intermediate_size,)
        spread, cutoff = config.initializer_range, config.initializer_cutoff
        biased = {"has_bias": config.mlp_bias, "cutoff": cutoff}
        self.attention = SelfAttention(config, dtype, self.backend)
        self.attention_layer_norm = LayerNorm(config.layer_norm_eps, config.norm_bias)
        self.intermediate = Linear(inner, width, spread, dtype, **biased)
        self.gate = Linear(inner, width, spread, dtype, **biased)
        self.output = Linear(width, inner, config.output_initializer_range, dtype, **biased)
        self.output_layer_norm = LayerNorm(config.layer_norm_eps, config.norm_bias)

    def __call__(
        self,
        hidden: Float[Array, "tokens D"],
        edits: Edits,
        kind: LayerKind,
        sequence_ids: Integer[Array, "B T"],
        row_ids: Integer[Array, " B"],
        rotations: Rotation,
    ) -> tuple[Float[Array, "B*T D"], dict[str, Array]]:
        config = self.config
        probes = Probes(edits, self.trace, sequence_ids.shape[0])
        local = config.window is not None if kind.local is None else kind.local
        rotation = jax.tree.map(lambda both: jnp.where(local, both[1], both[0]), rotations)
        normalized = jnp.where(kind.first, hidden, self.attention_layer_norm(hidden))
        attended = self.attention(
            normalized, sequence_ids, row_ids, self.dropout, probes, kind.local, rotation
        )
        attended = probes("attention", attended)
        hidden = hidden + self._drop(attended, config.attention_probs_dropout_prob, row_ids)
        normalized = self.output_layer_norm(hidden)
        inner = activate(config.hidden_act, self.intermediate(normalized)) * self.gate(normalized)
        inner = self._drop(probes("inner", inner), config.mlp_dropout, row_ids)
        hidden = hidden + self.output(inner)
        return probes("hidden", hidden), probes.kept

    def _drop(
        self, values: Float[Array, "tokens width"], rate: float, row_ids: Integer[Array, " B"]
    ) -> Float[Array, "tokens width"]:
        if not self.dropout or rate == 0:
            return values
        return drop_out(values, rate, self.make_rng("dropout"), row_ids)
