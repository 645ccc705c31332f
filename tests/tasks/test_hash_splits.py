"""Splits by hash: equal texts stay together, in any order of the examples."""

import random

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks import hash_splits
from bertjax.tasks.hash_splits import split_by_hash
from bertjax.tasks.labelled import TextExample


def example(first, label, second=None, place="f:1"):
    return TextExample(place, first, second, label)


def test_split_keeps_equal_texts_together_in_any_order():
    examples = [example(f"Text {n % 400}", "x", place=f"f:{n}") for n in range(2000)]
    splits = split_by_hash(examples, (0.6, 0.2, 0.2))
    found = [{e.first for e in split} for split in splits]
    assert not found[0] & found[1] | found[0] & found[2] | found[1] & found[2]
    assert sum(map(len, splits)) == 2000
    # Of 400 texts; five standard deviations of a binomial count.
    for texts, share in zip(found, (0.6, 0.2, 0.2), strict=True):
        assert abs(len(texts) - 400 * share) < 5 * (400 * share * (1 - share)) ** 0.5
    shuffled = random.Random(1).sample(examples, len(examples))
    again = split_by_hash(shuffled, (0.6, 0.2, 0.2))
    assert [sorted(split) for split in again] == [sorted(split) for split in splits]
    other = split_by_hash(examples, (0.6, 0.2, 0.2), seed=1)
    assert {e.first for e in other.test} != found[2]


def test_split_takes_variants_and_reversed_pairs_for_one_text():
    words = [str(n) for n in range(200)]
    variants = [
        *(example(f"one {word}", "x", "Two") for word in words),
        *(example("two", "x", f"ONE\n  {word} ") for word in words),
    ]
    splits = split_by_hash(variants, (0.5, 0.25, 0.25))
    for split in splits:
        assert sum(e.second == "Two" for e in split) * 2 == len(split)


def test_split_goes_by_the_texts_that_it_is_told():
    examples = [example(f"question {n}", "x", f"context {n % 40}") for n in range(400)]
    splits = split_by_hash(examples, (0.5, 0.25, 0.25), texts_of=lambda e: [e.second])
    found = [{e.second for e in split} for split in splits]
    assert sum(map(len, found)) == 40


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.5, 0.5, 0.5), r"shares=\(0\.5, 0\.5, 0\.5\) must be .* the sum 1"),
        ((1.1, -0.1, 0), "must be those of train"),
        ((0.8, 0, 0.2), "test got none of the 1 examples"),
    ],
)
def test_wrong_shares_are_told(shares, message):
    with pytest.raises(UserError, match=message):
        split_by_hash([example("a", "x")], shares)


def test_split_without_a_share_stays_empty():
    splits = split_by_hash([example(str(n), "x") for n in range(50)], (0.5, 0.0, 0.5))
    assert splits.validation == []


def test_split_rounds_what_is_left_of_the_shares_to_train(monkeypatch):
    monkeypatch.setattr(hash_splits, "_place_by_text", lambda texts, seed: float(texts[0]))
    examples = [example("0.1", "x"), example("0.8", "x"), example("0.99999999", "x")]
    splits = split_by_hash(examples, (0.7, 0.3 - 1e-7, 0.0))
    assert list(map(len, splits)) == [2, 1, 0]
