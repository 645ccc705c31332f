"""A model's scores on labelled examples, as training, `evaluate` and `predict` all take them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bertjax.tasks.inference import Inference
from bertjax.tasks.task import Prediction, Task
from bertjax.text.tokenizer import Tokenizer


class Predicted(NamedTuple):
    """What a model says of examples.

    Attributes:
        predictions: one an example.
        loss: mean over what has a label; 0 where nothing has.
        notes: a sentence for everything that was cut.
        seconds: what it took, encoding included.
    """

    predictions: list[Prediction]
    loss: float
    notes: list[str]
    seconds: float


def predict_examples(
    inference: Inference,
    variables: Any,
    task: Task,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    max_length: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Predicted:
    """What the model says of every example.

    Args:
        inference: of the model.
        variables: the model's collections.
        task: of the model.
        examples: as the task's reader gives them.
        tokenizer: of the model.
        max_length: longest sequence in tokens.
        progress: is called with the number of units done since the call before.
    """
    started = time.perf_counter()
    encoded = task.encode(examples, tokenizer, max_length, training=False)
    outputs = inference.run(variables, encoded.units, progress)
    predictions = task.decode(examples, encoded.units, outputs.logits)
    loss = float(outputs.loss.mean())
    return Predicted(predictions, loss, encoded.notes, time.perf_counter() - started)


def single_scores(scores: Mapping[str, Any]) -> dict[str, float]:
    """Those of the scores that are one number."""
    return {
        name: float(value)
        for name, value in scores.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def describe_task_scores(scores: Mapping[str, float]) -> str:
    """The scores in one line."""
    return ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
