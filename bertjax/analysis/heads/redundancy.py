"""Which heads do the same: the divergence between every two."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import capture
from bertjax.analysis.capture.rows import batch_texts
from bertjax.analysis.heads.blockwise_patterns import run_layers
from bertjax.architectures import BODY
from bertjax.inference.batches import Place, run
from bertjax.inference.shapes import Shapes
from bertjax.kernels.blockwise import BLOCK as ATTENTION_BLOCK
from bertjax.kernels.blockwise import (
    number_places,
    score_block,
    split,
    split_heads,
    weigh_block,
)
from bertjax.kernels.visibility import see
from bertjax.loaded import Model
from bertjax.model.bert import BertModel
from bertjax.program.errors import UserError
from bertjax.statistics.drawn_units import number_units, sum_by_unit

# Tokens a block, and tokens worked through together: a block of the maps of all heads is there at
# once.
BLOCK = 64
BATCH_TOKENS = 1024


class Divergences(NamedTuple):
    """Jensen-Shannon divergences between the rows of every two heads' maps, added over a unit.

    A unit is a text, or several (see `drawn_units.number_units`).

    Heads are numbered through: that of layer l and head n is l * N + n.

    Attributes:
        sums: in nats; symmetric, 0 on the diagonal.
        counts: the unit's tokens.
    """

    sums: Float[np.ndarray, "units L*N L*N"]
    counts: Float[np.ndarray, " units"]


def measure_redundancy(
    body: Model,
    texts: Sequence[EncodedText],
    *,
    blockwise: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Divergences:
    """Measures how differently every two heads attend; `sums.sum(0) / counts.sum()` is the mean.

    The divergence of two rows p and q is H((p + q) / 2) - (H(p) + H(q)) / 2, between 0 and log 2.
    The work grows with the square of the number of heads.

    Args:
        body: whose heads they are.
        texts: encoded by its tokenizer.
        blockwise: whether to go without whole maps: memory linear in the length, the same figures.
        progress: called with the number of texts done since the last call.

    Raises:
        UserError: no texts.

    Source: Clark et al. 2019, section 6.
    """
    if not texts:
        raise UserError("there are no texts to compare heads on; give one at least")
    measure = _measure_blockwise if blockwise else _measure_maps
    units, config = number_units(text.source for text in texts), body.config
    heads = config.num_hidden_layers * config.num_attention_heads
    sums = np.zeros((units.max() + 1, heads, heads))
    for unit, matrix in zip(units, measure(body, texts, progress), strict=True):
        sums[unit] += matrix
    tokens = np.array([len(text.token_ids) for text in texts], np.float64)
    return Divergences(sums, sum_by_unit(tokens, units))


@jax.jit
def sum_divergences(
    probs: Float[Array, "heads B t s"],
) -> Float[Array, "shifts heads B"]:
    """Divergences added over some queries and keys, of each head with those behind it.

    Element [d, i] is of head i and head i + d, the head behind the last being the first: with d up
    to half the heads every pair is there. Terms of a cell are at least 0, so that nothing cancels
    between cells.

    Args:
        probs: attention, of `t` queries and `s` keys of each text.
    """
    heads = probs.shape[0]
    own = _times_log(probs)

    def compare(shift: Array) -> Array:
        other, of_other = (jnp.roll(part, -shift, axis=0) for part in (probs, own))
        terms = (own + of_other) / 2 - _times_log((probs + other) / 2)
        return terms.sum(axis=(2, 3))

    return jax.lax.map(compare, jnp.arange(heads // 2 + 1))


def _times_log(probs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return probs * jnp.log(jnp.where(probs > 0, probs, 1))


def _to_matrix(by_shift: Float[np.ndarray, "shifts heads"]) -> Float[np.ndarray, "heads heads"]:
    heads = by_shift.shape[1]
    matrix = np.zeros((heads, heads))
    own = np.arange(heads)
    for shift, values in enumerate(by_shift[1:], start=1):
        other = (own + shift) % heads
        matrix[own, other] = matrix[other, own] = np.maximum(values, 0)
    return matrix


def _measure_maps(
    body: Model, texts: Sequence[EncodedText], progress: Callable[[int], None]
) -> Iterator[Float[np.ndarray, "heads heads"]]:
    lengths = Shapes(body.config.max_length, lambda length: 1)
    for captured in capture(body, texts, progress=progress):
        layers, heads, tokens, _ = captured.probs.shape
        # Padded, so that few shapes are compiled; a probability of 0 adds 0.
        length = lengths.length_for(tokens)
        probs = np.zeros((layers * heads, 1, length, length), np.float32)
        probs[:, 0, :tokens, :tokens] = captured.probs.reshape(-1, tokens, tokens)
        yield _to_matrix(np.asarray(sum_divergences(probs))[..., 0])


def _measure_blockwise(
    body: Model, texts: Sequence[EncodedText], progress: Callable[[int], None]
) -> Iterator[Float[np.ndarray, "heads heads"]]:
    body, config = body.as_architecture(BODY), body.config
    shapes = Shapes(config.max_length, lambda length: BATCH_TOKENS // length, mesh=body.mesh)

    def take(by_shift: np.ndarray, text: EncodedText, place: Place) -> np.ndarray:
        return _to_matrix(by_shift[..., place.row])

    batching = batch_texts(shapes, config, body.tokenizer.pad_id, take)
    forward = functools.partial(sum_divergences_blockwise, body.module)
    return run(forward, body.params, texts, batching, mesh=body.mesh, progress=progress)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def sum_divergences_blockwise(
    model: BertModel,
    params: Mapping[str, Any],
    inputs: Sequence[Integer[Array, "B T"]],
    block: int = BLOCK,
    attention_block: int = ATTENTION_BLOCK,
) -> Float[Array, "shifts heads B"]:
    """Computes `sum_divergences` of whole texts, a block of all heads' maps at a time.

    Queries and keys of all layers are kept, linear in the length.

    Args:
        model, params: the body's.
        inputs: token_ids, token_type_ids, sequence_ids.
        block: tokens a block of the comparison.
        attention_block: tokens a block of the forward pass.
    """
    sequence_ids = inputs[2]
    block = min(block, sequence_ids.shape[1])

    def read_keys(total: Array, of_keys: tuple[Array, ...]) -> tuple[Array, None]:
        def read_queries(total: Array, of_queries: tuple[Array, ...]) -> tuple[Array, None]:
            query, query_ids, query_places, log_sums = of_queries
            key, key_ids, key_places = of_keys
            distance = query_places[:, None] - key_places
            visible = see(query_ids, key_ids, distance, reach)
            scores = score_block(query, key, visible)
            probs = weigh_block(scores, visible, log_sums)
            return total + sum_divergences(jnp.swapaxes(probs, 0, 1)), None

        return jax.lax.scan(read_queries, total, (queries, ids, places, log_sums))[0], None

    layers = run_layers(model, params, inputs, lambda layer: layer, attention_block)
    queries, keys = (
        split_heads(_through_layers(part, 3), block) for part in (layers.query, layers.key)
    )
    log_sums = split(_through_layers(layers.log_sums, 2), block, 2)
    ids = split(sequence_ids, block, 1)
    places = number_places(ids)
    rows, heads = log_sums.shape[1:3]
    reach = layers.reach
    if reach is not None:
        reach = jnp.repeat(reach, model.config.num_attention_heads)[:, None, None]
    start = jnp.zeros((heads // 2 + 1, heads, rows), log_sums.dtype)
    return jax.lax.scan(read_keys, start, (keys, ids, places))[0]


def _through_layers(part: Float[Array, "L B ..."], heads_axis: int) -> Float[Array, "B ..."]:
    """Heads numbered through the layers: [L, B, ..., N, ...] becomes [B, ..., L*N, ...]."""
    moved = jnp.moveaxis(part, 0, heads_axis - 1)
    shape = (*moved.shape[: heads_axis - 1], -1, *moved.shape[heads_axis + 1 :])
    return moved.reshape(shape)
