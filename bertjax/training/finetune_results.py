"""What a fine-tuning run leaves at its end, and what several of them say together."""

import dataclasses
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bertjax.inference.task_outputs import Inference, predict_examples
from bertjax.loaded import load
from bertjax.pictures import Panel, draw_confusion_matrix, draw_panels, series_of
from bertjax.program.config_parser import to_yaml
from bertjax.program.outputs import write_json, write_whole
from bertjax.program.wording import counted
from bertjax.tasks.reading import TaskData
from bertjax.tasks.results import make_model_card, write_predictions
from bertjax.tasks.scoring import single_scores
from bertjax.tasks.task import Prediction
from bertjax.training.budget import Clock
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.metrics import MetricsWriter, read_metrics


def leave_results(
    run: Path,
    config: FinetuneConfig,
    data: TaskData,
    trained: Inference,
    facts: dict[str, Any],
    metrics: MetricsWriter,
) -> tuple[dict[str, Any], list[str]]:
    """Scores the best model on validation and test, and writes all that a run leaves.

    That is `predictions/` of the test split, the model card, `eval_results.json`, which says that
    the run is finished, and after all figures their pictures, `curves.png` and
    `confusion_matrix.png`.

    Args:
        run: its directory, with the best model in `model/`.
        config: of the run.
        data: its examples.
        trained: of the model as it was trained; its mesh and dtype are taken.
        facts: what else eval_results.json is to hold.
        metrics: gets the line of the test.

    Returns:
        The facts with the scores of both splits, and a note for each picture that is not there
        and for a model that learned nothing.
    """
    task, results, notes = data.task, dict(facts), []
    saved = load(run / "model", mesh=trained.mesh)
    tokenizer, module = saved.tokenizer, saved.module.clone(dtype=trained.model.dtype)
    inference = Inference(module, task, tokenizer.pad_id, trained.mesh)
    for split in ("validation", "test"):
        examples = getattr(data, split)
        if not examples:
            continue
        predicted = predict_examples(
            inference, {"params": saved.params}, task, examples, tokenizer, config.max_length
        )
        results[split] = {"loss": predicted.loss, **task.score(examples, predicted.predictions)}
        notes += describe_one_answer(split, examples, predicted.predictions)
    if data.test:  # the last one that was predicted
        timing = {"seconds": predicted.seconds}
        metrics.write(facts["steps"], "test", single_scores(results["test"]), timing)
        write_predictions(run / "predictions", task, data.test, predicted.predictions)
    card = make_model_card(
        saved.config, task, results, to_yaml(config), data.describe(config.data), config.model.init
    )
    write_whole(run / "model" / "README.md", card)
    write_json(run / "eval_results.json", results)
    notes += draw_curves(run / "curves.png", read_metrics(run / "metrics.jsonl"), facts["score"])
    matrix = results.get("test", {}).get("confusion_matrix")
    if isinstance(matrix, list):  # with several labels an example, each has one of its own
        path = run / "confusion_matrix.png"
        notes += draw_confusion_matrix(path, matrix, saved.config.id2label)
    return results, notes


def draw_curves(path: Path, lines: Sequence[Mapping[str, Any]], score: str) -> list[str]:
    """Draws the loss of training and validation over steps, below them score and learning rate.

    Args:
        path: of the picture.
        lines: of metrics.jsonl.
        score: the one that chose the checkpoint.

    Returns:
        As `pictures.draw_picture`.
    """
    train, validation = (
        [line for line in lines if line["split"] == split] for split in ("train", "validation")
    )
    losses = [series_of(train, "loss", "train"), series_of(validation, "loss", "validation")]
    panels = [Panel("loss", losses)]
    if score != "loss":
        panels.append(Panel(f"validation {score}", [series_of(validation, score)]))
    panels.append(Panel("learning rate", [series_of(train, "learning_rate")]))
    kept = [line["step"] for line in validation if line.get("kept")]
    return draw_panels(path, panels, {"kept": kept[-1]} if kept else {})


