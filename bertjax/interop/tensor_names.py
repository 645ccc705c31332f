"""The one table between Hugging Face's tensors and ours, read in both directions."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from bertjax.architectures import ARCHITECTURES
from bertjax.config import BertConfig
from bertjax.program.errors import UserError

# The nested dict that is the value of the flax collection "params" of a class of `model.bert`; that
# of `BertModel` stands under "bert", as in the others.
Parameters = dict[str, Any]

# What stands on the encoder: the name in errors and arguments -> where its parameters are in ours.
PARTS = {
    "pooler": "bert/pooler/",
    "mlm_head": "mlm_head/",
    "nsp_head": "nsp_head/",
    "sequence_head": "sequence_head/",
    "token_head": "token_head/",
    "span_head": "span_head/",
    "choice_head": "choice_head/",
}

# The tensors `classifier.*` are any of these, which only the class decides.
CLASSIFIERS = ("sequence_head", "token_head", "choice_head")


class Row(NamedTuple):
    """One parameter: its name and its axes on both sides.

    Axes are the letters of `bertjax.types`. `theirs_axes` has a group of letters for each axis, as
    `NH D` for a matrix of [N*H, D]; `D` on the output side of a square kernel is written `d`.
    A name with `{layer}` stands for L tensors, which ours stacks: its axes lead with an L that is
    not written.
    """

    theirs: str
    ours: str
    theirs_axes: str
    ours_axes: str

    @property
    def is_stacked(self) -> bool:
        """Whether there is one tensor a layer."""
        return "{layer}" in self.theirs

    @property
    def part(self) -> str | None:
        """The key of `PARTS` that this belongs to; None for embeddings and encoder."""
        return next((part for part, path in PARTS.items() if self.ours.startswith(path)), None)


def _classifier(part: str, outputs: str) -> list[Row]:
    """Returns the rows of a `ClassifierHead`; its normalisation is ours, transformers has none."""
    return [
        *_layer_norm("classifier_norm", f"{part}/norm"),
        *_dense("classifier", f"{part}/dense", "D", outputs),
    ]


def _layer_norm(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.weight", f"{ours}/scale", "D", "D"),
        Row(f"{theirs}.bias", f"{ours}/bias", "D", "D"),
    ]


def _dense(theirs: str, ours: str, inputs: str, outputs: str) -> list[Row]:
    """Returns the rows of a linear layer: torch's [outputs, inputs], our [*inputs, *outputs]."""
    return [
        Row(f"{theirs}.weight", f"{ours}/kernel", f"{outputs} {inputs}", inputs + outputs),
        Row(f"{theirs}.bias", f"{ours}/bias", outputs, outputs),
    ]


_EMBEDDINGS, _LAYER = "bert.embeddings", "bert.encoder.layer.{layer}"
_OUR_EMBEDDINGS, _OUR_LAYERS = "bert/embeddings", "bert/encoder/layers"
_ATTENTION, _OUR_ATTENTION = f"{_LAYER}.attention", f"{_OUR_LAYERS}/attention"

