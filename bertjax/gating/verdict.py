"""What a gate comes to: what was measured of both models, and what became of the requirements."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.gating.confidences import Confidences
from bertjax.gating.decision import Decision
from bertjax.gating.quantities import Measured
from bertjax.gating.terms import EXACT
from bertjax.program.notebook_tables import make_table
from bertjax.program.wording import counted
from bertjax.statistics.bootstrap import find_ends
from bertjax.tasks.significance import ComparedModels

# What both models are called.
NAMES = ("new", "old")
REQUIREMENT_COLUMNS = ("requirement", "met", "holds by", "with 95 % confidence")
QUANTITY_COLUMNS = ("quantity", *(title for name in NAMES for title in (name, "95 % interval")))


class Side(NamedTuple):
    """A model and all that was measured of it.

    Attributes:
        evaluation: that of `bertjax evaluate`, without intervals.
        measured: its quantities.
        confidences: how sure it is of its answers; None where they have no probabilities.
    """

    evaluation: dict[str, Any]
    measured: Measured
    confidences: Confidences | None


class Verdict(NamedTuple):
    """What the gate says.

    Attributes:
        about: the models, the data and the options, for JSON.
        decisions: one for each requirement, in their order.
        new, old: what was measured of each model.
        comparison: of the outcomes, of new (B) with old (A), as `bertjax compare` makes it.
        slices: for each slice its examples, both means, the difference and its interval.
        notes: a sentence for everything that was not read as it was given.
    """

    about: dict[str, Any]
    decisions: list[Decision]
    new: Side
    old: Side
    comparison: ComparedModels
    slices: dict[str, dict[str, Any]]
    notes: list[str]

    @property
    def unmet(self) -> list[Decision]:
        """Returns what became of the requirements that are not met."""
        return [decision for decision in self.decisions if not decision.met]

    @property
    def passed(self) -> bool:
        """Returns whether all requirements are met."""
        return not self.unmet

    @property
    def summary(self) -> str:
        """Returns in a few words whether it has passed."""
        number = len(self.decisions)
        if not self.passed:
            return f"not passed: {len(self.unmet)} of {number} requirements are not met"
        return f"passed: all {number} requirements are met" if number else "nothing was required"

    @property
    def quantities(self) -> dict[str, dict[str, Any]]:
        """Returns each quantity of both models: `new`, `old`, and, but of those that are exact,
        `new_interval` and `old_interval`; an undefined number is None.
        """
        return {name: self._describe(name) for name in self.new.measured.values}

    def to_json(self) -> dict[str, Any]:
        """Returns all of it; an undefined number is null."""
        return {
            "met": self.passed,
            "not_met": [decision.requirement for decision in self.unmet],
            **self.about,
            "requirements": [decision.to_json() for decision in self.decisions],
            "quantities": self.quantities,
            "comparison": {**self.comparison._asdict(), "interval": list(self.comparison.interval)},
            "slice_score": self.new.evaluation["slice_score"],
            "slices": self.slices,
            "reliability": {
                name: side.confidences.describe_bins()
                for name, side in zip(NAMES, (self.new, self.old), strict=True)
                if side.confidences
            },
            "notes": self.notes,
        }

    def _describe(self, quantity: str) -> dict[str, Any]:
        """Returns a quantity of both models, with the interval of each by itself."""
        described: dict[str, Any] = {}
        for name, side in zip(NAMES, (self.new, self.old), strict=True):
            described[name] = _number(side.measured.values[quantity])
            if quantity not in EXACT:
                ends = find_ends(side.measured.draws[quantity])
                described[f"{name}_interval"] = [*map(_number, ends)]
        return described

    def tabulate_requirements(self) -> list[list[str]]:
        """Returns the rows of `REQUIREMENT_COLUMNS`, to be shown."""
        return [
            [
                one.requirement,
                "yes" if one.met else "no",
                _show(one.margin),
                "exact" if one.bound is None else _show(one.bound),
            ]
            for one in self.decisions
        ]

    def tabulate_quantities(self) -> list[list[str]]:
        """Returns the rows of `QUANTITY_COLUMNS`, to be shown."""
        return [
            [
                name,
                *(
                    cell
                    for side in NAMES
                    for cell in (_show(part[side]), show_ends(part.get(f"{side}_interval")))
                ),
            ]
            for name, part in self.quantities.items()
        ]

    def __repr__(self) -> str:
        unmet = "".join(f"; {one.describe()}" for one in self.unmet)
        return f"Verdict({counted(self.about['examples'], 'example')}, {self.summary}{unmet})"

    def _repr_html_(self) -> str:
        """Returns tables for a notebook: the requirements, and what was measured."""
        said = f"<p>{counted(self.about['examples'], 'example')}, {self.summary}</p>"
        if self.decisions:
            said += make_table(REQUIREMENT_COLUMNS, self.tabulate_requirements())
        return said + make_table(QUANTITY_COLUMNS, self.tabulate_quantities())


def show_ends(ends: Sequence[float | None] | None, sign: str = "") -> str:
    """Returns an interval, to be shown; nothing where it is not defined.

    Args:
        ends: both.
        sign: "+" for a difference.
    """
    if not ends or None in ends:
        return ""
    low, high = ends
    return f"{low:{sign}.4f} to {high:{sign}.4f}"


def _show(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "undefined"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4f}"


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
