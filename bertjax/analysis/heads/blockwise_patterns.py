"""The sums behind the figures of `patterns`, without a map: memory is linear in the length.

The encoder runs layer by layer with blockwise attention. A second sweep over the blocks of each
layer makes the probabilities again, a block at a time, from the queries, the keys and the log sums
that the first has found, and adds up what is asked for.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.rows import count_tokens, make_inputs
from bertjax.analysis.heads.targets import TARGETS, MapSums, TokenMarks, mark_tokens, weigh_targets
from bertjax.architectures import BODY
from bertjax.inference.batches import Batching, Place, run
from bertjax.inference.shapes import Shape, Shapes
from bertjax.kernels import blockwise
from bertjax.kernels.visibility import reach_of, see
from bertjax.loaded import Model
from bertjax.model.bert import BertModel, complete_inputs
from bertjax.model.embeddings import Embeddings
from bertjax.model.encoder import make_layer_inputs, repeat_layers
from bertjax.text.packing import Places

# Tokens of a batch, padding included; a longer text is alone.
BATCH_TOKENS = 4096

Result = TypeVar("Result")


class LayerAttention(NamedTuple):
    """What the probabilities of a layer can be made of again; without the axis L, of one layer.

    Attributes:
        query, key: as they are multiplied.
        log_sums: of each query, see `blockwise.attend`.
        reach: how far its tokens see, see `visibility.reach_of`.
    """

    query: Float[Array, "*L B T N H"]
    key: Float[Array, "*L B T N H"]
    log_sums: Float[Array, "*L B N T"]
    reach: Integer[Array, "*L"] | None


# token_ids, token_type_ids, sequence_ids, and the marks of every token.
MarkedBatch = tuple[Sequence[Integer[Array, "B T"]], TokenMarks]


def sum_maps_blockwise(
    body: Model,
    texts: Iterable[EncodedText],
    *,
    block: int = blockwise.BLOCK,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[MapSums]:
    """Computes what `patterns.sum_maps` does for each text, without storing whole maps.

    Args:
        body: whose heads they are.
        texts: encoded by its tokenizer; they are taken as they are needed.
        block: tokens a block.
        progress: called with the number of texts done since the last call.
    """
    body, config = body.as_architecture(BODY), body.config
    shapes = Shapes(config.max_length, lambda length: BATCH_TOKENS // length, mesh=body.mesh)

    def make(texts: Sequence[EncodedText], places: Places, shape: Shape) -> MarkedBatch:
        return make_batch(body, texts, shape.rows, shape.length)

    def take(sums: Sequence[np.ndarray], text: EncodedText, place: Place) -> MapSums:
        (entropy, targets, columns), row = sums, place.row
        return MapSums(
            entropy[:, row].copy(),
            np.moveaxis(targets[:, :, row], 1, 0).copy(),
            np.moveaxis(columns[:, :, row, :, : len(text.token_ids)], 1, 0).copy(),
        )

    batching = Batching(shapes, lambda text: count_tokens(text, config), make, take)
    forward = functools.partial(sum_batch, body.module, block)
    return run(forward, body.params, texts, batching, mesh=body.mesh, progress=progress)


def make_batch(body: Model, texts: Sequence[EncodedText], rows: int, length: int) -> MarkedBatch:
    """Makes a row of each text, and the marks of its tokens; those of padding mean nothing."""
    inputs = make_inputs(body.config, texts, rows, length, body.tokenizer.pad_id)
    return inputs, _pad_marks(texts, rows, length)


@functools.partial(jax.jit, static_argnums=(0, 1))
def sum_batch(
    model: BertModel,
    block: int,
    params: Mapping[str, Any],
    batch: MarkedBatch,
) -> tuple[Float[Array, "L B N"], Float[Array, "L targets B N"], Float[Array, "L 2 B N T"]]:
    """Sums entropies, targets and columns as in `MapSums`, of every layer and row."""
    inputs, marks = batch
    sequence_ids = inputs[2]

    def sum_layer(layer: LayerAttention) -> tuple[Array, Array, Array]:
        return _sum_blocks(layer, sequence_ids, marks, block)

    return run_layers(model, params, inputs, sum_layer, block)


def run_layers(
    model: BertModel,
    params: Mapping[str, Any],
    inputs: Sequence[Integer[Array, "B T"]],
    look: Callable[[LayerAttention], Result],
    block: int,
) -> Result:
    """Runs the forward pass with blockwise attention; `look` sees the attention of every layer.

    The layers are the encoder's own, with another attention within them.

    Returns:
        What `look` returns, stacked over the layers.
    """
    config, complete = model.config, complete_inputs(model.config, *inputs)
    embeddings = Embeddings(config, model.dtype)
    hidden = embeddings.apply(
        {"params": params["embeddings"]},
        complete.token_ids,
        complete.token_type_ids,
        complete.position_ids,
        complete.row_ids,
        False,
    )
    layer_class, of_layers, shared = make_layer_inputs(
        config, model.dtype, complete.sequence_ids, complete.row_ids, complete.position_ids
    )

    def run_layer(hidden: Array, of_layer: tuple[Any, ...]) -> tuple[Array, Result]:
        layer_params, *own = of_layer
        kept: list[LayerAttention] = []

        def attention(
            query: Array,
            key: Array,
            value: Array,
            sequence_ids: Array,
            *,
            window: int | None,
            local: Array | None = None,
        ) -> Array:
            reach = reach_of(window, local)
            context, log_sums = blockwise.attend(
                query, key, value, sequence_ids, reach=reach, block=block
            )
            reach = None if reach is None else jnp.asarray(reach, jnp.int32)
            kept.append(LayerAttention(query, key, log_sums, reach))
            return context

        layer = layer_class(config, model.dtype, dropout=False, trace=(), backend=attention)
        hidden, _ = layer.apply({"params": layer_params}, hidden, {}, *own, *shared)
        return hidden, look(*kept)

    stack = repeat_layers(config, params["encoder"]["layers"]), *of_layers
    return jax.lax.scan(run_layer, hidden, stack)[1]


def _sum_blocks(
    layer: LayerAttention,
    sequence_ids: Integer[Array, "B T"],
    marks: TokenMarks,
    block: int,
) -> tuple[Float[Array, "B N"], Float[Array, "targets B N"], Float[Array, "2 B N T"]]:
    batch, length = sequence_ids.shape
    heads, dtype = layer.query.shape[2], layer.log_sums.dtype
    block = min(block, length)
    queries, keys = (blockwise.split_heads(part, block) for part in (layer.query, layer.key))
    log_sums = blockwise.split(layer.log_sums, block, 2)
    ids = blockwise.split(sequence_ids, block, 1)
    places = blockwise.number_places(ids)
    by_block = jax.tree.map(lambda mark: blockwise.split(jnp.asarray(mark), block, 1), marks)

    def read_keys(
        running: tuple[Array, Array], of_keys: tuple[Array, Array, Array, TokenMarks]
    ) -> tuple[tuple[Array, Array], Array]:
        key, key_ids, key_places, key_marks = of_keys

        def read_queries(
            running: tuple[Array, Array, Array], of_queries: tuple[Any, ...]
        ) -> tuple[tuple[Array, Array, Array], None]:
            entropy, targets, columns = running
            query, query_ids, query_places, log_sums, query_marks = of_queries
            visible = see(query_ids, key_ids, query_places[:, None] - key_places, layer.reach)
            scores = blockwise.score_block(query, key, visible)
            probs = blockwise.weigh_block(scores, visible, log_sums)
            # Where the probability is 0, the score may be too low for the product.
            log_probs = jnp.where(probs > 0, scores - log_sums[..., None], 0)
            entropy -= (probs * log_probs).sum(axis=(2, 3))
            weights = weigh_targets(query_marks, key_marks, jnp)
            targets += jnp.einsum("bnts,fbts->fbn", probs, weights, precision="highest")
            rows = query_marks.position
            off_diagonal = jnp.abs(rows[:, :, None] - key_marks.position[:, None]) > 1
            of_rows = jnp.stack([rows % 2 == parity for parity in (0, 1)]).astype(dtype)
            far = probs * off_diagonal[:, None]
            columns += jnp.einsum("bnts,pbt->pbns", far, of_rows, precision="highest")
            return (entropy, targets, columns), None

        start = (*running, jnp.zeros((2, batch, heads, block), dtype))
        of_queries = queries, ids, places, log_sums, by_block
        (entropy, targets, columns), _ = jax.lax.scan(read_queries, start, of_queries)
        return (entropy, targets), columns

    start = jnp.zeros((batch, heads), dtype), jnp.zeros((len(TARGETS), batch, heads), dtype)
    (entropy, targets), columns = jax.lax.scan(read_keys, start, (keys, ids, places, by_block))
    columns = jnp.moveaxis(columns, 0, 3).reshape(2, batch, heads, -1)[..., :length]
    return entropy, targets, columns


def _pad_marks(texts: Sequence[EncodedText], rows: int, length: int) -> TokenMarks:
    marks = [mark_tokens(text) for text in texts]
    padded = []
    for of_texts in zip(*marks, strict=True):
        values = np.zeros((rows, length), of_texts[0].dtype)
        for row, own in enumerate(of_texts):
            values[row, : len(own)] = own
        padded.append(values)
    return TokenMarks(*padded)
