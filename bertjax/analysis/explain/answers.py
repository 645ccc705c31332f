"""One number of a model's output, which is what an explanation explains, and its derivatives."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.rows import batch_texts, make_inputs, trace_bytes
from bertjax.architectures import ARCHITECTURES, OF_A_TOKEN, Output
from bertjax.config import BertConfig
from bertjax.inference.batches import Batching, Place, in_turn, run, whole_params
from bertjax.inference.shapes import Shape, Shapes
from bertjax.loaded import Model
from bertjax.model.embeddings import Embeddings
from bertjax.model.probe_points import Edit
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.text.packing import Places

# Rows and tokens of a batch, and bytes of its maps. With the backward pass it takes no longer than
# other batches, for which a server lets it wait.
_MOST_ROWS, _BATCH_TOKENS, _BATCH_BYTES = 16, 512, 64 << 20
# Tokens of the shortest row: a backward pass takes seconds to compile, and shorter rows hardly less
# to run.
_SHORTEST = 32


class Target(NamedTuple):
    """One number of a model's output.

    Attributes:
        output: what the model answers with: `token` (masked LM), `next-sentence`, `sentence-order`,
            `class`, `tag` or `replaced` of a token, `start` or `end` of an answer, `choice`, or of
            a bare body `hidden`, `pooled`.
        index: which of them: vocabulary id, class, tag, 0 (is next, in order) or 1 (is random,
            swapped), or one of D; 0 for replaced, start, end and choice, which are one number.
        position: the token that it is of, counted from [CLS]; 0 for what is of the whole text.
        probability: the probability, not the logit: by the softmax over the indices (for start and
            end over the text's tokens), of a multi-label classifier or a replaced token by the
            sigmoid.
    """

    output: Output
    index: int = 0
    position: int = 0
    probability: bool = False


def check_target(whole: Model, encoded: EncodedText, target: Target) -> None:
    """Checks that the model has such a number for the text.

    Raises:
        UserError: it has not, with what it has.
    """
    known, config = ARCHITECTURES[whole.architecture].outputs, whole.config
    if target.output not in known:
        raise UserError(
            f"{with_article(whole.architecture)} answers with {' or '.join(known)}, not with"
            f" {with_article(target.output)}; name one of these, or take a model with the head for"
            " it"
        )
    if target.output == "pooled" and not whole.module.has_pooler:
        raise UserError("the model has no pooler; explain a number of its hidden states")
    sizes = {
        "token": config.vocab_size, "next-sentence": 2, "sentence-order": 2,
        "class": config.num_labels, "tag": config.num_labels, "hidden": config.hidden_size,
        "pooled": config.hidden_size,
    }  # fmt: skip
    indices = sizes.get(target.output, 1)
    positions = len(encoded.token_ids) if target.output in OF_A_TOKEN else 1
    for name, value, number in (
        ("index", target.index, indices), ("position", target.position, positions)
    ):  # fmt: skip
        if not 0 <= value < number:
            raise UserError(
                f"{name}={value} must be between 0 and {number - 1}:"
                f" {with_article(target.output)} of this"
                f" {'text' if name == 'position' else 'model'} has {number}"
            )
    is_regression = target.output == "class" and config.label_meaning == "regression"
    if target.probability and (is_regression or target.output in ("choice", "hidden", "pooled")):
        raise UserError(
            f"{'a regression' if is_regression else with_article(target.output)} is no probability;"
            " explain the number itself (probability=False)"
        )


def answer(
    whole: Model,
    encoded: EncodedText,
    target: Target,
    token_ids: Int[np.ndarray, "texts T"] | None = None,
) -> Float[np.ndarray, " texts"]:
    """Computes the target's value for the text, or for variants of it.

    Args:
        whole: the model.
        encoded: the text.
        target: the number that is wanted.
        token_ids: the variants: other tokens in the text's frame; the text itself when left out.
    """
    check_target(whole, encoded, target)
    variants = encoded.token_ids[None] if token_ids is None else token_ids
    texts = (encoded._replace(token_ids=ids) for ids in variants)
    batching = batch_texts(
        _shapes(whole),
        whole.config,
        whole.tokenizer.pad_id,
        lambda values, _, at: values[at.row],
    )

    def forward(params: Mapping[str, Any], inputs: Inputs) -> Float[Array, " B"]:
        kind = target.output, target.probability
        return _values(whole.module, *kind, params, inputs, *_places(target))

    return np.array([*run(forward, whole.params, texts, batching, mesh=whole.mesh)], np.float64)


def embed_tokens(
    whole: Model, encoded: EncodedText, token_ids: Int[np.ndarray, " T"] | None = None
) -> Float[np.ndarray, "T D"]:
    """Computes the embeddings' output for the text: the input of the first layer.

    Args:
        whole: the model.
        encoded: the text.
        token_ids: other tokens in its frame; its own when left out.
    """
    ids, types, _ = pad_inputs(whole, encoded)
    length = len(encoded.token_ids)
    ids[0, :length] = encoded.token_ids if token_ids is None else token_ids
    params = whole_params(whole.params.get("bert", whole.params)["embeddings"], whole.mesh)
    return in_turn(lambda: np.asarray(_embed(whole.config, params, ids, types)))[:length]


def differentiate_by_embeddings(
    whole: Model, encoded: EncodedText, target: Target, embedded: Float[np.ndarray, "rows T D"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, "rows T D"]]:
    """Computes the target's value and its gradient with respect to the embeddings' output.

    Args:
        whole: the model.
        encoded: the text.
        target: the number that is differentiated.
        embedded: points in the space of the embeddings' output, any number of them.
    """
    check_target(whole, encoded, target)
    pad_id, (count, length, width) = whole.tokenizer.pad_id, embedded.shape
    shapes = _shapes(whole)
    # Whole batches, so that one program is compiled.
    missing = -count % shapes.most_rows(shapes.length_for(length))
    embedded = np.concatenate([embedded, np.repeat(embedded[-1:], missing, axis=0)])

    def make(
        points: Sequence[Float[np.ndarray, "T D"]], places: Places, shape: Shape
    ) -> tuple[Inputs, Float[np.ndarray, "B T D"]]:
        copies = [encoded] * len(points)
        padded = np.zeros((shape.rows, shape.length, width), embedded.dtype)
        padded[: len(points), :length] = points
        return make_inputs(whole.config, copies, shape.rows, shape.length, pad_id), padded

    def forward(params: Mapping[str, Any], batch: tuple[Inputs, Array]) -> tuple[Array, Array]:
        kind, (inputs, points) = (target.output, target.probability), batch
        return _by_embeddings(whole.module, *kind, params, inputs, *_places(target), points)

    def take(outputs: Sequence[np.ndarray], point: np.ndarray, at: Place) -> tuple[Any, np.ndarray]:
        return outputs[0][at.row], outputs[1][at.row, :length]

    batching = Batching(shapes, len, make, take)
    found = run(forward, whole.params, embedded, batching, mesh=whole.mesh)
    values, gradients = zip(*found, strict=True)
    return np.array(values[:count]), np.stack(gradients[:count])


def differentiate_by_attention(
    whole: Model, encoded: EncodedText, target: Target
) -> tuple[float, Float[np.ndarray, "L N T T"], Float[np.ndarray, "L N T T"]]:
    """Computes the target's value, the attention probabilities, and the gradient by them.

    Each probability is a variable of its own here: what it would change if it alone were larger,
    the others as they are.
    """
    check_target(whole, encoded, target)
    kind, params = (target.output, target.probability), whole_params(whole.params, whole.mesh)
    inputs, places = pad_inputs(whole, encoded), _places(target)
    value, probs, gradient = in_turn(
        lambda: jax.device_get(_by_attention(whole.module, *kind, params, inputs, *places))
    )
    t = len(encoded.token_ids)
    return float(value), probs[:, 0, :, :t, :t], gradient[:, 0, :, :t, :t]


Inputs = tuple[Integer[Array, "B T"], Integer[Array, "B T"], Integer[Array, "B T"]]


def pad_inputs(whole: Model, encoded: EncodedText) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Makes token ids, types and sequence ids `[1, T]` of the text, padded to a length in use."""
    length = _shapes(whole).length_for(len(encoded.token_ids))
    return make_inputs(whole.config, [encoded], 1, length, whole.tokenizer.pad_id)


def _shapes(whole: Model) -> Shapes:
    config = whole.config

    def fits(length: int) -> int:
        maps = _BATCH_BYTES // trace_bytes(config, length)
        return min(_MOST_ROWS, _BATCH_TOKENS // length, maps)

    return Shapes(config.max_length, fits, between=False, mesh=whole.mesh, shortest=_SHORTEST)


def _places(target: Target) -> tuple[np.int32, np.int32]:
    return np.int32(target.position), np.int32(target.index)


def _read(
    model: nn.Module,
    output: Output,
    probability: bool,
    params: Mapping[str, Any],
    inputs: Inputs,
    position: Integer[Array, ""],
    index: Integer[Array, ""],
    **options: Any,
) -> tuple[Float[Array, " B"], Any]:
    """Computes the target of every row, and the body's output."""
    rows = inputs[0].shape[0]
    if output == "token":
        options["masked_positions"] = jnp.full((rows, 1), position)
    result = model.apply({"params": params}, *inputs, **options)
    body = result.encoder if hasattr(result, "encoder") else result
    if output == "token":
        scores = (result.mlm_logits if hasattr(result, "mlm_logits") else result.logits)[:, 0]
    elif output == "next-sentence":
        scores = (result.nsp_logits if hasattr(result, "nsp_logits") else result.logits)[:, 0]
    elif output == "sentence-order":
        scores = result.order_logits[:, 0]
    elif output == "class":
        scores = result.logits[:, 0]
    elif output == "tag":
        scores = result.logits[:, position]
    elif output == "replaced":
        scores = result.logits[:, position, None]
    elif output in ("start", "end"):
        logits = result.logits[:, :, 0 if output == "start" else 1]
        scores = jnp.where(inputs[2] != 0, logits, -jnp.inf)
        index = position
    elif output == "choice":
        scores = result.logits
    elif output == "hidden":
        scores = result.hidden[:, position]
    else:
        scores = result.pooled[:, 0]
    if probability:
        several = output == "class" and "multi_label" in model.config.label_meaning
        scores = (
            jax.nn.sigmoid(scores)
            if several or output == "replaced"
            else jax.nn.softmax(scores, axis=-1)
        )
    return scores[:, index], body


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _values(*arguments: Any) -> Float[Array, " B"]:
    return _read(*arguments)[0]


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _by_embeddings(
    *arguments: Any,
) -> tuple[Float[Array, " B"], Float[Array, "B T D"]]:
    *arguments, embedded = arguments

    def total(embedded: Float[Array, "B T D"]) -> tuple[Float[Array, ""], Float[Array, " B"]]:
        values, _ = _read(*arguments, edit={"embedded": Edit(replace=embedded)})
        return values.sum(), values  # rows know nothing of each other

    gradient, values = jax.grad(total, has_aux=True)(embedded)
    return values, gradient


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _by_attention(
    model: nn.Module, output: Output, probability: bool, params: Any, inputs: Inputs, *at: Any
) -> tuple[Float[Array, ""], Float[Array, "L 1 N T S"], Float[Array, "L 1 N T S"]]:
    config, length = model.config, inputs[0].shape[1]
    shape = (config.num_hidden_layers, 1, config.num_attention_heads, length, length)

    def value(offset: Float[Array, "L 1 N T S"]) -> tuple[Float[Array, ""], tuple[Array, Array]]:
        hooks = {"edit": {"probs": Edit(add=offset)}, "trace": ("probs",)}
        values, body = _read(model, output, probability, params, inputs, *at, **hooks)
        return values[0], (values[0], body.trace.probs)

    dtype = jnp.promote_types(model.dtype, jnp.float32)
    gradient, (output, probs) = jax.grad(value, has_aux=True)(jnp.zeros(shape, dtype))
    return output, probs, gradient


@functools.partial(jax.jit, static_argnums=0)
def _embed(
    config: BertConfig,
    params: Mapping[str, Any],
    token_ids: Integer[Array, "1 T"],
    token_type_ids: Integer[Array, "1 T"],
) -> Float[Array, "T D"]:
    positions, row = jnp.arange(token_ids.shape[1])[None], jnp.arange(1)
    return Embeddings(config).apply(
        {"params": params}, token_ids, token_type_ids, positions, row, False
    )
