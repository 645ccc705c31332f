"""Where everything lives on the devices: one mesh, one table."""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Integer

from bertjax.numerics.placement import HEAD_AXIS, ROW_AXES, count_sharers
from bertjax.program.errors import UserError

AXES = (*ROW_AXES, HEAD_AXIS)

# Rows of a batch are divided over both axes that hold different rows.
ROWS = PartitionSpec(ROW_AXES)
REPLICATED = PartitionSpec()

# End of a parameter's path -> how its axes are divided. The first pattern that matches counts.
# Axes of the stack lead with L, which is never divided: the scan goes over it.
PARAMETERS: tuple[tuple[str, PartitionSpec], ...] = (
    (r"word_embeddings", PartitionSpec("tensor", "fsdp")),  # [V, D]
    (r"(position|token_type)_embeddings", PartitionSpec(None, "fsdp")),  # [M, D], [G, D]
    (r"attention/(query|key|value)/kernel", PartitionSpec(None, "fsdp", "tensor")),  # [L, D, N, H]
    (r"attention/(query|key|value)/bias", PartitionSpec(None, "tensor")),  # [L, N, H]
    (r"attention/output/kernel", PartitionSpec(None, "tensor", None, "fsdp")),  # [L, N, H, D]
    (r"layers/(intermediate|gate)/kernel", PartitionSpec(None, "fsdp", "tensor")),  # [L, D, F]
    (r"layers/(intermediate|gate)/bias", PartitionSpec(None, "tensor")),  # [L, F]
    (r"layers/output/kernel", PartitionSpec(None, "tensor", "fsdp")),  # [L, F, D]
    (r"layers/.*/(bias|scale)", REPLICATED),  # [L, D]
    (r"embeddings/projection/kernel", PartitionSpec("fsdp", "tensor")),  # [E, D]
    (r"(pooler|mlm_head)/dense/kernel", PartitionSpec("fsdp", "tensor")),  # [D, D], [D, E]
    (r"\w+_head/transform/kernel", PartitionSpec("fsdp", "tensor")),  # [D, D]
    (r"\w+_head/dense/kernel", PartitionSpec("fsdp")),  # [D, C]
    (r"mlm_head/bias", PartitionSpec("tensor")),  # [V]
    (r"(bias|scale|mean|var)", REPLICATED),
)


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices each axis of the mesh has; their product is the number of devices used.

    Attributes:
        data: copies of the model that see different rows; -1 = all devices that the other axes
            leave
        fsdp: devices that see different rows and share the parameters out among them
        tensor: devices that split each layer's heads and inner features
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in AXES:
            size = getattr(self, name)
            if size < 1 and not (name == "data" and size == -1):
                raise UserError(f"mesh.{name}={size} must be at least 1")


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns the mesh of the devices (all that jax sees, when left out), one being the simplest.

    Args:
        config: the sizes of the axes; data -1 = what is left.
        devices: in the order of the mesh.

    Raises:
        UserError: the axes ask for another number of devices than there are.
    """
    here = devices is None
    devices = list(jax.devices() if devices is None else devices)
    fixed = config.fsdp * config.tensor
    data = len(devices) // fixed if config.data == -1 else config.data
    if data * fixed != len(devices):
        more = "set XLA_FLAGS=--xla_force_host_platform_device_count=N for N CPU devices, or "
        raise UserError(
            f"mesh.data={config.data} x mesh.fsdp={config.fsdp} x mesh.tensor={config.tensor} does"
            f" not make the number of devices, {len(devices)};"
            f" {more if here and devices[0].platform == 'cpu' else ''}choose axes whose product is"
            " the number of devices"
        )
    return Mesh(np.array(devices).reshape(data, config.fsdp, config.tensor), AXES)


def choose_mesh(number: int | None) -> Mesh | None:
    """Returns a mesh of which every device holds the whole model, to share rows; None for one.

    Args:
        number: of this process's devices; all GPUs or TPUs, or one CPU, when left out.

    Raises:
        UserError: there are fewer.
    """
    devices = jax.local_devices()
    platform = devices[0].platform
    if number is None:
        number = 1 if platform == "cpu" else len(devices)
    if number > len(devices):
        more = " or set XLA_FLAGS=--xla_force_host_platform_device_count=N for N CPU devices"
        raise UserError(
            f"--devices {number}: this machine has {len(devices)} ({platform}); ask for as many at"
            f" most{', leave it out,' * (platform == 'cpu')}{more * (platform == 'cpu')}"
        )
    return None if number == 1 else make_mesh(MeshConfig(), devices[:number])


def read_mesh(given: Any) -> tuple[Mesh | None, dict[str, Any]]:
    """Reads what a Python program says of its devices: the mesh, and its config's field.

    Args:
        given: a `Mesh` of the axes `AXES`; None or the fields of `MeshConfig`, of which the run
            makes its mesh.

    Raises:
        UserError: a mesh of other axes.
    """
    if not isinstance(given, Mesh):
        return None, {} if given is None else {"mesh": given}
    if given.axis_names != AXES:
        raise UserError(
            f"mesh has the axes {given.axis_names}, and a run needs {AXES}: make it with"
            " bertjax.training.sharding.make_mesh"
        )
    return given, {"mesh": dict(given.shape)}


def check_batch(name: str, size: int, mesh: Mesh) -> None:
    """Raises a `UserError` unless the devices can share out the rows of a batch evenly.

    Args:
        name: of the field that has the size, for the message.
        size: rows of a batch.
        mesh: of the devices.

    Raises:
        UserError: they cannot.
    """
    sharers = count_sharers(mesh)
    if size % sharers:
        raise UserError(
            f"{name}={size} must be a multiple of the {sharers} devices that share the rows out "
            "(mesh.data x mesh.fsdp)"
        )


def spec_of(path: str) -> PartitionSpec:
    """Returns how the parameter at `path` (keys joined by /) is divided.

    Args:
        path: of the parameter, for instance `bert/encoder/layers/attention/query/kernel`.

    Raises:
        LookupError: no row of `PARAMETERS` covers it: a new parameter needs a row.
    """
    for pattern, spec in PARAMETERS:
        if re.search(rf"(^|/){pattern}$", path):
            return spec
    raise LookupError(f"no row of sharding.PARAMETERS covers {path}")


def shardings_of(tree: Any, mesh: Mesh) -> Any:
    """Returns the sharding of every leaf of a tree of parameters, or of an optimizer's state.

    An optimizer's moments mirror the parameters, so their paths end in a parameter's; what has no
    such path (a step count, a constant) is on every device.

    Args:
        tree: of parameters or of a state.
        mesh: of the devices.

    Raises:
        UserError: the mesh does not divide a parameter's axis.
        LookupError: the table does not cover a parameter.
    """

    def place(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        last = itertools.takewhile(lambda key: isinstance(key, jax.tree_util.DictKey), path[::-1])
        name = "/".join(key.key for key in reversed(list(last)))
        spec = spec_of(name) if name else REPLICATED
        for axis, mesh_axis in enumerate(spec):
            parts = mesh.shape[mesh_axis] if mesh_axis else 1
            if leaf.shape[axis] % parts:
                raise UserError(
                    f"mesh.{mesh_axis}={parts} does not divide axis {axis} of {name} "
                    f"{tuple(leaf.shape)}; choose a mesh.{mesh_axis} that does"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree)


def place_rows(batch: Any, mesh: Mesh) -> Any:
    """Puts a batch of numpy arrays on the mesh, rows divided over `data` and `fsdp`.

    Of several processes each gives the rows that `rows_here` names.

    Args:
        batch: a tree of arrays that lead with the axis B.
        mesh: of the devices.
    """
    if mesh.devices.size == 1:
        return _placing_on_one(mesh)(batch)
    sharding = NamedSharding(mesh, ROWS)
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


@functools.lru_cache
def _placing_on_one(mesh: Mesh) -> Callable[[Any], Any]:
    """Makes a program that returns its arguments: a sixth of `device_put`'s time."""
    rows = NamedSharding(mesh, ROWS)
    return jax.jit(lambda batch: batch, in_shardings=rows, out_shardings=rows)


def rows_here(mesh: Mesh, rows: int) -> Integer[np.ndarray, " B"]:
    """Returns which rows of a batch of `rows` live on devices of this process, in order.

    Args:
        mesh: of the devices.
        rows: of the whole batch.
    """
    places = NamedSharding(mesh, ROWS).addressable_devices_indices_map((rows,))
    return np.unique([np.arange(rows)[index] for index in places.values()])


def place_params(params: Any, mesh: Mesh) -> Any:
    """Puts parameters that every process has on the mesh, where the table says.

    Args:
        params: a tree of arrays.
        mesh: of the devices.
    """

    def place(x: Any, sharding: NamedSharding) -> jax.Array:
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

    return jax.tree.map(place, params, shardings_of(params, mesh))
