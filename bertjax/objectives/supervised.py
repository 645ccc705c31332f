"""The objective of a supervised task: its mean loss over the batch's targets."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jaxtyping import Array, Float, Integer, Key

from bertjax.objectives.losses import Total
from bertjax.types import TaskBatch


class SupervisedObjective:
    """A task's mean loss (`training.steps.Objective`).

    Args:
        model: of the class that the task names.
        loss: of (logits, batch): the sum, and its weight `batch.weights.sum()`.
        freeze: maps parameters to the same ones, with no gradient where they are frozen.
    """

    terms: Mapping[str, float] = MappingProxyType({"task": 1.0})

    def __init__(
        self,
        model: Any,
        loss: Callable[[Array, TaskBatch], Total],
        freeze: Callable[[Any], Any] = lambda params: params,
    ) -> None:
        self._model, self._loss, self._freeze = model, loss, freeze

    def prepare(
        self, batch: TaskBatch, progress: Float[Array, ""]
    ) -> tuple[TaskBatch, dict[str, Float[Array, ""]]]:
        """Returns the batch, and the weight of all its targets."""
        return batch, {"task": batch.weights.sum()}

    def totals(
        self,
        params: Any,
        statistics: Any,
        part: TaskBatch,
        row_ids: Integer[Array, " B"],
        dropout_key: Key[Array, ""] | None,
    ) -> tuple[dict[str, Total], Any]:
        """Returns the loss of some of the rows, and the running statistics after them."""
        training = dropout_key is not None
        output, statistics = self._model.apply(
            {"params": self._freeze(params), **statistics},
            *part[:5],
            row_ids=row_ids,
            dropout=training,
            rngs={"dropout": dropout_key} if training else {},
            mutable=list(statistics),
        )
        return {"task": self._loss(output.logits, part)}, dict(statistics)
