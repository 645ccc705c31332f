"""Which part of a capture goes into files, and what goes with it of its text."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from bertjax.analysis.capture.encoding import EncodedText, mean_over_words, merge_subwords
from bertjax.analysis.capture.maps import Captured
from bertjax.config import BertConfig
from bertjax.program.errors import UserError

# Arrays of a row group, a record batch or a shard, unless one text's take more.
GROUP_BYTES = 32 << 20
# What is written of every text beside its arrays, and the type of each number.
TEXT_FIELDS = {
    "tokens": None,
    "words": None,
    "token_ids": np.int32,
    "word_ids": np.int32,
    "offsets": np.int32,
    "token_type_ids": np.int8,
    "special": np.bool_,
}


class Selection(NamedTuple):
    """Which part of every capture is written, and how; `select` makes one.

    Attributes:
        layers, heads: their numbers, from 0; the same heads of every layer.
        words: whether maps are between words.
        dtype: of the numbers.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    words: bool
    dtype: Literal["float32", "float16"]

    def apply(self, captured: Captured) -> Captured:
        """Takes the selected part of a capture.

        Returns:
            probs `[layers, heads, T, T]` (or `[..., W, W]` with `words`), hidden
            `[1 + layers, T, D]` (the embeddings' output, then those of the layers) and context
            `[layers, T, heads, H]`. With `words`, hidden and context are each word's mean. Rows of
            probs still sum to 1, in float16 within 1e-3.
        """
        chosen = np.ix_(self.layers, self.heads)
        probs, hidden, context = captured.probs[chosen], captured.hidden, captured.context
        if hidden is not None:
            hidden = hidden[[0, *(1 + layer for layer in self.layers)]]
        if context is not None:
            context = context.swapaxes(1, 2)[chosen].swapaxes(1, 2)
        if self.words:
            probs = merge_subwords(probs, captured.encoded)
            hidden, context = (
                None if part is None else mean_over_words(part, captured.encoded, axis=1)
                for part in (hidden, context)
            )
        return Captured(
            captured.encoded,
            *(
                None if part is None else np.ascontiguousarray(part, self.dtype)
                for part in (probs, hidden, context)
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Describes the arrays for readers of the file."""
        return {
            "units": "words" if self.words else "tokens",
            "layers": list(self.layers),
            "heads": list(self.heads),
            "dtype": self.dtype,
        }


def select(
    config: BertConfig,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    *,
    words: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
) -> Selection:
    """Checks and returns what to write of the captures of a model.

    Args:
        config: of the model.
        layers, heads: numbers from 0; all when left out.
        words: merge the subwords of each word (see `merge_subwords`).
        dtype: float16 takes half the space, with about three digits.

    Raises:
        UserError: a layer or a head that the model does not have, or one twice.
    """
    counts = {"layers": config.num_hidden_layers, "heads": config.num_attention_heads}
    chosen = []
    for (name, count), numbers in zip(counts.items(), (layers, heads), strict=True):
        numbers = range(count) if numbers is None else numbers
        if wrong := [number for number in numbers if not 0 <= number < count]:
            raise UserError(f"{name}={wrong[0]}: the model has {name} 0 to {count - 1}")
        if len(set(numbers)) < len(numbers) or not numbers:
            raise UserError(f"{name}={list(numbers)} must name each once, and at least one")
        chosen.append(tuple(numbers))
    return Selection(*chosen, words, dtype)


def arrays_of(captured: Captured) -> dict[str, np.ndarray]:
    """Returns the arrays that were captured, by name."""
    named = {"probs": captured.probs, "hidden": captured.hidden, "context": captured.context}
    return {name: values for name, values in named.items() if values is not None}


def text_fields(encoded: EncodedText) -> dict[str, Any]:
    """Returns what is written of a text: tuples of strings, arrays of numbers."""
    return {
        name: getattr(encoded, name) if dtype is None else getattr(encoded, name).astype(dtype)
        for name, dtype in TEXT_FIELDS.items()
    }


def group_captures(captures: Iterable[Captured]) -> Iterator[list[Captured]]:
    """Groups consecutive captures of about GROUP_BYTES together."""
    group: list[Captured] = []
    used = 0
    for captured in captures:
        size = sum(values.nbytes for values in arrays_of(captured).values())
        if group and used + size > GROUP_BYTES:
            yield group
            group, used = [], 0
        group.append(captured)
        used += size
    if group:
        yield group
