"""Train, validation and test of the examples of one file, by the hash of their texts."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bertjax.program.errors import UserError


class Splits(NamedTuple):
    """Examples for training, for choosing, and for the one test at the end."""

    train: list[Any]
    validation: list[Any]
    test: list[Any]


def split_by_hash(
    examples: Sequence[Any],
    shares: tuple[float, float, float],
    seed: int = 0,
    texts_of: Callable[[Any], Sequence[str | None]] = lambda example: (
        example.first,
        example.second,
    ),
) -> Splits:
    """Train, validation and test of one file, by the hash of the text alone.

    An example goes where its text sends it, whatever stands beside it in the file: the same text
    (but for case and white space) is never in two splits, nor is a pair and its reverse.

    Args:
        examples: in any order.
        shares: of train, validation and test, each at least 0, their sum 1. The splits have about
            these sizes, as chance has it.
        seed: another one gives other splits.
        texts_of: what an example goes by, in any order and where it is not None; for questions
            their context, so that those of one context stay together.

    Raises:
        UserError: shares that are none; a split with a share that no example went to.
    """
    if len(shares) != 3 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise UserError(
            f"shares={tuple(shares)} must be those of train, validation and test, with the sum 1"
        )
    splits = Splits([], [], [])
    for example in examples:
        place = _place_by_text(texts_of(example), seed)
        number = 0 if place < shares[0] else 1 if place < shares[0] + shares[1] else 2
        # The sum of shares may be a little below 1.
        splits[number if shares[number] else 0].append(example)
    for name, split, share in zip(Splits._fields, splits, shares, strict=True):
        if share and not split:
            raise UserError(
                f"{name} got none of the {len(examples)} examples with a share of {share}; "
                "take a larger share, or files of their own"
            )
    return splits


def _place_by_text(texts: Sequence[str | None], seed: int) -> float:
    """A number in [0, 1) that is the texts' own."""
    folded = sorted(" ".join(text.casefold().split()) for text in texts if text is not None)
    data = json.dumps([seed, *folded]).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "little") / 2**48
