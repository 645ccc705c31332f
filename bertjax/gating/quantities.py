"""What a model is judged by: its scores, calibration, weakest slice, flips, size and speed."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.gating.confidences import Confidences, judge_confidences
from bertjax.gating.terms import SPEED
from bertjax.statistics.bootstrap import draw_samples
from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.regression import Regression
from bertjax.tasks.tagging import Tagging
from bertjax.tasks.task import Prediction, Task

# The smallest slice that can be the worst.
FEWEST_IN_SLICE = 10
# Examples that are left out one by one, and answers that are made wrong one by one, at most.
MOST_LEFT_OUT, MOST_SPOILED = 1000, 24
# Answers that are tried in place of one, for a worse one, at most.
MOST_TRIED = 50

Figures = dict[str, float]


class Sample(NamedTuple):
    """Quantities that depend on a sample, for any draw from its units.

    Attributes:
        of: from the numbers of the drawn units to the quantities; NaN where one is undefined.
        units: how many there are.
    """

    of: Callable[[Int[np.ndarray, " drawn"]], Figures]
    units: int


class Answered(NamedTuple):
    """A model's answers to labelled examples.

    Attributes:
        task: the model's.
        examples: with labels.
        predictions: the model's.
        slices: which examples are in each (`scoring.slice_examples`).
        flips: for each kind of change to the texts, whether the answer became another.
    """

    task: Task
    examples: Sequence[Any]
    predictions: Sequence[Prediction]
    slices: Mapping[str, Bool[np.ndarray, " n"]]
    flips: Mapping[str, Bool[np.ndarray, " n"]]


class Measured(NamedTuple):
    """The quantities of a model, and what is known of how certain they are.

    Attributes:
        values: of all examples and texts.
        draws: of the bootstrap's samples, `[R]` each; both models have the same samples.
        without_one: for each sample, the quantities without one unit, `[some]` each, and the number
            of its units.
        spoiled: the quantities with one more answer wrong, `[some]` each.
    """

    values: Figures
    draws: dict[str, Float[np.ndarray, " R"]]
    without_one: list[tuple[dict[str, Float[np.ndarray, " some"]], int]]
    spoiled: dict[str, Float[np.ndarray, " some"]]


def sample_examples(answered: Answered) -> Sample:
    """Returns the quantities of a model on labelled examples."""
    task, examples, predictions, slices, flips = answered
    rescore = task.resampler(examples, predictions)
    confidences = judge_confidences(task, examples, predictions)
    outcomes = task.outcomes(examples, predictions)
    members = np.array([here for here in slices.values() if here.sum() >= FEWEST_IN_SLICE])

    def compute(drawn: Int[np.ndarray, " drawn"]) -> Figures:
        scores = {
            name: np.nan if value is None else float(value)
            for name, value in rescore(drawn).items()
            if value is None or isinstance(value, float)
        }
        figures = (_calibration(confidences, drawn) if confidences else {}) | scores
        figures["worst_slice"] = _worst(members, outcomes, drawn)
        if flips:
            shares = {f"flips_{kind}": float(own[drawn].mean()) for kind, own in flips.items()}
            figures |= shares | {"flips": float(np.mean(list(shares.values())))}
        return figures

    return Sample(compute, len(examples))


def sample_times(milliseconds: Float[np.ndarray, " n"]) -> Sample:
    """Returns the quantities of the times that texts took."""

    def compute(drawn: Int[np.ndarray, " drawn"]) -> Figures:
        return dict(zip(SPEED, np.percentile(milliseconds[drawn], [50, 95]).tolist(), strict=True))

    return Sample(compute, len(milliseconds))


def measure(
    samples: Sequence[Sample],
    exact: Figures,
    spoiled: Iterable[Figures],
    resamples: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Measured:
    """Computes the quantities of a model, and those of resamples.

    Args:
        samples: that of the examples, and that of the times where there is one.
        exact: the quantities that depend on no sample.
        spoiled: the quantities of the first sample with one more answer wrong (`spoil`).
        resamples: of the bootstrap.
        seed: of the draws; that of both models.
        progress: called with the number of resamples done since the last call.
    """
    wholes = [sample.of(np.arange(sample.units)) for sample in samples]
    values = dict(exact)
    for whole in wholes:
        values |= whole
    draws = {name: np.full(resamples, value) for name, value in exact.items()}
    without_one = []
    for number, (sample, whole) in enumerate(zip(samples, wholes, strict=True)):
        figures = []
        for some in draw_samples(sample.units, resamples, seed + number):
            for drawn in some:
                figures.append(sample.of(drawn))
                progress(1 if number == 0 else 0)
        draws |= _columns(figures, whole)
        fewer = [sample.of(kept) for kept in _leave_out(sample.units)]
        others = {name: np.full(len(fewer), value) for name, value in values.items()}
        without_one.append((others | _columns(fewer, whole), sample.units))
    worse = list(spoiled)
    others = {name: np.full(len(worse), value) for name, value in values.items()}
    return Measured(values, draws, without_one, others | _columns(worse, wholes[0]))


def spoil(answered: Answered) -> Iterator[Figures]:
    """Yields the quantities of a model with one more answer wrong, for an example of each slice.

    They say how much a single example weighs: a score over classes falls further by an error in a
    rare one. Where slices are more than `MOST_SPOILED`, they are the smallest.
    """
    task, examples, predictions, slices, flips = answered
    every = np.arange(len(examples))
    done = set[int]()
    smallest_first = sorted(slices.values(), key=np.count_nonzero)
    for here in [*smallest_first, np.ones(len(examples), bool)][:MOST_SPOILED]:
        for number in np.flatnonzero(here).tolist():
            if number in done:
                continue
            wrong = _make_wrong(task, examples, predictions, number)
            if wrong is None:
                continue
            done.add(number)
            changed = [*predictions]
            changed[number] = wrong
            flipped = {kind: own | (every == number) for kind, own in flips.items()}
            yield sample_examples(answered._replace(predictions=changed, flips=flipped)).of(every)
            break


def _make_wrong(
    task: Task, examples: Sequence[Any], predictions: Sequence[Prediction], number: int
) -> Prediction | None:
    """Returns an answer to the example that is worse than the model's; None where none is found."""
    own, example = predictions[number], examples[number]
    [before] = task.outcomes([example], [own])
    least = -np.inf if isinstance(task, Regression) else 0
    if before <= least:
        return None
    for other in itertools.islice(_other_answers(task, predictions, number), MOST_TRIED):
        if task.outcomes([example], [other])[0] < before:
            return other
    return None


