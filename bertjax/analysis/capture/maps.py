"""What a BERT computes inside for every text: attention probabilities, context, hidden states."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer, Key

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.rows import (
    batch_texts,
    count_tokens,
    shapes_of_maps,
    trace_bytes,
)
from bertjax.architectures import BODY
from bertjax.inference.batches import Place, run
from bertjax.interop.huggingface import load_model_directory, load_model_tokenizer
from bertjax.model.bert import BertModel
from bertjax.model.probe_points import Edits, gate_heads
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import Trace

# What is computed of a batch takes at most so many bytes, unless one text's part takes more.
BATCH_BYTES = 16 << 20
# Texts that are sorted by length at a time; their captures are in memory together.
_WINDOW_BYTES = 16 << 20


class Body(NamedTuple):
    """A BERT without heads, ready to be looked into.

    Attributes:
        model: without pooler.
        params: its parameters.
        tokenizer: the model's.
        notes: what there is to tell of how it was loaded.
    """

    model: BertModel
    params: Mapping[str, Any]
    tokenizer: Tokenizer
    notes: tuple[str, ...] = ()


# With fields model, params and notes.
AnyModel = TypeVar("AnyModel", bound=NamedTuple)


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


def load_body(path: Path | str) -> Body:
    """The body of any model directory.

    Raises:
        UserError: no model, a damaged one, or a tokenizer that is not its own.
    """
    loaded = load_model_directory(path, BODY.name, may_lack=("pooler",))
    tokenizer, more = load_model_tokenizer(path, loaded.config)
    params = {name: part for name, part in loaded.params["bert"].items() if name != "pooler"}
    params = jax.tree.map(jnp.asarray, params)
    # A pooler is of no use here, so that it does not matter whether there is one.
    notes = (*(note for note in loaded.notes if "pooler" not in note), *more)
    return Body(BertModel(loaded.config, pooling=False), params, tokenizer, notes)


def randomize(model: AnyModel, seed: int = 0) -> AnyModel:
    """The control that figures are held against: the same shape with new random weights.

    Args:
        model: a `Body`, or an `answers.WholeModel`.
        seed: of the weights.
    """
    return model._replace(params=_initialize(model.model, jax.random.key(seed)), notes=())


def capture(
    body: Body,
    texts: Iterable[EncodedText],
    *,
    hidden: bool = False,
    context: bool = False,
    head_gates: Float[Array, "L N"] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Captured]:
    """Captures of all texts in their order; memory does not grow with their number.

    Texts of similar length are worked through together, padded; padding changes no result.

    Args:
        body: whose inside is wanted.
        texts: encoded by its tokenizer; they are taken as they are needed.
        hidden: whether hidden states are wanted.
        context: whether each head's output is wanted.
        head_gates: each head's output is multiplied by its gate; ones when left out.
        progress: is called with the number of texts done since the call before.

    Raises:
        UserError: a text that is longer than the model has positions for.
    """
    config = body.model.config
    edit = None if head_gates is None else gate_heads(head_gates)
    points = ("probs", *(("embedded", "hidden") if hidden else ()), *(["context"] * context))

    def forward(params: Mapping[str, Any], inputs: Sequence[Integer[Array, "B T"]]) -> Trace:
        return _trace(body.model, points, params, inputs, edit)

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
        shapes_of_maps(config, BATCH_BYTES), config, body.tokenizer.pad_id, take,
        cost=cost, window=_WINDOW_BYTES,
    )  # fmt: skip
    yield from run(forward, body.params, texts, batching, progress=progress)


@functools.partial(jax.jit, static_argnums=0)
def _initialize(model: BertModel, key: Key[Array, ""]) -> Mapping[str, Any]:
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
