"""The named places inside the model where values can be read (`trace`) and changed (`edit`).

    point       what is there                                                    shape
    embedded    the embeddings' output, which enters the first layer             [B, T, D]
    probs       attention probabilities, before dropout                          [L, B, N, T, S]
    context     each head's weighted sum of values, before the projection        [L, B, T, N, H]
    attention   attention's projected output, before dropout and residual        [L, B, T, D]
    inner       activations of the feed-forward block                            [L, B, T, F]
    hidden      the layer's output                                               [L, B, T, D]

A trace shows what leaves the point, edits included.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.types import Trace

POINTS = Trace._fields
BEFORE_LAYERS = "embedded"


class Edit(NamedTuple):
    """A change of the values at a probe point: they are replaced, scaled, added to, in this order.

    Every part is an array that broadcasts to the values, of the point's shape above: at the points
    within the layers it leads with the axis L. All of it can be differentiated by, but `where`.

    Attributes:
        scale: what the values are multiplied by.
        add: what is added to them.
        replace: what stands in their place.
        where: which of them are changed; all when left out.

    Activation patching, the hidden states of one token from another text's trace:

        clean = model.apply(params, clean_ids, trace=("hidden",)).trace
        here = jnp.zeros((L, 1, T, 1), bool).at[layer, :, token].set(True)
        model.apply(params, ids, edit={"hidden": Edit(replace=clean.hidden, where=here)})
    """

    scale: Float[Array, "..."] | None = None
    add: Float[Array, "..."] | None = None
    replace: Float[Array, "..."] | None = None
    where: Bool[Array, "..."] | None = None

    def apply(self, values: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the values after the change, in their own dtype.

        Args:
            values: of the probe point; every part of the edit broadcasts to them.
        """
        changed = values
        if self.replace is not None:
            changed = jnp.broadcast_to(self.replace.astype(values.dtype), values.shape)
        if self.scale is not None:
            changed = changed * self.scale.astype(values.dtype)
        if self.add is not None:
            changed = changed + self.add.astype(values.dtype)
        return changed if self.where is None else jnp.where(self.where, changed, values)


Edits = Mapping[str, Edit]


def gate_heads(gates: Float[Array | np.ndarray, "L N"]) -> dict[str, Edit]:
    """Returns the edit that multiplies each head's output by its gate.

        model.module.apply({"params": model.params}, token_ids, edit=bertjax.gate_heads(gates))

    Args:
        gates: of every head; 1 changes nothing, 0 is a head without effect.

    Returns:
        An edit of the probe point `context`, by which it can be differentiated.

    Source: Michel et al. 2019, section 2.2.
    """
    return {"context": Edit(scale=jnp.asarray(gates)[:, None, None, :, None])}


def name_points(trace: bool | tuple[str, ...]) -> tuple[str, ...]:
    """Returns the points that a `trace` asks for: all of them for True, those that are named.

    Args:
        trace: as of a model's call.

    Raises:
        UserError: one is no probe point.
    """
    named = (POINTS if trace else ()) if isinstance(trace, bool) else tuple(trace)
    _check_names(named)
    return named


def check_edits(edits: Edits, layers: int) -> Edits:
    """Returns the edits, whose arrays are those of jax from here on.

    Args:
        edits: by the names of probe points.
        layers: of the model, L.

    Raises:
        UserError: there is no such point, or an array has no axis of that many layers.
    """
    _check_names(edits)
    edits = {point: jax.tree.map(jnp.asarray, edit) for point, edit in edits.items()}
    for point, edit in edits.items():
        for name, values in edit._asdict().items():
            if values is None or point == BEFORE_LAYERS:
                continue
            if values.ndim == 0 or values.shape[0] != layers:
                raise UserError(
                    f"edit of {point}: {name} has the shape {values.shape}, and its first axis"
                    f" must be the layers, {layers}"
                )
    return edits


def _check_names(names: Mapping[str, Edit] | tuple[str, ...]) -> None:
    for name in names:
        if name not in POINTS:
            raise UserError(
                f"{name!r} is not one of the probe points {', '.join(POINTS)}"
                f"{nearest(name, [*POINTS])}"
            )


class Probes:
    """The probe points of one layer: edits are made, and what a trace asks for is kept.

    Attributes:
        kept: point -> its values.
    """

    def __init__(self, edits: Edits, wanted: tuple[str, ...], rows: int) -> None:
        self._edits, self._wanted, self._rows = edits, wanted, rows
        self.kept: dict[str, Array] = {}

    def __call__(self, point: str, values: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        """Returns what leaves the point; of `[B*T, ...]` the rows become an axis for it."""
        if point not in self._edits and point not in self._wanted:
            return values
        by_row = values.reshape(self._rows, -1, values.shape[-1]) if values.ndim == 2 else values
        if point in self._edits:
            by_row = self._edit(point, by_row)
        if point in self._wanted:
            self.kept[point] = by_row
        return by_row.reshape(values.shape)

    def _edit(self, point: str, values: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
        edit = self._edits[point]
        for name, part in edit._asdict().items():
            if part is None:
                continue
            fits = part.ndim <= values.ndim and all(
                size in (1, whole)
                for size, whole in zip(part.shape[::-1], values.shape[::-1], strict=False)
            )
            if not fits:
                raise UserError(
                    f"edit of {point}: {name} has the shape {part.shape}"
                    f"{' of each layer' * (point != BEFORE_LAYERS)}, which does not broadcast to"
                    f" that of the values, {values.shape}"
                )
        return edit.apply(values)
