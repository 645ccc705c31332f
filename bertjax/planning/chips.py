"""The figures of the chips, as their makers publish them."""

import math
import os
import re
from typing import NamedTuple

from bertjax.program.errors import UserError

_GIB = 1 << 30


class Chip(NamedTuple):
    """A TPU chip or a GPU.

    Attributes:
        name: as in a topology, "v5e" for instance.
        memory: bytes of HBM. A TPU's compiler reserves some of them for itself, jax leaves part of
            a GPU's unused (see `usable`).
        memory_rate: bytes per second between HBM and chip.
        flops: floating-point operations per second, bfloat16 matrix products.
        link_rate: bytes per second that a chip sends to its neighbours in the slice, or a GPU to
            the others of its host, over all its links together; as much comes in at the same time.
            None where unknown.
        dimensions: those of the torus or mesh of its slices; for GPUs partitions, hosts in each,
            GPUs in each.
        most: chips of the largest slice; GPUs of a host.
        source: where the figures are published.
        platform: jax's name, "tpu" or "gpu".
    """

    name: str
    memory: int
    memory_rate: float
    flops: float
    link_rate: float | None
    dimensions: int
    most: int
    source: str
    platform: str = "tpu"

    @property
    def usable(self) -> int:
        """The bytes that a program may use: jax reserves three quarters of a GPU's in advance.

        `XLA_PYTHON_CLIENT_MEM_FRACTION` sets another share.
        """
        if self.platform == "tpu":
            return self.memory
        given = os.environ.get(SHARE, "0.75")
        try:
            share = float(given)
        except ValueError:
            share = math.nan
        if not 0 < share <= 1:
            raise UserError(f"{SHARE}={given} must be above 0 and at most 1; unset it for 0.75")
        return int(share * self.memory)


# jax's own variable.
SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"

# NVIDIA also publishes the rate of NVLink for both directions together; a host has eight GPUs.
_GPUS_OF_A_HOST = 8
# Google publishes the rate of the links for both directions together; `link_rate` is half of it.
CHIPS = {
    "v4": Chip(
        "v4", 32 * _GIB, 1200e9, 275e12, 300e9, 3, 4096,
        "cloud.google.com/tpu/docs/v4; links: Jouppi et al. 2023 (arXiv:2304.01433), table 4,"
        " 6 of 50 GB/s",
    ),
    "v5e": Chip("v5e", 16 * _GIB, 819e9, 197e12, 200e9, 2, 256, "cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip("v5p", 95 * _GIB, 2765e9, 459e12, 600e9, 3, 6144, "cloud.google.com/tpu/docs/v5p"),
    "v6e": Chip("v6e", 32 * _GIB, 1640e9, 918e12, 400e9, 2, 256, "cloud.google.com/tpu/docs/v6e"),
    "h200": Chip(
        "h200", 141 * _GIB, 4800e9, 989e12, 450e9, 3, _GPUS_OF_A_HOST,
        "nvidia.com/en-us/data-center/h200 (SXM; without sparsity)", "gpu",
    ),
    "h100": Chip(
        "h100", 80 * _GIB, 3350e9, 989e12, 450e9, 3, _GPUS_OF_A_HOST,
        "nvidia.com/en-us/data-center/h100 (SXM; without sparsity)", "gpu",
    ),
    "a100": Chip(
        "a100", 80 * _GIB, 2039e9, 312e12, 300e9, 3, _GPUS_OF_A_HOST,
        "nvidia.com/en-us/data-center/a100 (80 GB, SXM; without sparsity)", "gpu",
    ),
}  # fmt: skip


def chip_of(topology: str) -> Chip:
    """Returns the chip of a topology such as "v5e:4x4" or "h200:1x1x8".

    Raises:
        UserError: no figures for this generation, or no such slice of it: libtpu accepts slices
            that nobody can rent, and a shape with a 0 ends the process.
    """
    name, _, text = topology.partition(":")
    sizes = re.fullmatch(r"([1-9]\d{0,4}(?:x[1-9]\d{0,4})*)(?:_(?:un)?twisted)?", text)
    if name not in CHIPS or not sizes:
        raise UserError(
            f"topology {topology!r}: a topology is one of {', '.join(CHIPS)}, a colon and the shape"
            " of the slice, as v5e:4x4, v6e:2x2, v4:2x2x1 or v5p:2x2x2; for GPUs partitions, hosts"
            " in each and GPUs in each, such as h200:1x1x8"
        )
    chip = CHIPS[name]
    shape = [int(size) for size in sizes[1].split("x")]
    if chip.platform == "gpu":
        if len(shape) != chip.dimensions or shape[-1] > chip.most or "twisted" in text:
            raise UserError(
                f"topology {topology!r}: give partitions, hosts in each and GPUs in each, at most"
                f" {chip.most}, such as {name}:1x1x{chip.most}"
            )
        return chip
    if len(shape) != chip.dimensions:
        example = "x".join(["4"] * chip.dimensions)
        raise UserError(
            f"topology {topology!r}: slices of {name} have {chip.dimensions} dimensions, as"
            f" {name}:{example}"
        )
    if math.prod(shape) > chip.most:
        raise UserError(
            f"topology {topology!r}: {math.prod(shape):,} chips are more than the {chip.most:,} of"
            f" the largest slice of {name}"
        )
    return chip
