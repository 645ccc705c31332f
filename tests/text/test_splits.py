"""Documents go to their split by hash; where shares would be far off, long ones are cut."""

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertjax.text.splits import SPLIT_ORDER, TOLERANCE, divide, document_split, split_place


def make_documents(count, seed=0):
    return [hashlib.sha256(f"{seed}/{number}".encode()).digest() for number in range(count)]


def divide_all(documents, tokens, fractions=(0.05, 0.05), least=2, piece=100):
    """A division of documents of so many tokens, in pieces of `piece` tokens and a rest."""

    def piece_tokens(document):
        whole, rest = divmod(tokens[document], piece)
        return np.array([piece] * whole + [rest] * bool(rest))

    places = np.array([split_place(one) for one in documents])
    return divide(places, np.array(tokens), piece_tokens, fractions, least), piece_tokens


def check_nothing_is_lost(division, tokens, piece_tokens):
    sums = [0, 0, 0]
    for document, of_document in enumerate(tokens):
        parts = division.parts.get(document)
        if parts is None:
            sums[division.splits[document]] += of_document
            continue
        # The parts follow each other, and two neighbours are of different splits or halves of one.
        assert parts[0].first == 0
        assert parts[-1].last == len(piece_tokens(document))
        for part, after in itertools.pairwise(parts):
            assert part.first < part.last == after.first
        for part in parts:
            sums[part.split] += int(piece_tokens(document)[part.first : part.last].sum())
    assert sum(sums) == sum(tokens)
    assert division.shares == pytest.approx([one / sum(tokens) for one in sums])
    return sums


@pytest.mark.parametrize("count", [107, 300, 600])
def test_hash_alone_decides_where_it_keeps_the_shares(count):
    fractions = (0.3, 0.2)
    documents = make_documents(count)
    division, _ = divide_all(documents, [50] * count, fractions)
    assert not division.parts
    for split, document in zip(division.splits, documents, strict=True):
        assert SPLIT_ORDER[split] == document_split(document, fractions)


def test_short_documents_stay_whole_in_the_order_of_their_hashes():
    documents = make_documents(40, seed=2)
    division, _ = divide_all(documents, [50] * 40, (0.1, 0.1))
    assert not division.parts
    assert division.counts == (4, 4, 32)
    by_hash = np.argsort([split_place(one) for one in documents])
    assert division.splits[by_hash].tolist() == [0] * 4 + [1] * 4 + [2] * 32


NOVELS = [140_000, 190_000, 99_000, 108_000, 25_000]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("fractions", [(0.05, 0.05), (0.02, 0.1), (0.3, 0.3), (0.0, 0.05)])
@pytest.mark.parametrize("tokens", [NOVELS, [30_000], [500_000, 900], [60_000] * 8])
def test_few_long_documents_are_cut_so_that_shares_are_kept(tokens, fractions, seed):
    division, piece_tokens = divide_all(make_documents(len(tokens), seed), tokens, fractions)
    check_nothing_is_lost(division, tokens, piece_tokens)
    for share, asked, count in zip(division.shares, fractions, division.counts, strict=False):
        assert abs(share - asked) <= TOLERANCE * asked
        assert count >= 2 * (asked > 0)
    assert division.counts[2] >= 2
    # Each cut is a place where a text ends in the middle: there are few.
    assert sum(map(len, division.parts.values())) <= 5 * len(tokens) + 3


def test_one_long_document_among_many_does_not_go_whole_to_a_held_out_split():
    documents = make_documents(500)
    places = [split_place(one) for one in documents]
    tokens = [200] * 500
    tokens[int(np.argmin(places))] = 150_000  # by its hash, validation
    division, piece_tokens = divide_all(documents, tokens)
    check_nothing_is_lost(division, tokens, piece_tokens)
    assert list(division.parts) == [int(np.argmin(places))]
    assert division.shares[:2] == pytest.approx([0.05, 0.05], rel=TOLERANCE)


@settings(max_examples=150, deadline=None)
# A cut that holds nothing out; and nothing but parts of one piece to take from.
@example(tokens=[1, 112, 124], fractions=(0.05, 0.05), least=1, seed=1)
@example(tokens=[108, 101, 108], fractions=(1e-4, 0.5), least=1, seed=3)
@given(
    tokens=st.lists(st.integers(1, 40_000), min_size=1, max_size=25),
    fractions=st.sampled_from([(0.05, 0.05), (0.2, 0.0), (0.45, 0.45), (1e-4, 0.5), (0.0, 0.0)]),
    least=st.sampled_from([1, 2]),
    seed=st.integers(0, 50),
)
def test_whatever_the_documents_nothing_is_lost_and_every_split_gets_what_it_needs(
    tokens, fractions, least, seed
):
    documents = make_documents(len(tokens), seed)
    division, piece_tokens = divide_all(documents, tokens, fractions, least)
    check_nothing_is_lost(division, tokens, piece_tokens)
    needed = [least * bool(fraction) for fraction in (*fractions, 1)]
    pieces = sum(len(piece_tokens(document)) for document in range(len(tokens)))
    if len(tokens) >= sum(needed) or pieces >= 2 * sum(needed):
        assert all(count >= need for count, need in zip(division.counts, needed, strict=True))
    assert [bool(count) for count in division.counts[:2]] <= [bool(need) for need in needed[:2]]
    numbers = np.repeat(np.arange(len(tokens)), [len(piece_tokens(n)) for n in range(len(tokens))])
    pieces = np.concatenate([np.arange(len(piece_tokens(n))) for n in range(len(tokens))])
    splits = division.split_of(numbers, pieces)
    for document, parts in division.parts.items():
        for part in parts:
            own = (numbers == document) & (pieces >= part.first) & (pieces < part.last)
            assert (splits[own] == part.split).all()


def test_division_does_not_depend_on_the_order_of_the_documents():
    documents = make_documents(5, seed=3)
    forwards, _ = divide_all(documents, NOVELS)
    backwards, _ = divide_all(documents[::-1], NOVELS[::-1])
    assert forwards.parts == {4 - number: parts for number, parts in backwards.parts.items()}


def test_documents_that_cannot_be_cut_go_whole():
    division, _ = divide_all(make_documents(6), [90] * 6)
    assert division.counts == (2, 2, 2)
    assert divide_all([], [])[0].counts == (0, 0, 0)
