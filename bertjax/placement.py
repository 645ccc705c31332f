"""What the model has to know of the devices: which platform, and that rows are divided over them.

Both are read from the mesh in context (`with jax.set_mesh(mesh)`); without one the model runs on
one device.
"""

import math

import jax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

# Axes of the mesh whose devices hold different rows, and the axis that divides heads.
ROW_AXES = ("data", "fsdp")
HEAD_AXIS = "tensor"


def target_platform() -> str:
    """jax's name of the platform that the program is for: cpu, gpu or tpu.

    The mesh's devices may belong to a machine that is not there; without a mesh, it is the platform
    of jax's default devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def is_divided() -> bool:
    """Whether the program is for a mesh of several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and set(ROW_AXES) <= set(mesh.axis_names)


def count_sharers(mesh: Mesh) -> int:
    """How many devices of a mesh share the rows out; the others hold copies of them."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def divide_rows(values: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """The same values, each device holding those of its own rows.

    Where parameters are divided (`fsdp`), XLA would otherwise now and then leave them where they
    are and send the activations around, which are larger.
    """
    if not is_divided():
        return values
    free = [PartitionSpec.UNCONSTRAINED] * (values.ndim - 1)
    return jax.lax.with_sharding_constraint(values, PartitionSpec(ROW_AXES, *free))


def hold_vectors(hidden: Float[Array, "rows ... D"]) -> Float[Array, "rows ... D"]:
    """The same hidden states, each device holding those of its own rows, whole vectors."""
    if not is_divided():
        return hidden
    return jax.lax.with_sharding_constraint(hidden, PartitionSpec(ROW_AXES))


def whole_vectors(table: Float[Array, "entries D"]) -> Float[Array, "entries D"]:
    """The same table of vectors, each device holding whole ones.

    Without it, XLA (jaxlib 0.10.2) mixes up the rows in the gradient of a product with a table that
    is divided over `fsdp` and `tensor`, on a mesh that has `data`, too.
    """
    if not is_divided():
        return table
    spec = PartitionSpec(PartitionSpec.UNCONSTRAINED, None)
    return jax.lax.with_sharding_constraint(table, spec)
