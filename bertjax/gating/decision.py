"""Whether a requirement is met: not as it looks on the examples, but as far as they can tell."""

from typing import Any, NamedTuple

import numpy as np

from bertjax.gating.quantities import Measured
from bertjax.gating.requirements import Requirement
from bertjax.gating.terms import EXACT, SPEED
from bertjax.statistics.bootstrap import CONFIDENCE, Jackknife, find_lower_bound

# How many more errors no sample excludes, even where it has none: with n examples a share of 3 / n
# goes unseen in one sample of 20. Source: Hanley & Lippman-Hand 1983, the rule of three.
UNSEEN_ERRORS = 3
# Errors are whole: the exact bound of a few is up to one beyond that of their bootstrap.
CORRECTED_ERRORS = 1
# Margins below it are rounding.
_ROUNDING = 1e-12


class Decision(NamedTuple):
    """What became of a requirement.

    Attributes:
        requirement: its text.
        met: whether it is certain enough that it holds.
        left, right: its sides, as measured.
        margin: by how much the sides hold, below 0 where they do not.
        bound: what the true margin is above, with 95 % confidence; None where it is exact.
        old: the quantities of the old model that it names.
        new: those of the new one.
        why: a sentence where it is not met.
    """

    requirement: str
    met: bool
    left: float
    right: float
    margin: float
    bound: float | None
    new: dict[str, float]
    old: dict[str, float]
    why: str = ""

    def describe(self) -> str:
        """Returns the requirement, its quantities, and why it is not met, in one line."""
        named = self.new | {f"old.{name}": value for name, value in self.old.items()}
        figures = [f"{name} {_show(value)}" for name, value in named.items()]
        return f"{self.requirement}: {', '.join([*figures, self.why])}"

    def to_json(self) -> dict[str, Any]:
        """Returns its fields; an undefined number is null."""
        return {name: _plain(value) for name, value in self._asdict().items()}


def decide(requirement: Requirement, new: Measured, old: Measured) -> Decision:
    """Decides a requirement by a one-sided test with 95 % confidence.

    It is met where the lower end of the margin's interval is above 0: by the BCa bootstrap, both
    models on the same resamples, less what one more wrong answer would cost (for continuity), and
    never above the margin less what three would. So a model that is worse than required by however
    little passes at most one time in 20; one that is only just good enough fails as often as not,
    and more examples tell it apart. What is known exactly, such as a size, is compared as it is.

    Args:
        requirement: what is required.
        new: the quantities of the new model.
        old: those of the old one, on the same samples.
    """
    left, right = map(float, requirement.sides(new.values, old.values))
    margin = float(requirement.margin(new.values, old.values))
    named = requirement.names | requirement.old_names
    bound = None
    if not named <= set(EXACT):
        bound = _find_bound(requirement, new, old, margin)
        met = bool(bound > _ROUNDING)
    else:
        met = bool(np.isfinite(margin)) and requirement.holds(left, right)
    decision = Decision(
        requirement.text,
        met,
        left,
        right,
        margin,
        bound,
        {name: new.values.get(name, np.nan) for name in sorted(requirement.names)},
        {name: old.values.get(name, np.nan) for name in sorted(requirement.old_names)},
    )
    return decision if met else decision._replace(why=_explain(decision))


def _find_bound(requirement: Requirement, new: Measured, old: Measured, margin: float) -> float:
    if not np.isfinite(margin):
        return np.nan
    draws = requirement.margin(new.draws, old.draws)
    without_one = [
        Jackknife(np.atleast_1d(requirement.margin(ours, theirs)), units)
        for (ours, units), (theirs, _) in zip(new.without_one, old.without_one, strict=True)
    ]
    bound = find_lower_bound(margin, draws, without_one, CONFIDENCE)
    if requirement.names <= {*EXACT, *SPEED}:
        return bound
    spoiled = {name: values for name, values in new.spoiled.items() if name in requirement.names}
    worse = requirement.margin(new.values | spoiled, old.values)
    cost = max(0.0, float(np.nanmax(margin - worse, initial=0.0)))
    return float(np.minimum(bound - CORRECTED_ERRORS * cost, margin - UNSEEN_ERRORS * cost))


def _explain(decision: Decision) -> str:
    if not np.isfinite(decision.margin):
        return "a side of it is not defined on these examples"
    if decision.bound is None or decision.margin < 0:
        return f"it is missed by {_show(abs(decision.margin))}"
    if not np.isfinite(decision.bound):
        return "it is not defined in half of the resamples: there are too few examples"
    return (
        f"it holds by {_show(decision.margin)} on these examples, and by {_show(decision.bound)}"
        " with 95 % confidence: they are too few to be certain, or the difference too small"
    )


def _show(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
