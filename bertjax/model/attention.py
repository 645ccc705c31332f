"""Multi-head self-attention, explicit: scores -> probabilities -> context."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Key

from bertjax.config import BertConfig
from bertjax.kernels.backends import BACKENDS, EXPLICIT
from bertjax.model.layers import Linear, drop_out
from bertjax.numerics.products import mix_values, score_keys
from bertjax.program.errors import UserError


def masked_softmax(
    scores: Float[Array, "B N T S"], visible: Bool[Array, "B 1 T S"]
) -> tuple[Float[Array, "B N T S"], Float[Array, "B N T 1"]]:
    """The softmax over the keys that are visible, before its division.

    Returns:
        (weights, total), in float32 or wider: the attention probabilities are `weights / total`.
        They sum to 1 over the visible keys; every other key is exactly 0. A query that sees no key
        gets zeros (and a total of 1), and no NaN in its gradient. What is to be differentiated has
        to depend on the quotient alone: the gradient takes the largest score for a constant.

    Source: Vaswani et al. 2017, eq. 1. Differs: hidden keys are `finfo.min`, then 0, not an added
    -10000, so that a masked key cannot leak through a large score.
    """
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    hidden = jnp.finfo(scores.dtype).min
    scores = jnp.where(visible, scores, hidden)
    # The largest score cancels out of the quotient: nothing has to be differentiated by it.
    largest = jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True))
    # Where no key is visible it is a hidden one's, whose weight has to be 0 all the same.
    weights = jnp.exp(scores - jnp.where(largest == hidden, 0, largest))
    total = weights.sum(axis=-1, keepdims=True)
    return weights, jnp.where(total == 0, 1, total)


def attend(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    visible: Bool[Array, "B 1 T S"],
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    row_ids: Integer[Array, " B"] | None = None,
    probs_offset: Float[Array, "B N T S"] | None = None,
    dtype: DTypeLike | None = None,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B N T S"]]:
    """Scaled dot-product attention, every step in sight.

    Args:
        dropout_rate: share of the probabilities dropped; needs `dropout_key` and `row_ids` when
            above 0.
        probs_offset: added to the probabilities; zeros of it are what to differentiate by them.
        dtype: of the operands of the two products; None = the query's.

    Returns:
        The context, and the probabilities before dropout.

    Source: Vaswani et al. 2017, section 3.2.1; google-research/bert `attention_layer`.
    """
    dtype = dtype or query.dtype
    scores = score_keys(query, key, dtype) * query.shape[-1] ** -0.5
    weights, total = masked_softmax(scores, visible)
    probs = weights / total
    if probs_offset is not None:
        probs += probs_offset
        weights += probs_offset * total
    if dropout_rate > 0:
        weights = drop_out(weights, dropout_rate, dropout_key, row_ids)
    # The context is divided, not the probabilities, which are more numbers.
    return mix_values(weights, total, value, dtype).astype(value.dtype), probs


class SelfAttention(nn.Module):
    """Multi-head self-attention with its output projection; no residual, no normalisation.

    The kernels keep the head axis, `query, key, value [D, N, H]` and `output [N, H, D]`: to ablate
    a head is to index it.

    Attributes:
        backend: "explicit" for `attend`, or a key of `kernels.backends.BACKENDS`.
    """

    config: BertConfig
    dtype: DTypeLike
    backend: str = EXPLICIT

    def setup(self) -> None:
        config = self.config
        heads, width = (config.num_attention_heads, config.head_size), (config.hidden_size,)
        spread, dtype = config.initializer_range, self.dtype
        self.query = Linear(heads, width, spread, dtype)
        self.key = Linear(heads, width, spread, dtype)
        self.value = Linear(heads, width, spread, dtype)
        self.output = Linear(width, heads, spread, dtype)

    def __call__(
        self,
        hidden: Float[Array, "tokens D"],
        sequence_ids: Integer[Array, "B T"],
        visible: Bool[Array, "B 1 T S"] | None,
        head_gates: Float[Array, " N"],
        row_ids: Integer[Array, " B"],
        dropout: bool,
        probs_offset: Float[Array, "B N T S"] | None = None,
    ) -> tuple[Float[Array, "B*T D"], Float[Array, "B N T S"] | None, Float[Array, "B T N H"]]:
        """The projected context, the probabilities, and the context of every head (gated).

        Only the explicit backend has probabilities, and takes `visible`, which is
        `visibility.see_own_sequence` of the sequence ids; the others work it out block by block.

        Raises:
            UserError: another one is to drop probabilities, or to differentiate by them.
        """
        rows, length = sequence_ids.shape
        by_head = (rows, length, self.config.num_attention_heads, self.config.head_size)
        query, key, value = (
            project(hidden).reshape(by_head) for project in (self.query, self.key, self.value)
        )
        rate = self.config.attention_probs_dropout_prob if dropout else 0.0
        if self.backend == EXPLICIT:
            dropout_key = self.make_rng("dropout") if rate > 0 else None
            context, probs = attend(
                query, key, value, visible, rate, dropout_key, row_ids, probs_offset, self.dtype
            )
        else:
            if rate > 0 or probs_offset is not None:
                raise UserError(
                    f"attention={self.backend} has no probabilities to drop or to add to; set"
                    " attention_probs_dropout_prob to 0, or attention to explicit"
                )
            attention, window = BACKENDS[self.backend].attention, self.config.attention_window
            context = attention(query, key, value, sequence_ids, window=window)
            probs = None
        context *= head_gates[:, None].astype(context.dtype)
        return self.output(context.reshape(rows * length, *by_head[2:])), probs, context