TABLE: tuple[Row, ...] = (
    Row(f"{_EMBEDDINGS}.word_embeddings.weight", f"{_OUR_EMBEDDINGS}/word_embeddings", "V D", "VD"),
    Row(
        f"{_EMBEDDINGS}.position_embeddings.weight",
        f"{_OUR_EMBEDDINGS}/position_embeddings",
        "M D",
        "MD",
    ),
    Row(
        f"{_EMBEDDINGS}.token_type_embeddings.weight",
        f"{_OUR_EMBEDDINGS}/token_type_embeddings",
        "G D",
        "GD",
    ),
    *_layer_norm(f"{_EMBEDDINGS}.LayerNorm", f"{_OUR_EMBEDDINGS}/layer_norm"),
    *_dense(f"{_ATTENTION}.self.query", f"{_OUR_ATTENTION}/query", "D", "NH"),
    *_dense(f"{_ATTENTION}.self.key", f"{_OUR_ATTENTION}/key", "D", "NH"),
    *_dense(f"{_ATTENTION}.self.value", f"{_OUR_ATTENTION}/value", "D", "NH"),
    *_dense(f"{_ATTENTION}.output.dense", f"{_OUR_ATTENTION}/output", "NH", "D"),
    *_layer_norm(f"{_ATTENTION}.output.LayerNorm", f"{_OUR_LAYERS}/attention_layer_norm"),
    *_dense(f"{_LAYER}.intermediate.dense", f"{_OUR_LAYERS}/intermediate", "D", "F"),
    *_dense(f"{_LAYER}.output.dense", f"{_OUR_LAYERS}/output", "F", "D"),
    *_layer_norm(f"{_LAYER}.output.LayerNorm", f"{_OUR_LAYERS}/output_layer_norm"),
    *_dense("bert.pooler.dense", "bert/pooler/dense", "D", "d"),
    *_dense("cls.predictions.transform.dense", "mlm_head/dense", "D", "d"),
    *_layer_norm("cls.predictions.transform.LayerNorm", "mlm_head/layer_norm"),
    Row("cls.predictions.bias", "mlm_head/bias", "V", "V"),
    *_dense("cls.seq_relationship", "nsp_head/dense", "D", "2"),
    *_classifier("sequence_head", "C"),
    *_classifier("token_head", "C"),
    *_dense("qa_outputs", "span_head/dense", "D", "2"),
    *_classifier("choice_head", "1"),
)

# Copies that some checkpoints carry of a tensor in the table; they must be equal to it.
TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
# A buffer 0, 1, 2, ... that transformers wrote until version 4.31.
_STRAY = "bert.embeddings.position_ids"


def sizes_of_axes(config: BertConfig) -> dict[str, int]:
    """Returns the size of every letter used in the table."""
    return {
        "V": config.vocab_size,
        "M": config.max_position_embeddings,
        "G": config.type_vocab_size,
        "D": config.hidden_size,
        "d": config.hidden_size,
        "N": config.num_attention_heads,
        "H": config.head_size,
        "F": config.intermediate_size,
        "C": config.num_labels,
        "1": 1,
        "2": 2,
    }


def rows_of(config: BertConfig, parts: Collection[str]) -> list[Row]:
    """Returns the rows of embeddings, encoder and these parts."""
    normed = config.classifier_norm == "layer"
    return [
        row
        for row in TABLE
        if (row.part is None or row.part in parts) and (normed or "_head/norm/" not in row.ours)
    ]


def their_names(row: Row, config: BertConfig) -> list[str]:
    """Returns the names of the row's tensors, in the order of the layers."""
    layers = range(config.num_hidden_layers) if row.is_stacked else [0]
    return [row.theirs.format(layer=layer) for layer in layers]


def their_shape(row: Row, config: BertConfig) -> tuple[int, ...]:
    """Returns the shape of each of the row's tensors."""
    sizes = sizes_of_axes(config)
    return tuple(math.prod(sizes[letter] for letter in group) for group in row.theirs_axes.split())


def our_shape(row: Row, config: BertConfig) -> tuple[int, ...]:
    """Returns the shape of the row's parameter, the axis L included."""
    sizes = sizes_of_axes(config)
    layers = (config.num_hidden_layers,) if row.is_stacked else ()
    return (*layers, *(sizes[letter] for letter in row.ours_axes))


def current_name(name: str) -> str | None:
    """Names a tensor as the table does: prefix `bert.`, LayerNorm's weight and bias called so.

    Returns:
        None for a buffer that holds nothing learned.
    """
    if name.startswith(("embeddings.", "encoder.", "pooler.")):
        name = f"bert.{name}"
    for old, new in (
        (".LayerNorm.gamma", ".LayerNorm.weight"),
        (".LayerNorm.beta", ".LayerNorm.bias"),
    ):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return None if name == _STRAY else name


