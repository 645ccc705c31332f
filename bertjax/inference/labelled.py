"""Predictions of a fine-tuned model on texts, and its scores on labelled files or rows."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.config import BertConfig
from bertjax.inference.task_outputs import make_inference, predict_examples
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.stages import Stage, StageProgress, Stages, ignore_stages
from bertjax.tasks import data_format
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.reading import task_of_model
from bertjax.tasks.rows_in_memory import read_given_examples
from bertjax.tasks.scoring import Predicted, check_known_labels, evaluate_predictions
from bertjax.tasks.tagging_schemes import Scheme
from bertjax.tasks.task import Task
from bertjax.text.given_texts import read_parts


class Labelled(NamedTuple):
    """Labelled examples of a model's task.

    Attributes:
        task: the model's.
        examples: what its reader returns.
        names: of the files, `memory:data` for rows.
        notes: a sentence for everything that was not read as it was given.
    """

    task: Task
    examples: list[Any]
    names: list[str]
    notes: list[str]


def task_of(model: Model, scheme: Scheme | None = None) -> Task:
    """Returns the task that a model is fitted to.

    Args:
        model: of any class.
        scheme: how tags mark entities; left out, as the model's directory says.

    Raises:
        UserError: the model has no head of a supervised task.
    """
    scheme = scheme or (
        data_format.recall(model.directory).get("scheme") if model.directory else None
    )
    try:
        return _make_task(model.config, model.architecture, scheme)
    except UserError as error:
        raise UserError(f"{model.directory or 'the model'}: {error}") from None


# Of equal models and schemes there is one, for which `make_inference` compiles once.
@functools.lru_cache(maxsize=16)
def _make_task(config: BertConfig, architecture: str, scheme: Scheme | None) -> Task:
    return task_of_model(config, architecture, scheme)


def read_labelled(model: Model, data: Any, reading: DataConfig | None = None) -> Labelled:
    """Reads labelled files or rows for the task that a model is fitted to.

    Args:
        model: the model.
        data: files in any format that `bertjax finetune` reads, or rows.
        reading: how they are read; left out, as the model was fitted.

    Raises:
        UserError: the model is fitted to nothing, or the data are not of its task.
    """
    reading = reading or _remembered(model)
    task = task_of(model, reading.scheme)
    examples, notes, names = read_given_examples(task.name, reading, data)
    check_known_labels(task, examples)
    return Labelled(task, examples, names, notes)


def predict(
    model: Model, texts: Any, progress: Callable[[float], None] = lambda done: None
) -> tuple[list[Any], list[str]]:
    """Predicts for texts; returns also a sentence for what was not read as it was given.

    Args:
        model: fitted to a task.
        texts: each a text, or several: a pair; question and context; a context and its choices. Or
            rows, as `bertjax.finetune` takes them, without labels.
        progress: called with the number of texts done since the last call.

    Returns:
        For each text a NamedTuple, that of the task (`Task.prediction`).

    Raises:
        UserError: the model is fitted to nothing, or a text that its task does not take.
    """
    task = task_of(model)
    notes: list[str] = []
    if isinstance(texts, Iterable) and not _has_columns(texts):
        texts = [texts] if isinstance(texts, str) else list(texts)
    if isinstance(texts, list) and all(isinstance(text, str | tuple | list) for text in texts):
        places = [f"text {number}" for number in range(1, len(texts) + 1)]
        parts = [read_parts(text, place) for text, place in zip(texts, places, strict=True)]
        for place, text in zip(places, parts, strict=True):
            if any("\t" in part for part in text):
                raise UserError(f"{place}: has a tab, which separates texts; give a tuple of texts")
        examples = task.examples_of_lines(["\t".join(text) for text in parts], places)
    else:
        examples, notes, _ = read_given_examples(
            task.name, _remembered(model), texts, with_labels=False
        )
    predicted = predict_read(model, task, examples, progress=progress)
    predictions = [task.prediction(**fields) for fields in predicted.predictions]
    return predictions, [*notes, *predicted.notes]


def predict_read(
    model: Model,
    task: Task,
    examples: Sequence[Any],
    max_length: int | None = None,
    progress: Callable[[float], None] = lambda done: None,
) -> Predicted:
    """Predicts for examples as the task's reader returns them.

    Args:
        model: fitted to the task.
        task: the model's.
        examples: with or without labels.
        max_length: longest sequence in tokens; the model's positions when left out.
        progress: called with the number of examples done since the last call.
    """
    return predict_examples(
        make_inference(model.module, task, model.tokenizer.pad_id, model.mesh),
        {"params": model.params},
        task,
        examples,
        model.tokenizer,
        max_length or model.config.max_length,
        progress,
    )


def evaluate(
    model: Model,
    data: Any,
    resamples: int = 300,
    progress: Callable[[float], None] = lambda done: None,
) -> tuple[dict[str, Any], list[str]]:
    """Scores a model on labelled data; returns also a note for what was not read as it was given.

    Args:
        model: fitted to a task.
        data: files in any format that `bertjax finetune` reads, or rows; their columns are
            recognised as when the model was fitted.
        resamples: of the bootstrap for the intervals; 0 = none.
        progress: called with the number of examples done since the last call.

    Raises:
        UserError: the model is fitted to nothing, or the data are not of its task.
    """
    labelled = read_labelled(model, data)

    def report(stage: Stage, done: float) -> None:
        if stage.number == 1:
            progress(done)

    scores, notes = evaluate_read(model, labelled, resamples, progress=report)
    return scores, [*labelled.notes, *notes]


def evaluate_read(
    model: Model,
    labelled: Labelled,
    resamples: int = 300,
    max_length: int | None = None,
    progress: StageProgress = ignore_stages,
) -> tuple[dict[str, Any], list[str]]:
    """Scores a model on examples that were read (`read_labelled`).

    Args:
        model: fitted to the task of the examples.
        labelled: the examples.
        resamples: of the bootstrap for the intervals; 0 = none.
        max_length: longest sequence in tokens; the model's positions when left out.
        progress: called for two stages: with examples, then with resamples.

    Returns:
        `data`, `task`, `labels` of a model with classes, and what `evaluate_predictions` returns.
    """
    task, examples = labelled.task, labelled.examples
    stages = Stages(1 + bool(resamples), progress)
    step = stages.begin("predicting", len(examples))
    predicted = predict_read(model, task, examples, max_length, step)
    step = stages.begin("resampling", resamples) if resamples else step
    scores = evaluate_predictions(task, examples, predicted, resamples, step)
    labels = task.model_fields().get("id2label")
    about = {"data": labelled.names, "task": task.name} | ({"labels": [*labels]} if labels else {})
    return {**about, **scores}, predicted.notes


def _remembered(model: Model) -> DataConfig:
    """Returns how the files were read that the model was fitted on."""
    return data_format.join(data_format.recall(model.directory) if model.directory else {}, {})


def _has_columns(texts: Any) -> bool:
    """Returns whether these are a table, whose items are not its rows."""
    return isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "features")
