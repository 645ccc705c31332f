"""Hugging Face's tensors and ours, by the table of their family, in both directions."""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from bertjax.architectures import Architecture
from bertjax.config import BertConfig
from bertjax.families.registry import FAMILIES, Family, family_of
from bertjax.families.tensors import Row
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article

# The nested dict that is the value of the flax collection "params" of a class of `model.bert`; that
# of `BertModel` stands under "bert", as in the others.
Parameters = dict[str, Any]

# Of a layer, in the name of a tensor.
_NUMBER = re.compile(r"\.\d+(?=\.)")


def sizes_of_axes(config: BertConfig) -> dict[str, int]:
    """Returns the size of every letter used in the table."""
    return {
        "V": config.vocab_size,
        "M": config.max_position_embeddings,
        "G": config.type_vocab_size,
        "E": config.embedding_size,
        "D": config.hidden_size,
        "d": config.hidden_size,
        "N": config.num_attention_heads,
        "H": config.head_size,
        "F": config.intermediate_size,
        "C": config.num_labels,
        "1": 1,
        "2": 2,
    }


def parts_of(config: BertConfig) -> list[str]:
    """Returns the parts that models of the family have, in the order of its table."""
    rows = family_of(config).tensor_rows(config)
    return list(dict.fromkeys(row.part for row in rows if row.part))


def parts_with_parameters(config: BertConfig, architecture: Architecture) -> set[str]:
    """Returns the parts of a class that have parameters; a decoder without bias has none."""
    return set(architecture.parts) & set(parts_of(config))


def rows_of(config: BertConfig, parts: Collection[str]) -> list[Row]:
    """Returns the rows of embeddings, encoder and these parts."""
    normed = config.classifier_norm == "layer"
    return [
        row
        for row in family_of(config).tensor_rows(config)
        if (row.part is None or row.part in parts) and (normed or "_head/norm/" not in row.ours)
    ]


def their_names(row: Row, config: BertConfig) -> list[str]:
    """Returns the names of the row's tensors, in the order of the layers."""
    layers = range(row.first_layer, config.distinct_layers) if row.is_stacked else [0]
    return [row.theirs.format(layer=layer) for layer in layers]


def their_shape(row: Row, config: BertConfig) -> tuple[int, ...]:
    """Returns the shape of each of the row's tensors."""
    sizes = sizes_of_axes(config)
    first, *others = [
        math.prod(sizes[letter] for letter in group) for group in row.theirs_axes.split()
    ]
    return (len(row.paths) * first, *others)


def our_shape(row: Row, config: BertConfig) -> tuple[int, ...]:
    """Returns the shape of each of the row's parameters, the axis L included."""
    sizes = sizes_of_axes(config)
    layers = (config.distinct_layers,) if row.is_stacked else ()
    return (*layers, *(sizes[letter] for letter in row.ours_axes))


def current_name(name: str, config: BertConfig) -> str | None:
    """Names a tensor as the table does: with the body's prefix, LayerNorm's weight and bias so.

    Returns:
        None for a buffer that holds nothing learned.
    """
    rows = family_of(config).tensor_rows(config)
    body = f"{family_of(config).body}."
    tops = {
        row.theirs.removeprefix(body).split(".")[0]
        for row in rows
        if row.theirs[: len(body)] == body
    }
    if not name.startswith(body) and name.split(".")[0] in tops:
        name = body + name
    for old, new in (
        (".LayerNorm.gamma", ".LayerNorm.weight"),
        (".LayerNorm.beta", ".LayerNorm.bias"),
    ):
        if name.endswith(old):
            name = name.removesuffix(old) + new
    # A buffer 0, 1, 2, ... that transformers wrote until version 4.31.
    return None if name == f"{body}embeddings.position_ids" else name


def shared_names(config: BertConfig) -> dict[str, set[str]]:
    """Returns the names of tensors that several parts use, `classifier.weight`, with the parts."""
    parts: dict[str, set[str]] = {}
    for row in family_of(config).tensor_rows(config):
        if row.part:
            parts.setdefault(row.theirs, set()).add(row.part)
    return {name: several for name, several in parts.items() if len(several) > 1}


