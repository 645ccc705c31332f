"""How long a run lasts: in steps, in epochs, or in minutes on the wall clock."""

import dataclasses
import math
import time

from bertjax.program.errors import UserError
from bertjax.program.wording import counted


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
    """How long to train; exactly one of the three is given.

    Attributes:
        steps: optimizer steps
        epochs: passes over the training rows; may be a fraction
        minutes: of training on the wall clock, evaluations and checkpoints included, compilation
            not; the schedule comes to its end with it
    """

    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if value is not None and not 0 < value < math.inf:
                raise UserError(f"budget.{name}={value} must be above 0")

    def require_one(self) -> None:
        """Raises a `UserError` unless exactly one of the three is given."""
        given = {
            name: value for name, value in dataclasses.asdict(self).items() if value is not None
        }
        if len(given) != 1:
            said = ", ".join(f"budget.{name}={value}" for name, value in given.items()) or "none"
            raise UserError(
                f"give exactly one of budget.steps, budget.epochs, budget.minutes; given: {said}"
                " (null unsets one: --budget.steps null)"
            )


class Clock:
    """The clock that schedule and end of a run go by.

    With a budget in steps or epochs it counts steps; with one in minutes it counts seconds of
    training over all the sittings of a run.

    Attributes:
        total: the clock's value at the end.
        in_seconds: whether it counts seconds.
        shared: whether it shows what the processes agreed on last
            (`processes.Agreement`), and not what it measures.
    """

    def __init__(self, budget: BudgetConfig, rows: int, batch_size: int) -> None:
        self.in_seconds = budget.minutes is not None
        if budget.minutes is not None:
            self.total = 60.0 * budget.minutes
        elif budget.epochs is not None:
            self.total = float(max(1, math.ceil(budget.epochs * rows / batch_size)))
        else:
            self.total = float(budget.steps)
        self.shared = False
        self._before = self._agreed = 0.0
        self._started = time.monotonic()

    def start(self, seconds_before: float = 0.0) -> None:
        """Starts the seconds, after those of earlier sittings."""
        self._before = self._agreed = seconds_before
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._agreed if self.shared else self.measured

    @property
    def measured(self) -> float:
        """Seconds of training so far, as this process measures them."""
        return self._before + time.monotonic() - self._started

    def agree(self, seconds: float) -> None:
        """Sets what the clock shows where it is shared."""
        self._agreed = seconds

    def now(self, step: int) -> float:
        """Returns the clock's value before `step`, at most `total`."""
        return min(self.seconds if self.in_seconds else float(step), self.total)

    def is_over(self, step: int, seconds: float | None = None) -> bool:
        """Returns whether the run ends before `step`, after so many seconds (default: so far)."""
        if self.in_seconds:
            return (self.seconds if seconds is None else seconds) >= self.total
        return step >= self.total

    def seconds_left(self, step: int, seconds_a_step: float) -> float:
        """Returns how long the rest of the run takes at `seconds_a_step`."""
        rest = self.total - self.now(step)
        return rest if self.in_seconds else rest * seconds_a_step

    def describe(self) -> str:
        """Returns the budget in words."""
        return (
            f"{self.total / 60:g} minutes" if self.in_seconds else counted(self.most_steps, "step")
        )

    @property
    def most_steps(self) -> int:
        """The number of steps where the budget fixes it; else more than any run takes."""
        return 2**40 if self.in_seconds else int(self.total)
