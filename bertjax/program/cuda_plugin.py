"""jax's CUDA plugin on a machine without an NVIDIA GPU, where it only compiles (extra plan-gpu)."""

import os

# What jax takes as the sign of an NVIDIA GPU (jax._src.hardware_utils).
NVIDIA_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")


def leave_cuda_out() -> None:
    """Skips the plugin where there is no GPU; call it before jax first looks for its devices.

    jax asks each installed plugin to look for its libraries, and prints the traceback of a failed
    search before it passes over CUDA for want of a device. The variable is jax's own and skips that
    search. Platforms that were asked for are still searched.
    """
    if not os.environ.get("JAX_PLATFORMS") and not any(map(os.path.exists, NVIDIA_DEVICES)):
        os.environ.setdefault("JAX_SKIP_CUDA_CONSTRAINTS_CHECK", "1")
