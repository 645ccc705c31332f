"""Multi-head self-attention as the paper has it: scores -> probabilities -> context."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer

from bertjax.config import BertConfig
from bertjax.kernels.backends import BACKENDS, EXPLICIT
from bertjax.kernels.visibility import reach_of, see_own_sequence
from bertjax.model.layers import Linear
from bertjax.model.probe_points import Probes
from bertjax.model.rotary import Rotation, rotate
from bertjax.numerics.dropout import Dropout, drop_out

# A key of `kernels.backends.BACKENDS`, or a function of the same arguments.
Backend = str | Callable[..., Float[Array, "B T N H"]]


def masked_softmax(
    scores: Float[Array, "B N T S"], visible: Bool[Array, "B 1 T S"]
) -> Float[Array, "B N T S"]:
    """Computes the attention probabilities over the keys.

    Args:
        scores: of each query and key.
        visible: which keys a query sees.

    Returns:
        Rows that sum to 1 over the visible keys; every other key is exactly 0. A query that sees no
        key gets zeros, and no NaN in its gradient.

    Source: Vaswani et al. 2017, eq. 1. Differs: `where`, not an added -10000, so that a masked key
    cannot leak through a large score.
    """
    scores = jnp.where(visible, scores, jnp.finfo(scores.dtype).min)
    return jnp.where(visible, jax.nn.softmax(scores, axis=-1), 0)


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    visible: Bool[Array, "B 1 T S"],
    dropout: Dropout | None = None,
    edit_probs: Callable[[Array], Array] = lambda probs: probs,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T S"]]:
    """Computes scaled dot-product attention, `softmax(Q K^T / sqrt(H)) V`, in float32 or wider.

    Args:
        query: of every token and head.
        key: of every token that may be attended to.
        value: of the same tokens.
        visible: which keys a query sees.
        dropout: of the probabilities.
        edit_probs: makes of the probabilities those that are used.

    Returns:
        The context in the value's dtype, and the probabilities before dropout.

    Source: Vaswani et al. 2017, section 3.2.1; google-research/bert `attention_layer`.
    """
    narrow, wide = value.dtype, jnp.promote_types(value.dtype, jnp.float32)
    query, key, value = (part.astype(wide) for part in (query, key, value))
    scores = jnp.einsum("btnh,bsnh->bnts", query, key, precision="highest")
    probs = edit_probs(masked_softmax(scores * query.shape[-1] ** -0.5, visible))
    kept = probs if dropout is None else drop_out(probs, *dropout)
    context = jnp.einsum("bnts,bsnh->btnh", kept, value, precision="highest")
    return context.astype(narrow), probs


def attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T N H"],
    value: Float[Array, "B T N H"],
    sequence_ids: Integer[Array, "B T"],
    *,
    window: int | None = None,
    local: Bool[Array, ""] | None = None,
    dropout: Dropout | None = None,
) -> Float[Array, "B T N H"]:
    """Computes `attend` as a backend; arguments and result as `kernels.blockwise.attention`.

    Args:
        query, key, value: as of `attend`.
        sequence_ids: tokens see those of the same number, which is not 0.
        window: tokens to either side that are seen; None = all.
        local: whether the window counts in this layer; None = it does.
        dropout: of the probabilities; None = there is none.
    """
    visible = see_own_sequence(sequence_ids, reach_of(window, local))
    return attend(query, key, value, visible, dropout)[0]


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection; no residual, no normalisation.

    The kernels keep the head axis, `query, key, value [D, N, H]` and `output [N, H, D]`: to ablate
    a head is to index it.

    In a family with rotary positions (Su et al. 2021) queries and keys are turned before.

    Attributes:
        config: of the model.
        dtype: of the matrix products.
        backend: that computes the context.
    """

    config: BertConfig
    dtype: DTypeLike
    backend: Backend

    def setup(self) -> None:
        config = self.config
        heads, width = (config.num_attention_heads, config.head_size), (config.hidden_size,)
        spread, dtype = config.initializer_range, self.dtype
        biased = {"has_bias": config.attention_bias, "cutoff": config.initializer_cutoff}
        self.query = Linear(heads, width, spread, dtype, **biased)
        self.key = Linear(heads, width, spread, dtype, **biased)
        self.value = Linear(heads, width, spread, dtype, **biased)
        self.output = Linear(width, heads, config.output_initializer_range, dtype, **biased)

    def __call__(
        self,
        hidden: Float[Array, "tokens D"],
        sequence_ids: Integer[Array, "B T"],
        row_ids: Integer[Array, " B"],
        dropout: bool,
        probes: Probes,
        local: Bool[Array, ""] | None = None,
        rotation: Rotation | None = None,
    ) -> Float[Array, "B*T D"]:
        """Computes the projected context; only the explicit backend has the probe point `probs`.

        Args:
            hidden, sequence_ids, row_ids, dropout, probes: as in `encoder.EncoderLayer`.
            local: whether the layer has the window of the config; it has when left out.
            rotation: of the layer's queries and keys.
        """
        rows, length = sequence_ids.shape
        by_head = (rows, length, self.config.num_attention_heads, self.config.head_size)
        query, key, value = (
            project(hidden).reshape(by_head) for project in (self.query, self.key, self.value)
        )
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)
        rate, window = self.config.attention_probs_dropout_prob, self.config.window
        dropped = Dropout(rate, self.make_rng("dropout"), row_ids) if dropout and rate > 0 else None
        if self.backend == EXPLICIT:
            visible = see_own_sequence(sequence_ids, reach_of(window, local))
            edit_probs = functools.partial(probes, "probs")
            context, _ = attend(query, key, value, visible, dropped, edit_probs)
        else:
            attention, options = self.backend, {} if local is None else {"local": local}
            if dropped is not None:
                options["dropout"] = dropped
            if isinstance(attention, str):
                backend = BACKENDS[attention]
                attention = backend.attention
                if backend.narrows:
                    options["dtype"] = self.dtype
            context = attention(query, key, value, sequence_ids, window=window, **options)
        context = probes("context", context)
        return self.output(context.reshape(rows * length, *by_head[2:]))
