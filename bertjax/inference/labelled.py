"""What a fine-tuned model says of texts and of labelled files, and how good it is at them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bertjax.inference.task_outputs import Inference, predict_examples
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.tasks import data_format
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.reading import task_of_model
from bertjax.tasks.rows_in_memory import read_given_examples
from bertjax.tasks.scoring import Predicted, check_known_labels, evaluate_predictions
from bertjax.tasks.significance import ComparedModels, compare_evaluations
from bertjax.tasks.task import Task


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
    model: Model, texts: Any, progress: Callable[[float], None] = lambda done: None
) -> tuple[list[Any], list[str]]:
    """What the model says of texts, and a sentence for what was not read as it was given.

    Args:
        model: fitted to a task.
        texts: each a text, or several: a pair; question and context; a context and its choices. Or
            rows, as `bertjax.finetune` takes them, without labels.
        progress: is called with the number of texts done since the call before.

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
        parts = [(text,) if isinstance(text, str) else tuple(text) for text in texts]
        places = [f"text {number}" for number in range(1, len(parts) + 1)]
        for place, text in zip(places, parts, strict=True):
            if any("\t" in part for part in text):
                raise UserError(f"{place}: has a tab, which separates texts; give a tuple of texts")
        examples = task.examples_of_lines(["\t".join(text) for text in parts], places)
    else:
        examples, notes, _ = read_given_examples(
            task.name, _remembered(model), texts, with_labels=False
        )
    predicted = _predict(model, task, examples, progress)
    found = [task.prediction(**one) for one in predicted.predictions]
    return found, [*notes, *predicted.notes]


def evaluate(
    model: Model,
    data: Any,
    resamples: int = 300,
    progress: Callable[[float], None] = lambda done: None,
) -> tuple[dict[str, Any], list[str]]:
    """The scores of a model on labelled data, and what there is to tell of the data.

    Args:
        model: fitted to a task.
        data: files in any format that `bertjax finetune` reads, or rows; their columns are found as
            the model was fitted.
        resamples: of the bootstrap for the intervals; 0 = none.
        progress: is called with the number of examples done since the call before.

    Raises:
        UserError: the model is fitted to nothing, or the data are not of its task.
    """
    task = task_of(model)
    examples, notes, names = read_given_examples(task.name, _remembered(model), data)
    check_known_labels(task, examples)
    predicted = _predict(model, task, examples, progress)
    found = evaluate_predictions(task, examples, predicted, resamples)
    return {"data": names, "task": task.name, **found}, [*notes, *predicted.notes]


def compare(
    first: Model, second: Model, data: Any, level: float = 0.05
) -> tuple[ComparedModels, list[str]]:
    """Tests whether the second model is better than the first on labelled data (`evaluate`).

    Raises:
        UserError: what `evaluate` raises, or the models are fitted to other tasks.
    """
    (a, notes), (b, more) = (evaluate(model, data, resamples=0) for model in (first, second))
    return compare_evaluations(a, b, level=level), [*notes, *(n for n in more if n not in notes)]


def _remembered(model: Model) -> DataConfig:
    """How files are read as those that the model was fitted on."""
    return data_format.join(data_format.recall(model.directory) if model.directory else {}, {})


def _has_columns(texts: Any) -> bool:
    """Whether it is a table, whose items are not its rows."""
    return isinstance(texts, Mapping) or hasattr(texts, "columns") or hasattr(texts, "features")


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
