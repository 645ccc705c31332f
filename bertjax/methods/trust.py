"""Methods of `Model` that say how far it is to be trusted, and one that mends its probabilities."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.methods.arguments import check_lengths, check_model, listed, warn_of
from bertjax.program.stages import StageProgress, Stages, ignore_stages
from bertjax.text.given_texts import place_texts, read_tuples

if TYPE_CHECKING:
    from bertjax.drift.comparison import Drift
    from bertjax.gating.verdict import Verdict
    from bertjax.loaded import Model
    from bertjax.tasks.evaluation import Evaluation
    from bertjax.tasks.significance import ComparedModels
    from bertjax.verification.checks import Check


def evaluate(
    model: "Model",
    data: Any,
    resamples: int = 300,
    progress: Callable[[float], None] = lambda done: None,
) -> "Evaluation":
    """Returns the scores of `bertjax evaluate`, with intervals.

    Args:
        data: of a fine-tuned model labelled files or rows, as `bertjax.finetune` takes them; of
            a masked LM texts or pairs, of which 15 % of the tokens are masked.
        resamples: of the bootstrap over labelled examples; 0 = no intervals.
        progress: called with the number of examples done since the last call.

    Returns:
        A dict of scores, shares of 1 and losses in nats, with 95 % intervals over examples.

    Raises:
        UserError: the model has no head, or the data are not of its task.
    """
    from bertjax.tasks.evaluation import Evaluation

    if model.restores_words:
        from bertjax.analysis.heads.masked_scores import evaluate_texts

        scores, notes = evaluate_texts(model, place_texts(data), progress=progress)
        scores = {"data": ["memory:data"], **scores}
    else:
        from bertjax.inference.labelled import evaluate

        scores, notes = evaluate(model, data, resamples, progress)
    warn_of(notes)
    return Evaluation(scores)


def compare(model: "Model", other: "Model", data: Any, level: float = 0.05) -> "ComparedModels":
    """Returns whether another model (B) is better than this one (A) on the same examples.

    Args:
        other: the model to compare with, of the same task.
        data: as of `evaluate`.
        level: of significance, 0 to 1.

    Returns:
        The difference B - A with its interval, the p-value of a paired test, and the verdict.

    Raises:
        UserError: `other` is no `Model`, the models have other tasks, or there are fewer than 2
            examples.
    """
    from bertjax.tasks.significance import compare_evaluations

    check_model(other, model)
    a, b = (one.evaluate(data, resamples=0) for one in (model, other))
    return compare_evaluations(a, b, level=level)


def calibrate(
    model: "Model",
    data: Any,
    max_length: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> "Model":
    """Returns the model with a temperature that makes its probabilities the likeliest on examples.

    The logits of its head are divided by it; the most probable answer stays. `Model.calibration` is
    what is known of it, and `save` keeps it.

    Args:
        data: labelled files or rows, as of `evaluate`, that the model was not fitted on; measure it
            on others.
        max_length: longest sequence in tokens; the model's positions when left out.
        progress: called with the number of examples done since the last call, each of them twice.

    Raises:
        UserError: the model is not for classes, tags or choices, it has not that many positions, or
            the examples say nothing of a temperature: all answers are right, for instance.

    Source: Guo et al. 2017, section 4.2.
    """
    from bertjax.inference.calibration import calibrate
    from bertjax.inference.labelled import read_labelled

    check_lengths(max_length, model)
    labelled = read_labelled(model, data)
    warn_of(labelled.notes)
    calibrated, _ = calibrate(model, labelled, max_length, progress)
    return calibrated


def gate(
    model: "Model",
    against: "Model",
    data: Any,
    require: Sequence[str] = (),
    *,
    slices: Sequence[str] = (),
    output: Path | str | None = None,
    resamples: int = 2000,
    speed_texts: int = 100,
    max_length: int | None = None,
    seed: int = 0,
    progress: StageProgress = ignore_stages,
) -> "Verdict":
    """Returns whether the model may take the place of another one, by requirements on both.

    Measured are scores, calibration, slices, robustness to changed texts, size and speed. A
    requirement is met where it holds with 95 % confidence (one-sided), not where it happens to hold
    on these examples.

    Args:
        against: the model that is in use, for the same task and labels. Both are directories as
            they were loaded: what is to be released has files.
        data: labelled files or rows, as of `evaluate`, that neither model was fitted on.
        require: comparisons such as "macro_f1 >= old - 0.01", in which a name is a quantity of this
            model and `old` the same of the other; none = all is measured.
        slices: columns of the data, each of whose values is a slice, beside those by length and
            label.
        output: a folder for report.html, numbers.json and the figures; none of them when left out.
        resamples: of the bootstrap, at least 100.
        speed_texts: of how many texts the times are measured, the models in turns; 0 = none.
        max_length: longest sequence in tokens; each model's positions when left out.
        seed: of the changes to texts, and of the resamples.
        progress: called for every stage as it proceeds (`program.stages`).

    Returns:
        A `Verdict`: `passed`, `unmet`, and the `quantities` of both models with 95 % intervals.

    Raises:
        UserError: models of different tasks, or one that was changed in memory; a requirement that
            cannot be read; no such column; or a folder that cannot be written.

    Source: Efron & Tibshirani 1993, chapter 14 (the intervals).
    """
    from bertjax.gating.gate import gate
    from bertjax.gating.page import write_page
    from bertjax.inference.labelled import read_labelled
    from bertjax.program.outputs import check_output

    check_model(against, model, "against")
    check_lengths(max_length, model, against)
    required, columns = listed(require, "require"), listed(slices, "slices")
    if output is not None:
        check_output(output, folder=True)
    labelled = read_labelled(model, data)
    verdict = gate(
        model,
        against,
        labelled,
        required,
        columns=columns,
        resamples=resamples,
        speed_texts=speed_texts,
        max_length=max_length,
        seed=seed,
        progress=progress,
    )
    warn_of([*labelled.notes, *verdict.notes])
    if output is not None:
        write_page(verdict, labelled.task, output)
    return verdict


def drift(
    model: "Model",
    reference: Sequence[Any],
    texts: Sequence[Any],
    alpha: float = 0.05,
    *,
    permutations: int = 1999,
    seed: int = 0,
    progress: StageProgress = ignore_stages,
) -> "Drift":
    """Returns whether texts, or what the model answers to them, differ from earlier ones.

    Compared are lengths, unknown words, kinds of characters, hidden states and answers, by
    permutation tests, as `bertjax drift` compares requests to a server.

    Args:
        reference: the earlier texts, or tuples of texts as the model's task takes them; such that
            the model was not fitted to.
        texts: the later ones. Of more than 2,000 either way as many are drawn.
        alpha: the chance, at most, that anything is said to have moved where nothing has, 0 to 1.
        permutations: of the texts, from which the p-values are.
        seed: of the permutations, and of the texts that are drawn.
        progress: called for two stages: with texts, then with the share that is compared.

    Returns:
        A `Drift`: `moved`, the names of what has moved, and `shifts`, with effects and p-values.

    Raises:
        UserError: too few texts to tell, with how many are needed; texts that the model does not
            take; or a chance that is none.

    Source: Westfall & Young 1993 (the adjusted p-values); Székely & Rizzo 2013 (the distances).
    """
    from bertjax.drift.comparison import check_level, compare
    from bertjax.drift.reference import ask_model, count_asked

    check_level(alpha)
    asked = {
        "reference": read_tuples(reference, "reference text"),
        "texts": read_tuples(texts),
    }
    stages = Stages(2, progress)
    step = stages.begin("answering", count_asked(asked))
    before, after = ask_model(model, asked, name="model", seed=seed, progress=step)
    result = compare(before, after, alpha, permutations, seed, stages.begin("comparing", 1))
    warn_of(result.notes)
    return result


def verify(model: "Model") -> list["Check"]:
    """Returns the checks of `bertjax verify` of the model as it is in memory.

    Each says whether it holds, and by how much at most: packing, padding, the order of a batch,
    devices, and where torch is installed transformers, must give the same answers.
    """
    import tempfile

    from bertjax.verification.checks import verify

    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        return list(verify(Path(folder) / "model"))
