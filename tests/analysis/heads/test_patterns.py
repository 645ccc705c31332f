"""What heads attend to: planted maps give the figures they were made for; figures have company."""

import dataclasses

import numpy as np
import pytest

from bertjax.analysis.capture.maps import capture, randomize
from bertjax.analysis.heads.classes import CLASSES
from bertjax.analysis.heads.patterns import (
    FIGURES,
    HeadPatterns,
    classify_heads,
    measure_patterns,
    patterns_with_company,
    sum_maps,
    tally_text,
)
from bertjax.analysis.heads.targets import mark_tokens
from bertjax.model.bert import BertModel
from bertjax.program.errors import UserError
from bertjax.statistics.intervals import Figures, Interval
from tests.analysis.tiny_bodies import make_body, make_texts


@pytest.fixture(scope="module")
def body():
    return make_body()


@pytest.fixture(scope="module")
def texts(body):
    return make_texts(body, (9, 3, 12, 8, 30, 6))


@pytest.fixture(scope="module")
def measured(body, texts):
    return measure_patterns(body, texts)


def figures_of(probs, text):
    """Every figure of one planted map [T, T]."""
    marks = mark_tokens(text)
    tally = tally_text(sum_maps(probs[None, None].astype(np.float32), marks), marks)
    with np.errstate(invalid="ignore"):
        return {name: np.divide(*parts).item() for name, parts in tally.items()}


def test_planted_maps_give_their_figures(texts):
    text = texts[0]
    length = len(text.tokens)
    own = figures_of(np.eye(length), text)
    assert (own["self"], own["previous"], own["entropy"], own["distance"]) == (1, 0, 0, 0)
    assert own["beyond_1_words"] == 0

    even = figures_of(np.full((length, length), 1 / length), text)
    assert even["entropy"] == pytest.approx(np.log(length), rel=1e-5)
    assert even["cls"] == even["sep"] == pytest.approx(1 / length, rel=1e-5)
    assert even["distance"] == pytest.approx((length**2 - 1) / (3 * length), rel=1e-5)

    to_previous = np.eye(length, k=-1)
    to_previous[0, 0] = 1
    before = figures_of(to_previous, text)
    assert (before["previous"], before["next"]) == (1, 0)
    assert before["distance"] == pytest.approx((length - 1) / length, rel=1e-5)


def test_far_attention_is_counted_between_words_alone(body):
    """[SEP] takes most of the attention; of the rest, half goes three words away."""
    text = make_texts(body, (9, 1), seed=4)[0]
    words = text.word_ids
    probs = np.zeros((len(words), len(words)))
    sep = len(words) - 1
    for query in range(len(words)):
        far = np.flatnonzero((np.abs(words - words[query]) == 3) & ~text.special)
        probs[query, sep] = 0.8
        probs[query, query] += 0.1 if len(far) and not text.special[query] else 0.2
        if len(far) and not text.special[query]:
            probs[query, far[0]] += 0.1
    figures = figures_of(probs, text)
    whole = [(np.abs(words - words[q]) == 3)[~text.special].any() for q in range(1, sep)]
    expected = 0.1 * np.sum(whole) / (0.2 * len(whole))
    assert figures["beyond_1_words"] == figures["beyond_2_words"]
    assert figures["beyond_2_words"] == pytest.approx(expected, rel=1e-5)
    assert figures["beyond_4_words"] == 0


def test_figures_are_means_over_the_tokens_of_the_maps(body, texts, measured):
    entropies, cls, to_next = [], [], []
    for captured in capture(body, texts):
        probs = captured.probs.astype(np.float64)
        entropies.append(-(probs * np.log(probs)).sum(axis=-1))
        cls.append(probs[..., 0])
        to_next.append(np.diagonal(probs, 1, axis1=-2, axis2=-1))
    for name, rows in (("entropy", entropies), ("cls", cls), ("next", to_next)):
        sums, counts = measured[name]
        expected = np.concatenate(rows, axis=-1).mean(axis=-1)
        assert expected.shape == (2, 4)
        np.testing.assert_allclose(sums.sum(axis=0) / counts.sum(axis=0), expected, rtol=1e-5)


