"""How long two models take for a text, measured in turns, so that both have the same machine."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.inference.labelled import predict_read
from bertjax.loaded import Model
from bertjax.tasks.scoring import Predicted
from bertjax.tasks.task import Task

# How often each text is answered; its time is the median of them.
ROUNDS = 3


class Contender(NamedTuple):
    """A model, its task, and the longest sequence in tokens."""

    model: Model
    task: Task
    max_length: int | None

    def predict(
        self, examples: Sequence[Any], progress: Callable[[float], None] = lambda done: None
    ) -> Predicted:
        """Answers as `bertjax predict` does."""
        return predict_read(self.model, self.task, examples, self.max_length, progress)


def time_in_turns(
    contenders: Sequence[Contender],
    examples: Sequence[Any],
    progress: Callable[[int], None] = lambda done: None,
) -> Float[np.ndarray, "contenders n"]:
    """Returns the milliseconds that each takes for each example alone.

    Every contender first answers all of them once, uncounted, so that everything is compiled. Then
    they take turns at each example, and begin by turns.

    Args:
        contenders: the models.
        examples: any number; tokenization, forward pass and decoding count.
        progress: called with the number of answers since the last call; there are
            `len(contenders) * len(examples) * (1 + ROUNDS)`.
    """
    for contender in contenders:
        for example in examples:
            contender.predict([example])
            progress(1)
    taken = np.zeros((ROUNDS, len(contenders), len(examples)))
    order = list(enumerate(contenders))
    for turn in range(ROUNDS):
        for number, example in enumerate(examples):
            order.reverse()
            for place, contender in order:
                started = time.perf_counter()
                contender.predict([example])
                taken[turn, place, number] = 1000 * (time.perf_counter() - started)
                progress(1)
    return np.median(taken, axis=0)
