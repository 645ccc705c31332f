"""The operators of what stands on the encoder, and of vectors of texts."""

from typing import TYPE_CHECKING

import numpy as np

from bertjax.config import CLASSIFIERS, BertConfig
from bertjax.interop.onnx.blocks import activate, count_up, layer_norm, length_of, linear
from bertjax.interop.onnx.graph import BOOL, FLOAT, Graph, Weights
from bertjax.interop.sentence_transformers import Dense, SentenceModel
from bertjax.interop.signature import SENTENCE

if TYPE_CHECKING:
    from onnx_ir import Value

_LOWEST = float(np.finfo(np.float32).min)
# Activations of torch that ONNX calls otherwise.
_OPERATORS = {"ReLU": "Relu"}


def first_token(graph: Graph, hidden: "Value") -> "Value":
    """Adds the hidden state of each row's [CLS], `[B, D]`."""
    return graph("Gather", hidden, 0, axis=1)


def pool_first(graph: Graph, weights: Weights, hidden: "Value") -> "Value":
    """Adds the pooler (`model.heads.Pooler`): `[B, D]`."""
    return graph("Tanh", linear(graph, first_token(graph, hidden), weights.part("dense")))


def predict(graph: Graph, config: BertConfig, weights: Weights, hidden: "Value") -> "Value":
    """Adds what the heads of a ModernBERT begin with (`model.heads.PredictionHead`)."""
    dense = linear(graph, hidden, weights.part("dense"))
    activated = activate(graph, config.classifier_activation, dense)
    return layer_norm(graph, activated, weights.part("layer_norm"), config.layer_norm_eps)


def restore_words(
    graph: Graph, config: BertConfig, weights: Weights, embeddings: Weights, hidden: "Value"
) -> "Value":
    """Adds the masked-LM head (`model.heads.MaskedLanguageModelHead`): `[B, T, V]`."""
    if "dense" in weights:
        dense = linear(graph, hidden, weights.part("dense"))
        hidden = activate(graph, config.mlm_activation, dense)
        hidden = layer_norm(graph, hidden, weights.part("layer_norm"), config.layer_norm_eps)
    table = graph.weight(embeddings, "word_embeddings")
    bias = [graph.weight(weights, "bias")] if "bias" in weights else []
    shape = graph("Shape", hidden)
    flat = graph("Reshape", hidden, [-1, config.embedding_size])
    # Gemm takes the table as it lies; a MatMul would need a transposed copy of it.
    logits = graph("Gemm", flat, table, *bias, transB=1)
    places = graph("Slice", shape, [0], [2])
    return graph("Reshape", logits, graph("Concat", places, [config.vocab_size], axis=0))


def classify(
    graph: Graph, config: BertConfig, part: str, weights: Weights, hidden: "Value"
) -> "Value":
    """Adds a classifier (`model.heads.ClassifierHead`): logits in place of hidden states."""
    if transform := config.head_transform(part):
        dense = linear(graph, hidden, weights.part("transform"))
        hidden = activate(graph, transform.activation, dense)
    if part in CLASSIFIERS and config.classifier_norm == "layer":
        hidden = layer_norm(graph, hidden, weights.part("norm"), config.layer_norm_eps)
    return linear(graph, hidden, weights.part("dense"))


# ---------------------------------------------------------------------- vectors of texts


def mean(graph: Graph, hidden: "Value", real: "Value") -> "Value":
    """Adds the mean over the tokens, weighted by `real [B, T]`; 0 of a row that has none."""
    weights = graph("Unsqueeze", real, [2])
    sums = graph("ReduceSum", graph("Mul", hidden, weights), [1], keepdims=0)
    return graph("Div", sums, _or_one(graph, graph("ReduceSum", real, [1], keepdims=1)))


def embed_texts(graph: Graph, steps: SentenceModel, hidden: "Value", real: "Value") -> "Value":
    """Adds the vector of each text, as `bertjax embed` makes it (`inference.embedding`).

    Args:
        graph: the graph.
        steps: how vectors are made of hidden states.
        hidden: the last ones, `[B, T, D]`.
        real: float32 `[B, T]`, 1 of a token, 0 of padding.
    """
    pooled = [_pool(graph, kind, hidden, real) for kind in steps.pooling]
    vectors = graph("Concat", *pooled, axis=-1) if len(pooled) > 1 else pooled[0]
    for number, step in enumerate(steps.after):
        if isinstance(step, Dense):
            arrays = {"kernel": step.weight.T, "bias": step.bias}
            vectors = linear(graph, vectors, Weights(f"{SENTENCE}.{number}", arrays))
            if step.activation != "Identity":
                vectors = graph(_OPERATORS.get(step.activation, step.activation), vectors)
        else:
            length = graph("ReduceL2", vectors, axes=[-1], keepdims=1)
            vectors = graph("Div", vectors, _or_one(graph, length))
    return vectors


def _pool(graph: Graph, kind: str, hidden: "Value", real: "Value") -> "Value":
    if kind == "cls":
        return first_token(graph, hidden)
    if kind == "mean":
        return mean(graph, hidden, real)
    places = graph("Cast", count_up(graph, length_of(graph, real)), to=FLOAT)
    if kind == "weightedmean":
        return mean(graph, hidden, graph("Mul", real, graph("Add", places, 1.0)))
    number = graph("ReduceSum", real, [1], keepdims=1)
    spread = graph("Unsqueeze", real, [2])
    if kind == "mean_sqrt_len_tokens":
        sums = graph("ReduceSum", graph("Mul", hidden, spread), [1], keepdims=0)
        return graph("Div", sums, _or_one(graph, graph("Sqrt", number)))
    if kind == "lasttoken":
        last = graph("ReduceMax", graph("Mul", real, places), axes=[1], keepdims=1)
        chosen = graph("Unsqueeze", graph("Equal", places, last), [2])
        return graph("ReduceSum", graph("Where", chosen, hidden, 0.0), [1], keepdims=0)
    seen = graph("Where", graph("Cast", spread, to=BOOL), hidden, _LOWEST)
    largest = graph("ReduceMax", seen, axes=[1], keepdims=0)
    return graph("Where", graph("Cast", number, to=BOOL), largest, 0.0)


def _or_one(graph: Graph, values: "Value") -> "Value":
    """Adds the values, 1 in place of 0, so that they can be divided by."""
    return graph("Where", graph("Equal", values, 0.0), 1.0, values)
