"""NVIDIA's GPUs as XLA's compiler needs them described."""

from typing import NamedTuple

from bertjax.planning.chips import CHIPS


class Processor(NamedTuple):
    """What a program is compiled for, besides the figures of `chips.Chip`.

    Attributes:
        name: as NVIDIA's driver reports it.
        capability: compute capability, major; the minor is 0 for all of them.
        own_features: whether instructions of this generation alone are used (sm_90a).
        multiprocessors: as many as the product has.
        units: float32 units per multiprocessor.
        shared_memory: bytes per multiprocessor.
        shared_of_block: bytes of it that a block may request.
        cache: bytes of the L2 cache.
        clock: GHz, boost.
    """

    name: str
    capability: int
    own_features: bool
    multiprocessors: int
    units: int
    shared_memory: int
    shared_of_block: int
    cache: int
    clock: float


_KIB, _MIB = 1 << 10, 1 << 20
_HOPPER = {
    "capability": 9, "own_features": True, "multiprocessors": 132, "units": 128,
    "shared_memory": 228 * _KIB, "shared_of_block": 227 * _KIB, "cache": 50 * _MIB, "clock": 1.98,
}  # fmt: skip
# Sources: NVIDIA H100 and A100 Tensor Core GPU Architecture (white papers), the H200's data sheet;
# CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
PROCESSORS = {
    "h200": Processor("NVIDIA H200 141GB HBM3e", **_HOPPER),
    "h100": Processor("NVIDIA H100 80GB HBM3", **_HOPPER),
    "a100": Processor(
        "NVIDIA A100-SXM4-80GB", 8, False, 108, 64, 164 * _KIB, 163 * _KIB, 40 * _MIB, 1.41
    ),
}
# The version of cuDNN, whose kernels the program calls.
CUDNN = (9, 10, 0)

# XLA's `GpuTargetConfigProto` as text; literal figures are the same for every GPU here.
_DESCRIPTION = """\
gpu_device_info {{
  name: "{processor.name}"
  device_vendor: "NVIDIA Corporation"
  platform_version: "Compute Capability {processor.capability}.0{suffix}"
  cuda_compute_capability {{ major: {processor.capability} feature_extension: {features} }}
  core_count: {processor.multiprocessors}
  fpus_per_core: {processor.units}
  clock_rate_ghz: {processor.clock}
  device_memory_size: {chip.memory}
  memory_bandwidth: {chip.memory_rate:.0f}
  l2_cache_size: {processor.cache}
  shared_memory_per_core: {processor.shared_memory}
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {processor.shared_of_block}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
  threads_per_warp: 32
  threads_per_core_limit: 2048
  threads_per_block_limit: 1024
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  device_address_bits: 64
  driver_version: "13.0.0"
  runtime_version: "13.0.0"
  compile_time_toolkit_version: "13.0.0"
  dnn_version: "{cudnn[0]}.{cudnn[1]}.{cudnn[2]}"
}}
platform_name: "CUDA"
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} patch: {cudnn[2]} }}
device_description_str: "{processor.name}"
"""


def describe_gpu(name: str) -> str:
    """Returns the compiler's description of an absent GPU.

    Args:
        name: a key of `PROCESSORS`.
    """
    processor = PROCESSORS[name]
    return _DESCRIPTION.format(
        processor=processor,
        chip=CHIPS[name],
        suffix="a" if processor.own_features else "",
        features="ACCELERATED_FEATURES" if processor.own_features else "NONE",
        cudnn=CUDNN,
    )
