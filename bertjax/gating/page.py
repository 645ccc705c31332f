"""The page of a gate: the report's page, with what was required and what was measured."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bertjax
from bertjax.analysis.report.data import Curve, Measure, ReportData, Series, Table
from bertjax.analysis.report.pages import write_report
from bertjax.gating.terms import EXACT, UNITS
from bertjax.gating.verdict import NAMES, Side, Verdict
from bertjax.statistics.bootstrap import find_ends
from bertjax.statistics.intervals import Interval
from bertjax.tasks.scores import BINS
from bertjax.tasks.task import Task


def write_page(verdict: Verdict, task: Task, output: Path | str) -> list[Path]:
    """Writes `report.html`, `numbers.json` and the figures into a folder, as `write_report`.

    Args:
        verdict: of the gate.
        task: of the models.
        output: the folder.
    """
    return write_report(_make_report(verdict, task), output)


def _name(model: Mapping[str, Any]) -> str:
    return f"{model['model']}, run by {model['engine']} in {model['dtype']}"


def _make_report(verdict: Verdict, task: Task) -> ReportData:
    about = verdict.about
    facts = {
        "gate": verdict.summary,
        **{f"{name} model": _name(about[name]) for name in NAMES},
        "task": task.name,
        "data": ", ".join(about["data"]),
        "examples": about["examples"],
        "resamples": about["resamples"],
        "seed": about["seed"],
        "bertjax": bertjax.__version__,
    }
    notes = [f"Not met: {one.describe()}" for one in verdict.unmet]
    curve = _draw_reliability(verdict)
    return ReportData(
        f"Gate: {Path(about['new']['model']).resolve().name}",
        facts,
        curves=[curve] if curve else [],
        tables=[
            _tabulate_requirements(verdict),
            _tabulate_quantities(verdict, task),
            _tabulate_slices(verdict),
        ],
        notes=[*notes, *verdict.notes],
    )


def _tabulate_requirements(verdict: Verdict) -> Table:
    return Table(
        "requirements",
        "Requirements",
        "A requirement is met where what it holds by is above 0 with 95 % confidence, not on these"
        " examples alone: a model that is worse than required passes one time in 20 at most. Sizes"
        " are compared as they are.",
        ("requirement", "met", "left side", "right side", "holds by", "with 95 % confidence"),
        tuple(
            (
                one.requirement,
                "yes" if one.met else "no",
                one.left,
                one.right,
                one.margin,
                one.bound,
            )
            for one in verdict.decisions
        ),
    )


def _tabulate_quantities(verdict: Verdict, task: Task) -> Table:
    rows, own_unit = [], "percent" if task.score_scale == 100 else "score"
    for name in verdict.new.measured.values:
        cells = [_measure(side, name) for side in (verdict.new, verdict.old)]
        unit, meaning = UNITS.get(name, (own_unit, "a score of bertjax evaluate"))
        rows.append((name, *cells, unit, meaning))
    return Table(
        "quantities",
        "Quantities",
        "What can be required, of both models, with 95 % intervals of each by itself.",
        ("quantity", *NAMES, "unit", "meaning"),
        tuple(rows),
    )


def _measure(side: Side, name: str) -> Measure:
    value = side.measured.values[name]
    if name in EXACT or not np.isfinite(value):
        return Measure(value)
    return Measure(value, *map(float, find_ends(side.measured.draws[name])))


def _tabulate_slices(verdict: Verdict) -> Table:
    def difference(part: Mapping[str, Any]) -> Measure:
        return Measure(part["difference"], *(part["interval"] or ()))

    return Table(
        "slices",
        f"Slices: {verdict.new.evaluation['slice_score']}",
        "The mean over the examples of each slice, and the difference new - old with its 95 %"
        " interval, by the paired bootstrap.",
        ("slice", "examples", *NAMES, "difference"),
        tuple(
            (name, part["examples"], part["new"], part["old"], difference(part))
            for name, part in verdict.slices.items()
        ),
    )


def _draw_reliability(verdict: Verdict) -> Curve | None:
    """Returns the reliability of both models; None where answers have no probabilities."""
    known = [side.confidences for side in (verdict.new, verdict.old)]
    if None in known:
        return None
    both = [one.reliability() for one in known if one is not None]
    used = np.isfinite(np.stack([right.value for right, _ in both])).any(axis=0)

    def keep(interval: Interval) -> Interval:
        return Interval(*(part[used] for part in interval))

    series: Sequence[Series] = [
        *(Series(name, keep(right)) for name, (right, _) in zip(NAMES, both, strict=True)),
        *(
            Series(f"confidence of {name}", confidence.value[used])
            for name, (_, confidence) in zip(NAMES, both, strict=True)
        ),
    ]
    edges = np.linspace(0, 1, BINS + 1)
    points = [f"{high:.2f}" for high in edges[1:][used]]
    return Curve(
        "reliability",
        "Reliability",
        "The share of right answers by confidence. Of a calibrated model it is the mean confidence"
        " of the bin.",
        "confidence, up to",
        "share of right answers",
        tuple(points),
        tuple(series),
    )
