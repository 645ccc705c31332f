"""Which checkpoint of a run is kept: the best by its score, and by the loss within chance.

A validation split of 40 examples measures an accuracy to about 0.1. Of checkpoints whose scores are
within that of the best, the one with the lowest loss is kept: the loss measures how sure the model
is of every example, the score only which side of the boundary it falls on.
"""

import itertools
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.program.wording import counted
from bertjax.statistics.bootstrap import draw_samples
from bertjax.tasks.scoring import goodness
from bertjax.tasks.task import Prediction, Task

# Bootstrap resamples; this many give a standard error to 7 %.
_DRAWS = 100

# Standard errors to either side of a score that make its 95 % interval.
_INTERVAL = 1.96


class Evaluation(NamedTuple):
    """An evaluation of a checkpoint, in numbers that JSON can hold.

    Attributes:
        step: the checkpoint's.
        goodness: its score, such that higher is better (`scoring.goodness`).
        loss: on the validation split.
        error: the standard error of the score; 0 where the score is the loss itself.
    """

    step: int
    goodness: float
    loss: float
    error: float


class Selection(NamedTuple):
    """The checkpoint that is kept, and why.

    Attributes:
        kept: its evaluation.
        rivals: how many evaluations have a score that differs only by chance from the best
            one, the best one included.
        unimproved: evaluations since the kept one.
        changes: how often the kept one changed.
    """

    kept: Evaluation
    rivals: int
    unimproved: int
    changes: int


def evaluate_checkpoint(
    step: int,
    score: str,
    loss: float,
    scores: Mapping[str, Any],
    task: Task,
    examples: Sequence[Any],
    predictions: Sequence[Prediction],
) -> Evaluation:
    """Evaluates a checkpoint.

    Args:
        step: the checkpoint's.
        score: the name of the score that chooses.
        loss: on the validation split.
        scores: the task's on it.
        task: the model's.
        examples: those of the validation split.
        predictions: the model's.
    """
    good = goodness(score, {"loss": loss, **scores})
    loss = loss if math.isfinite(loss) else sys.float_info.max
    if score == "loss":
        return Evaluation(step, -loss, loss, 0.0)
    return Evaluation(step, good, loss, standard_error(score, task, examples, predictions))


def standard_error(
    score: str, task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> float:
    """Estimates how far the score may be from that of all possible examples, by the bootstrap.

    For a bounded score, such as accuracy, it is at least what one example adds: a bootstrap of ten
    right answers out of ten would find no error.

    Returns:
        The standard deviation over draws with repetition; the largest float where most
        draws leave the score undefined.
    """
    rescore = task.resampler(examples, predictions)
    samples = itertools.chain.from_iterable(draw_samples(len(examples), _DRAWS))
    drawn = [rescore(sample)[score] for sample in samples]
    values = [value for value in drawn if value is not None and math.isfinite(value)]
    if len(values) <= _DRAWS / 2:
        return sys.float_info.max
    return max(statistics.pstdev(values), _scale(score, task) / len(examples))


def _scale(score: str, task: Task) -> float:
    """Returns the width of a score's range; 0 where it is unbounded."""
    return 0.0 if score.endswith("mse") else task.score_scale


def select(evaluations: Sequence[Evaluation]) -> Selection | None:
    """Selects the checkpoint to keep, which follows from the order of evaluations.

    A checkpoint is a rival where its score is within a standard error of the best score so far
    (the one-standard-error rule of Breiman et al. 1984, section 3.4.3, which takes the simplest
    of these models where this takes the one with the lowest loss). It is kept if the one kept
    before is no longer a rival, or has a higher loss. A checkpoint that is not kept is deleted: it
    does not come back when the best score changes.

    Args:
        evaluations: a run's, in order.

    Returns:
        None without evaluations.
    """
    best = kept = None
    changes = unimproved = 0
    for evaluation in evaluations:
        if best is None or evaluation.goodness > best.goodness:
            best = evaluation
        better = _rivals(evaluation, best) and (
            kept is None or not _rivals(kept, best) or _order(evaluation) > _order(kept)
        )
        kept, changes, unimproved = (
            (evaluation, changes + 1, 0) if better else (kept, changes, unimproved + 1)
        )
    if best is None or kept is None:
        return None
    rivals = sum(_rivals(evaluation, best) for evaluation in evaluations)
    return Selection(kept, rivals, unimproved, changes)


def _rivals(evaluation: Evaluation, best: Evaluation) -> bool:
    return evaluation.goodness >= best.goodness - best.error


def _order(evaluation: Evaluation) -> tuple[float, float]:
    return -evaluation.loss, evaluation.goodness


def describe_selection(
    selection: Selection, score: str, evaluations: int, examples: int
) -> tuple[str, dict[str, Any]]:
    """Describes what was kept and why, in a sentence and for JSON.

    Args:
        selection: the run's.
        score: the name of the score that chooses.
        evaluations: how many there were.
        examples: those of the validation split.
    """
    kept, rivals = selection.kept, selection.rivals
    by = "loss" if score == "loss" or rivals > 1 else "score"
    margin = _INTERVAL * kept.error
    as_json = {
        "step": kept.step,
        "by": by,
        "evaluations": evaluations,
        "rivals": rivals,
        "examples": examples,
        "interval": None if score == "loss" else margin,
    }
    said = f"kept step {kept.step} of {counted(evaluations, 'evaluation')}"
    if score == "loss":
        return f"{said}, the one with the lowest loss on {counted(examples, 'example')}", as_json
    known = f"{counted(examples, 'validation example')} know {score} to ± {margin:.2g}"
    if margin > 1e300:
        known = f"{counted(examples, 'validation example')} leave {score} undefined"
    if by == "score":
        return f"{said}, the best by {score} ({known})", as_json
    return (
        f"{said} by its loss, the lowest among the {rivals} whose {score} is within chance of the"
        f" best ({known})"
    ), as_json