def find_parts(
    names: Collection[str], config: BertConfig, architecture: Architecture | None
) -> set[str]:
    """Finds the parts of which a checkpoint, by `current_name`, has anything.

    Args:
        names: of its tensors.
        config: of its family.
        architecture: the class that its config.json names, or that is asked of it; it says whose
            the `shared_names` are, which without it are nobody's.
    """
    of_class = () if architecture is None else architecture.parts
    shared = shared_names(config)
    return {
        row.part
        for row in family_of(config).tensor_rows(config)
        if row.part and row.theirs in names and (row.theirs not in shared or row.part in of_class)
    }


def describe_likeness(names: Collection[str], config: BertConfig) -> str:
    """Says whose tensors these look like where that is another family's; otherwise ""."""

    def without_numbers(name: str) -> str:
        return _NUMBER.sub(".{layer}", name)

    def count(family: Family) -> int:
        own = config if family.name == config.MODEL_TYPE else family.config()
        known = {row.theirs for row in family.tensor_rows(own)} | family.tied.keys()
        current = {current_name(name, own) or "" for name in names}
        return len({without_numbers(name) for name in known} & {*map(without_numbers, current)})

    like = max([family_of(config), *FAMILIES.values()], key=count)
    if like is family_of(config):
        return ""
    return (
        f"; its tensors are called as {with_article(like.name)} calls them, and config.json has"
        f" model_type={config.MODEL_TYPE!r}"
    )


def check_names(
    shapes: Mapping[str, tuple[int, ...]], config: BertConfig, parts: Collection[str]
) -> None:
    """Checks a checkpoint's tensors (by their `current_name`) against the table.

    Raises:
        UserError: a tensor that is not of these parts, a missing one, or one of another shape.
    """
    tied = family_of(config).tied
    wanted = {
        name: their_shape(row, config)
        for row in rows_of(config, parts)
        for name in their_names(row, config)
    }
    for name, shape in shapes.items():
        expected = wanted.get(tied.get(name, name))
        if expected is None:
            raise UserError(
                f"unexpected tensor {name} {list(shape)}: config.json describes"
                f" {with_article(family_of(config).prefix)} without it; bertjax reads the"
                f" body and these: {', '.join(parts_of(config))}"
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
        # Scales of layers that have none are 1, as in a new model.
        values = [
            np.full(our_shape(row, config), path.endswith("/scale"), dtype) for path in row.paths
        ]
        for number, name in enumerate(their_names(row, config), row.first_layer):
            several = tensors[name].reshape([len(values), *(sizes[letter] for letter in letters)])
            for value, split in zip(values, several, strict=True):
                (value[number] if row.is_stacked else value)[...] = split.transpose(order)
        for path, value in zip(row.paths, values, strict=True):
            put(parameters, path, value)
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
        parts: names in `parts_of`, those that it has.
        dtype: of the tensors.

    Raises:
        ValueError: a parameter is missing, unknown, or of another shape than the config says.
    """
    left = dict(flatten(parameters))
    tensors = {}
    for row in rows_of(config, parts):
        values, shape = [], our_shape(row, config)
        for path in row.paths:
            if path not in left:
                raise ValueError(f"the parameters lack {path}")
            value = np.asarray(left.pop(path), dtype)
            if value.shape != shape:
                raise ValueError(f"{path} has shape {value.shape}, the config says {shape}")
            values.append(value)
        order = [row.ours_axes.index(letter) for letter in row.theirs_axes.replace(" ", "")]
        for number, name in enumerate(their_names(row, config), row.first_layer):
            several = [
                (value[number] if row.is_stacked else value).transpose(order) for value in values
            ]
            tensors[name] = np.ascontiguousarray(
                np.stack(several).reshape(their_shape(row, config))
            )
    if left:
        raise ValueError(f"no row of the family's table covers {', '.join(left)}")
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
