"""The operators of embeddings, attention and layers: those of `bertjax.model`, written down."""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bertjax.config import BertConfig
from bertjax.interop.onnx.graph import FLOAT, INT64, Graph, Weights
from bertjax.model.rotary import rotary_frequencies
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from onnx_ir import Value

# What is added to the score of a key that a query does not see: with it any score is the lowest
# float32, whose share of a softmax is exactly 0 beside a key that is seen.
_UNSEEN = float(np.finfo(np.float32).min)


class Rows(NamedTuple):
    """The inputs, a text a row.

    Attributes:
        token_ids: int64 `[B, T]`.
        is_real: bool `[B, T]`, false of padding.
        real: the same as float32, 1 and 0.
        token_types: int64 `[B, T]`; None in families whose texts have none.
    """

    token_ids: "Value"
    is_real: "Value"
    real: "Value"
    token_types: "Value | None"


class Shared(NamedTuple):
    """What all layers are given.

    Attributes:
        real: of `Rows`.
        unseen: what is added to scores, of global layers and of local ones, `[B, 1, 1 or T, S]`.
        rotations: cosines and sines `[T, H/2]` of global layers and of local ones; none without
            rotary positions.
    """

    real: "Value"
    unseen: "tuple[Value, Value]"
    rotations: "tuple[tuple[Value, Value], ...]"


# ---------------------------------------------------------------------- layers of maths


def linear(graph: Graph, values: "Value", weights: Weights, axes: int = 1) -> "Value":
    """Adds a linear layer (`model.layers.Linear`) whose outputs are one axis.

    Args:
        graph: the graph.
        values: `[..., inputs]`.
        weights: `kernel`, and `bias` where there is one.
        axes: how many axes of the kernel are its inputs.
    """
    shape = np.shape(weights.values["kernel"])
    inputs, outputs = math.prod(shape[:axes]), math.prod(shape[axes:])
    product = graph("MatMul", values, graph.weight(weights, "kernel", inputs, outputs))
    if "bias" not in weights:
        return product
    return graph("Add", product, graph.weight(weights, "bias", outputs))


def layer_norm(graph: Graph, values: "Value", weights: Weights, epsilon: float) -> "Value":
    """Adds a normalisation over the last axis (`model.layers.normalize_layer`)."""
    own = [graph.weight(weights, name) for name in ("scale", "bias") if name in weights]
    return graph("LayerNormalization", values, *own, axis=-1, epsilon=epsilon)


def activate(graph: Graph, name: str, values: "Value") -> "Value":
    """Adds an activation (`model.layers.activate`)."""
    if name in ("relu", "tanh"):
        return graph(name.capitalize(), values)
    if name == "silu":
        return graph("Mul", values, graph("Sigmoid", values))
    if name == "gelu":
        curve = graph("Erf", graph("Mul", values, math.sqrt(0.5)))
    elif name == "gelu_new":
        cube = graph("Mul", graph("Mul", values, values), values)
        inner = graph("Add", values, graph("Mul", cube, 0.044715))
        curve = graph("Tanh", graph("Mul", inner, math.sqrt(2 / math.pi)))
    else:
        raise UserError(
            f"the activation {name!r} has no operators of ONNX here; export to stablehlo"
        )
    return graph("Mul", graph("Mul", values, 0.5), graph("Add", curve, 1.0))


# ---------------------------------------------------------------------- embeddings


def embed(graph: Graph, config: BertConfig, weights: Weights, rows: Rows) -> "Value":
    """Adds the embeddings (`model.embeddings.Embeddings`): hidden states `[B, T, D]`."""
    summed = graph("Gather", graph.weight(weights, "word_embeddings"), rows.token_ids)
    if config.LEARNED_POSITIONS:
        summed = graph("Add", summed, _positions(graph, config, weights, rows.token_ids))
    if config.type_vocab_size:
        table = graph.weight(weights, "token_type_embeddings")
        kinds = [0] if rows.token_types is None else rows.token_types
        summed = graph("Add", summed, graph("Gather", table, kinds))
    hidden = layer_norm(graph, summed, weights.part("layer_norm"), config.layer_norm_eps)
    if config.projects_embeddings:
        hidden = linear(graph, hidden, weights.part("projection"))
    return hidden


def _positions(graph: Graph, config: BertConfig, weights: Weights, token_ids: "Value") -> "Value":
    """Adds the embeddings of positions; beyond the table the runtime refuses."""
    table, first = graph.weight(weights, "position_embeddings"), config.first_position
    if not config.POSITIONS_SKIP_PADDING:
        places = graph("Add", count_up(graph, length_of(graph, token_ids)), first)
        return graph("Gather", table, places)
    real = graph("Not", graph("Equal", token_ids, config.pad_token_id))
    real = graph("Cast", real, to=INT64)
    counted = graph("Mul", graph("CumSum", real, 1), real)
    return graph("Gather", table, graph("Add", counted, first - 1))


def length_of(graph: Graph, values: "Value") -> "Value":
    """Adds the length of the second axis, a scalar."""
    return graph("Gather", graph("Shape", values), 1)


def count_up(graph: Graph, length: "Value") -> "Value":
    """Adds 0, 1, 2, ..., so many numbers."""
    return graph("Range", 0, length, 1)


# ---------------------------------------------------------------------- what layers share


