"""`[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`: how texts are framed for a model."""

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int

if TYPE_CHECKING:
    from bertjax.text.tokenizer import Tokenizer

Part = TypeVar("Part")


class TokenSequence(NamedTuple):
    """`[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`.

    Attributes:
        token_ids: all of them, special tokens included.
        second_start: where B begins; the length if there is none.
    """

    token_ids: Int[np.ndarray, " t"]
    second_start: int


def frame_parts(cls: Part, sep: Part, first: Part, second: Part | None = None) -> tuple[Part, ...]:
    """Returns the parts of a frame in order: ids, words, or anything that tokens have.

    Source: Devlin et al. 2019, section 3, "input/output representations".
    """
    alone = (cls, first, sep)
    return alone if second is None else (*alone, second, sep)


def frame(
    tokenizer: "Tokenizer",
    first: Int[np.ndarray, " a"],
    second: Int[np.ndarray, " b"] | None,
    max_length: int,
) -> tuple[TokenSequence, bool]:
    """Frames a text or a pair, and returns whether something had to be cut.

    Tokens are cut from the end of the longer text until both fit.

    Source: google-research/bert `_truncate_seq_pair`.
    """
    room = max_length - (2 if second is None else 3)
    both = len(first) + (0 if second is None else len(second))
    if both > room and second is None:
        first = first[:room]
    elif both > room:
        shorter = min(len(first), len(second))
        kept = min(shorter, room // 2)
        if len(first) <= len(second):
            first, second = first[:kept], second[: room - kept]
        else:
            first, second = first[: room - kept], second[:kept]
    parts = frame_parts([tokenizer.cls_id], [tokenizer.sep_id], first, second)
    return TokenSequence(np.concatenate(parts).astype(np.int32), len(first) + 2), both > room
