"""What a BERT computes inside for every text: attention probabilities, context, hidden states."""

import functools
import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Key

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.rows import (
    batch_texts,
    count_tokens,
    shapes_of_maps,
    trace_bytes,
)
from bertjax.architectures import BODY
from bertjax.inference.batches import Place, put_params, run
from bertjax.loaded import Model
from bertjax.model.bert import BertModel
from bertjax.model.probe_points import Edits, gate_heads
from bertjax.types import Trace

# What is computed of a batch takes at most so many bytes, unless one text's part takes more.
BATCH_BYTES = 16 << 20
# Texts that are sorted by length at a time; their captures are in memory together.
_WINDOW_BYTES = 16 << 20
# Attention weights that a notebook shows.
_LEAST_DRAWN = 0.05


class Captured(NamedTuple):
    """What a body computed for one text; float32.

    Attributes:
        encoded: the text.
        probs: attention probabilities; rows sum to 1.
        hidden: the embeddings' output, then every layer's; None where not asked for.
        context: every head's weighted sum of values; None where not asked for.
    """

    encoded: EncodedText
    probs: Float[np.ndarray, "L N T T"]
    hidden: Float[np.ndarray, "L+1 T D"] | None
    context: Float[np.ndarray, "L T N H"] | None

    def __repr__(self) -> str:
        arrays = (f"{name} {list(value.shape)}" for name, value in self._arrays().items())
        return f"Captured({' '.join(self.tokens)!r}, {', '.join(arrays)})"

    def _repr_html_(self) -> str:
        """Returns the maps of all heads for a notebook: a row of squares for each layer.

        Weights below `_LEAST_DRAWN` are not drawn, so that the page stays small.
        """
        layers, heads, t, _ = self.probs.shape
        rows = []
        for layer in range(layers):
            maps = [_draw_map(self.probs[layer, head]) for head in range(heads)]
            cells = "".join(
                f"<td>{layer}-{head}<br>{drawn}</td>" for head, drawn in enumerate(maps)
            )
            rows.append(f"<tr>{cells}</tr>")
        names = html.escape(" ".join(self.tokens))
        return (
            f"<p>{names}<br>attention of each head, layer-head: rows look at columns,"
            f" {t} tokens; weights from {_LEAST_DRAWN} on</p><table>{''.join(rows)}</table>"
        )

    def _arrays(self) -> dict[str, np.ndarray]:
        named = {"probs": self.probs, "hidden": self.hidden, "context": self.context}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def token_ids(self) -> Int[np.ndarray, " T"]:
        """Their numbers in the vocabulary, for `model.module.apply`."""
        return self.encoded.token_ids

    @property
    def tokens(self) -> tuple[str, ...]:
        """The tokens of the text, as a reader is shown them."""
        return self.encoded.tokens


def _draw_map(probs: Float[np.ndarray, "T T"]) -> str:
    """Draws a square of SVG, dark where attention is high."""
    t = len(probs)
    squares = "".join(
        f'<rect x="{column}" y="{row}" width="1" height="1" opacity="{probs[row, column]:.2f}"/>'
        for row, column in np.argwhere(probs >= _LEAST_DRAWN).tolist()
    )
    return (
        f'<svg viewBox="0 0 {t} {t}" width="72" height="72" shape-rendering="crispEdges"'
        f' fill="#1c4a9c" style="background: #f2f2f2">{squares}</svg>'
    )


def randomize(model: Model, seed: int = 0) -> Model:
    """Returns the control of all figures: the same class with new random weights.

    Args:
        model: whose class and tokenizer it has.
        seed: of the weights.
    """
    params = _initialize(model.module, jax.random.key(seed))
    return model.replace(params=put_params(params, model.mesh), spare={}, notes=())


def capture(
    model: Model,
    texts: Iterable[EncodedText],
    *,
    hidden: bool = False,
    context: bool = False,
    head_gates: Float[Array | np.ndarray, "L N"] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Captured]:
    """Captures of all texts in their order; memory does not grow with their number.

    Texts of similar length are worked through together, padded; padding changes no result.

    Args:
        model: whose inside is wanted, of any class.
        texts: encoded by its tokenizer; they are taken as they are needed.
        hidden: whether hidden states are wanted.
        context: whether each head's output is wanted.
        head_gates: each head's output is multiplied by its gate; ones when left out.
        progress: called with the number of texts done since the last call.

    Raises:
        UserError: a text that is longer than the model has positions for.
    """
    body, config = model.as_architecture(BODY), model.config
    edit = None if head_gates is None else gate_heads(head_gates)
    points = ("probs", *(("embedded", "hidden") if hidden else ()), *(["context"] * context))

    def forward(params: Mapping[str, Any], inputs: Sequence[Integer[Array, "B T"]]) -> Trace:
        return _trace(body.module, points, params, inputs, edit)

    def take(trace: Trace, text: EncodedText, place: Place) -> Captured:
        row, t = place.row, len(text.token_ids)
        return Captured(
            text,
            trace.probs[:, row, :, :t, :t].copy(),
            np.concatenate([trace.embedded[None, row, :t], trace.hidden[:, row, :t]])
            if hidden
            else None,
            trace.context[:, row, :t].copy() if context else None,
        )

    def cost(text: EncodedText) -> int:
        return trace_bytes(config, count_tokens(text, config), hidden, context)

    batching = batch_texts(
        shapes_of_maps(config, BATCH_BYTES, mesh=model.mesh), config, body.tokenizer.pad_id, take,
        cost=cost, window=_WINDOW_BYTES,
    )  # fmt: skip
    yield from run(forward, body.params, texts, batching, mesh=model.mesh, progress=progress)


@functools.partial(jax.jit, static_argnums=0)
def _initialize(model: nn.Module, key: Key[Array, ""]) -> Mapping[str, Any]:
    return model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _trace(
    model: BertModel,
    points: tuple[str, ...],
    params: Mapping[str, Any],
    inputs: Sequence[Integer[Array, "B T"]],
    edit: Edits | None,
) -> Trace:
    return model.apply({"params": params}, *inputs, edit=edit, trace=points).trace
