"""The gate before a release: a new model measured beside the old one, and judged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from bertjax.gating.confidences import judge_confidences, judge_of
from bertjax.gating.decision import decide
from bertjax.gating.quantities import (
    Answered,
    measure,
    sample_examples,
    sample_times,
    spoil,
)
from bertjax.gating.requirements import Requirement, read_requirement
from bertjax.gating.robustness import change_examples, find_flips, kinds_for
from bertjax.gating.speed import ROUNDS, Contender, time_in_turns
from bertjax.gating.terms import (
    EXACT,
    KINDS,
    LEAST_RESAMPLES,
    RESAMPLES,
    SPEED,
    SPEED_TEXTS,
    UNITS,
)
from bertjax.gating.verdict import NAMES, Side, Verdict
from bertjax.inference.labelled import Labelled, task_of
from bertjax.interop.checkpoint_files import find_tensors
from bertjax.interop.huggingface import inspect_model_directory
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.stages import StageProgress, Stages, ignore_stages
from bertjax.tasks.scoring import check_known_labels, evaluate_predictions, slice_examples
from bertjax.tasks.significance import compare_evaluations, compare_paired
from bertjax.tasks.task import Task


def gate(
    new: Model,
    old: Model,
    labelled: Labelled,
    requirements: Sequence[str],
    *,
    columns: Sequence[str] = (),
    resamples: int = RESAMPLES,
    speed_texts: int = SPEED_TEXTS,
    max_length: int | None = None,
    seed: int = 0,
    progress: StageProgress = ignore_stages,
) -> Verdict:
    """Measures a new model beside an old one on labelled examples, and judges it.

    Args:
        new: the model that is to be released, from a directory.
        old: the one that it is to replace, for the same task, from a directory.
        labelled: examples that neither was fitted on (`read_labelled` of the new model).
        requirements: as of `requirements`.
        columns: of the examples' files, whose values are slices.
        resamples: of the bootstrap.
        speed_texts: of how many examples the times are measured; 0 = of none.
        max_length: longest sequence in tokens; each model's positions when left out.
        seed: of changes to texts, and of resamples.
        progress: called for every stage as it proceeds.

    Raises:
        UserError: the models are not for the same task and labels, one is in memory only, a
            requirement cannot be read, there is no such column, or too few resamples; nothing was
            measured then.
    """
    if resamples < LEAST_RESAMPLES:
        raise UserError(f"--resamples {resamples} must be at least {LEAST_RESAMPLES}")
    task, examples = labelled.task, labelled.examples
    contenders = [
        Contender(new, task, max_length),
        Contender(old, _same_task(task, old, examples), max_length),
    ]
    read = read_requirements(task, requirements, speed_texts)
    slices = slice_examples(examples, columns)
    sizes = [_measure_size(contender.model) for contender in contenders]
    if len(examples) < 2:
        raise UserError(f"{', '.join(labelled.names)}: one example; give more to judge a model by")
    kinds = kinds_for(task.name)
    timed = examples[:: max(1, len(examples) // speed_texts)][:speed_texts] if speed_texts else []
    stages = Stages(2 + bool(timed) + bool(kinds), progress)
    step = stages.begin("predicting", 2 * len(examples))
    predicted = [contender.predict(examples, step) for contender in contenders]
    flips: list[dict[str, Bool[np.ndarray, " n"]]] = [{}, {}]
    if kinds:
        step = stages.begin("changing texts", 2 * len(kinds) * len(examples))
        for kind in kinds:
            changed = change_examples(examples, kind, seed)
            for own, contender, before in zip(flips, contenders, predicted, strict=True):
                after = contender.predict(changed, step)
                own[kind] = find_flips(before.predictions, after.predictions)
    times: Sequence[Any] = [None, None]
    if timed:
        step = stages.begin("measuring times", len(contenders) * len(timed) * (1 + ROUNDS))
        times = time_in_turns(contenders, timed, step)
    step = stages.begin("resampling", 2 * resamples)
    sides = []
    for contender, said, own, taken, size in zip(
        contenders, predicted, flips, times, sizes, strict=True
    ):
        answered = Answered(contender.task, examples, said.predictions, slices, own)
        samples = [sample_examples(answered)]
        if taken is not None:
            samples.append(sample_times(taken))
        measured = measure(samples, size, spoil(answered), resamples, seed, step)
        scores = evaluate_predictions(contender.task, examples, said, resamples=0)
        evaluation = {"task": task.name, "data": labelled.names, **scores}
        confidences = judge_confidences(contender.task, examples, said.predictions)
        sides.append(Side(evaluation, measured, confidences))
    new_side, old_side = sides
    about = {
        **{name: _describe(one.model) for name, one in zip(NAMES, contenders, strict=True)},
        "task": task.name,
        "data": labelled.names,
        "examples": len(examples),
        "resamples": resamples,
        "speed_texts": len(timed),
        "seed": seed,
    }
    return Verdict(
        about,
        [decide(one, new_side.measured, old_side.measured) for one in read],
        new_side,
        old_side,
        compare_evaluations(old_side.evaluation, new_side.evaluation, NAMES[::-1]),
        _compare_slices(sides, slices),
        [
            f"{name}: {note}"
            for name, one in zip(NAMES, predicted, strict=True)
            for note in one.notes
        ],
    )


def read_requirements(task: Task, texts: Sequence[str], speed_texts: int) -> list[Requirement]:
    """Reads requirements on a model for a task.

    Args:
        task: of both models.
        texts: as they were written.
        speed_texts: of how many texts the times are measured; 0 = of none.

    Raises:
        UserError: one is not in the language, or names what there is not.
    """
    kinds = kinds_for(task.name)
    known = {*task.score_names, "worst_slice", *EXACT}
    lacking = {}
    for name in UNITS.keys() - known:
        if name in SPEED:
            reason = "" if speed_texts else "no times are measured with --speed-texts 0"
        elif name in ("calibration_error", "brier"):
            has = judge_of(task) is not None
            reason = "" if has else f"answers of {task.name} have no probabilities of right ones"
        elif not kinds:
            reason = "the answers are numbers, which do not flip"
        else:
            kind = name.removeprefix("flips_")
            has = kind not in KINDS or kind in kinds
            reason = "" if has else f"words of {task.name} are separate already"
        if reason:
            lacking[name] = reason
        else:
            known.add(name)
    return [read_requirement(text, known, lacking) for text in texts]


def _same_task(task: Task, old: Model, examples: Sequence[Any]) -> Task:
    """Returns the task of the old model, once it is that of the new one."""
    its = task_of(old, getattr(task, "scheme", None))
    both = [one.model_fields().get("id2label", ()) for one in (task, its)]
    same_labels = task.name == "regression" or {*both[0]} == {*both[1]}
    same_scores = {*task.score_names} == {*its.score_names}
    if its.name != task.name or not same_labels or not same_scores:
        told = both if not same_labels else [one.score_names for one in (task, its)]
        has = [f" ({', '.join(names)})" if names else "" for names in told]
        raise UserError(
            f"the new model is for {task.name}{has[0]}, and {old.directory}, the old one, for"
            f" {its.name}{has[1]}; a gate is between models for one task"
        )
    check_known_labels(its, examples)
    return its


def _measure_size(model: Model) -> dict[str, float]:
    """Returns how large a model is in its directory.

    Raises:
        UserError: it is in memory only, or has changed there.
    """
    if model.directory is None:
        raise UserError("a model that is in memory only has no size on the disk; save it first")
    if model.is_changed:
        raise UserError(
            f"{model.directory}: the model was changed in memory since it was read, and its size on"
            " the disk is that of what it was; save it first, and load what is saved"
        )
    if model.is_exported:
        exported = model.module
        return {"parameters": float(exported.parameters), "bytes": float(exported.session.bytes)}
    files = {tensor.file for tensor in find_tensors(model.directory).values()}
    return {
        "parameters": float(inspect_model_directory(model.directory).parameters),
        "bytes": float(sum(file.stat().st_size for file in files)),
    }


def _compare_slices(
    sides: Sequence[Side], slices: dict[str, Bool[np.ndarray, " n"]]
) -> dict[str, dict[str, Any]]:
    """Returns both models' mean outcome in each slice, with the interval of the difference."""
    new, old = (np.array(side.evaluation["outcomes"]) for side in sides)
    compared = {}
    for name, here in slices.items():
        pair = compare_paired(old[here], new[here], resamples=1000) if here.sum() > 1 else None
        compared[name] = {
            "examples": int(here.sum()),
            "new": float(new[here].mean()),
            "old": float(old[here].mean()),
            "difference": float((new - old)[here].mean()),
            "interval": list(pair.interval) if pair else None,
        }
    return compared


def _describe(model: Model) -> dict[str, Any]:
    temperature = model.calibration.get("temperature")
    return {
        "model": str(model.directory),
        "architecture": model.architecture,
        "engine": model.engine,
        "dtype": model.dtype,
        **({"temperature": temperature} if temperature else {}),
    }
