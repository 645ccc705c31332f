"""Masking: what may be masked, how often, what replaces it, and what the choice depends on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.objectives import masking
from bertjax.objectives.masking import MaskingConfig, Vocabulary, mask_tokens
from bertjax.program.errors import UserError
from bertjax.types import RowBatch

# V=99: five special tokens, then words, then, from 60 on, what continues a word.
PAD, CLS, SEP, MASK = 0, 2, 3, 4
SPECIAL, CONTINUES = range(5), 60
ROWS, LENGTH, PADDING = 1024, 41, 6
KEY = jax.random.key(3)
STRATEGIES = ("token", "whole-word", "span")


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary(99, MASK, list(SPECIAL), jnp.arange(99) >= CONTINUES)


def make_batch(rows):
    """Rows of two packed examples and padding; words of one to four pieces."""
    rng = np.random.default_rng(0)
    token_ids = np.full((rows, LENGTH), PAD)
    filled = LENGTH - PADDING
    for row in token_ids:
        row[:filled] = rng.integers(len(SPECIAL), CONTINUES, filled)
        inner = rng.random(filled) < 0.4
        inner[3:] &= ~(inner[2:-1] & inner[1:-2] & inner[:-3])  # at most three more pieces
        row[:filled][inner] = rng.integers(CONTINUES, 99, inner.sum())
        row[[0, 20]], row[[9, 19, 28, filled - 1]] = CLS, SEP
    sequence_ids = np.where(np.arange(LENGTH) < 20, 1, np.where(np.arange(LENGTH) < filled, 2, 0))
    zeros, none = np.zeros((rows, LENGTH), np.uint16), np.zeros((rows, 2), np.int32)
    return RowBatch(
        jnp.asarray(token_ids, jnp.uint16),
        jnp.asarray(zeros),
        jnp.asarray(np.broadcast_to(sequence_ids, (rows, LENGTH)), jnp.uint8),
        jnp.asarray(zeros),
        jnp.asarray(none),
        jnp.asarray(none),
        jnp.arange(rows, dtype=jnp.uint32),
        jnp.zeros(rows, jnp.uint32),
    )


@pytest.fixture(scope="module")
def batch():
    return make_batch(ROWS)


@pytest.fixture(scope="module")
def mask(vocabulary):
    """`mask(batch, strategy, rate, key)`, compiled once for each strategy and rate."""
    compiled = jax.jit(
        lambda key, batch, config: mask_tokens(key, batch, config, vocabulary), static_argnums=2
    )

    def apply(batch, strategy="token", rate=0.15, key=KEY):
        return jax.tree.map(np.asarray, compiled(key, batch, MaskingConfig(strategy, rate)))

    return apply


@pytest.fixture(scope="module", params=STRATEGIES)
def case(request, batch, mask):
    """(strategy, the original ids, the sequence ids, what became of them)."""
    masked = mask(batch, request.param)
    return request.param, np.asarray(batch.token_ids, int), np.asarray(batch.sequence_ids), masked


def chosen_of(masked, length=LENGTH):
    """[B, T] bool: which positions are in a used slot."""
    chosen = np.zeros((len(masked.positions), length), bool)
    for row, positions, weights in zip(chosen, masked.positions, masked.weights, strict=True):
        row[positions[weights > 0]] = True
    return chosen


def binomial_bound(rate, count):
    return 5 * math.sqrt(rate * (1 - rate) / count)


# ------------------------------------------------------------------ what is chosen


def test_special_tokens_and_padding_are_never_masked(case):
    _, token_ids, sequence_ids, masked = case
    chosen = chosen_of(masked)
    assert chosen.any(1).all()
    assert (token_ids[chosen] >= len(SPECIAL)).all()
    assert (sequence_ids[chosen] > 0).all()
    np.testing.assert_array_equal(masked.token_ids[~chosen], token_ids[~chosen])


def test_padding_made_of_ordinary_tokens_is_never_masked(batch, mask):
    odd = batch._replace(token_ids=jnp.where(batch.sequence_ids == 0, 50, batch.token_ids))
    assert not chosen_of(mask(odd))[:, -PADDING:].any()


def test_labels_are_the_original_ids(case):
    _, token_ids, _, masked = case
    np.testing.assert_array_equal(
        masked.labels, np.take_along_axis(token_ids, masked.positions, axis=1)
    )


def test_every_ordinary_position_is_reachable(case):
    _, token_ids, _, masked = case
    chosen = chosen_of(masked)
    candidates = token_ids >= len(SPECIAL)
    share = chosen.sum(0)[candidates.any(0)] / candidates.sum(0)[candidates.any(0)]
    assert (share > 0.05).all()
    assert (share < 0.3).all()


def test_as_many_are_masked_as_the_rate_asks_for(case):
    strategy, token_ids, _, masked = case
    wanted = np.round(0.15 * (token_ids >= len(SPECIAL)).sum(1))
    used = masked.weights.sum(1)
    assert masked.positions.shape[1] == math.ceil(0.15 * LENGTH) == 7
    if strategy == "whole-word":
        assert (used <= wanted).all()
        assert (wanted - used <= 3).all()  # words have at most four pieces
    else:
        np.testing.assert_array_equal(used, wanted)


def test_unused_slots_have_weight_0_and_touch_nothing(case):
    _, token_ids, _, masked = case
    unused = masked.weights == 0
    assert unused.any()
    assert set(np.unique(masked.weights)) == {0, 1}
    assert (masked.positions[unused] == 0).all()
    np.testing.assert_array_equal(masked.token_ids[:, 0], token_ids[:, 0])


def test_no_position_is_chosen_twice(case):
    masked = case[3]
    np.testing.assert_array_equal(chosen_of(masked).sum(1), masked.weights.sum(1))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_row_without_ordinary_tokens_has_no_mask_and_a_short_one_has_one(mask, batch, strategy):
    ids = np.full((ROWS, LENGTH), PAD)
    ids[0, :3] = CLS, 17, SEP
    ids[1, :2] = CLS, SEP
    odd = batch._replace(
        token_ids=jnp.asarray(ids, jnp.uint16), sequence_ids=jnp.asarray(ids > 0, jnp.uint8)
    )
    masked = mask(odd, strategy)
    assert masked.weights[0].tolist() == [1, 0, 0, 0, 0, 0, 0]
    assert (masked.positions[0, 0], masked.labels[0, 0]) == (1, 17)
    assert (masked.weights[1:] == 0).all()
    np.testing.assert_array_equal(masked.token_ids[1:], ids[1:])


# ------------------------------------------------------------------ what replaces it


@pytest.fixture(scope="module")
def many(batch, mask):
    """About 15,000 masked tokens: (labels, what stands in their places)."""
    masked = mask(batch, rate=0.5)
    used = masked.weights > 0
    return masked.labels[used], np.take_along_axis(masked.token_ids, masked.positions, 1)[used]


def test_replacements_are_80_10_10(many):
    labels, now = many
    assert labels.size > 14_000
    # A random token is the original one in 1 of 94 cases.
    for share, rate in (
        ((now == MASK).mean(), 0.8),
        ((now == labels).mean(), 0.1 + 0.1 / 94),
        (((now != MASK) & (now != labels)).mean(), 0.1 - 0.1 / 94),
    ):
        assert share == pytest.approx(rate, abs=binomial_bound(rate, labels.size))


def test_every_ordinary_token_and_no_special_one_is_a_replacement(many):
    labels, now = many
    random = now[(now != MASK) & (now != labels)]
    assert set(random) == set(range(len(SPECIAL), 99))
    counts = np.bincount(random, minlength=99)[len(SPECIAL) :]
    assert counts.std() < 1.5 * math.sqrt(counts.mean())  # as a Poisson count varies


def test_kind_does_not_depend_on_the_slot(mask, batch):
    masked = mask(batch, rate=0.5)
    now = np.take_along_axis(masked.token_ids, masked.positions, 1)
    full = (masked.weights > 0).all(0)
    share = (now == MASK).mean(0)[full]
    assert np.abs(share - 0.8).max() < binomial_bound(0.8, ROWS)


# ------------------------------------------------------------------ words and spans


def words_of(token_ids):
    """The positions of every word of a row: a piece continues the ordinary token before it."""
    words, candidate_before = [], False
    for place, token in enumerate(token_ids):
        if token < len(SPECIAL):
            candidate_before = False
            continue
        if candidate_before and token >= CONTINUES:
            words[-1].append(place)
        else:
            words.append([place])
        candidate_before = True
    return words


def test_whole_words_are_masked_whole(batch, mask):
    token_ids, masked = np.asarray(batch.token_ids, int), mask(batch, "whole-word")
    lengths = set()
    for row, chosen in zip(token_ids, chosen_of(masked), strict=True):
        for word in words_of(row):
            assert chosen[word].all() or not chosen[word].any()
            lengths |= {len(word)} if chosen[word].any() else set()
    assert lengths == {1, 2, 3, 4}


def test_single_tokens_cut_words(batch, mask):
    """So that the test above can fail."""
    chosen = chosen_of(mask(batch, "token"))
    words = [words_of(row) for row in np.asarray(batch.token_ids, int)]
    cut = [c[w].any() and not c[w].all() for c, ws in zip(chosen, words, strict=True) for w in ws]
    assert np.sum(cut) > ROWS


def test_only_word_is_cut_when_it_is_longer_than_the_budget(mask, batch):
    ids = np.full((ROWS, LENGTH), PAD)
    ids[:, :12] = [CLS, 17, *range(60, 69), SEP]  # one word of ten pieces, of which 15 % are two
    odd = batch._replace(
        token_ids=jnp.asarray(ids, jnp.uint16), sequence_ids=jnp.asarray(ids > 0, jnp.uint8)
    )
    masked = mask(odd, "whole-word")
    assert (masked.weights.sum(1) == 2).all()
    assert (np.sort(masked.positions[:, :2], 1) == [1, 2]).all()


@pytest.fixture(scope="module")
def first_spans(vocabulary):
    """(row of ids, the places of the span that is first in the random order), many times."""
    rng = np.random.default_rng(1)
    token_ids = rng.integers(len(SPECIAL), CONTINUES, 83)
    token_ids[rng.random(83) < 0.3] = 70
    token_ids[[0, 41, 82]] = CLS, SEP, SEP
    ids, candidates = jnp.asarray(token_ids, jnp.int32), jnp.asarray(token_ids >= len(SPECIAL))
    rank = jax.jit(
        jax.vmap(
            lambda key: masking._rank_groups(
                key, ids, jnp.ones_like(ids), candidates, MaskingConfig("span"), vocabulary
            )
        )
    )
    ranks = np.asarray(rank(jax.random.split(KEY, 2000)))
    return token_ids, ranks


def test_spans_are_contiguous_runs_of_whole_words_inside_a_segment(first_spans):
    token_ids, ranks = first_spans
    words = words_of(token_ids)
    number = {place: index for index, word in enumerate(words) for place in word}
    for row in ranks:
        assert (row[token_ids < len(SPECIAL)] == np.iinfo(np.int32).max).all()
        span = np.flatnonzero(row == row.min())
        assert (np.diff(span) == 1).all()
        covered = sorted({number[place] for place in span})
        assert span.tolist() == [place for word in covered for place in words[word]]
        assert len(covered) <= 10
        assert span.max() < 41 or span.min() > 41


def test_lengths_of_spans_are_geometric_and_cut_at_10(first_spans):
    """Source: Joshi et al. 2020, section 3.1: p = 0.2, at most 10 words, 3.8 on average."""
    token_ids, ranks = first_spans
    words = words_of(token_ids)
    number = np.full(83, -1)
    for index, word in enumerate(words):
        number[word] = index
    spans = [np.unique(number[row == row.min()]) for row in ranks]
    # Those that start ten words or more before their segment's end are not cut by it.
    last = [number[40], number[81]]
    free = [len(s) for s in spans if min(end - s[0] for end in last if end >= s[0]) >= 9]
    assert len(free) > 500
    for length in range(1, 10):
        expected = 0.2 * 0.8 ** (length - 1)
        share = np.mean(np.equal(free, length))
        assert share == pytest.approx(expected, abs=binomial_bound(expected, len(free))), length
    rest = 0.8**9
    assert np.mean(np.equal(free, 10)) == pytest.approx(rest, abs=binomial_bound(rest, len(free)))


def test_spans_come_in_longer_runs_than_tokens(batch, mask):
    def runs(strategy):
        chosen = chosen_of(mask(batch, strategy))
        return (chosen[:, 1:] & ~chosen[:, :-1]).sum(1).mean()

    assert runs("span") < 0.6 * runs("token")


# ------------------------------------------------------------------ what it depends on


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_are_a_function_of_key_epoch_and_row(batch, mask, strategy):
    def same(first, second):
        return np.mean((first.positions == second.positions).all(1))

    first = mask(batch, strategy)
    again = mask(batch, strategy)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
    assert same(first, mask(batch, strategy, key=jax.random.key(4))) < 0.05
    assert same(first, mask(batch._replace(epochs=batch.epochs + 1), strategy)) < 0.05
    assert same(first, mask(batch._replace(row_numbers=batch.row_numbers + 1), strategy)) < 0.05
    # Neither do a later epoch of an earlier row, or the two exchanged, come to the same.
    later = batch._replace(epochs=batch.epochs + 1, row_numbers=batch.row_numbers - 1)
    assert same(first, mask(later, strategy)) < 0.05
    turned = batch._replace(epochs=batch.row_numbers, row_numbers=batch.epochs)
    assert same(first, mask(turned, strategy)) < 0.05


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_rows_masks_do_not_depend_on_the_batch(batch, mask, strategy):
    whole = mask(batch, strategy)
    order = np.random.default_rng(2).permutation(ROWS)
    mixed = mask(jax.tree.map(lambda x: x[order], batch), strategy)
    for one, other in zip(whole, mixed, strict=True):
        np.testing.assert_array_equal(one[order], other)


def test_few_rows_are_masked_as_among_many(batch, mask):
    few = mask(jax.tree.map(lambda x: x[7:10], batch))
    for one, other in zip(mask(batch), few, strict=True):
        np.testing.assert_array_equal(one[7:10], other)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_masks_do_not_depend_on_the_length_of_the_row(batch, mask, strategy):
    """Texts are scored in rows of any length, and asked for the same tokens."""
    few = jax.tree.map(lambda part: part[:32], batch)
    longer = [jnp.pad(part, ((0, 0), (0, 30))) for part in few[:4]]
    short = mask(few, strategy)
    long = mask(few._replace(**dict(zip(few._fields, longer, strict=False))), strategy)
    slots = short.positions.shape[1]
    np.testing.assert_array_equal(short.token_ids, long.token_ids[:, :LENGTH])
    np.testing.assert_array_equal(short.positions, long.positions[:, :slots])
    np.testing.assert_array_equal(short.weights, long.weights[:, :slots])
    assert short.weights.sum() == long.weights.sum() > 32


# ------------------------------------------------------------------ options


@pytest.mark.parametrize("rate", [0.0, -0.1, 0.81, 15.0, float("nan")])
def test_rate_out_of_range_is_refused(rate):
    with pytest.raises(UserError, match=r"masking.rate=.* must be above 0 and at most 0.8"):
        MaskingConfig(rate=rate)


@pytest.mark.parametrize(("rate", "length", "slots"), [(0.15, 128, 20), (0.15, 3, 1), (0.4, 7, 3)])
def test_slots_hold_what_the_rate_asks_for(rate, length, slots):
    assert MaskingConfig(rate=rate).slots(length) == slots


# ------------------------------------------------------------------ a rate that changes


def test_rate_runs_in_a_straight_line_over_the_budget(batch, vocabulary):
    config = MaskingConfig("token", 0.4, 0.15)
    assert config.slots(100) == 40
    assert config.slots(100, (0.6, 1.0)) == 25
    candidates = np.asarray((batch.sequence_ids != 0) & (batch.token_ids >= len(SPECIAL))).sum(1)
    masked = jax.jit(
        lambda progress: mask_tokens(KEY, batch, config, vocabulary, progress).weights.sum(1)
    )
    for progress, rate in ((0.0, 0.4), (0.6, 0.25), (1.0, 0.15)):
        wanted = np.maximum(1, np.round(rate * candidates))
        assert np.abs(np.asarray(masked(progress)) - wanted).max() <= 1  # a half rounds either way
        assert np.asarray(masked(progress)).sum() == pytest.approx(wanted.sum(), rel=0.01)


def test_next_tokens_are_aimed_at_within_an_example(batch):
    aimed = masking.aim_at_next_tokens(batch)
    np.testing.assert_array_equal(aimed.token_ids, batch.token_ids)
    np.testing.assert_array_equal(aimed.labels, np.asarray(batch.token_ids)[:, 1:])
    np.testing.assert_array_equal(aimed.positions[5], np.arange(LENGTH - 1))
    expected = np.ones(LENGTH - 1)
    expected[[19, *range(LENGTH - PADDING - 1, LENGTH - 1)]] = 0
    np.testing.assert_array_equal(aimed.weights, np.tile(expected, (ROWS, 1)))