def describe_one_answer(
    split: str, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> list[str]:
    """Warns of a model that gives every example the same label: it has learned nothing.

    Args:
        split: of the examples.
        examples: of any task; those whose predictions are no labels are passed over.
        predictions: of the model.
    """
    right = {example.label for example in examples} if "label" in predictions[0] else set()
    said = {prediction.get("label") for prediction in predictions}
    if len(said) > 1 or len(right) < 2:
        return []
    count = sum(example.label in said for example in examples)
    return [
        f"warning: the model says {said.pop()!r} to all {len(examples):,} {split} examples, which"
        f" is right for {count:,} of them: it has learned nothing that tells them apart. Train"
        " longer (--budget.steps), or with a higher --optimizer.learning_rate"
    ]


def examples_per_second(run: Path, examples_a_step: float, steps: int, seconds: float) -> float:
    """Returns training examples a second, over the lines of the log; over all the time without any.

    Args:
        run: its directory.
        examples_a_step: the mean.
        steps: of the run.
        seconds: what they took, with the evaluations between them.
    """
    lines = [line for line in read_metrics(run / "metrics.jsonl") if line["split"] == "train"]
    intervals = np.diff([0, *(line["step"] for line in lines)])
    times = np.array([line["timing"]["seconds_a_step"] for line in lines])
    if not lines:
        return examples_a_step * steps / seconds
    return float(examples_a_step * np.sum(intervals) / (intervals * times).sum())


def describe_epochs(clock: Clock, steps_per_epoch: int) -> str:
    """Returns how many epochs the steps of a budget are; nothing where it is in minutes."""
    if clock.in_seconds:
        return ""
    epochs = clock.most_steps / steps_per_epoch
    return f" ({epochs:.3g} {'epoch' if epochs == 1 else 'epochs'})"


def describe_finished(run: Path, config: FinetuneConfig, steps: int) -> str:
    """Describes a run that has its results: with another budget, why it is not continued."""
    text = f"{run} is finished: {counted(steps, 'step')}; its model is in {run / 'model'}"
    then = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))["budget"]
    if then == dataclasses.asdict(config.budget):
        return text
    said = ", ".join(f"budget.{name}={value}" for name, value in then.items() if value is not None)
    return (
        f"{text}. Its budget was {said}; it has scored its best model, which is done once, and is"
        " not continued with another budget: for more training name a new --run directory"
    )


def summarize_seeds(
    run: Path, seeds: Sequence[int], report: Callable[[str], None]
) -> dict[str, Any]:
    """Writes and reports the mean and the standard deviation of every score over the seeds.

    They are over the seeds for which the score is defined; in `values` the others have null.
    """
    results_of_seeds = [
        json.loads((run / f"seed-{seed}" / "eval_results.json").read_text(encoding="utf-8"))
        for seed in seeds
    ]
    summary: dict[str, Any] = {"task": results_of_seeds[0]["task"], "seeds": list(seeds)}
    for split in ("validation", "test"):
        of_seeds = [single_scores(results.get(split, {})) for results in results_of_seeds]
        names = dict.fromkeys(name for scores in of_seeds for name in scores)
        summary[split] = {}
        for name in names:
            values = [scores.get(name) for scores in of_seeds]
            defined = [value for value in values if value is not None]
            mean = statistics.fmean(defined)
            deviation = statistics.stdev(defined) if len(defined) > 1 else None
            summary[split][name] = {
                "mean": mean, "standard_deviation": deviation, "values": values
            }  # fmt: skip
            spread = "" if deviation is None else f" +- {deviation:.4f}"
            few = f" ({len(defined)} of {len(values)} seeds)" if None in values else ""
            report(f"{split} {name} {mean:.4f}{spread}{few}")
    write_json(run / "eval_results.json", summary)
    return summary
