"""What a fine-tuned model says of texts and of labelled files, and how good it is at them."""

from collections.abc import Callable, Sequence
from typing import Any

from bertjax.inference.task_outputs import Inference, predict_examples
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.tasks import data_format
from bertjax.tasks.reading import read_task_examples, task_of_model
from bertjax.tasks.scoring import Predicted, check_known_labels, evaluate_predictions
from bertjax.tasks.task import Task

Text = str | tuple[str, ...]


def task_of(model: Model) -> Task:
    """The task that a model is fitted to, tags read as its directory says.

    Raises:
        UserError: it has no head of a supervised task.
    """
    scheme = data_format.recall(model.directory).get("scheme") if model.directory else None
    try:
        return task_of_model(model.config, model.architecture, scheme)
    except UserError as error:
        raise UserError(f"{model.directory or 'the model'}: {error}") from None


def predict(
    model: Model, texts: Sequence[Text], progress: Callable[[float], None] = lambda done: None
) -> Predicted:
    """What the model says of texts.

    Args:
        model: fitted to a task.
        texts: each a text, or several: a pair; question and context; a context and its choices.
        progress: is called with the number of texts done since the call before.

    Raises:
        UserError: the model is fitted to nothing, or a text that its task does not take.
    """
    task = task_of(model)
    parts = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
    places = [f"text {number}" for number in range(1, len(parts) + 1)]
    for place, text in zip(places, parts, strict=True):
        if any("\t" in part for part in text):
            raise UserError(f"{place}: has a tab, which separates texts; give a tuple of texts")
    examples = task.examples_of_lines(["\t".join(text) for text in parts], places)
    return _predict(model, task, examples, progress)


def evaluate(
    model: Model,
    files: Sequence[str],
    resamples: int = 300,
    progress: Callable[[float], None] = lambda done: None,
) -> tuple[dict[str, Any], list[str]]:
    """The scores of a model on labelled files, and what there is to tell of the files.

    Args:
        model: fitted to a task.
        files: in any format that `bertjax finetune` reads; their columns are found as the model was
            fitted.
        resamples: of the bootstrap for the intervals; 0 = none.
        progress: is called with the number of examples done since the call before.

    Raises:
        UserError: the model is fitted to nothing, or the files are not of its task.
    """
    task = task_of(model)
    remembered = data_format.recall(model.directory) if model.directory else {}
    config = data_format.join(remembered, {})
    examples, notes = read_task_examples(task.name, list(files), config, with_labels=True)
    check_known_labels(task, examples)
    predicted = _predict(model, task, examples, progress)
    found = evaluate_predictions(task, examples, predicted, resamples)
    return {"task": task.name, **found}, [*notes, *predicted.notes]


def _predict(
    model: Model, task: Task, examples: Sequence[Any], progress: Callable[[float], None]
) -> Predicted:
    return predict_examples(
        Inference(model.module, task, model.tokenizer.pad_id, model.mesh),
        {"params": model.params},
        task,
        examples,
        model.tokenizer,
        model.config.max_position_embeddings,
        progress,
    )
