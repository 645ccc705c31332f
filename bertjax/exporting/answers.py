"""What a model answers by the names of its export: the function that every export computes."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from bertjax.architectures import ARCHITECTURES
from bertjax.inference.embedding import pool
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.interop.signature import (
    ATTENTION_MASK,
    HIDDEN,
    INPUT_IDS,
    POOLED,
    SENTENCE,
    TOKEN_TYPE_IDS,
    outputs_of,
)
from bertjax.loaded import Model
from bertjax.numerics.placement import full_precision
from bertjax.types import EncoderOutput, HeadOutput, PreTrainingOutput, SentenceOrderOutput

Answers = dict[str, Any]


def answering(model: Model, steps: SentenceModel) -> Callable[[Any, Mapping[str, Any]], Answers]:
    """Returns the function of parameters and inputs that an export of the model computes.

    Inputs and answers are those of `interop.signature`. A place whose attention mask is 0 is
    padding: no other sees it, and it sees nothing.

    Args:
        model: of any class.
        steps: how a body makes vectors of texts.
    """
    return functools.partial(_answer, model.module, model.architecture, steps)


def _answer(
    module: Any, name: str, steps: SentenceModel, params: Any, inputs: Mapping[str, Any]
) -> Answers:
    architecture = ARCHITECTURES[name]
    shape = inputs[INPUT_IDS].shape
    token_ids, mask, types = (
        None if values is None else values.reshape(-1, shape[-1]).astype(jnp.int32)
        for values in map(inputs.get, (INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS))
    )
    sequence_ids = (mask != 0).astype(jnp.int32)
    positions = None
    if module.config.POSITIONS_SKIP_PADDING and not isinstance(shape[-1], int):
        positions = _count_real(token_ids != module.config.pad_token_id)
    output = module.apply({"params": params}, token_ids, types, sequence_ids, positions)
    match output:
        case EncoderOutput():
            vectors = make_vectors(steps, output.hidden, sequence_ids)
            pooled = {} if output.pooled is None else {POOLED: output.pooled[:, 0]}
            return {HIDDEN: output.hidden, **pooled, SENTENCE: vectors}
        case PreTrainingOutput():
            answers = [output.mlm_logits, output.nsp_logits[:, 0]]
        case SentenceOrderOutput():
            answers = [output.mlm_logits, output.order_logits[:, 0]]
        case HeadOutput() if architecture.kind == "spans":
            answers = [output.logits[..., 0], output.logits[..., 1]]
        case HeadOutput() if architecture.is_of_tokens:
            answers = [output.logits]
        case HeadOutput() if architecture.kind == "choice":
            answers = [output.logits.reshape(shape[:2])]
        case HeadOutput():
            answers = [output.logits[:, 0]]
    return dict(zip(outputs_of(architecture, module.config), answers, strict=True))


def _count_real(real: Bool[Array, "B T"]) -> Integer[Array, "B T"]:
    """Returns the positions of `model.bert.complete_inputs` along an axis without a size, of which
    jax has no running sum that all devices keep.
    """
    places = jnp.arange(real.shape[1])
    counts = (real[:, None] & (places <= places[:, None])).sum(axis=-1, dtype=jnp.int32)
    return jnp.where(real, counts, 0) - 1


def make_vectors(
    steps: SentenceModel, hidden: Float[Array, "B T D"], sequence_ids: Integer[Array, "B T"]
) -> Float[Array, "B S"]:
    """Returns the vector of each row's text, as `inference.embedding` makes it."""
    rows, length = sequence_ids.shape
    places = jnp.broadcast_to(jnp.arange(length), (rows, length))
    starts = jnp.zeros((rows, 1), jnp.int32)
    pooled = [
        pool(hidden.astype(jnp.float32), sequence_ids, places, starts, kind)[:, 0]
        for kind in steps.pooling
    ]
    vectors = jnp.concatenate(pooled, axis=-1)
    with full_precision(vectors.dtype):
        for step in steps.after:
            vectors = step(vectors)
    return vectors
