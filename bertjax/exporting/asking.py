"""The same texts put to a model and to what was exported of it, in the same batches."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from bertjax.architectures import ARCHITECTURES
from bertjax.exporting.answers import answering
from bertjax.inference.batches import WINDOW_TOKENS, Batching, Place, run
from bertjax.inference.shapes import Shape, Shapes
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.interop.signature import (
    ATTENTION_MASK,
    INPUT_IDS,
    TOKEN_TYPE_IDS,
    input_names,
    outputs_of,
)
from bertjax.loaded import Model
from bertjax.text.framing import TokenSequence
from bertjax.text.packing import Places

# Tokens of a batch, padding included; fewer where each has a number for every word, and then no
# more answers are held at a time.
BATCH_TOKENS, BATCH_LOGITS = 1024, 2**25

# What is asked at once: a text, or all choices of a question.
Question = Sequence[TokenSequence]
# By the names of the outputs, without padding.
Answer = dict[str, np.ndarray]


def ask_both(
    model: Model,
    steps: SentenceModel,
    exported: Callable[[Mapping[str, Any]], Any],
    questions: Sequence[Question],
) -> Iterator[tuple[Answer, Answer]]:
    """Yields what the model and its export answer to each question.

    Args:
        model: the model.
        steps: how a body makes vectors of texts.
        exported: from inputs by name to outputs by name.
        questions: any number.
    """
    batching = _batching(model, questions)
    ours = run(jax.jit(answering(model, steps)), model.params, questions, batching)
    theirs = run(lambda _, inputs: exported(inputs), None, questions, batching)
    yield from zip(ours, theirs, strict=True)


def _batching(model: Model, questions: Iterable[Question]) -> Batching[Question]:
    """Returns how questions become inputs by name, and what each is answered."""
    config, architecture = model.config, ARCHITECTURES[model.architecture]
    names, axes = input_names(config), outputs_of(architecture, config)
    most = sorted({len(question) for question in questions})
    by_choice = architecture.kind == "choice"
    # What has no second axis of any size is of the text.
    of_text = {name for name, its in axes.items() if isinstance(its[1], int)}

    def make(some: Sequence[Question], places: Places, shape: Shape) -> dict[str, np.ndarray]:
        inputs = {
            INPUT_IDS: np.full((shape.rows, shape.slots, shape.length), config.pad_token_id),
            ATTENTION_MASK: np.zeros((shape.rows, shape.slots, shape.length), int),
            TOKEN_TYPE_IDS: np.zeros((shape.rows, shape.slots, shape.length), int),
        }
        for question, row in zip(some, places.row, strict=True):
            for slot, sequence in enumerate(question):
                length = len(sequence.token_ids)
                inputs[INPUT_IDS][row, slot, :length] = sequence.token_ids
                inputs[ATTENTION_MASK][row, slot, :length] = 1
                inputs[TOKEN_TYPE_IDS][row, slot, sequence.second_start : length] = 1
        return {
            name: (inputs[name] if by_choice else inputs[name][:, 0]).astype(np.int32)
            for name in names
        }

    def take(output: dict[str, np.ndarray], question: Question, place: Place) -> Answer:
        length = len(question) if by_choice else len(question[0].token_ids)
        return {
            name: np.array(values[place.row] if name in of_text else values[place.row, :length])
            for name, values in output.items()
        }

    tokens = BATCH_TOKENS
    if model.restores_words:
        tokens = min(tokens, BATCH_LOGITS // config.vocab_size)
    shapes = Shapes(
        config.max_length, lambda length: max(1, tokens // length), slots=lambda length: most
    )

    def longest(question: Question) -> int:
        return max(len(sequence.token_ids) for sequence in question)

    window = tokens if model.restores_words else WINDOW_TOKENS
    return Batching(shapes, longest, make, take, slots=len, window=window)
