"""Training of many small probes at once: one for every layer, side by side in one array."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

LEARNING_RATE = 1e-3
MOST_EPOCHS = 200
# A probe that does not improve in an epoch continues at a tenth of its rate; after this many such
# epochs in a row it has ended. Source: the code of Hewitt & Manning 2019 (which waits for 5).
_PATIENCE = 3
_DECAY = 0.1
# The share by which the loss must fall to count as improved.
_LEAST_GAIN = 1e-3

_OPTIMIZER = optax.scale_by_adam()

# loss(params, data, batch) -> the losses of every probe, summed over the batch, and the number of
# summands. The loss of one probe must not depend on the parameters of another.
Loss = Callable[[Any, Any, Any], tuple[Float[Array, " probes"], Float[Array, "*probes"]]]


class Fitted(NamedTuple):
    """Trained probes.

    Attributes:
        params: each probe's, from its best epoch on the validation batches.
        losses: mean losses on them.
        epochs: how many there were.
    """

    params: Any
    losses: Float[np.ndarray, " probes"]
    epochs: int


def fit(
    loss: Loss,
    params: Any,
    data: Any,
    train: Sequence[Any],
    validation: Sequence[Any],
    *,
    learning_rate: float = LEARNING_RATE,
    epochs: int = MOST_EPOCHS,
    seed: int = 0,
) -> Fitted:
    """Trains with Adam until no probe improves on the validation batches.

    Args:
        loss: a function of a module: it is compiled once for all calls with the same shapes.
        params: the start; the first axis of every array is that of the probes.
        data: what all batches refer to.
        train: batches, in a new order in every epoch.
        validation: batches.
        learning_rate: Adam's.
        epochs: the most epochs.
        seed: that of the order.
    """
    probes = jax.tree.leaves(params)[0].shape[0]
    random = np.random.default_rng(seed)
    best, lowest = params, np.full(probes, np.inf)
    state = _OPTIMIZER.init(params)
    rates, stale = np.full(probes, learning_rate, np.float32), np.zeros(probes, int)
    epoch = 0
    while epoch < epochs and (stale < _PATIENCE).any():
        epoch += 1
        for number in random.permutation(len(train)):
            params, state = _step(loss, params, state, rates, data, train[number])
        losses = _mean_losses(loss, params, data, validation)
        better = losses < lowest * (1 - _LEAST_GAIN)
        best = _choose(better, params, best)
        lowest = np.where(better, losses, lowest)
        stale = np.where(better, 0, stale + 1)
        rates = np.where(better, rates, _DECAY * rates).astype(np.float32)
    return Fitted(jax.tree.map(np.asarray, best), lowest, epoch)


def _mean_losses(
    loss: Loss, params: Any, data: Any, batches: Sequence[Any]
) -> Float[np.ndarray, " probes"]:
    sums, counts = 0.0, 0.0
    for batch in batches:
        own_sums, own_counts = _evaluate(loss, params, data, batch)
        sums, counts = sums + np.float64(own_sums), counts + np.float64(own_counts)
    return sums / counts


@functools.partial(jax.jit, static_argnums=0)
def _step(
    loss: Loss,
    params: Any,
    state: optax.OptState,
    rates: Float[Array, " probes"],
    data: Any,
    batch: Any,
) -> tuple[Any, optax.OptState]:
    def total(params: Any) -> Float[Array, ""]:
        sums, counts = loss(params, data, batch)
        return (sums / jnp.maximum(counts, 1)).sum()

    updates, state = _OPTIMIZER.update(jax.grad(total)(params), state)
    moved = jax.tree.map(
        lambda param, update: param - _along(rates, param) * update, params, updates
    )
    return moved, state


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(
    loss: Loss, params: Any, data: Any, batch: Any
) -> tuple[Float[Array, " probes"], Float[Array, "*probes"]]:
    return loss(params, data, batch)


@jax.jit
def _choose(better: Float[Array, " probes"], params: Any, best: Any) -> Any:
    return jax.tree.map(
        lambda param, other: jnp.where(_along(better, param), param, other), params, best
    )


def _along(values: Float[Array, " probes"], param: Float[Array, "probes ..."]) -> Any:
    """Broadcasts values along the first axis of the parameter."""
    return values.reshape(-1, *[1] * (param.ndim - 1))
