"""What the attention of a token can go to: itself, its neighbours, [SEP], the same word, far words.

Every figure of a map here is a sum of probabilities, each times a weight that only the two tokens
decide. The weights of a few queries and keys are made from a handful of numbers a token, so that
the whole map's never need to be there.
"""

import unicodedata
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from bertjax.analysis.capture.encoding import EncodedText

# "Far" is more than so many words away.
FAR = (1, 2, 4, 8, 16, 32, 64)
# What a token can have to look at. The diagonal of a map is the first three.
SHARES = (
    "self", "previous", "next", "cls", "sep", "punctuation", "same_word", "repeated_word"
)  # fmt: skip
# In the order in which `weigh_targets` has them.
TARGETS = (
    "distance",
    *SHARES,
    "words",
    *(f"beyond_{k}_words" for k in FAR),
    "own_segment_off_diagonal",
)


class TokenMarks(NamedTuple):
    """What is known of each token of a text; the arrays may be numpy's or jax's, also in batches.

    Attributes:
        position: 0, 1, 2, ...
        word: which of the text's words it belongs to (`EncodedText.word_ids`).
        form: a number for each word form, letter case and white space aside; one of its own for
            [CLS] and each [SEP].
        segment: 0 in A, 1 in B.
        cls, sep: whether it is that token of the frame.
        punctuation: whether its word has nothing but punctuation (Unicode category P).
    """

    position: Int[Any, "... T"]
    word: Int[Any, "... T"]
    form: Int[Any, "... T"]
    segment: Int[Any, "... T"]
    cls: Bool[Any, "... T"]
    sep: Bool[Any, "... T"]
    punctuation: Bool[Any, "... T"]


def mark_tokens(encoded: EncodedText) -> TokenMarks:
    """Marks the tokens of a text."""
    position = np.arange(len(encoded.token_ids), dtype=np.int32)
    special_words = encoded.special_words
    numbers: dict[object, int] = {}
    forms, punctuation = [], []
    for place, (word, special) in enumerate(zip(encoded.words, special_words, strict=True)):
        form = word.strip().casefold()
        forms.append(numbers.setdefault(place if special else form, len(numbers)))
        punctuation.append(form != "" and all(unicodedata.category(c)[0] == "P" for c in form))
    word = encoded.word_ids.astype(np.int32)
    return TokenMarks(
        position,
        word,
        np.array(forms, np.int32)[word],
        encoded.token_type_ids.astype(np.int32),
        encoded.special & (position == 0),
        encoded.special & (position > 0),
        np.array(punctuation)[word],
    )


def weigh_targets(
    query: TokenMarks, key: TokenMarks, arrays: ModuleType = np
) -> Float[Any, "targets ... T S"]:
    """Computes the weight in each of `TARGETS` of a probability from a query to a key.

    - distance: how many tokens away
    - self, previous, next, cls, sep, punctuation: 1 where the key is that
    - same_word: 1 on the other tokens of the query's own word
    - repeated_word: 1 on the tokens of other words of the same form
    - words: 1 between tokens that are neither [CLS] nor [SEP]
    - beyond_k_words: of those, 1 where the words are more than k apart
    - own_segment_off_diagonal: 1 within A and within B, off the diagonal

    Args:
        query: marks of the queries.
        key: marks of the keys.
        arrays: `numpy`, or `jax.numpy`.
    """

    def each(name: str) -> tuple[Shaped[Any, "... T 1"], Shaped[Any, "... 1 S"]]:
        return getattr(query, name)[..., :, None], getattr(key, name)[..., None, :]

    def equal(name: str) -> Bool[Any, "... T S"]:
        of_query, of_key = each(name)
        return of_query == of_key

    from_position, to_position = each("position")
    offset = to_position - from_position
    from_word, to_word = each("word")
    apart = arrays.abs(to_word - from_word)
    query_special, key_special = query.cls | query.sep, key.cls | key.sep
    words = ~query_special[..., :, None] & ~key_special[..., None, :]
    weights = [
        arrays.abs(offset),
        offset == 0,
        offset == -1,
        offset == 1,
        *(getattr(key, name)[..., None, :] for name in ("cls", "sep", "punctuation")),
        equal("word") & (offset != 0),
        equal("form") & ~equal("word"),
        words,
        *(words & (apart > k) for k in FAR),
        equal("segment") & (arrays.abs(offset) > 1),
    ]
    whole = [arrays.broadcast_to(weight, offset.shape) for weight in weights]
    return arrays.stack([weight.astype(arrays.float32) for weight in whole])


def count_queries(marks: TokenMarks) -> dict[str, int]:
    """Counts the tokens of a text that have each of `SHARES` to look at."""
    tokens = len(marks.position)
    word_sizes, form_sizes = np.bincount(marks.word), np.bincount(marks.form)
    return {
        "self": tokens,
        "previous": tokens - 1,
        "next": tokens - 1,
        "cls": tokens,
        "sep": tokens,
        "punctuation": tokens if marks.punctuation.any() else 0,
        "same_word": int((word_sizes[marks.word] > 1).sum()),
        "repeated_word": int((form_sizes[marks.form] > word_sizes[marks.word]).sum()),
    }


class Cells(NamedTuple):
    """How many cells of each column of a text's map lie where.

    The diagonal is where a token looks at itself or at a neighbour.

    Attributes:
        diagonal: on it.
        off_diagonal: off it, in the even rows and in the odd rows.
        own_segment: off it, within A or within B.
    """

    diagonal: Int[np.ndarray, " T"]
    off_diagonal: Int[np.ndarray, "2 T"]
    own_segment: Int[np.ndarray, " T"]


def count_cells(marks: TokenMarks) -> Cells:
    """Counts the cells of a map of a text with these marks."""
    segment, tokens = marks.segment, len(marks.segment)
    diagonal, own_diagonal = np.ones((2, tokens), np.int64)
    # Rows of the column's own parity: its own. Of the other: its neighbours'.
    even = marks.position % 2 == 0
    off_diagonal = np.array([[(tokens + 1) // 2], [tokens // 2]]) - np.stack([even, ~even])
    together = segment[1:] == segment[:-1]
    for keys in (slice(1, None), slice(None, -1)):
        diagonal[keys] += 1
        own_diagonal[keys] += together
        off_diagonal[:, keys] -= np.stack([~even, even])[:, keys]
    return Cells(diagonal, off_diagonal, np.bincount(segment)[segment] - own_diagonal)


class MapSums(NamedTuple):
    """What is added up over the maps of a text; all that its figures need.

    Attributes:
        entropy: the entropies of all rows, nats.
        targets: for each of `TARGETS` the probabilities times its weights.
        columns: the sum of every column off the diagonal, over the even rows and over the odd rows
            (see `Cells`).
    """

    entropy: Float[Any, "L N"]
    targets: Float[Any, "targets L N"]
    columns: Float[Any, "2 L N T"]
