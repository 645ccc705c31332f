"""What a run asks of the machine, before it begins: memory of a step, time at the least."""

import os
from typing import Any

import jax

from bertjax.training.budget import Clock
from bertjax.training.progress import describe_duration


def describe_demand(take_step: jax.stages.Compiled, ideal_seconds: float, clock: Clock) -> str:
    """Describes the memory of one step and the least time of the run.

    Args:
        take_step: the compiled step, of which the compiler says what it holds on each device.
        ideal_seconds: what a step's matrix products alone take.
        clock: of the run.
    """
    return (
        f"{_describe_memory(take_step.memory_analysis())}\n{_describe_time(ideal_seconds, clock)}"
    )


def _describe_memory(memory: Any) -> str:
    """Describes what stays between steps (weights, optimizer, a batch), and what a step adds."""
    stays = memory.argument_size_in_bytes
    beside = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.temp_size_in_bytes
    needed, there = stays + beside, _memory_of_a_device()
    said = (
        f"memory on each device: {_gigabytes(needed)}, {_gigabytes(stays)} of it for weights,"
        " optimizer and batch"
    )
    if there is None:
        return said
    if needed <= there:
        return f"{said}; there are {_gigabytes(there)}"
    return (
        f"{said}. That does not fit: there are {_gigabytes(there)}; lower batch_size, raise"
        " accumulation, set remat to full, or divide the model (mesh.fsdp)"
    )


def _describe_time(ideal_seconds: float, clock: Clock) -> str:
    said = f"time: {ideal_seconds:.3g} s a step at the least, for its matrix products alone"
    if clock.in_seconds:
        most = int(clock.total / ideal_seconds)
        return f"{said}; at most {most:,} steps in {clock.describe()}"
    return f"{said}; {describe_duration(clock.total * ideal_seconds)} for {clock.describe()}"


def _memory_of_a_device() -> int | None:
    """Returns the bytes that a device has for this process; of a CPU, all there is."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    whole = memory_of_machine()
    return whole and whole // jax.local_device_count()


def memory_of_machine() -> int | None:
    """Returns bytes of memory that this machine has; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):
        return None


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.3g} GB"
