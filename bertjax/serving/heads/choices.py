"""Whether a text follows another, and which of several fits best."""

from collections.abc import Sequence

import numpy as np

from bertjax.serving.served import AS_CONFIGURED, Cut, Served
from bertjax.tasks.multiple_choice import ChoicePrediction
from bertjax.tasks.task import softmax


async def follows(
    served: Served, pairs: Sequence[tuple[str, str]], cut: Cut = AS_CONFIGURED
) -> list[float]:
    """Returns the probability that the second text of each pair follows the first."""
    logits = await served.run_texts("next-sentence", list(pairs), cut)
    return [float(softmax(one)[0]) for one in logits]


async def choose(
    served: Served, context: str, choices: Sequence[str], cut: Cut = AS_CONFIGURED
) -> ChoicePrediction:
    """Returns the number of the choice that fits the context best, and all probabilities."""
    scores = await served.run_texts("choice", [(context, choice) for choice in choices], cut)
    probabilities = softmax(np.array(scores))
    return ChoicePrediction(int(probabilities.argmax()), probabilities.tolist())
