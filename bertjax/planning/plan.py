"""Whether a step fits the devices, with how many rows, and how fast it can be at best."""

from collections.abc import Callable
from typing import NamedTuple

from bertjax.planning.chips import Chip
from bertjax.planning.program import CompiledStep, Memory

# The search for the largest batch ends when "fits" and "does not fit" are this close.
_PRECISION = 0.03


class Bounds(NamedTuple):
    """The least seconds that a step takes, by what it waits for.

    Attributes:
        products: its matrix products, at the chip's peak for bfloat16.
        memory: state and batch read, the new state and other results written, temporaries written
            and read, each once, at the bandwidth of the HBM.
        links: what the device sends, at the rate of all its links together; None where not
            known.
    """

    products: float
    memory: float
    links: float | None

    @property
    def overlapped(self) -> float:
        """The minimum: everything known, at the same time."""
        return max(self._known)

    @property
    def in_turn(self) -> float:
        """Everything known, one after the other."""
        return sum(self._known)

    @property
    def _known(self) -> list[float]:
        return [seconds for seconds in self if seconds is not None]


class LargestBatch(NamedTuple):
    """Where a batch stops fitting.

    Attributes:
        fits: rows that fit; 0 when the smallest batch does not.
        fails: rows that do not; None when no such batch was met.
        compilations: how many it took to find out.
    """

    fits: int
    fails: int | None
    compilations: int


def bound_step(chip: Chip, matmul_flops: float, memory: Memory, sent: float | None) -> Bounds:
    """Returns the roofline of a step.

    Args:
        chip: what it runs on.
        matmul_flops: those of one device's matrix products.
        memory: on each device.
        sent: bytes that each device sends; None where unknown.
    """
    state = memory.parameters + memory.average + memory.optimizer + memory.other
    moved = 2 * state + memory.batch + memory.results + 2 * memory.temporaries
    return Bounds(
        matmul_flops / chip.flops,
        moved / chip.memory_rate,
        None if sent is None or chip.link_rate is None else sent / chip.link_rate,
    )


def fits(step: CompiledStep, available: int) -> bool:
    """Returns whether the step compiled and needs no more than a device has."""
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
    """Finds where a batch stops fitting, by compiling batches of other sizes.

    The next size is where a straight line through the two largest that fit meets the available
    memory, or, where the line misleads, halfway between what fits and what does not. Near the
    limit a TPU's compiler recomputes more and fits more than the line predicts.

    Args:
        compile_rows: compiles a step of that many rows.
        first: the result of the first size.
        rows: the first size.
        unit: a batch is a multiple of this many rows.
        available: the bytes of a device.
        most: the most compilations, not counting the first size.
        ceiling: the most rows to try.
    """
    # Rows -> bytes; zero rows leave what is constant.
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
    """Returns a multiple of `unit` above what fits and below what does not."""
    if not good:
        return max(unit, high // 2 // unit * unit)
    before, low = sorted(good)[-2:]
    slope = (good[low] - good[before]) / (low - before)
    guess = low + (available - good[low]) / slope if slope > 0 else 2 * low
    if high is None:
        return max(low + unit, int(guess // unit) * unit)
    size = guess if low + unit <= guess < high else (low + high) / 2
    return min(max(int(size // unit) * unit, low + unit), high - unit)
