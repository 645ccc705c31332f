"""Encoded texts as a model takes them: a text a row, where whole maps or gradients are wanted."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Integer

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.config import BertConfig
from bertjax.inference.batches import Batching, Place
from bertjax.inference.shapes import Shape, Shapes
from bertjax.program.errors import UserError
from bertjax.text.packing import Places

# More are no faster, and each number of rows is compiled.
_MOST_ROWS = 8


def batch_texts(
    shapes: Shapes,
    config: BertConfig,
    pad_id: int,
    take: Callable[[Any, EncodedText, Place], Any],
    **options: Any,
) -> Batching[EncodedText]:
    """Returns how texts become token_ids, token_type_ids and sequence_ids, one text a row.

    Args:
        shapes: of the batches.
        config: of the model.
        pad_id: of [PAD].
        take: see `Batching`, as its other fields.
    """

    def make(texts: Sequence[EncodedText], places: Places, shape: Shape) -> tuple[np.ndarray, ...]:
        return make_inputs(config, texts, shape.rows, shape.length, pad_id)

    return Batching(shapes, lambda text: count_tokens(text, config), make, take, **options)


def shapes_of_maps(
    config: BertConfig, most_bytes: int, most_rows: int = _MOST_ROWS, mesh: Mesh | None = None
) -> Shapes:
    """Returns shapes of batches whose attention maps and traces take at most so many bytes of each
    device.
    """

    def fits(length: int) -> int:
        return min(most_rows, most_bytes // trace_bytes(config, length))

    return Shapes(config.max_length, fits, between=False, mesh=mesh)


def trace_bytes(config: BertConfig, length: int, hidden: bool = True, context: bool = True) -> int:
    """Computes the bytes of the maps and vectors of a text of so many tokens."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    vectors = hidden * (layers + 1) + context * layers
    return 4 * length * (layers * heads * length + vectors * config.hidden_size)


def count_tokens(text: EncodedText, config: BertConfig) -> int:
    """Returns the length of a text in tokens.

    Raises:
        UserError: it is longer than the model has positions for.
    """
    length, most = len(text.token_ids), config.max_length
    if length > most:
        raise UserError(
            f"text {text.source + 1}: {length} tokens, more than the model's"
            f" {config.length_limit}; encode it with max_length={most}"
        )
    return length


def make_inputs(
    config: BertConfig, texts: Sequence[EncodedText], rows: int, length: int, pad_id: int
) -> tuple[Integer[np.ndarray, "B T"], Integer[np.ndarray, "B T"], Integer[np.ndarray, "B T"]]:
    """Makes token_ids, token_type_ids and sequence_ids of texts, one row each, padded.

    Raises:
        UserError: the model has no embedding for one of them.
    """
    token_ids = np.full((rows, length), pad_id, np.int32)
    token_type_ids, sequence_ids = np.zeros((2, rows, length), np.int32)
    for row, text in enumerate(texts):
        t = len(text.token_ids)
        token_ids[row, :t], token_type_ids[row, :t] = text.token_ids, text.token_type_ids
        sequence_ids[row, :t] = 1
    config.check_ids(token_ids, token_type_ids, np.arange(length))
    return token_ids, token_type_ids, sequence_ids
