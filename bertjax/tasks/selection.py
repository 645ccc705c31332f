"""Which checkpoint of a run is kept: the best by its score, and by the loss where chance decides.

A validation split of 40 examples knows an accuracy to about 0.1. Of checkpoints whose scores are
equal, or closer to the best than that, the one with the lowest loss is kept: the loss sees how sure
the model is of every example, where the score counts only on which side it falls.
"""

import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bertjax.program.wording import counted
from bertjax.tasks.scoring import goodness
from bertjax.tasks.task import Prediction, Task

# Draws of the bootstrap. So many know a standard error to 7 %.
_DRAWS = 100

# Standard errors to either side of a score that make its 95 % interval.
_INTERVAL = 1.96


class Evaluation(NamedTuple):
    """What one evaluation says of a checkpoint; all of it numbers that JSON can hold.

    Attributes:
        step: of the checkpoint.
        goodness: its score so that higher is better (`scoring.goodness`).
        loss: on the validation split.
        error: the standard error of the score; 0 where the score is the loss itself.
    """

    step: int
    goodness: float
    loss: float
    error: float


class Selection(NamedTuple):
    """The checkpoint that is kept, and what decided.

    Attributes:
        kept: its evaluation.
        rivals: how many evaluations have a score that chance may have put below or above the best
            one, the best one included.
        unimproved: evaluations since the one that is kept.
        changes: how often another one was kept.
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
    """What an evaluation says of a checkpoint.

    Args:
        step: of the checkpoint.
        score: the name of the score that chooses.
        loss: on the validation split.
        scores: of the task on it.
        task: of the model.
        examples: of the validation split.
        predictions: of the model.
    """
    good = goodness(score, {"loss": loss, **scores})
    loss = loss if math.isfinite(loss) else sys.float_info.max
    if score == "loss":
        return Evaluation(step, -loss, loss, 0.0)
    return Evaluation(step, good, loss, standard_error(score, task, examples, predictions))


def standard_error(
    score: str, task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> float:
    """How far the score may be from that of all examples there are, by the bootstrap.

    Of a score with a bound, such as accuracy, it is at least what one example adds: a bootstrap of
    ten right answers out of ten knows of no error.

    Returns:
        The standard deviation over draws with repetition; as large as a number can be where most
        draws leave the score undefined.
    """
    resampled = task.resampler(examples, predictions)
    random = np.random.default_rng(0)
    drawn = [
        resampled(random.integers(len(examples), size=len(examples)))[score] for _ in range(_DRAWS)
    ]
    values = [value for value in drawn if value is not None and math.isfinite(value)]
    if len(values) <= _DRAWS / 2:
        return sys.float_info.max
    return max(statistics.pstdev(values), _scale(score, task) / len(examples))


def _scale(score: str, task: Task) -> float:
    """The width of a score's range; 0 where it has no bound."""
    return 0.0 if score.endswith("mse") else task.score_scale


def select(evaluations: Sequence[Evaluation]) -> Selection | None:
    """Which of the evaluated checkpoints is kept, as it follows from their order.

    A checkpoint is a rival where its score is within a standard error of the best score so far
    (the one-standard-error rule of Breiman et al. 1984, section 3.4.3, which takes the simplest
    of such models where this takes the one with the lowest loss). It is kept when the one kept
    before is no rival any more, or has a higher loss. What is not kept is gone: it does not come
    back when the best score changes.

    Args:
        evaluations: of a run, in their order.

    Returns:
        None without any.
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
    """What was kept and why, in a sentence and for JSON.

    Args:
        selection: of the run.
        score: the name of the score that chooses.
        evaluations: how many there were.
        examples: of the validation split.
    """
    kept, rivals = selection.kept, selection.rivals
    by = "loss" if score == "loss" or rivals > 1 else "score"
    margin = _INTERVAL * kept.error
    told = {
        "step": kept.step,
        "by": by,
        "evaluations": evaluations,
        "rivals": rivals,
        "examples": examples,
        "interval": None if score == "loss" else margin,
    }
    said = f"kept step {kept.step} of {counted(evaluations, 'evaluation')}"
    if score == "loss":
        return f"{said}, the one with the lowest loss on {counted(examples, 'example')}", told
    known = f"{counted(examples, 'validation example')} know {score} to ± {margin:.2g}"
    if margin > 1e300:
        known = f"{counted(examples, 'validation example')} leave {score} undefined"
    if by == "score":
        return f"{said}, the best by {score} ({known})", told
    return (
        f"{said} by its loss, the lowest among the {rivals} whose {score} is within chance of the"
        f" best ({known})"
    ), told
