"""Whether a step fits the devices, with how many rows, and how fast it can be at best."""

from collections.abc import Callable
from typing import NamedTuple

from bertjax.planning.chips import Chip
from bertjax.planning.program import CompiledStep, Memory

# The search for the largest batch ends when the step from "fits" to "does not" is this small.
_PRECISION = 0.03


class Bounds(NamedTuple):
    """Seconds that a step takes at the least, by what it has to wait for.

    Attributes:
        products: its matrix products, at the chip's peak for bfloat16.
        memory: state and batch read, the new state and other results written, temporaries written
            and read, each once, at the rate of the HBM.
        links: what the device sends, at the rate of all its links together; None where it is not
            known.
    """

    products: float
    memory: float
    links: float | None

    @property
    def overlapped(self) -> float:
        """The least: all that is known at the same time."""
        return max(self._known)

    @property
    def in_turn(self) -> float:
        """One after the other."""
        return sum(self._known)

    @property
    def _known(self) -> list[float]:
        return [one for one in self if one is not None]


class LargestBatch(NamedTuple):
    """Where a batch ceases to fit.

    Attributes:
        fits: rows that fit; 0 when the smallest batch does not.
        fails: rows that do not; None when no such batch was met.
        compilations: that it took to know.
    """

    fits: int
    fails: int | None
    compilations: int


def bound_step(chip: Chip, matmul_flops: float, memory: Memory, sent: float | None) -> Bounds:
    """The roofline of a step.

    Args:
        chip: what it runs on.
        matmul_flops: of the matrix products that one device has.
        memory: on each device.
        sent: bytes that each device sends; None where it is not known.
    """
    state = memory.parameters + memory.optimizer + memory.other
    moved = 2 * state + memory.batch + memory.results + 2 * memory.temporaries
    return Bounds(
        matmul_flops / chip.flops,
        moved / chip.memory_rate,
        None if sent is None or chip.link_rate is None else sent / chip.link_rate,
    )


def fits(step: CompiledStep, available: int) -> bool:
    """Whether the compiler took it, and all of it is no more than a device has."""
    return step.memory is not None and step.memory.total <= available


def find_largest_batch(
    compile_rows: Callable[[int], CompiledStep],
    first: CompiledStep,
    rows: int,
    unit: int,
    available: int,
    most: int,
    ceiling: int,
) -> LargestBatch:
    """Narrows down where a batch ceases to fit, by compiling batches of other sizes.

    The next size is where a straight line through the two largest that fit meets the memory there
    is; the middle between what fits and what does not, where the line leads astray. Near the limit
    a TPU's compiler computes more again and fits more than the line says.

    Args:
        compile_rows: compiles a step of so many rows.
        first: what came of the first size.
        rows: the first size.
        unit: a batch is a multiple of so many rows.
        available: bytes that a device has.
        most: compilations, that of the first size left out.
        ceiling: rows beyond which the search does not go up.
    """
    # Rows -> bytes; without rows, what stays is left.
    good: dict[int, int] = {}
    bad: set[int] = set()

    def note(size: int, step: CompiledStep) -> None:
        if fits(step, available):
            good.setdefault(0, step.memory.total - step.memory.temporaries)
            good[size] = step.memory.total
        else:
            bad.add(size)

    note(rows, first)
    done = 0
    while done < most:
        low, high = max(good, default=0), min(bad, default=None)
        if high is not None and high - low <= max(unit, _PRECISION * low):
            break
        size = _next_size(good, high, unit, available)
        if high is None:
            size = min(size, ceiling // unit * unit)
            if size <= low:
                break
        note(size, compile_rows(size))
        done += 1
    return LargestBatch(max(good, default=0), min(bad, default=None), done)


def _next_size(good: dict[int, int], high: int | None, unit: int, available: int) -> int:
    """A multiple of `unit` above what fits and below what does not."""
    if not good:
        return max(unit, high // 2 // unit * unit)
    before, low = sorted(good)[-2:]
    slope = (good[low] - good[before]) / (low - before)
    guess = low + (available - good[low]) / slope if slope > 0 else 2 * low
    if high is None:
        return max(low + unit, int(guess // unit) * unit)
    size = guess if low + unit <= guess < high else (low + high) / 2
    return min(max(int(size // unit) * unit, low + unit), high - unit)
