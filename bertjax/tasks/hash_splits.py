"""The split of one file into train, validation and test, by the hash of texts."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bertjax.program.errors import UserError


class Splits(NamedTuple):
    """Examples for training, for choosing, and for the final test."""

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
    """Splits one file into train, validation and test, by the hash of the text alone.

    An example's split depends on its text, not on the rest of the file: the same text (except for
    case and white space) is never in two splits, nor is a pair and its reverse.

    Args:
        examples: in any order.
        shares: those of train, validation and test, each at least 0, with the sum 1. The splits
            have about these sizes, up to chance.
        seed: another seed gives other splits.
        texts_of: the texts that decide an example's split, in any order, where not None; for
            questions their context, so that questions on one context stay together.

    Raises:
        UserError: the shares are invalid, or a split with a share got no example.
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
                "use a larger share, or separate files"
            )
    return splits


def _place_by_text(texts: Sequence[str | None], seed: int) -> float:
    """Returns a number in [0, 1) that depends on the texts alone."""
    folded = sorted(" ".join(text.casefold().split()) for text in texts if text is not None)
    data = json.dumps([seed, *folded]).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=6).digest(), "little") / 2**48
