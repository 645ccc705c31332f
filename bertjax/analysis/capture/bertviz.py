"""Attention maps in the form that bertviz draws."""

from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.capture.selection import Selection
from bertjax.program.strict_json import to_json


def to_bertviz(captured: Captured, words: bool = False) -> dict[str, Any]:
    """Returns what bertviz's `head_view` and `model_view` take, as a plain dict.

    Both take the attention as a list with a tensor a layer, `[1, N, T, T]`, the tokens as a list,
    and the number of the first token of B, None where there is no B. The tensors must be torch's:

        form = to_bertviz(captured)
        attention = [torch.tensor(layer) for layer in form["attention"]]
        head_view(attention, form["tokens"], form["sentence_b_start"])

    Args:
        captured: of one text.
        words: whether its maps are between words.

    Source: `bertviz.head_view`, `bertviz.model_view`, `bertviz.util.format_attention`.
    """
    encoded = captured.encoded
    types = encoded.token_type_ids[encoded.first_tokens] if words else encoded.token_type_ids
    of_second = np.flatnonzero(types == 1)
    return {
        "attention": [layer[None] for layer in captured.probs],
        "tokens": list(encoded.words if words else encoded.tokens),
        "sentence_b_start": int(of_second[0]) if len(of_second) else None,
    }


def write_bertviz(
    stream: IO[str], captures: Iterable[Captured], selection: Selection, *, lines: bool = True
) -> int:
    """Writes `to_bertviz` of each as JSON, numbers to 1e-7, and returns how many they were.

    Args:
        stream: to write to.
        captures: what is selected of each.
        selection: what was selected.
        lines: an object a line; else an array of them.
    """
    before, between, after = ("", "\n", "\n") if lines else ("[\n", ",\n", "\n]\n")
    stream.write(before)
    count = 0
    for captured in captures:
        form = to_bertviz(captured, selection.words)
        form["attention"] = [
            layer.astype(np.float64).round(7).tolist() for layer in form["attention"]
        ]
        stream.write((between if count else "") + to_json(form))
        count += 1
    stream.write(after)
    return count