def test_everything_is_measured_of_every_text(texts, measured):
    assert set(measured) == set(FIGURES)
    for name, (sums, counts) in measured.items():
        assert sums.shape == counts.shape == (len(texts), 2, 4), name
    classes = sum(measured[f"class_{name}"].sums for name in CLASSES)
    np.testing.assert_array_equal(classes, 1)
    # Only the pair has a block, and only it.
    assert [bool(text.all()) for text in measured["block"].counts > 0] == [False] * 5 + [True]


def test_blockwise_figures_are_the_same(body, texts, measured):
    done = []
    blockwise = measure_patterns(body, texts, blockwise=True, progress=done.append)
    assert sum(done) == len(texts)
    for name, (sums, counts) in measured.items():
        np.testing.assert_allclose(blockwise[name].sums, sums, atol=1e-4, rtol=1e-5, err_msg=name)
        with np.errstate(invalid="ignore"):
            figures = sums / counts, blockwise[name].sums / blockwise[name].counts
        np.testing.assert_allclose(*figures, atol=1e-5, rtol=1e-5, err_msg=name)


def test_blockwise_figures_keep_to_the_window(body, texts):
    config = dataclasses.replace(body.config, attention_window=2)
    near = body.replace(module=BertModel(config, pooling=False))
    whole, blockwise = (measure_patterns(near, texts, blockwise=way) for way in (False, True))
    for name in ("entropy", "distance", "cls"):
        sums = blockwise[name].sums
        np.testing.assert_allclose(sums, whole[name].sums, atol=1e-4, rtol=1e-5, err_msg=name)
    assert (whole["entropy"].sums / whole["entropy"].counts).max() < np.log(5)


def test_company_is_the_same_shape_with_random_weights(body):
    texts, done = make_texts(body, (9, 9, 9, 9, 9, 3), seed=1), []
    figures = patterns_with_company(body, texts, seed=5, progress=done.append)
    assert sum(done) == 2 * len(texts)
    control = measure_patterns(randomize(body, 5), texts)["entropy"]
    expected = control.sums.sum(axis=0) / control.counts.sum(axis=0)
    np.testing.assert_allclose(figures["entropy"].control.value, expected, rtol=1e-12)
    assert figures["entropy"].distinguishable.all()
    assert (figures["entropy"].model.low < figures["entropy"].model.high).all()
    assert classify_heads(figures).shape == (2, 4)
    assert set(figures) == set(FIGURES)


def test_heads_are_shown_with_their_class_and_the_largest_first():
    def figures(*values):
        value = np.array([values])
        return Figures(Interval(value, value - 0.1, value + 0.1), Interval(*[value / 2] * 3))

    named = {"vertical": (0.9, 0.1, 0.1), "diagonal": (0.1, 0.8, np.nan), "block": (0.0, 0.0, 0.0)}
    heads = HeadPatterns({name: figures(*values) for name, values in named.items()})
    assert heads.classes == [["vertical", "diagonal", "heterogeneous"]]
    first, *_, last = heads.top("diagonal")
    assert (first.head, last.head) == ("0-1", "0-2")
    assert first[1:] == pytest.approx((0.8, 0.7, 0.9, 0.4))
    assert repr(heads) == "HeadPatterns(vertical 1, diagonal 1, heterogeneous 1)"
    assert heads._repr_html_().count("<td") == 3
    assert "0-1<br>diagonal<br><small>0.10 0.80<" in heads._repr_html_()
    with pytest.raises(UserError, match=r"'diagnal' is not one of .*; did you mean 'diagonal'"):
        heads.top("diagnal")


def test_a_head_is_of_the_class_of_its_shares():
    def figures(*values):
        interval = Interval(*[np.array([values])] * 3)
        return Figures(interval, interval)

    nan = np.nan
    shares = {
        "vertical": figures(0.9, 0.1, 0.4, 0.0, 0.2, nan),
        "diagonal": figures(0.1, 0.9, 0.4, 0.1, 0.2, 0.1),
        "block": figures(nan, 0.5, 0.5, 0.5, 0.2, nan),
    }
    names = [CLASSES[number] for number in classify_heads(shares)[0]]
    assert names == [
        "vertical", "diagonal", "vertical_and_diagonal", "block", "heterogeneous", "heterogeneous",
    ]  # fmt: skip


def test_no_texts_are_refused(body):
    with pytest.raises(UserError, match="no texts to measure"):
        measure_patterns(body, [])
