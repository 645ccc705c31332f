"""Models without some of their heads: blank heads, or smaller tensors.

A head can be made blank: all its parameters 0. The model then computes exactly what it would
without the head, every program loads it, and training does not bring the head back, because every
derivative by these parameters is 0. It saves no time: the products with zeros are carried out.

Or the heads leave the tensors, the same number in every layer since the layers are stacked. That
saves time and memory, and only bertjax loads it: transformers derives the size of a head from the
number of heads, and its own record of single heads (`pruned_heads`) went with version 5.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.heads.importance import gates_without, order_heads
from bertjax.architectures import BODY
from bertjax.config import BertConfig
from bertjax.inference.batches import put_params
from bertjax.loaded import Model
from bertjax.program.errors import UserError

_HEAD_NAME = re.compile("[0-9]+-[0-9]+")
# The parameters of a head, by their place in the stack: (path below "attention", axis of heads).
_OF_A_HEAD = (
    ("query", "kernel", 2),
    ("query", "bias", 1),
    ("key", "kernel", 2),
    ("key", "bias", 1),
    ("value", "kernel", 2),
    ("value", "bias", 1),
    ("output", "kernel", 1),
)


def name_heads(wanted: str, config: BertConfig, option: str) -> Int[np.ndarray, "some 2"] | None:
    """Returns the heads that are named as all reports name them.

    Args:
        wanted: `layer-head`, counted from 0, with commas between them: `1-3,2-5`.
        config: of the model.
        option: what messages call it.

    Returns:
        (layer, head) of each, in the order of layers and heads; None where these are no names.

    Raises:
        UserError: a name of no head of the model, or one twice.
    """
    names = [name.strip() for name in wanted.split(",")]
    if not all(_HEAD_NAME.fullmatch(name) for name in names):
        return None
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    pairs = [tuple(map(int, name.split("-"))) for name in names]
    for name, (layer, head) in zip(names, pairs, strict=True):
        if layer >= layers or head >= heads:
            raise UserError(
                f"{option} {wanted}: there is no head {name}; heads are named layer-head, from 0-0"
                f" to {layers - 1}-{heads - 1}"
            )
    if twice := [name for name, head in zip(names, pairs, strict=True) if pairs.count(head) > 1]:
        raise UserError(f"{option} {wanted}: names {twice[0]} twice; name each head once")
    return np.array(sorted(pairs))


def check_prunable(config: BertConfig, given: str) -> None:
    """Checks that a layer has heads of its own.

    Args:
        config: of the model.
        given: what asked for it, for the message.

    Raises:
        UserError: the layers share their parameters.
    """
    if config.SHARES_LAYERS:
        raise UserError(
            f"{given}: {config.MODEL_TYPE} has layers that share their parameters, so that no head"
            " can be removed from one of them alone; Model.trace(texts, without_heads=...) closes"
            " heads of single layers"
        )


def check_shrinkable(removed: Int[np.ndarray, "some 2"], config: BertConfig, wanted: str) -> None:
    """Checks that the tensors can go without these heads.

    Args:
        removed: the heads, (layer, head) each.
        config: of the model.
        wanted: the heads as they were asked for, for the message.

    Raises:
        UserError: not the same number leaves every layer, or all leave.
    """
    gone = np.bincount(removed[:, 0], minlength=config.num_hidden_layers)
    if len(set(gone.tolist())) > 1:
        said = ", ".join(f"{number} of layer {layer}" for layer, number in enumerate(gone.tolist()))
        raise UserError(
            f"--heads {wanted}: with --shrink the same number of heads leaves every layer, and"
            f" these are {said}; name as many of each, or leave --shrink out"
        )
    if gone[0] == config.num_attention_heads:
        raise UserError(
            f"--heads {wanted}: with --shrink one head of every layer stays at least, and these are"
            " all; name fewer, or leave --shrink out"
        )


def read_heads(wanted: str, config: BertConfig, *, per_layer: bool = False) -> int:
    """Reads how many heads to remove.

    Args:
        wanted: a share of all heads (`40%`), or their number (`58`).
        config: of the model.
        per_layer: the same number leaves every layer.

    Raises:
        UserError: neither, none, more than there are, or a number that cannot be the same in every
            layer.
    """
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    digits = wanted.removesuffix("%").strip()
    try:
        value = float(digits) / 100 if wanted.endswith("%") else int(digits)
        if not math.isfinite(value):
            raise ValueError
    except ValueError:
        raise UserError(
            f"--heads {wanted}: give a share of all heads, for instance 40%, or their number, or"
            " their names, layer-head with commas between them: 1-3,2-5"
        ) from None
    if isinstance(value, float):
        number = layers * round(value * heads) if per_layer else round(value * layers * heads)
    else:
        number = value
    if per_layer and number % layers:
        raise UserError(
            f"--heads {wanted}: with --shrink the same number leaves each of the {layers} layers;"
            f" give a multiple of {layers}, or a share"
        )
    most = layers * (heads - 1) if per_layer else layers * heads
    if not 1 <= number <= most:
        raise UserError(
            f"--heads {wanted}: is {number} of the model's {layers * heads} heads; between"
            f" {layers if per_layer else 1} and {most} can go"
        )
    return number


def choose_heads(
    importance: Float[np.ndarray, "L N"], number: int, *, per_layer: bool = False
) -> Int[np.ndarray, "number 2"]:
    """Chooses the least important heads, as (layer, head).

    Args:
        importance: of each head.
        number: how many.
        per_layer: the same number from every layer, of which `number` is a multiple.
    """
    if not per_layer:
        return order_heads(importance)[:number]
    layers = importance.shape[0]
    lowest = np.argsort(importance, axis=-1, kind="stable")[:, : number // layers]
    return np.stack([np.repeat(np.arange(layers), number // layers), lowest.ravel()], axis=-1)


def blank_heads(params: Mapping[str, Any], removed: Int[np.ndarray, "some 2"]) -> dict[str, Any]:
    """Sets the parameters of some heads to 0.

    Args:
        params: of a model class with its body under "bert".
        removed: (layer, head) of each.

    Returns:
        New parameters; what is not of these heads is shared with the old ones.
    """

    def blank(value: np.ndarray, axis: int) -> np.ndarray:
        value = np.array(value)
        by_head = np.moveaxis(value, axis, 1)
        by_head[removed[:, 0], removed[:, 1]] = 0
        return value

    return _change_heads(params, blank)


def drop_heads(
    config: BertConfig, params: Mapping[str, Any], removed: Int[np.ndarray, "some 2"]
) -> tuple[BertConfig, dict[str, Any]]:
    """Takes heads out of the tensors; returns the config and the parameters of the smaller model.

    Args:
        config: of the model.
        params: of a model class with its body under "bert".
        removed: (layer, head) of each, the same number in every layer, and not all.

    Raises:
        ValueError: they are not as many in every layer, or all.
    """
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    stays = np.ones((layers, heads), bool)
    stays[removed[:, 0], removed[:, 1]] = False
    [left, *others] = set(stays.sum(axis=1).tolist())
    if others or not left:
        raise ValueError("the same number of heads must leave every layer, and not all of them")
    kept = np.nonzero(stays)[1].reshape(layers, left)

    def take(value: np.ndarray, axis: int) -> np.ndarray:
        shape = [1] * value.ndim
        shape[0], shape[axis] = kept.shape
        return np.take_along_axis(np.asarray(value), kept.reshape(shape), axis=axis)

    smaller = dataclasses.replace(
        config, num_attention_heads=left, attention_head_size=config.head_size
    )
    return smaller, _change_heads(params, take)


def prune_heads(model: Model, heads: str, *, shrink: bool = False) -> Model:
    """Removes the heads that are named.

    Args:
        model: of any class.
        heads: layer-head, with commas between them.
        shrink: whether they leave the tensors, as many in every layer, or are filled with zeros.

    Raises:
        UserError: no names, a head that is not there, or not as many in every layer.
    """
    removed = must_name_heads(heads, model.config, "heads")
    check_prunable(model.config, f"--heads {heads}")
    if shrink:
        check_shrinkable(removed, model.config, heads)
    return remove_heads(model, removed, shrink=shrink)


def remove_heads(
    model: Model, removed: Int[np.ndarray, "some 2"], *, shrink: bool = False
) -> Model:
    """Removes heads from a model.

    Args:
        model: of any class.
        removed: (layer, head) of each; with `shrink` as many of every layer, and not all.
        shrink: as in `prune_heads`.
    """
    is_body = model.kind == BODY
    params = {"bert": model.params} if is_body else model.params
    if shrink:
        config, params = drop_heads(model.config, params, removed)
    else:
        config, params = model.config, blank_heads(params, removed)
    params = put_params(params["bert"] if is_body else params, model.mesh)
    return model.replace(config=config, params=params)


def gates_of(without_heads: str, config: BertConfig) -> Float[np.ndarray, "L N"]:
    """Gates that are 0 at the heads that are named and 1 elsewhere.

    Args:
        without_heads: names of heads, layer-head with commas between them.
        config: of the model.

    Raises:
        UserError: no names, or a head that is not there.
    """
    removed = must_name_heads(without_heads, config, "without_heads")
    shape = (config.num_hidden_layers, config.num_attention_heads)
    return gates_without(shape, removed)


def must_name_heads(heads: str, config: BertConfig, argument: str) -> Int[np.ndarray, "some 2"]:
    """Returns the heads that are named, as `name_heads` does.

    Args:
        heads: names, layer-head with commas between them.
        config: of the model.
        argument: the argument or option that has them, for messages.

    Raises:
        UserError: no names, or a head that is not there.
    """
    removed = name_heads(heads, config, argument)
    if removed is None:
        given = f"{argument} {heads}" if argument.startswith("-") else f"{argument}={heads!r}"
        raise UserError(
            f"{given}: name heads as layer-head with commas between them, for instance 1-3,2-5"
        )
    return removed


def heads_by_layer(removed: Int[np.ndarray, "some 2"]) -> dict[str, list[int]]:
    """Groups heads for JSON: `{layer: heads}`, in ascending order.

    Args:
        removed: the heads, (layer, head) each.
    """
    layers = sorted(set(removed[:, 0].tolist()))
    return {str(layer): sorted(removed[removed[:, 0] == layer, 1].tolist()) for layer in layers}


def _change_heads(params: Mapping[str, Any], change: Any) -> dict[str, Any]:
    """Applies `change(value, axis of heads)` to every parameter that has an axis of heads."""
    body = params["bert"]
    layers = body["encoder"]["layers"]
    attention = {name: dict(part) for name, part in layers["attention"].items()}
    for projection, name, axis in _OF_A_HEAD:
        if name not in attention[projection]:  # a family without these biases
            continue
        attention[projection][name] = change(attention[projection][name], axis)
    encoder = {**body["encoder"], "layers": {**layers, "attention": attention}}
    return {**params, "bert": {**body, "encoder": encoder}}
