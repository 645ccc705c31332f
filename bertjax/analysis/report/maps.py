"""Attention maps small enough for a page: in 256 steps, and for long texts the heaviest edges."""

import base64
import contextlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from bertjax.program.errors import UserError

# The most for a page's maps, in bytes of base64; the page must stay below 10 MB.
MAP_BYTES = 7_500_000
# The least heaviest edges per row that a long text keeps: fewer would show no pattern.
LEAST_EDGES = 4
_BASE64 = 4 / 3


class StoredMaps(NamedTuple):
    """The maps of one text.

    Attributes:
        edges: how many edges of each row are kept; None if all are.
        weights: `sqrt(weight)` in 256 steps, `[L, N, T, T]`, or `[L, N, T, edges]`, heaviest first.
        columns: the token that each kept edge goes to; None if all are kept.
        kept: the share of each head's attention in the kept edges; 1 if all are kept.
    """

    edges: int | None
    weights: UInt8[np.ndarray, "L N T columns"]
    columns: np.ndarray | None
    kept: Float[np.ndarray, "L N"]

    def to_json(self) -> dict[str, Any]:
        """Returns each layer's bytes in base64: a page reads only the layers that it shows."""
        result: dict[str, Any] = {"weights": [_encode(layer) for layer in self.weights]}
        if self.edges is not None:
            result |= {
                "edges": self.edges,
                "columnBytes": self.columns.itemsize,
                "columns": [_encode(layer) for layer in self.columns],
                "kept": np.round(self.kept, 4).tolist(),
            }
        return result


def quantize(weights: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Quantizes weights in [0, 1] to 256 steps, finer for small ones: round(255 sqrt(weight)).

    The weight that `dequantize` returns is off by at most 0.004, and by at most 0.0002 below
    0.002, as the even weights of 512 tokens are; even steps would turn these into 0 or 1.
    """
    return np.rint(255 * np.sqrt(np.clip(weights, 0, 1))).astype(np.uint8)


def dequantize(steps: UInt8[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns the weights that `quantize` encoded."""
    return np.square(steps / np.float64(255))


def store_maps(
    maps: Sequence[Float[np.ndarray, "L N T T"]], most_bytes: int = MAP_BYTES
) -> list[StoredMaps]:
    """Stores maps in bounded bytes: short texts whole, long ones by each row's heaviest edges.

    Raises:
        UserError: see `plan_edges`.
    """
    plan = plan_edges([probs.shape[:3] for probs in maps], most_bytes)
    return [_store(probs, edges) for probs, edges in zip(maps, plan, strict=True)]


def plan_edges(
    shapes: Sequence[tuple[int, int, int]], most_bytes: int = MAP_BYTES
) -> list[int | None]:
    """Returns how many edges of each row a text keeps; None for a text that is kept whole.

    Args:
        shapes: (L, N, T) of each text's maps.
        most_bytes: for all of them together.

    Raises:
        UserError: there is no room for even a few edges per row of each.
    """
    remaining = most_bytes
    plan: list[int | None] = [None] * len(shapes)
    order = sorted(range(len(shapes)), key=lambda number: shapes[number][2])
    for place, number in enumerate(order):
        layers, heads, length = shapes[number]
        share = remaining // (len(order) - place)
        rows = heads * length
        if math.ceil(layers * rows * length * _BASE64) > share:
            # The padding of base64 is at most 2 bytes per layer and part.
            an_edge = layers * rows * (1 + _column_type(length).itemsize) * _BASE64
            plan[number] = int((share - 8 * layers) / an_edge)
            if plan[number] < min(LEAST_EDGES, length):
                longest = max(length for *_, length in shapes)
                raise UserError(
                    f"{len(shapes)} texts of up to {longest} tokens: the page has no room for"
                    f" their attention maps (at most {most_bytes / 1e6:.1f} MB); show fewer or"
                    " shorter texts (--shown, --max-length)"
                )
        remaining -= _size(shapes[number], plan[number])
    return plan


def texts_with_room(shapes: Sequence[tuple[int, int, int]], most_bytes: int = MAP_BYTES) -> int:
    """Returns how many of the first texts a page has room for; arguments as in `plan_edges`.

    Raises:
        UserError: not even for the first.
    """
    for number in range(len(shapes), 1, -1):
        with contextlib.suppress(UserError):
            plan_edges(shapes[:number], most_bytes)
            return number
    return len(plan_edges(shapes[:1], most_bytes))


def _column_type(length: int) -> np.dtype:
    return np.dtype(np.uint8 if length <= 256 else np.uint16)


def _store(probs: Float[np.ndarray, "L N T T"], edges: int | None) -> StoredMaps:
    layers, heads, length, _ = probs.shape
    if edges is None:
        return StoredMaps(None, quantize(probs), None, np.ones((layers, heads)))
    column_type = _column_type(length)
    weights = np.empty((layers, heads, length, edges), np.uint8)
    columns = np.empty((layers, heads, length, edges), column_type)
    kept = np.empty((layers, heads))
    for layer, own in enumerate(probs):  # one layer at a time: sorting takes four times the memory
        chosen = np.argpartition(-own, edges - 1, axis=-1)[..., :edges]
        heaviest = np.take_along_axis(own, chosen, axis=-1)
        order = np.argsort(-heaviest, axis=-1, kind="stable")
        heaviest = np.take_along_axis(heaviest, order, axis=-1)
        weights[layer] = quantize(heaviest)
        columns[layer] = np.take_along_axis(chosen, order, axis=-1)
        kept[layer] = heaviest.sum(axis=(-1, -2)) / own.sum(axis=(-1, -2))
    return StoredMaps(edges, weights, columns, kept)


def _size(shape: tuple[int, int, int], edges: int | None) -> int:
    """Returns the bytes of base64."""
    layers, heads, length = shape
    rows, item = heads * length, _column_type(length).itemsize
    parts = [rows * length] if edges is None else [rows * edges, rows * edges * item]
    return sum(layers * 4 * math.ceil(part / 3) for part in parts)


def _encode(values: np.ndarray) -> str:
    """Encodes little-endian bytes in base64."""
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")
