"""The phases of a pretraining run: stretches of its budget with rows and a batch of their own."""

import dataclasses
import math
from typing import Any, NamedTuple

from bertjax.program.errors import UserError
from bertjax.training.budget import Clock

# Shares that add up to 1 but for rounding.
_CLOSE = 1e-6


@dataclasses.dataclass(frozen=True)
class PhasesConfig:
    """Stretches of the budget, one after the other; every list that is given has an item for each.

    Attributes:
        shares: of the budget, which add up to 1 (0.25 0.75); one phase when not given
        lengths: tokens a row, into which the prepared rows are cut (64 128); theirs when not given
        data: prepared directories of the phases' training rows; those of the run when not given
        batch_sizes: rows a step; batch_size when not given
        causal: true = every token is predicted from those before it alone, false = masked tokens
            from both sides (Gisserot-Boukhlef et al. 2025); false when not given
    """

    shares: list[float] = dataclasses.field(default_factory=list)
    lengths: list[int] = dataclasses.field(default_factory=list)
    data: list[str] = dataclasses.field(default_factory=list)
    batch_sizes: list[int] = dataclasses.field(default_factory=list)
    causal: list[bool] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            items = getattr(self, field.name)
            if items and len(items) != len(self.shares):
                raise UserError(
                    f"phases.{field.name}={items} must have an item for each of phases.shares="
                    f"{self.shares}"
                )
        if self.shares and (min(self.shares) <= 0 or abs(sum(self.shares) - 1) > _CLOSE):
            raise UserError(f"phases.shares={self.shares} must be above 0 and add up to 1")
        for name in ("lengths", "batch_sizes"):
            if any(item < 1 for item in getattr(self, name)):
                raise UserError(f"phases.{name}={getattr(self, name)} must be at least 1")


class Phase(NamedTuple):
    """One of them.

    Attributes:
        number: 0, 1, ...
        end: the clock's value at which the next one begins.
        span: from where to where it goes, as shares of the budget.
        batch_size: rows a step.
        length: tokens a row; None = the rows' own.
        data: prepared directory; None = the run's.
        causal: whether every token is predicted from those before it.
    """

    number: int
    end: float
    span: tuple[float, float]
    batch_size: int
    length: int | None
    data: str | None
    causal: bool

    def describe(self, rows: Any, clock: Clock) -> str:
        """Says what it does, on rows that `rows` are."""
        until = f"{self.end / 60:.3g} minutes" if clock.in_seconds else f"step {self.end:,.0f}"
        if self.end == math.inf:
            until = "the end"
        learned = "next" if self.causal else "masked"
        return (
            f"phase {self.number + 1}, until {until}: {learned} tokens, {self.batch_size} rows of"
            f" {rows.max_length} a step"
        )


def make_phases(config: PhasesConfig, batch_size: int, clock: Clock) -> list[Phase]:
    """Returns the phases of a run, in their order; one where none are asked for.

    Args:
        config: what is asked for.
        batch_size: where no other is given for a phase.
        clock: of the run; where it counts steps, a phase begins at a whole one.

    Raises:
        UserError: a phase would have no step.
    """
    count = max(1, len(config.shares))

    def item(values: list[Any], number: int, otherwise: Any) -> Any:
        return values[number] if values else otherwise

    ends = [sum(config.shares[: number + 1]) for number in range(count - 1)] + [1.0]
    clocks = [end * clock.total for end in ends]
    if not clock.in_seconds:
        clocks = [float(round(value)) for value in clocks]
    begins = [0.0, *clocks[:-1]]
    if any(begin >= end for begin, end in zip(begins, clocks, strict=True)):
        raise UserError(
            f"phases.shares={config.shares}: one of them has no step in {clock.describe()}; leave"
            " it out, or give the run a larger budget"
        )
    # Nothing comes after the last: it ends with the run.
    return [
        Phase(
            number,
            clocks[number] if number < count - 1 else math.inf,
            (begins[number] / clock.total, clocks[number] / clock.total),
            item(config.batch_sizes, number, batch_size),
            item(config.lengths, number, None),
            item(config.data, number, None),
            item(config.causal, number, False),
        )
        for number in range(count)
    ]


def count_rows_before(phases: list[Phase], starts: list[int], number: int) -> int:
    """Returns how many rows of a phase's source the phases before it have used.

    Args:
        phases: of the run.
        starts: the first step of each, up to phase `number`.
        number: of the phase.
    """
    source = phases[number].data, phases[number].length
    return sum(
        (starts[before + 1] - starts[before]) * phases[before].batch_size
        for before in range(number)
        if (phases[before].data, phases[before].length) == source
    )
