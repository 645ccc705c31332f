"""Synthetic maps of each class, with noise, are told apart without an error."""

import numpy as np
import pytest

from bertjax.analysis.heads.classes import CLASSES, classify
from bertjax.analysis.heads.patterns import sum_maps, tally_text
from bertjax.analysis.heads.targets import TokenMarks

MAPS = 200
LENGTHS = (12, 17, 40, 128)


def make_marks(length, pair):
    """Of a text without punctuation, every token a word; the second part has a third of them."""
    position = np.arange(length, dtype=np.int32)
    split = length - length // 3 if pair else length
    sep = np.isin(position, [split - 1, length - 1])
    nothing = np.zeros(length, bool)
    segment = (position >= split).astype(np.int32)
    return TokenMarks(position, position, position, segment, position == 0, sep, nothing)


def spread(rng, length, concentration=1.0):
    """Every row by itself, at random."""
    return rng.dirichlet(np.full(length, concentration), length)


def vertical(rng, marks):
    """To one, two or three tokens, the same in every row."""
    length, columns = len(marks.position), rng.integers(1, 4)
    result = np.zeros((length, length))
    result[:, rng.choice(length, columns, replace=False)] = rng.dirichlet(np.full(columns, 5.0))
    return result


def diagonal(rng, marks):
    """To the token itself, the one before, the one after, or some of each."""
    length = len(marks.position)
    one = np.eye(3)[rng.integers(3)]
    weights = one if rng.random() < 0.5 else rng.dirichlet(np.ones(3))
    result = sum(weights[k] * np.eye(length, k=k - 1) for k in range(3))
    # At an end the neighbour that is not there leaves its share to the other places.
    return result + (1 - result.sum(axis=1, keepdims=True)) / length


def block(rng, marks):
    """To the own segment, evenly or not."""
    own = marks.segment[:, None] == marks.segment
    result = own * rng.uniform(0.5, 1.5, own.shape)
    return result / result.sum(axis=1, keepdims=True)


def draw_map(name, rng, marks):
    length = len(marks.position)
    if name == "heterogeneous":
        return spread(rng, length, concentration=rng.choice([0.4, 1.0, 3.0]))
    if name == "vertical_and_diagonal":
        first, second = rng.uniform(0.38, 0.48, 2)
        parts = [(first, vertical), (second, diagonal)]
    else:
        share = rng.uniform(0.5 if name != "block" else 0.6, 1)
        parts = [(share, {"vertical": vertical, "diagonal": diagonal, "block": block}[name])]
    rest = 1 - sum(share for share, _ in parts)
    return sum(share * make(rng, marks) for share, make in parts) + rest * spread(rng, length)


def shares_of(maps, marks):
    """Vertical, diagonal and block share of maps [N, T, T]."""
    tally = tally_text(sum_maps(maps[None].astype(np.float32), marks), marks)
    with np.errstate(invalid="ignore"):
        return [np.divide(*tally[name])[0] for name in ("vertical", "diagonal", "block")], tally


@pytest.mark.parametrize("pair", [False, True], ids=["single", "pair"])
@pytest.mark.parametrize("length", LENGTHS)
def test_synthetic_maps_of_every_class_are_recognised(length, pair):
    rng = np.random.default_rng(length)
    marks = make_marks(length, pair)
    for number, name in enumerate(CLASSES):
        if name == "block" and not pair:
            continue
        maps = np.stack([draw_map(name, rng, marks) for _ in range(MAPS)])
        shares, tally = shares_of(maps, marks)
        assert (classify(*shares) == number).all(), name
        assert tally[f"class_{name}"][0].sum() == MAPS


def test_shares_of_pure_and_even_maps_are_one_and_zero():
    marks = make_marks(18, pair=True)
    even = np.full((18, 18), 1 / 18)
    column = np.zeros((18, 18))
    column[:, 5] = 1
    own = (marks.segment[:, None] == marks.segment).astype(float)
    maps = np.stack([even, column, np.eye(18), own / own.sum(axis=1, keepdims=True)])
    (vertical, diagonal, block), _ = shares_of(maps, marks)
    np.testing.assert_allclose([vertical[1], diagonal[2], block[3]], 1, atol=1e-5)
    np.testing.assert_allclose([vertical[0], diagonal[0], block[0]], 0, atol=1e-5)
    assert np.abs(vertical[3]) < 0.05


def test_shares_of_a_mixture_are_its_parts():
    rng = np.random.default_rng(1)
    marks = make_marks(30, pair=False)
    column = np.zeros((30, 30))
    column[:, 4] = 1
    mixture = 0.5 * column + 0.2 * np.eye(30) + 0.3 / 30
    (vertical, diagonal, block), _ = shares_of(mixture[None], marks)
    np.testing.assert_allclose([vertical[0], diagonal[0]], [0.5, 0.2], atol=1e-5)
    assert np.isnan(block[0])  # one segment
    # Rows that each look at one token by chance have no vertical, however few there are.
    maps = np.stack([np.eye(30)[rng.integers(30, size=30)] for _ in range(400)])
    assert np.abs(shares_of(maps, marks)[0][0].mean()) < 0.02


def test_maps_too_small_to_tell_are_of_no_structure():
    marks = make_marks(3, pair=False)
    shares, tally = shares_of(np.full((1, 3, 3), 1 / 3), marks)
    assert np.isnan(shares[0]).all()
    assert tally["class_heterogeneous"][0].item() == 1
