"""CKA: 1 under rotation, near 0 without relation, the same streamed as at once."""

import jax
import numpy as np
import pytest

from bertjax.analysis.capture.maps import capture, randomize
from bertjax.analysis.layers import similarity
from bertjax.analysis.layers.similarity import PairSums, compare_layers, linear_cka
from bertjax.program.errors import UserError
from tests.analysis.tiny_bodies import make_body, make_texts

LENGTHS = [3, 9, 5, 12, 7, 4, 11, 6, 8, 10]


@pytest.fixture(scope="module")
def body():
    """With weights so large that every layer changes what it gets."""
    body = make_body()
    layers = body.params["encoder"]["layers"]
    large = jax.tree.map(lambda leaf: np.asarray(8 * leaf if leaf.ndim > 2 else leaf), layers)
    return body.replace(params={**body.params, "encoder": {"layers": large}})


@pytest.fixture(scope="module")
def texts(body):
    return make_texts(body, LENGTHS)


def hidden_of(body, texts):
    """[L+1, n, D] of all tokens but [CLS] and [SEP]."""
    found = capture(body, texts, hidden=True)
    return np.concatenate([one.hidden[:, ~one.encoded.special] for one in found], axis=1)


@pytest.mark.parametrize("unbiased", [True, False])
def test_rotation_scale_and_shift_change_nothing(unbiased):
    rng = np.random.default_rng(0)
    first = rng.normal(size=(37, 11)) + 5
    rotation, _ = np.linalg.qr(rng.normal(size=(11, 11)))
    assert linear_cka(first, 3 * first @ rotation - 7, unbiased) == pytest.approx(1, abs=1e-10)
    stretched = first * np.geomspace(1, 100, 11)
    assert linear_cka(first, stretched, unbiased) < 0.9


def test_only_the_unbiased_figure_of_unrelated_ones_is_near_zero():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(40, 30)), rng.normal(size=(40, 60))
    assert linear_cka(first, second, unbiased=False) > 0.4
    assert abs(linear_cka(first, second)) < 0.15


@pytest.mark.parametrize("unbiased", [True, False])
def test_sums_equal_the_criterion_over_kernels(unbiased):
    """Gretton et al. and Song et al. as they write them: with the kernels, n by n."""
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(9, 4)) + 1, rng.normal(size=(9, 6)) - 2
    n, (k, m) = 9, (first @ first.T, second @ second.T)
    if unbiased:
        k, m = (kernel - np.diag(np.diag(kernel)) for kernel in (k, m))
        ones = np.ones(n)
        expected = (
            np.trace(k @ m)
            + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (ones @ k @ m @ ones)
        ) / (n * (n - 3))
    else:
        center = np.eye(n) - 1 / n
        expected = np.trace(k @ center @ m @ center) / n**2
    assert PairSums.of(first, second).dependence(unbiased) == pytest.approx(expected, rel=1e-10)


def test_sums_add_up():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(12, 3)), rng.normal(size=(12, 5))
    whole = PairSums.of(first, second)
    parts = PairSums.of(first[:5], second[:5]).plus(PairSums.of(first[5:], second[5:]))
    for one, other in zip(whole, parts, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    rest = whole.minus(PairSums.of(first[5:], second[5:]))
    np.testing.assert_allclose(rest.cross, first[:5].T @ second[:5])
    assert rest.tokens == 5


@pytest.mark.parametrize("unbiased", [True, False])
def test_layers_streamed_equal_all_at_once(body, texts, monkeypatch, unbiased):
    monkeypatch.setattr(similarity, "CHUNK_TOKENS", 13)
    found = compare_layers(body, body, texts, unbiased=unbiased)
    states = hidden_of(body, texts)
    expected = [[linear_cka(one, other, unbiased) for other in states] for one in states]
    np.testing.assert_allclose(found.value, expected, atol=2e-4)
    assert found.value[0, 2] < 0.95
    np.testing.assert_allclose(np.diag(found.value), 1, atol=1e-5)
    assert (found.low[0, 1:] < found.value[0, 1:]).all()


def test_other_model_and_chosen_layers(body, texts):
    control = randomize(body, 5)
    found = compare_layers(body, control, texts, first_layers=[0, 2], second_layers=[1])
    assert found.value.shape == (2, 1)
    first, second = hidden_of(body, texts), hidden_of(control, texts)
    expected = [[linear_cka(first[layer], second[1])] for layer in (0, 2)]
    np.testing.assert_allclose(found.value, expected, atol=2e-4)


def test_rotated_model_is_the_same_by_its_hidden_states(body, texts):
    """Another order of the features of all hidden states: each layer stays what it was."""
    order = np.random.default_rng(4).permutation(32)

    def permute(leaf):  # no axis but that of D has 32 places
        leaf = np.asarray(leaf)
        for axis in np.flatnonzero(np.array(leaf.shape) == 32):
            leaf = np.take(leaf, order, axis=axis)
        return leaf

    other = body.replace(params=jax.tree.map(permute, body.params))
    found = compare_layers(body, other, texts)
    np.testing.assert_allclose(np.diag(found.value), 1, atol=1e-5)
    np.testing.assert_allclose(found.value, compare_layers(body, body, texts).value, atol=1e-4)


def test_interval_holds_the_truth_about_as_often_as_it_says():
    """Of 60 draws of related data, nearly all intervals hold the value of a very large sample."""
    rng = np.random.default_rng(6)
    mixing = rng.normal(size=(8, 5))

    def draw(n):
        first = rng.normal(size=(n, 8))
        return first, first @ mixing + 2 * rng.normal(size=(n, 5))

    truth = linear_cka(*draw(200_000))
    held = 0
    for _ in range(60):
        first, second = draw(200)
        parts = [np.delete(np.arange(200), np.arange(k, 200, 5)) for k in range(5)]
        value = np.array(linear_cka(first, second))
        without = np.array([linear_cka(first[rows], second[rows]) for rows in parts])
        interval = similarity._jackknife(value, without)
        held += interval.low <= truth <= interval.high
    assert held >= 50


def test_mistakes_are_told(body, texts):
    with pytest.raises(UserError, match="numbered from 0"):
        compare_layers(body, body, texts, first_layers=[3])
    with pytest.raises(UserError, match="give more texts"):
        compare_layers(body, body, texts[:4])
    with pytest.raises(UserError, match="at least 4"):
        linear_cka(np.ones((3, 2)), np.ones((3, 2)))
    other = body.replace(tokenizer=type(body.tokenizer)(body.tokenizer.library))
    other.tokenizer.library.add_tokens(["new"])
    other = other.replace(tokenizer=type(body.tokenizer)(body.tokenizer.library))
    assert other.tokenizer.fingerprint != make_body().tokenizer.fingerprint
    with pytest.raises(UserError, match="other tokenizers"):
        compare_layers(make_body(), other, texts)