def _share(graph: Graph, config: BertConfig, rows: Rows) -> Shared:
    """Adds what all layers are given: who sees whom, and rotary positions."""
    keys = graph("Unsqueeze", rows.is_real, [1, 2])  # [B, 1, 1, S]
    everywhere = nearby = graph("Where", keys, 0.0, _UNSEEN)
    length = length_of(graph, rows.is_real)
    if config.window is not None:
        places = count_up(graph, length)
        distance = graph(
            "Abs", graph("Sub", graph("Unsqueeze", places, [1]), graph("Unsqueeze", places, [0]))
        )
        near = graph("And", keys, graph("LessOrEqual", distance, config.window))
        nearby = graph("Where", near, 0.0, _UNSEEN)
    rotations = ()
    if config.rotary_bases is not None:
        places = graph("Cast", count_up(graph, length), to=FLOAT)
        angles = [
            graph("Mul", graph("Unsqueeze", places, [1]), frequencies[None])
            for frequencies in rotary_frequencies(config.rotary_bases, config.head_size)
        ]
        rotations = tuple((graph("Cos", angle), graph("Sin", angle)) for angle in angles)
    return Shared(rows.real, (everywhere, nearby), rotations)


# ---------------------------------------------------------------------- attention


def attend(
    graph: Graph, config: BertConfig, weights: Weights, hidden: "Value", shared: Shared, local: bool
) -> "Value":
    """Adds self-attention with its output projection (`model.attention.SelfAttention`).

    Padding sees nobody, and its context is 0; nobody sees padding.
    """
    heads, size = config.num_attention_heads, config.head_size
    query, key, value = (
        graph("Reshape", linear(graph, hidden, weights.part(name)), [0, 0, heads, size])
        for name in ("query", "key", "value")
    )
    query, key = (graph("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, key))
    if shared.rotations:
        query, key = (
            _rotate(graph, part, *shared.rotations[local], size // 2) for part in (query, key)
        )
    query = graph("Mul", query, size**-0.5)
    scores = graph("MatMul", query, graph("Transpose", key, perm=[0, 1, 3, 2]))
    probs = graph("Softmax", graph("Add", scores, shared.unseen[local]), axis=-1)
    context = graph("MatMul", probs, graph("Transpose", value, perm=[0, 2, 1, 3]))
    context = graph("Transpose", context, perm=[0, 2, 1, 3])
    context = graph("Reshape", context, [0, 0, heads * size])
    context = graph("Mul", context, graph("Unsqueeze", shared.real, [2]))
    return linear(graph, context, weights.part("output"), axes=2)


def _rotate(graph: Graph, values: "Value", cosine: "Value", sine: "Value", half: int) -> "Value":
    """Adds the turning of pairs of numbers `[B, N, T, H]` (`model.rotary.rotate`)."""
    first, second = graph.split(values, half, half)
    turned = [
        graph("Sub", graph("Mul", first, cosine), graph("Mul", second, sine)),
        graph("Add", graph("Mul", second, cosine), graph("Mul", first, sine)),
    ]
    return graph("Concat", *turned, axis=-1)


# ---------------------------------------------------------------------- the two kinds of layers


def encode(
    graph: Graph, config: BertConfig, weights: Weights, hidden: "Value", rows: Rows
) -> "Value":
    """Adds all layers (`model.encoder.Encoder`): the last hidden states `[B, T, D]`."""
    shared = _share(graph, config, rows)
    for number, local in enumerate(config.local_layers):
        own = weights.part("layers").layer(number)
        if config.NORMALIZES_FIRST:
            hidden = _pre_norm(graph, config, own, hidden, shared, local, number == 0)
        else:
            hidden = _post_norm(graph, config, own, hidden, shared, local)
    if config.NORMALIZES_FIRST:
        final = weights.part("final_layer_norm")
        hidden = layer_norm(graph, hidden, final, config.layer_norm_eps)
    return hidden


def _post_norm(
    graph: Graph, config: BertConfig, weights: Weights, hidden: "Value", shared: Shared, local: bool
) -> "Value":
    """Adds a layer of a BERT (`model.encoder.EncoderLayer`)."""
    epsilon = config.layer_norm_eps
    attended = attend(graph, config, weights.part("attention"), hidden, shared, local)
    hidden = graph("Add", hidden, attended)
    hidden = layer_norm(graph, hidden, weights.part("attention_layer_norm"), epsilon)
    inner = activate(graph, config.hidden_act, linear(graph, hidden, weights.part("intermediate")))
    hidden = graph("Add", hidden, linear(graph, inner, weights.part("output")))
    return layer_norm(graph, hidden, weights.part("output_layer_norm"), epsilon)


def _pre_norm(
    graph: Graph,
    config: BertConfig,
    weights: Weights,
    hidden: "Value",
    shared: Shared,
    local: bool,
    first: bool,
) -> "Value":
    """Adds a layer of a ModernBERT (`model.pre_norm.PreNormLayer`)."""
    epsilon, normalized = config.layer_norm_eps, hidden
    if not first:
        normalized = layer_norm(graph, hidden, weights.part("attention_layer_norm"), epsilon)
    attended = attend(graph, config, weights.part("attention"), normalized, shared, local)
    hidden = graph("Add", hidden, attended)
    normalized = layer_norm(graph, hidden, weights.part("output_layer_norm"), epsilon)
    inner = activate(
        graph, config.hidden_act, linear(graph, normalized, weights.part("intermediate"))
    )
    inner = graph("Mul", inner, linear(graph, normalized, weights.part("gate")))
    return graph("Add", hidden, linear(graph, inner, weights.part("output")))
