"""What is to be known of the devices: the platform, and that rows are divided over them.

The model reads both from the mesh in context (`with jax.set_mesh(mesh)`); without one it runs on
one device.
"""

import contextlib
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

# Axes of the mesh whose devices hold different rows, and the axis that divides heads.
ROW_AXES = ("data", "fsdp")
HEAD_AXIS = "tensor"
# On a GPU, XLA adds up colliding updates in the order in which they come, and chooses every kernel
# by a race, anew in each process. With these a run that continues in another process has the
# same bits: updates are sorted first, and each product is cuBLAS's own choice, by its shape.
_REPEATABLE_ON_GPU = {"xla_gpu_deterministic_ops": True, "xla_gpu_enable_triton_gemm": False}


def target_platform() -> str:
    """Returns jax's name of the platform that the program is for: cpu, gpu or tpu.

    The mesh's devices may belong to a machine that is not there; without a mesh, it is the platform
    of jax's default devices.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def repeatable_options(platform: str) -> dict[str, Any] | None:
    """Returns the options of `jax.jit` with which a program gives the same bits in every process.

    None where it does so by itself, on CPU and TPU.
    """
    return _REPEATABLE_ON_GPU if platform == "gpu" else None


def full_precision(dtype: DTypeLike) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which a library's products of float32 operands are float32.

    A GPU would round the operands to TF32, a TPU to bfloat16. For what takes no `precision`; of
    narrower dtypes nothing is changed, as kernels for TPUs do not take the word for those.
    """
    if jnp.finfo(dtype).bits < 32:
        return contextlib.nullcontext()
    return jax.default_matmul_precision("highest")


def is_divided() -> bool:
    """Returns whether the program is for a mesh of several devices."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.size > 1 and set(ROW_AXES) <= set(mesh.axis_names)


def count_sharers(mesh: Mesh) -> int:
    """Returns how many devices of a mesh share the rows out; the others hold copies of them."""
    return math.prod(mesh.shape[axis] for axis in ROW_AXES)


def divide_rows(values: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Returns the same values, each device holding those of its own rows.

    Where parameters are divided (`fsdp`), XLA would otherwise now and then leave them where they
    are and send the activations around, which are larger.
    """
    if not is_divided():
        return values
    free = [PartitionSpec.UNCONSTRAINED] * (values.ndim - 1)
    return jax.lax.with_sharding_constraint(values, PartitionSpec(ROW_AXES, *free))


def hold_vectors(hidden: Float[Array, "rows ... D"]) -> Float[Array, "rows ... D"]:
    """Returns the same hidden states, each device holding those of its own rows, whole vectors."""
    if not is_divided():
        return hidden
    return jax.lax.with_sharding_constraint(hidden, PartitionSpec(ROW_AXES))


def whole_vectors(table: Float[Array, "entries D"]) -> Float[Array, "entries D"]:
    """Returns the same table of vectors, each device holding whole ones.

    Without it, XLA (jaxlib 0.10.2) mixes up the rows in the gradient of a product with a table that
    is divided over `fsdp` and `tensor`, on a mesh that has `data`, too.
    """
    if not is_divided():
        return table
    spec = PartitionSpec(PartitionSpec.UNCONSTRAINED, None)
    return jax.lax.with_sharding_constraint(table, spec)


def look_up_vectors(
    table: Float[Array, "entries D"], ids: Integer[Array, " tokens"]
) -> Float[Array, "tokens D"]:
    """Returns the vectors of a table by their numbers."""
    return hold_vectors(whole_vectors(table)[ids])


def pick_vectors(
    hidden: Float[Array, "B T D"], places: Integer[Array, "B P"]
) -> Float[Array, "B P D"]:
    """Returns the hidden states at some places of each row."""
    return hold_vectors(jnp.take_along_axis(hidden, places[:, :, None], axis=1))
