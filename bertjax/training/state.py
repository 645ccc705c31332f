"""The state of a run: everything that a step changes, and nothing else."""

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from bertjax.numerics.placement import count_sharers
from bertjax.objectives.losses import Total
from bertjax.training.sharding import place_params, shardings_of


class Window(NamedTuple):
    """Sums since the last line of the log; part of the state: a resumed log is the same log.

    Attributes:
        totals: of every term of the objective.
        tokens: real ones, padding left out.
        steps: taken.
    """

    totals: dict[str, Total]
    tokens: Float[Array, ""]
    steps: Float[Array, ""]


class TrainState(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        params: the model's parameters.
        statistics: the flax collections that the model updates as it trains ("batch_stats"); {}
            for most.
        optimizer_state: optax's.
        step: optimizer steps taken; with the seed it decides rows, masks and dropout.
        skipped: steps whose loss or gradient was not finite and changed nothing.
        skipped_in_a_row: how many of them just now, without a good one between.
        window: sums for the log.
        average: the moving average of `params`, which is evaluated and saved as the model; () in a
            run without one.
    """

    params: Any
    statistics: Any
    optimizer_state: Any
    step: Int[Array, ""]
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]
    window: Window
    average: Any = ()

    @property
    def model_params(self) -> Any:
        """The parameters of the model that the run has made so far."""
        return self.average or self.params


def empty_window(terms: Collection[str]) -> Window:
    """Returns a window with nothing in it, for an objective of these terms."""
    zero = jnp.zeros(())
    return Window({name: Total(zero, zero) for name in terms}, zero, zero)


def new_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
    terms: Collection[str],
    params: Any = None,
    averages: bool = False,
) -> TrainState:
    """Makes a state at step 0 where it will be: no device ever holds more than its share.

    Args:
        model: whose parameters are initialised with `key`.
        optimizer: whose state is initialised.
        mesh: of the devices.
        key: of the initialisation.
        terms: of the objective.
        params: existing parameters to start from instead; of a model that is several ones, those
            that are not there are drawn.
        averages: whether it has a moving average of the weights.
    """

    if params is not None:
        params = place_params(params, mesh)
    create = functools.partial(_create_state, model, optimizer, mesh, key, terms, averages)
    # What is traced asks the mesh in context which devices it is for.
    with jax.set_mesh(mesh):
        shardings = shardings_of(jax.eval_shape(create, params), mesh)
        return jax.jit(create, out_shardings=shardings)(params)


def describe_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
    terms: Collection[str],
    averages: bool = False,
) -> TrainState:
    """Describes what `new_state` makes, shapes, types and shardings; devices may be absent."""
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(
            functools.partial(_create_state, model, optimizer, mesh, key, terms, averages, None)
        )
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        shardings_of(shapes, mesh),
    )


def _create_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    key: Key[Array, ""],
    terms: Collection[str],
    averages: bool,
    params: Any,
) -> TrainState:
    # A row for each device: a kernel that is divided among them has no other way.
    statistics = model.init(key, jnp.zeros((count_sharers(mesh), 1), jnp.int32))
    drawn = statistics.pop("params")
    start = drawn if params is None else {**drawn, **params}
    zero, window = jnp.zeros((), jnp.int32), empty_window(terms)
    average = jax.tree.map(jnp.copy, start) if averages else ()
    return TrainState(start, statistics, optimizer.init(start), zero, zero, zero, window, average)


def count_parameters(params: Any) -> int:
    """Returns how many numbers the parameters are."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def fingerprint(tree: Any) -> dict[str, int]:
    """Returns a 32-bit checksum of every leaf, computed where the leaf lives.

    Equal trees have equal fingerprints on any devices and any sharding; a changed bit changes the
    sum, as each word is weighted by an odd number that depends on its place.
    """
    sums = jax.device_get(_checksums(tree))
    named = jax.tree_util.tree_leaves_with_path(sums)
    return {jax.tree_util.keystr(path): int(value) for path, value in named}


@jax.jit
def _checksums(tree: Any) -> Any:
    def checksum(leaf: Array) -> Array:
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        weights = jax.lax.iota(jnp.uint32, words.size) * jnp.uint32(0x9E3779B2) | jnp.uint32(1)
        return (words * weights).sum(dtype=jnp.uint32)

    return jax.tree.map(checksum, tree)
