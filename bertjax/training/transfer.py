"""How much of a pretrained model is moved: frozen parts, and layers that learn more slowly."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from bertjax.program.errors import UserError
from bertjax.training.optimizer import is_stacked


@dataclasses.dataclass(frozen=True)
class TransferConfig:
    """What of the pretrained model is trained, and how fast.

    Attributes:
        layer_decay: the learning rate of each layer is so many times that of the layer above it;
            the embeddings count as the lowest layer; 1 = all the same (Howard & Ruder 2018)
        freeze_embeddings: leave the embeddings as they are
        freeze_layers: leave the lowest so many layers as they are (and the embeddings)
    """

    layer_decay: float = 1.0
    freeze_embeddings: bool = False
    freeze_layers: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.layer_decay <= 1:
            raise UserError(f"transfer.layer_decay={self.layer_decay} must be in (0, 1]")
        if self.freeze_layers < 0:
            raise UserError(f"transfer.freeze_layers={self.freeze_layers} must not be negative")


def learning_rate_scales(params: Any, config: TransferConfig) -> Any:
    """Returns what the learning rate of each parameter is multiplied by; 0 where it is frozen.

    Returns:
        A tree like the parameters: a float, and for the stacked ones an array `[L, 1, ...]`.
    """
    layers = next(
        leaf.shape[0]
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if is_stacked(path)
    )
    if config.freeze_layers > layers:
        raise UserError(
            f"transfer.freeze_layers={config.freeze_layers} is more than the {layers} layers that"
            " the model has"
        )
    depth = np.arange(layers)
    by_layer = config.layer_decay ** (layers - depth).astype(np.float64)
    by_layer[: config.freeze_layers] = 0
    frozen = config.freeze_embeddings or config.freeze_layers > 0
    of_embeddings = 0.0 if frozen else config.layer_decay ** (layers + 1)

    def scale(path: tuple[Any, ...], leaf: Any) -> Any:
        if is_stacked(path):
            return by_layer.astype(np.float32).reshape(-1, *(1 for _ in leaf.shape[1:]))
        return of_embeddings if any(key.key == "embeddings" for key in path) else 1.0

    return jax.tree_util.tree_map_with_path(scale, params)


def freeze(params: Any, scales: Any) -> Any:
    """Returns the same parameters, without gradient where their learning rate is 0."""

    def stop(param: Array, scale: Any) -> Array:
        if np.all(scale == 0):
            return jax.lax.stop_gradient(param)
        if np.any(scale == 0):
            return jnp.where(scale == 0, jax.lax.stop_gradient(param), param)
        return param

    return jax.tree.map(stop, params, scales)


def scale_updates(scales: Any) -> optax.GradientTransformation:
    """Multiplies each update by its scale; comes after the optimizer."""
    return optax.stateless(
        lambda updates, params: jax.tree.map(lambda u, s: u * s, updates, scales)
    )
