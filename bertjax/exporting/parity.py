"""Whether what was exported answers as the model does, before anybody uses it."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bertjax.config import BertConfig
from bertjax.exporting.asking import Question, ask_both
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.loaded import Model
from bertjax.text.framing import TokenSequence
from bertjax.verification.examples import LONGEST, draw_examples


def draw_questions(config: BertConfig, choices: int = 1) -> list[Question]:
    """Draws token sequences of three lengths, which a window does not take in whole.

    Args:
        config: of the model.
        choices: sequences of a question.
    """
    longest = max(LONGEST, 3 * (config.window or 0))
    sequences = []
    for token_ids, types in draw_examples(config, longest):
        start = int(types.argmax()) if types.any() else len(token_ids)
        sequences.append(TokenSequence(token_ids, start))
    return [sequences[place : place + choices] for place in range(0, len(sequences), choices)]


def measure_difference(
    model: Model, steps: SentenceModel, exported: Callable[[Mapping[str, Any]], Any]
) -> dict[str, float]:
    """Returns the largest difference of each output, of sequences that are drawn.

    Args:
        model: the model.
        steps: how a body makes vectors of texts.
        exported: what was exported, from inputs by name to outputs by name.

    Returns:
        By the name of the output, as a share of its largest value where that is above 1; NaN where
        there is one in either.
    """
    questions = draw_questions(model.config, choices=2 if model.kind == "choice" else 1)
    largest: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for expected, actual in ask_both(model, steps, exported, questions):
        for name, values in expected.items():
            gap = np.abs(actual[name] - values).max(initial=0)
            largest[name] = float(np.maximum(largest.get(name, 0.0), gap))
            sizes[name] = float(np.maximum(sizes.get(name, 1.0), np.abs(values).max(initial=0)))
    return {name: gap / sizes[name] for name, gap in largest.items()}