def _other_answers(
    task: Task, predictions: Sequence[Prediction], number: int
) -> Iterator[Prediction]:
    """Yields answers in place of one: as sure of others, or those to other examples."""
    own = predictions[number]
    if isinstance(task, Classification):
        names, shares = list(own["probabilities"]), list(own["probabilities"].values())
        for turned in _turns(shares):
            best = int(np.argmax(turned))
            yield {
                "label": names[best],
                "probability": turned[best],
                "probabilities": dict(zip(names, turned, strict=True)),
            }
    elif isinstance(task, MultiLabelClassification):
        shares = {label: 1 - share for label, share in own["probabilities"].items()}
        yield {
            "labels": [label for label in shares if label not in own["labels"]],
            "probabilities": shares,
        }
    elif isinstance(task, MultipleChoice):
        for turned in _turns(own["probabilities"]):
            yield {"choice": int(np.argmax(turned)), "probabilities": turned}
    elif isinstance(task, Tagging):
        for tag in task.labels:
            yield {**own, "tags": [tag] * len(own["tags"])}
    else:
        for other in [*predictions[number + 1 :], *predictions[:number]]:
            yield {**other, "id": own["id"]} if "id" in own else other


def _turns(shares: Sequence[float]) -> Iterator[list[float]]:
    """Yields the shares by one place further, by two, ..."""
    for by in range(1, len(shares)):
        yield [*shares[-by:], *shares[:-by]]


def _leave_out(units: int) -> Iterator[Int[np.ndarray, " fewer"]]:
    """Yields the numbers of all units but one, for every unit or evenly spaced ones."""
    if units < 2:
        return
    every = np.arange(units)
    for number in np.unique(np.linspace(0, units - 1, min(units, MOST_LEFT_OUT)).astype(int)):
        yield np.delete(every, number)


def _columns(
    rows: Sequence[Figures], names: Iterable[str]
) -> dict[str, Float[np.ndarray, " rows"]]:
    return {name: np.array([row.get(name, np.nan) for row in rows], float) for name in names}


def _calibration(confidences: Confidences, drawn: Int[np.ndarray, " drawn"]) -> Figures:
    answers = confidences.answers[drawn].sum()
    gaps = np.abs(confidences.gaps[drawn].sum(axis=0)).sum()
    brier = confidences.brier[drawn].sum()
    if not answers:
        return {"calibration_error": np.nan, "brier": np.nan}
    return {"calibration_error": float(gaps / answers), "brier": float(brier / answers)}


def _worst(
    members: Bool[np.ndarray, "slices n"],
    outcomes: Float[np.ndarray, " n"],
    drawn: Int[np.ndarray, " drawn"],
) -> float:
    """Returns the least mean outcome of a slice; of all examples where no slice is large enough."""
    if not len(members):
        return float(outcomes[drawn].mean())
    times = np.bincount(drawn, minlength=len(outcomes)).astype(float)
    counts = members @ times
    sums = members @ (times * outcomes)
    return float((sums[counts > 0] / counts[counts > 0]).min())
