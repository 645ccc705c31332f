"""The encoder: L times self-attention and feed-forward, each with residual, *post*-normalised."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from bertjax.config import BertConfig
from bertjax.model.attention import SelfAttention
from bertjax.model.layers import LayerNorm, Linear, activate
from bertjax.model.probe_points import Edits, Probes
from bertjax.numerics.dropout import drop_out

# What the backward pass keeps of a layer: everything, its products with parameters, or only its
# input. To make the two products of attention anew costs no more than to keep the scores.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def repeat_layers(config: BertConfig, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the parameters of every layer, stacked, also where all layers share one's."""
    if not config.SHARES_LAYERS:
        return params
    layers = config.num_hidden_layers
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (layers, *leaf.shape[1:])), params)


class EncoderLayer(nn.Module):
    """One post-LN transformer layer.

    Called by the scan over layers, hence carry in, (carry, trace) out.

    Source: Vaswani et al. 2017, section 3.1; google-research/bert `transformer_model`.
    """

    config: BertConfig
    dtype: DTypeLike
    dropout: bool
    trace: tuple[str, ...]
    backend: str

    def setup(self) -> None:
        config = self.config
        width, inner = (config.hidden_size,), (config.intermediate_size,)
        spread, dtype = config.initializer_range, self.dtype
        self.attention = SelfAttention(config, dtype, self.backend)
        self.attention_layer_norm = LayerNorm(config.layer_norm_eps)
        self.intermediate = Linear(inner, width, spread, dtype)
        self.output = Linear(width, inner, spread, dtype)
        self.output_layer_norm = LayerNorm(config.layer_norm_eps)

    def __call__(
        self,
        hidden: Float[Array, "tokens D"],
        edits: Edits,
        sequence_ids: Integer[Array, "B T"],
        row_ids: Integer[Array, " B"],
    ) -> tuple[Float[Array, "B*T D"], dict[str, Array]]:
        probes = Probes(edits, self.trace, len(sequence_ids))
        attended = self.attention(hidden, sequence_ids, row_ids, self.dropout, probes)
        attended = probes("attention", attended)
        if self.config.DROPS_ATTENTION_OUTPUT:  # DistilBERT (Sanh et al. 2019) does not
            attended = self._drop(attended, row_ids)
        hidden = self.attention_layer_norm(hidden + attended)
        inner = probes("inner", activate(self.config.hidden_act, self.intermediate(hidden)))
        hidden = self.output_layer_norm(hidden + self._drop(self.output(inner), row_ids))
        return probes("hidden", hidden), probes.kept

    def _drop(
        self, values: Float[Array, "tokens D"], row_ids: Integer[Array, " B"]
    ) -> Float[Array, "tokens D"]:
        rate = self.config.hidden_dropout_prob
        if not self.dropout or rate == 0:
            return values
        return drop_out(values, rate, self.make_rng("dropout"), row_ids)


class Encoder(nn.Module):
    """The stack of layers, scanned: every parameter leads with the axis L, of distinct layers.

    Compile time does not grow with the number of layers.

    Attributes:
        remat: a key of `REMAT_POLICIES`: what is computed again in the backward pass to save
            memory.
    """

    config: BertConfig
    dtype: DTypeLike
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "tokens D"],
        edits: Edits,
        sequence_ids: Integer[Array, "B T"],
        row_ids: Integer[Array, " B"],
        dropout: bool,
        trace: tuple[str, ...],
        backend: str,
    ) -> tuple[Float[Array, "B*T D"], dict[str, Array]]:
        """Computes the last hidden states, and every layer's values at the traced points."""
        layer = EncoderLayer
        if self.remat != "none":
            layer = nn.remat(layer, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        shared = self.config.SHARES_LAYERS  # ALBERT (Lan et al. 2020), section 3.1
        stack = nn.scan(
            layer,
            variable_axes={} if shared else {"params": 0},
            variable_broadcast="params" if shared else False,
            split_rngs={"params": not shared, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            length=self.config.num_hidden_layers,
        )
        if shared:
            stack = nn.map_variables(
                stack,
                "params",
                trans_in_fn=lambda params: jax.tree.map(lambda leaf: leaf[0], params),
                trans_out_fn=lambda params: jax.tree.map(lambda leaf: leaf[None], params),
                init=self.is_initializing(),
                mutable=self.is_mutable_collection("params"),
            )
        layers = stack(self.config, self.dtype, dropout, trace, backend, name="layers")
        return layers(hidden, edits, sequence_ids, row_ids)
