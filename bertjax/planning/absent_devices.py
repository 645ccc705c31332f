"""Programs compiled for absent devices: TPUs and NVIDIA GPUs."""

import contextlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from unittest import mock

import jax
from jax._src.cudnn import fused_attention_stablehlo
from jax.experimental import topologies

from bertjax.program.errors import UserError

# cuDNN's kernels are calls to a library, whose names jax.export needs.
_CUDNN_CALLS = (
    "__cudnn$fmhaSoftmax",
    "__cudnn$fmhaSoftmaxBackward",
    "__cudnn$fmhaScaleBiasSoftmax",
    "__cudnn$fmhaScaleBiasSoftmaxBackward",
)
# The version that is assumed.
CUDNN_VERSION = 91000
# Either contains the compiler for NVIDIA's GPUs.
_CUDA_COMPILERS = ("jax-cuda13-pjrt", "jax-cuda12-pjrt")
# jax on a v4 treats both cores of a chip as one device; libtpu by itself treats them as two.
_TOPOLOGY_OPTIONS = {"v4": {"chip_config_name": "megacore"}}


def has_libtpu() -> bool:
    """Returns whether the compiler for TPUs is installed."""
    return importlib.util.find_spec("libtpu") is not None


def tpu_devices(topology: str) -> Sequence[jax.Device]:
    """Returns the devices of an absent TPU slice, to compile for.

    Args:
        topology: generation and shape, "v5e:4x4" for instance.

    Raises:
        UserError: libtpu is not installed, or it knows no such slice.
    """
    if not has_libtpu():
        raise UserError(
            "libtpu, which compiles for TPUs, is not installed: pip install 'bertjax[plan]'"
        )
    # There is no metadata server on a machine that is not a TPU host.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    # libtpu allows one process per machine, as a TPU does; as a compiler it may serve several.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    try:
        options = _TOPOLOGY_OPTIONS.get(topology.partition(":")[0], {})
        with quiet():
            return topologies.get_topology_desc(topology, platform="tpu", **options).devices
    except Exception as error:  # the library's own classes are not public
        reason = str(error).splitlines()[0]
        raise UserError(
            f"topology {topology!r}: libtpu knows no such slice ({reason}); give a generation and a"
            " shape, such as v5e:4x4, v6e:2x2, v4:2x2x1 or v5p:2x2x2"
        ) from None


def has_cuda_compiler() -> bool:
    """Returns whether the compiler for NVIDIA's GPUs is installed."""
    return any(
        next(iter(importlib.metadata.distributions(name=name)), None) for name in _CUDA_COMPILERS
    )


def gpu_devices(topology: str, description: str) -> Sequence[jax.Device]:
    """Returns absent NVIDIA GPUs, to compile for.

    Args:
        topology: name and shape, "h200:1x1x8" for instance: partitions, hosts in each, GPUs in
            each.
        description: the GPU's, as text of XLA's `GpuTargetConfigProto`.

    Raises:
        UserError: the compiler is missing, does not match this jax, or accepts no such GPU.
    """
    if not has_cuda_compiler():
        raise UserError(
            "jax's CUDA plugin, which compiles for NVIDIA GPUs, is not installed: pip install"
            " 'bertjax[plan-gpu]'"
        )
    name, _, shape = topology.partition(":")
    try:
        with quiet():
            return topologies.get_topology_desc(
                name, platform="cuda", target_config=description, topology=shape
            ).devices
    except NotImplementedError:
        raise UserError(
            f"topology {topology!r}: jax {jax.__version__} cannot load the CUDA plugin that is"
            " installed; its version must be jax's: pip install --upgrade 'bertjax[plan-gpu]'"
        ) from None
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"topology {topology!r}: XLA accepts no such GPUs ({str(error).splitlines()[0]})"
        ) from None


@contextlib.contextmanager
def assume_cudnn() -> Iterator[None]:
    """Assumes cuDNN, as `CUDNN_VERSION`, where a program for a GPU calls it."""
    versions = mock.Mock(cudnn_get_version=lambda: CUDNN_VERSION)
    with mock.patch.object(fused_attention_stablehlo, "cuda_versions", versions):
        yield


def compile_for_tpu(
    function: Callable[..., object], arguments: Sequence[jax.ShapeDtypeStruct], topology: str
) -> jax.stages.Compiled:
    """Compiles for one chip of a TPU slice."""
    sharding = jax.sharding.SingleDeviceSharding(tpu_devices(topology)[0])
    placed = [jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding) for each in arguments]
    with quiet():
        return jax.jit(function).lower(*placed).compile()


def lower_for_cuda(
    function: Callable[..., object], arguments: Sequence[jax.ShapeDtypeStruct]
) -> str:
    """Lowers a program for an NVIDIA GPU to StableHLO; cuDNN is assumed as `CUDNN_VERSION`."""
    calls = [jax.export.DisabledSafetyCheck.custom_call(name) for name in _CUDNN_CALLS]
    with assume_cudnn():
        exported = jax.export.export(jax.jit(function), platforms=["cuda"], disabled_checks=calls)(
            *arguments
        )
    return exported.mlir_module()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences standard error, where libtpu and XLA write through its file descriptor."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
