"""What attention can go to: the weights of pairs of tokens, and how many tokens have a target."""

import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts, encode_words
from bertjax.analysis.heads.targets import (
    SHARES,
    TARGETS,
    count_cells,
    count_queries,
    mark_tokens,
    weigh_targets,
)
from tests.analysis.tiny_bodies import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def texts(tokenizer):
    """The first is: [CLS] the cat ##s . The dog [SEP] un ##ly cat [SEP]"""
    return encode_texts(
        tokenizer, [("the cats. The dog", "unly cat"), "the", "a cat sat, a dog sat."], 48
    )


def weights_of(text):
    marks = mark_tokens(text)
    return dict(zip(TARGETS, weigh_targets(marks, marks), strict=True))


def test_targets_are_the_tokens_that_are_meant(texts):
    assert texts[0].tokens == (
        "[CLS]", "the", "cat", "##s", ".", "the", "dog", "[SEP]", "un", "##ly", "cat", "[SEP]",
    )  # fmt: skip
    weights = weights_of(texts[0])
    seen = {name: np.flatnonzero(weights[name][3]).tolist() for name in TARGETS}
    assert seen["self"] == [3]
    assert seen["previous"] == [2]
    assert seen["next"] == [4]
    assert seen["cls"] == [0]
    assert seen["sep"] == [7, 11]
    assert seen["punctuation"] == [4]
    assert seen["same_word"] == [2]
    assert seen["repeated_word"] == []  # "cats" is not "cat"
    assert seen["words"] == [1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert seen["beyond_1_words"] == [5, 6, 8, 9, 10]
    assert seen["beyond_4_words"] == [8, 9, 10]
    assert seen["own_segment_off_diagonal"] == [0, 1, 5, 6, 7]
    assert weights["distance"][3].tolist() == [3, 2, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert np.flatnonzero(weights["repeated_word"][1]).tolist() == [5]  # letter case aside
    assert weights["repeated_word"][[7, 11]].sum() == 0  # no [SEP] repeats another
    assert weights["words"][[0, 7, 11]].sum() == 0


def test_a_word_of_punctuation_and_letters_is_no_punctuation(tokenizer):
    text = encode_words(tokenizer, [["cat-s", "-.", "$"]], 48)[0]
    assert text.tokens[1:-1] == ("cat", "-", "[UNK]", "-", ".", "[UNK]")
    assert mark_tokens(text).punctuation.tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_counts_are_those_of_the_whole_map(texts):
    for text in texts:
        weights, marks = weights_of(text), mark_tokens(text)
        counted = {name: int(weights[name].any(axis=1).sum()) for name in SHARES}
        assert count_queries(marks) == counted
        cells = count_cells(marks)
        diagonal_cells = sum(weights[name] for name in ("self", "previous", "next"))
        np.testing.assert_array_equal(cells.diagonal, diagonal_cells.sum(axis=0))
        off = [(diagonal_cells[rows::2] == 0).sum(axis=0) for rows in (0, 1)]
        np.testing.assert_array_equal(cells.off_diagonal, off)
        own = weights["own_segment_off_diagonal"].sum(axis=0)
        np.testing.assert_array_equal(cells.own_segment, own)