def find_parts(names: Collection[str], architecture: str | None) -> set[str]:
    """Finds the keys of `PARTS` of which a checkpoint, by `current_name`, has anything.

    Args:
        names: of its tensors.
        architecture: the class that its config.json names, or that is asked of it; it says what
            `classifier.*` is.
    """
    of_class = ARCHITECTURES[architecture].parts if architecture in ARCHITECTURES else ()
    return {
        row.part
        for row in TABLE
        if row.part
        and row.theirs in names
        and (row.part not in CLASSIFIERS or row.part in of_class)
    }


def check_names(
    shapes: Mapping[str, tuple[int, ...]], config: BertConfig, parts: Collection[str]
) -> None:
    """Checks a checkpoint's tensors (by their `current_name`) against the table.

    Raises:
        UserError: a tensor that is not of these parts, a missing one, or one of another shape.
    """
    wanted = {
        name: their_shape(row, config)
        for row in rows_of(config, parts)
        for name in their_names(row, config)
    }
    for name, shape in shapes.items():
        expected = wanted.get(TIED.get(name, name))
        if expected is None:
            raise UserError(
                f"unexpected tensor {name} {list(shape)}: config.json describes a BERT"
                f" without it; bertjax reads the body and these: {', '.join(PARTS)}"
            )
        if tuple(shape) != expected:
            raise UserError(
                f"tensor {name} has shape {list(shape)}, config.json asks for {list(expected)};"
                " config and weights belong to different models"
            )
    for name, shape in wanted.items():
        if name not in shapes:
            raise UserError(f"missing tensor {name} {list(shape)}, which config.json asks for")


def to_ours(
    tensors: Mapping[str, np.ndarray],
    config: BertConfig,
    parts: Collection[str],
    dtype: DTypeLike = np.float32,
) -> Parameters:
    """Makes our parameters of Hugging Face's tensors (checked, by their `current_name`)."""
    sizes, parameters = sizes_of_axes(config), {}
    for row in rows_of(config, parts):
        letters = row.theirs_axes.replace(" ", "")
        order = [letters.index(letter) for letter in row.ours_axes]
        value = np.empty(our_shape(row, config), dtype)
        layers = value if row.is_stacked else [value]
        for name, target in zip(their_names(row, config), layers, strict=True):
            split = tensors[name].reshape([sizes[letter] for letter in letters])
            target[...] = split.transpose(order)
        put(parameters, row.ours, value)
    return parameters


def to_theirs(
    parameters: Mapping[str, Any],
    config: BertConfig,
    parts: Collection[str],
    dtype: DTypeLike = np.float32,
) -> dict[str, np.ndarray]:
    """Makes Hugging Face's tensors of our parameters: the inverse of `to_ours`.

    Args:
        parameters: numpy or jax arrays.
        config: the shape of the model.
        parts: keys of `PARTS`, those that it has.
        dtype: of the tensors.

    Raises:
        ValueError: a parameter is missing, unknown, or of another shape than the config says.
    """
    left = dict(flatten(parameters))
    tensors = {}
    for row in rows_of(config, parts):
        if row.ours not in left:
            raise ValueError(f"the parameters lack {row.ours}")
        value, shape = np.asarray(left.pop(row.ours), dtype), our_shape(row, config)
        if value.shape != shape:
            raise ValueError(f"{row.ours} has shape {value.shape}, the config says {shape}")
        order = [row.ours_axes.index(letter) for letter in row.theirs_axes.replace(" ", "")]
        layers = value if row.is_stacked else [value]
        for name, layer in zip(their_names(row, config), layers, strict=True):
            matrix = layer.transpose(order).reshape(their_shape(row, config))
            tensors[name] = np.ascontiguousarray(matrix)
    if left:
        raise ValueError(f"no row of tensor_names.TABLE covers {', '.join(left)}")
    return tensors


def flatten(parameters: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path with /, array) of every parameter."""
    for name, value in parameters.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def put(parameters: Parameters, path: str, value: Any) -> None:
    """Sets the parameter at the path."""
    *parents, last = path.split("/")
    for name in parents:
        parameters = parameters.setdefault(name, {})
    parameters[last] = value
