"""A model as a graph of ONNX's standard operators, written straight from its weights.

Nothing is traced: `graph` records operators, `blocks` has the two kinds of layers, `heads` what
stands on them, and `model` puts them together as `bertjax.model.bert` does.
"""
