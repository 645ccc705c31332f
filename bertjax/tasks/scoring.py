"""A model's scores on labelled examples, for training, `evaluate` and `predict` alike."""

import hashlib
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from bertjax.program.errors import UserError
from bertjax.program.wording import nearest
from bertjax.statistics.bootstrap import draw_samples, find_ends
from bertjax.tasks.tagging import Tagging
from bertjax.tasks.task import Prediction, Task

# Suffixes of the names of scores where less is better.
LESS_IS_BETTER = ("loss", "mse", "error")
# Of a column, for `slice_examples`.
MOST_VALUES = 20


class Predicted(NamedTuple):
    """A model's predictions of examples.

    Attributes:
        predictions: one per example.
        loss: the mean over what has a label; 0 where nothing has.
        notes: a sentence for everything that was cut.
        seconds: the time it took, encoding included.
    """

    predictions: list[Prediction]
    loss: float
    notes: list[str]
    seconds: float


def single_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """Returns the scores that are one number and not a count.

    Args:
        scores: those of a task, by their names.
    """
    return {name: float(value) for name, value in scores.items() if isinstance(value, float)}


def goodness(name: str, scores: Mapping[str, Any]) -> float:
    """Returns a score such that higher is better; below all others where it is undefined.

    Args:
        name: a score that is one number: any of `single_scores`, or one that is None.
        scores: the task's, with the loss.

    Raises:
        UserError: there is no such score.
    """
    known = sorted(single_scores(scores))
    if not isinstance(scores.get(name, ""), float | None):
        raise UserError(_unknown_score(name, known))
    value = scores[name]
    if value is None or math.isnan(value):
        return -sys.float_info.max
    return -value if name.endswith(LESS_IS_BETTER) else value


def check_score(name: str | None, task: Task) -> None:
    """Checks that the task has the score that chooses the checkpoint; None: its main score.

    Raises:
        UserError: it does not.
    """
    known = sorted(("loss", *task.score_names))
    if name is not None and name not in known:
        raise UserError(_unknown_score(name, known))


def _unknown_score(name: str, known: Sequence[str]) -> str:
    return f"scoring.score={name!r} is not one of: {', '.join(known)}{nearest(name, known)}"


def describe_task_scores(scores: Mapping[str, float]) -> str:
    """Describes the scores in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())


def check_known_labels(task: Task, examples: Sequence[Any]) -> None:
    """Checks that the model knows every label of the examples.

    Raises:
        UserError: it does not; names the place.
    """
    known = set(task.model_fields().get("id2label", ()))
    for example in examples:
        label = getattr(example, "label", None)
        labels = (label,) if isinstance(label, str) else label
        if isinstance(task, Tagging):
            labels = task.labels_of(example)
        if not known or not isinstance(labels, tuple):
            continue
        for name in labels:
            if name not in known:
                raise UserError(
                    f"{example.place}: the label {name!r} is none of the model's, which are"
                    f" {', '.join(sorted(known))}{nearest(name, sorted(known))}; these labels are"
                    " of another task, or in another column"
                )


def evaluate_predictions(
    task: Task,
    examples: Sequence[Any],
    predicted: Predicted,
    resamples: int,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Computes scores, intervals, slices by length and label, and each prediction's quality.

    Args:
        task: the model's.
        examples: with labels.
        predicted: the model's predictions.
        resamples: bootstrap resamples; 0 = no intervals.
        progress: called with the number of resamples done since the last call.

    Returns:
        `examples`, `fingerprint` (sha256 of their content), `scores`, `intervals` (95 %, by the
        percentile bootstrap over examples),
        `slice_score` and `slices` (the mean outcome of the quarters by length, and by label),
        `outcomes` (one number per example, higher is better).
    """
    scores = {"loss": predicted.loss, **task.score(examples, predicted.predictions)}
    outcomes = task.outcomes(examples, predicted.predictions)
    drawn: dict[str, list[float]] = {}
    rescore = task.resampler(examples, predicted.predictions)
    for sample in itertools.chain.from_iterable(draw_samples(len(examples), resamples)):
        for name, value in single_scores(rescore(sample)).items():
            drawn.setdefault(name, []).append(value)
        progress(1)
    intervals = {
        name: [*map(float, find_ends(np.array(values)))]
        for name, values in drawn.items()
        if len(values) > resamples / 2
    }
    content = repr([example._replace(place="") for example in examples])
    return {
        "examples": len(examples),
        "fingerprint": hashlib.sha256(content.encode()).hexdigest(),
        "scores": scores,
        "intervals": intervals,
        "slice_score": task.outcome_name,
        "slices": {
            name: {"examples": int(here.sum()), "mean": float(outcomes[here].mean())}
            for name, here in slice_examples(examples).items()
        },
        "outcomes": outcomes.tolist(),
    }


def slice_examples(
    examples: Sequence[Any], columns: Sequence[str] = ()
) -> dict[str, Bool[np.ndarray, " n"]]:
    """Says which examples are in each slice: quarters by length, labels, values of columns.

    Args:
        examples: with labels.
        columns: of their files; each value of one is a slice.

    Raises:
        UserError: there is no such column, or it has too many values.
    """
    lengths = np.array([_characters(example) for example in examples])
    bounds = np.unique(np.percentile(lengths, [0, 25, 50, 75, 100]).astype(int))
    slices = {}
    for low, high in itertools.pairwise(bounds.tolist()):
        last = high == bounds[-1]
        here = (lengths >= low) & ((lengths <= high) if last else (lengths < high))
        slices[f"{low} to {high if last else high - 1} characters"] = here
    labels = [getattr(example, "label", None) for example in examples]
    for label in sorted({label for label in labels if isinstance(label, str)}):
        slices[f"label {label}"] = np.array([other == label for other in labels])
    for column in columns:
        values = np.array([_cell(example, column) for example in examples])
        distinct = np.unique(values)
        if len(distinct) > MOST_VALUES:
            raise UserError(
                f"the column {column!r} has {len(distinct):,} values, and {MOST_VALUES} is the most"
                " that are slices; name one with fewer, or group its values first"
            )
        slices |= {f"{column} {value}": values == value for value in distinct.tolist()}
    return {name: here for name, here in slices.items() if here.any()}


def _cell(example: Any, column: str) -> str:
    """Returns what an example's row has in a column, as text."""
    row = getattr(example, "record", None) or {}
    if column not in row:
        known = sorted(row)
        has = f"the columns {', '.join(known)}" if known else "no columns beside the task's own"
        raise UserError(
            f"{example.place}: no column {column!r}, it has {has}{nearest(column, known)}"
        )
    return str(row[column])


def _characters(example: Any) -> int:
    texts = [getattr(example, name, None) for name in ("first", "second", "text", "context")]
    return sum(len(text) for text in texts if text)
