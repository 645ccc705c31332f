"""What a model of any class says of an example, wherever in a batch it stands."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from bertjax.architectures import ARCHITECTURES
from bertjax.types import EncoderOutput, PreTrainingOutput, SentenceOrderOutput
from bertjax.verification.examples import Arrangement

# Number of the example -> quantity -> values.
Answers = dict[int, dict[str, Float[np.ndarray, "..."]]]


class Quantity(NamedTuple):
    """An output.

    Attributes:
        values: `[B, T, ...]` or `[B, K, ...]`.
        of_tokens: whether it is the former.
    """

    values: Float[Array, "B places width"]
    of_tokens: bool


def quantities(architecture: str, output: Any) -> dict[str, Quantity]:
    """Returns the outputs of a class by name: its hidden states and what its heads make of them."""
    if isinstance(output, EncoderOutput):
        hidden = {"hidden": Quantity(output.hidden, True)}
        no_pooler = output.pooled is None
        return hidden if no_pooler else {**hidden, "pooled": Quantity(output.pooled, False)}
    quantities_by_name = {"hidden": Quantity(output.encoder.hidden, True)}
    if isinstance(output, PreTrainingOutput):
        quantities_by_name["mlm_logits"] = Quantity(output.mlm_logits, True)
        quantities_by_name["nsp_logits"] = Quantity(output.nsp_logits, False)
    elif isinstance(output, SentenceOrderOutput):
        quantities_by_name["mlm_logits"] = Quantity(output.mlm_logits, True)
        quantities_by_name["order_logits"] = Quantity(output.order_logits, False)
    else:
        its, logits = ARCHITECTURES[architecture], output.logits
        if {"choice", "replaced"} & {*its.outputs}:  # one number a place
            logits = logits[..., None]
        quantities_by_name["logits"] = Quantity(logits, its.is_of_tokens)
    return quantities_by_name


def read_answers(outputs: Mapping[str, Quantity], arrangement: Arrangement) -> Answers:
    """Returns what the outputs say of each example of the arrangement."""
    answers: Answers = {}
    for number, place in arrangement.places.items():
        tokens = slice(place.start, place.start + place.length)
        answers[number] = {
            name: np.asarray(values[place.row, tokens if of_tokens else place.slot])
            for name, (values, of_tokens) in outputs.items()
        }
    return answers


def compare_answers(actual: Answers, expected: Answers) -> float:
    """Computes the largest difference of any quantity, as a share of its largest value."""
    names = next(iter(expected.values())).keys()
    shares = [
        compare_arrays((actual[number][name], expected[number][name]) for number in expected)
        for name in names
    ]
    return float(np.max(shares))


def compare_arrays(
    pairs: Iterable[tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."]]],
) -> float:
    """Computes the largest difference of pairs (actual, expected), as a share of the largest.

    Returns:
        NaN where there is one in either.
    """
    gap = size = 0.0
    for actual, expected in pairs:
        if actual.shape != expected.shape:
            raise ValueError(f"{actual.shape} is compared with {expected.shape}")
        gap = np.maximum(gap, np.abs(actual - expected).max(initial=0))
        size = np.maximum(size, np.abs(expected).max(initial=0))
    return float(gap / (size or 1.0))
