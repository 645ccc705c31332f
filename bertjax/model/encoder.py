"""The encoder: L times self-attention and feed-forward, each with residual, *post*-normalised."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from bertjax.config import BertConfig
from bertjax.model.attention import Backend, SelfAttention
from bertjax.model.layers import LayerNorm, Linear, activate
from bertjax.model.pre_norm import PreNormLayer, kinds_of_layers
from bertjax.model.probe_points import Edits, Probes
from bertjax.model.rotary import make_rotations
from bertjax.numerics.dropout import drop_out

# What the backward pass keeps of a layer: everything, its products with parameters, or only its
# input. To make the two products of attention anew costs no more than to keep the scores.
REMAT_POLICIES = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}


def repeat_layers(config: BertConfig, params: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the parameters of every layer, stacked, also where all layers share one's.

    Args:
        config: of the model.
        params: of the layers; leading with the axis L, or with 1 where all layers share them.
    """
    if not config.SHARES_LAYERS:
        return params
    layers = config.num_hidden_layers
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (layers, *leaf.shape[1:])), params)


class EncoderLayer(nn.Module):
    """One post-LN transformer layer.

    Called by the scan over layers, hence carry in, (carry, trace) out.

    Attributes:
        config: of the model.
        dtype: of the matrix products.
        dropout: whether there is any.
        trace: the probe points whose values come out.
        backend: of the attention.

    Source: Vaswani et al. 2017, section 3.1; google-research/bert `transformer_model`.
    """

    config: BertConfig
    dtype: DTypeLike
    dropout: bool
    trace: tuple[str, ...]
    backend: Backend

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
        probes = Probes(edits, self.trace, sequence_ids.shape[0])
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


def make_layer_inputs(
    config: BertConfig,
    dtype: DTypeLike,
    sequence_ids: Integer[Array, "B T"],
    row_ids: Integer[Array, " B"],
    position_ids: Integer[Array, "B T"],
) -> tuple[type[EncoderLayer] | type[PreNormLayer], tuple[Any, ...], tuple[Any, ...]]:
    """Returns the class of the layers and what they are called with, behind hidden and edits.

    Args:
        config: of the model.
        dtype: of the matrix products.
        sequence_ids, row_ids, position_ids: as of `BertModel`.

    Returns:
        (class, arguments that lead with the axis L, arguments that all layers share).
    """
    if not config.NORMALIZES_FIRST:
        return EncoderLayer, (), (sequence_ids, row_ids)
    rotations = make_rotations(config.rotary_bases, config.head_size, position_ids, dtype)
    return PreNormLayer, (kinds_of_layers(config),), (sequence_ids, row_ids, rotations)


class Encoder(nn.Module):
    """The stack of layers, scanned: every parameter leads with the axis L, of distinct layers.

    Compile time does not grow with the number of layers. Where layers normalize what enters them
    (Warner et al. 2024, ModernBERT), what leaves the last one is normalized, too, and is the last
    hidden state.

    Attributes:
        config: of the model.
        dtype: of the matrix products.
        remat: a key of `REMAT_POLICIES`: what is computed again in the backward pass to save
            memory.
    """

    config: BertConfig
    dtype: DTypeLike
    remat: str = "none"

    def setup(self) -> None:
        config = self.config
        if config.NORMALIZES_FIRST:
            self.final_layer_norm = LayerNorm(config.layer_norm_eps, config.norm_bias)

    def normalize_states(
        self, states: Float[Array, "states B T D"]
    ) -> Float[Array, "states B T D"]:
        """Returns hidden states, from the embeddings' on, as the last one is: ready for a head.

        Args:
            states: the hidden states in the order of the layers, the last layer's last.
        """
        if not self.config.NORMALIZES_FIRST:
            return states
        return jnp.concatenate([self.final_layer_norm(states[:-1]), states[-1:]])

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "tokens D"],
        edits: Edits,
        sequence_ids: Integer[Array, "B T"],
        row_ids: Integer[Array, " B"],
        position_ids: Integer[Array, "B T"],
        dropout: bool,
        trace: tuple[str, ...],
        backend: Backend,
    ) -> tuple[Float[Array, "B*T D"], dict[str, Array]]:
        """Computes the last hidden states, and every layer's values at the traced points."""
        config = self.config
        layer, of_layers, of_all = make_layer_inputs(
            config, self.dtype, sequence_ids, row_ids, position_ids
        )
        if self.remat != "none":
            layer = nn.remat(layer, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        shared = config.SHARES_LAYERS  # ALBERT (Lan et al. 2020), section 3.1
        stack = nn.scan(
            layer,
            variable_axes={} if shared else {"params": 0},
            variable_broadcast="params" if shared else False,
            split_rngs={"params": not shared, "dropout": True},
            in_axes=(0, *[0] * len(of_layers), *[nn.broadcast] * len(of_all)),
            length=config.num_hidden_layers,
            # Layers are traced twice only where that counts: for what ALBERT's share, and for which
            # random numbers they draw.
            check_constancy_invariants=shared or dropout or self.is_initializing(),
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
        layers = stack(config, self.dtype, dropout, trace, backend, name="layers")
        if not config.NORMALIZES_FIRST:
            return layers(hidden, edits, *of_layers, *of_all)
        before, last = _part_last(edits)
        hidden, kept = layers(hidden, before, *of_layers, *of_all)
        probes = Probes(last, tuple({"hidden"} & {*trace}), sequence_ids.shape[0])
        hidden = probes("hidden", self.final_layer_norm(hidden))
        if probes.kept:
            kept["hidden"] = kept["hidden"].at[-1].set(probes.kept["hidden"])
        return hidden, kept


def _part_last(edits: Edits) -> tuple[Edits, Edits]:
    """Parts the edit of `hidden`: that of all layers but the last, and that of the last."""
    if "hidden" not in edits:
        return edits, {}
    edit = edits["hidden"]
    where = jnp.ones(jax.tree.leaves(edit)[0].shape[:1], bool) if edit.where is None else edit.where
    before = edit._replace(where=where.at[-1].set(False))
    return {**edits, "hidden": before}, {"hidden": jax.tree.map(lambda part: part[-1], edit)}
