"""A model of any class as an ONNX model: `bertjax.model.bert`, written down."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bertjax.architectures import BODY, OF_A_TOKEN, Architecture
from bertjax.config import BertConfig, Kind
from bertjax.interop.onnx.blocks import Rows, embed, encode
from bertjax.interop.onnx.graph import BOOL, FLOAT, Graph, Weights
from bertjax.interop.onnx.heads import (
    classify,
    embed_texts,
    first_token,
    mean,
    pool_first,
    predict,
    restore_words,
)
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.interop.signature import input_axes, input_names, outputs_of

if TYPE_CHECKING:
    from onnx_ir import Model, Value


def build_model(
    config: BertConfig,
    architecture: Architecture,
    params: Mapping[str, Any],
    steps: SentenceModel,
    version: str,
) -> "Model":
    """Returns the ONNX model of a class; inputs and outputs are those of `interop.signature`.

    Args:
        config: the shape.
        architecture: the class.
        params: its flax collection "params"; that of `BertModel` under "bert". A body may lack the
            pooler.
        steps: how a body makes vectors of texts.
        version: of bertjax.
    """
    graph, weights = Graph(), Weights("", params)
    rows, shape = _read_inputs(graph, config, architecture.kind)
    body = weights.part("bert")
    embedded = embed(graph, config, body.part("embeddings"), rows)
    hidden = encode(graph, config, body.part("encoder"), embedded, rows)
    if architecture.kind == BODY:
        answers = [hidden]
        if "pooler" in body:
            answers.append(pool_first(graph, body.part("pooler"), hidden))
        answers.append(embed_texts(graph, steps, hidden, rows.real))
    else:
        answers = _answer(graph, config, architecture, weights, hidden, rows)
    if architecture.kind == "choice":  # a question a row again
        answers = [graph("Reshape", *answers, graph("Slice", shape, [0], [2]))]
    outputs = outputs_of(
        architecture, config, steps.size(config.hidden_size), pooler="pooler" in body
    )
    for (name, axes), answer in zip(outputs.items(), answers, strict=True):
        graph.output(name, answer, axes)
    return graph.finish(architecture.name, version)


def _read_inputs(graph: Graph, config: BertConfig, kind: Kind) -> "tuple[Rows, Value]":
    """Adds the inputs; returns them with a text a row, and their own shape."""
    given = [graph.input(name, *input_axes(kind)) for name in input_names(config)]
    shape = graph("Shape", given[0])
    if kind == "choice":
        by_text = graph("Concat", [-1], graph("Slice", shape, [2], [3]), axis=0)
        given = [graph("Reshape", value, by_text) for value in given]
    token_ids, mask, *types = given
    is_real = graph("Cast", mask, to=BOOL)
    real = graph("Cast", is_real, to=FLOAT)
    return Rows(token_ids, is_real, real, types[0] if types else None), shape


def _answer(
    graph: Graph,
    config: BertConfig,
    architecture: Architecture,
    weights: Weights,
    hidden: "Value",
    rows: Rows,
) -> "list[Value]":
    """Adds the heads of a class, each on all tokens or on one vector of each text."""
    body = weights.part("bert")
    heads = [part for part in architecture.parts if part not in ("pooler", "prediction_head")]
    answers = []
    for head, output in zip(heads, architecture.outputs, strict=False):
        if output in OF_A_TOKEN:
            read = hidden
        elif "pooler" in architecture.parts:
            read = pool_first(graph, body.part("pooler"), hidden)
        elif config.pools_mean:
            read = mean(graph, hidden, rows.real)
        else:
            read = first_token(graph, hidden)
        if "prediction_head" in architecture.parts:
            read = predict(graph, config, weights.part("prediction_head"), read)
        own = weights.part(head) if head in weights else Weights(head, {})  # a decoder without bias
        if output == "token":
            answers.append(restore_words(graph, config, own, body.part("embeddings"), read))
            continue
        logits = classify(graph, config, head, own, read)
        if output == "start":
            both = graph.split(logits, 1, 1)
            answers += [graph("Squeeze", one, [-1]) for one in both]
        else:
            answers.append(graph("Squeeze", logits, [-1]) if output == "replaced" else logits)
    return answers
