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
from bertjax.architectures import BODY
from bertjax.config import BertConfig
from bertjax.interop.huggingface import load_model_directory, load_model_tokenizer
from bertjax.model.bert import BertModel
from bertjax.program.errors import UserError
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import Trace

# Lengths are padded to a multiple of it, so that few shapes are compiled.
LENGTH_STEP = 16
# What is computed of a batch takes at most so many bytes, unless one text's part takes more.
BATCH_BYTES = 16 << 20
# Texts that are sorted by length at a time; their captures are in memory together.
_WINDOW_BYTES = 16 << 20
_MOST_ROWS = 32


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
    if head_gates is None:
        head_gates = jnp.ones((config.num_hidden_layers, config.num_attention_heads))
    for window in _windows(texts, config, hidden, context):
        found: list[Captured | None] = [None] * len(window)
        for numbers in _batches(window, config):
            batch = [window[number] for number in numbers]
            length, rows = _shape(len(batch[0].token_ids), config)
            inputs = make_inputs(config, batch, rows, length, body.tokenizer.pad_id)
            trace = _trace(body.model, body.params, *inputs, head_gates)
            probs, hidden_states, contexts = (
                np.asarray(value) if wanted else None
                for value, wanted in (
                    (trace.probs, True), (trace.hidden, hidden), (trace.context, context)
                )
            )  # fmt: skip
            for row, number in enumerate(numbers):
                t = len(window[number].token_ids)
                found[number] = Captured(
                    window[number],
                    probs[:, row, :, :t, :t].copy(),
                    None if hidden_states is None else hidden_states[:, row, :t].copy(),
                    None if contexts is None else contexts[:, row, :t].copy(),
                )
            progress(len(numbers))
        for number in range(len(window)):
            # Not one that was taken is kept.
            taken, found[number] = found[number], None
            yield taken


def make_inputs(
    config: BertConfig, texts: Sequence[EncodedText], rows: int, length: int, pad_id: int
) -> tuple[Integer[np.ndarray, "B T"], Integer[np.ndarray, "B T"], Integer[np.ndarray, "B T"]]:
    """token_ids, token_type_ids and sequence_ids of texts, a row each, filled up with padding.

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


def padded_length(length: int, most: int) -> int:
    """The next multiple of LENGTH_STEP, at most the model's positions."""
    return min(-(-length // LENGTH_STEP) * LENGTH_STEP, most)


@functools.partial(jax.jit, static_argnums=0)
def _initialize(model: BertModel, key: Key[Array, ""]) -> Mapping[str, Any]:
    return model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


@functools.partial(jax.jit, static_argnums=0)
def _trace(
    model: BertModel,
    params: Mapping[str, Any],
    token_ids: Integer[Array, "B T"],
    token_type_ids: Integer[Array, "B T"],
    sequence_ids: Integer[Array, "B T"],
    head_gates: Float[Array, "L N"],
) -> Trace:
    output = model.apply(
        {"params": params},
        token_ids,
        token_type_ids,
        sequence_ids,
        head_gates=head_gates,
        trace=True,
    )
    return output.trace


def _bytes(length: int, config: BertConfig, hidden: bool, context: bool) -> int:
    """Of what is kept of a text of so many tokens."""
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    vectors = hidden * (layers + 1) + context * layers
    return 4 * length * (layers * heads * length + vectors * config.hidden_size)


def _windows(
    texts: Iterable[EncodedText], config: BertConfig, hidden: bool, context: bool
) -> Iterator[list[EncodedText]]:
    """Consecutive texts whose captures fit into memory together."""
    window: list[EncodedText] = []
    used = 0
    for text in texts:
        length = len(text.token_ids)
        if length > config.max_position_embeddings:
            raise UserError(
                f"text {text.source + 1}: {length} tokens, more than the model's"
                f" max_position_embeddings={config.max_position_embeddings}; encode it with that as"
                " max_length"
            )
        size = _bytes(length, config, hidden, context)
        if window and used + size > _WINDOW_BYTES:
            yield window
            window, used = [], 0
        window.append(text)
        used += size
    if window:
        yield window


def _shape(longest: int, config: BertConfig) -> tuple[int, int]:
    """Length and rows of a batch with that longest text: few pairs, as each is compiled."""
    length = padded_length(longest, config.max_position_embeddings)
    rows = BATCH_BYTES // _bytes(length, config, hidden=True, context=True)
    return length, 1 << (max(1, min(_MOST_ROWS, rows)).bit_length() - 1)


def _batches(texts: Sequence[EncodedText], config: BertConfig) -> Iterator[list[int]]:
    """Numbers of texts of similar length, the longest first; all batches but the last are full."""
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number].token_ids))
    start = 0
    while start < len(order):
        _, rows = _shape(len(texts[order[start]].token_ids), config)
        yield order[start : start + rows]
        start += rows
