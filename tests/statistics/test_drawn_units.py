"""What a bootstrap draws: texts and not windows, and no more units than memory has room for."""

import numpy as np
import pytest
from scipy.stats import t

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.heads.importance import gradient_importance
from bertjax.analysis.heads.objective import masked_language_objective
from bertjax.analysis.heads.patterns import measure_patterns
from bertjax.analysis.heads.redundancy import measure_redundancy
from bertjax.analysis.layers import similarity
from bertjax.analysis.layers.lens import Lens, lens_curve
from bertjax.analysis.layers.similarity import compare_layers, linear_cka
from bertjax.loaded import Model
from bertjax.model.bert import BertForMaskedLM
from bertjax.program.errors import UserError
from bertjax.statistics.drawn_units import number_units, sum_by_unit
from tests.analysis.tiny_bodies import WORDS, make_body, make_texts
from tests.analysis.wired import CONFIG, make_wired_model
from tests.parity.random_models import draw_parameters

WINDOWS = (3, 1, 2)  # of each text


@pytest.fixture(scope="module")
def body():
    return make_body()


@pytest.fixture(scope="module")
def windows(body):
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, 10 * number)) for number in WINDOWS]
    found = encode_texts(body.tokenizer, texts, 12, too_long="windows")
    assert [text.source for text in found] == [0, 0, 0, 1, 2, 2]
    return found


def test_windows_of_a_text_are_one_unit(windows):
    sources = [text.source for text in windows]
    assert number_units(sources).tolist() == [0, 0, 0, 1, 2, 2]
    # Whatever numbers the texts have.
    assert number_units(sources[3:]).tolist() == [0, 1, 1]
    assert number_units(sources[:3]).tolist() == [0, 1, 2]  # of a single text, its windows
    assert number_units(sources, most=2).tolist() == [0, 0, 0, 1, 0, 0]
    np.testing.assert_array_equal(
        sum_by_unit(np.arange(12.0).reshape(6, 2), number_units(sources)),
        [[0 + 2 + 4, 1 + 3 + 5], [6, 7], [8 + 10, 9 + 11]],
    )


@pytest.mark.parametrize("blockwise", [False, True])
def test_figures_of_heads_are_added_up_by_text(body, windows, blockwise):
    tallies = measure_patterns(body, windows, blockwise=blockwise)
    divergences = measure_redundancy(body, windows, blockwise=blockwise)
    alone = [measure_patterns(body, [window]) for window in windows]
    for name, tally in tallies.items():
        for part, own in enumerate(tally):
            expected = [one[name][part][0] for one in alone]
            expected = [sum(expected[:3]), expected[3], sum(expected[4:])]
            np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-4, err_msg=name)
    assert divergences.counts.tolist() == [3 * 12, 12, 2 * 12]
    assert divergences.sums.shape[0] == 3


def test_memory_does_not_grow_with_the_number_of_texts(body):
    texts = make_texts(body, [3] * 300)
    assert measure_patterns(body, texts)["entropy"].sums.shape[0] == 256


def test_windows_of_a_text_are_of_one_fold(body, windows, monkeypatch):
    with pytest.raises(UserError, match="3 texts in 4 folds"):
        compare_layers(body, body, windows, folds=4)
    random = np.random.default_rng(0)
    hidden = [random.normal(size=(3, len(text.tokens), 4)) for text in windows]
    planted = [Captured(text, None, own, None) for text, own in zip(windows, hidden, strict=True)]
    monkeypatch.setattr(similarity, "capture", lambda *_, **__: planted)
    # One fold is the second text, the other the first and the third.
    folds = hidden[3:4], hidden[:3] + hidden[4:]
    without = [
        linear_cka(*np.concatenate([own[:2, 1:-1] for own in fold], axis=1)) for fold in folds
    ]
    found = compare_layers(body, body, windows, folds=2)
    half = t.ppf(0.975, 1) * np.abs(without[0] - without[1]) / 2
    assert half > 0.05
    np.testing.assert_allclose(found.high[0, 1] - found.value[0, 1], half, rtol=1e-3)


def test_the_lens_draws_texts(windows):
    ranks = [1, 1, 1, 2, 2, 2]
    nothing = np.zeros((1, 1, 1))
    lenses = [
        Lens(text, np.arange(1), True, nothing[0], np.array([[rank]]), nothing, nothing, ())
        for text, rank in zip(windows, ranks, strict=True)
    ]
    curve = lens_curve(lenses)
    # All windows of the first text, or none of them.
    assert (curve.low, curve.value, curve.high) == (0.5, 0.75, 1.0)


def test_importance_of_heads_draws_texts():
    model, tokenizer = BertForMaskedLM(CONFIG), make_wired_model().tokenizer
    params = draw_parameters(CONFIG, "BertForMaskedLM")
    whole = Model(model, params, tokenizer)
    texts = encode_texts(
        tokenizer, ["a b red c d e f g h i k j a b red c", "a red i", "b c d blue"], 13,
        too_long="windows",
    )  # fmt: skip
    assert [text.source for text in texts] == [0, 0, 1, 2]
    objective = masked_language_objective(whole, texts)
    assert objective.units.tolist() == [0, 0, 1, 2]
    found = gradient_importance(objective, whole.params)
    gradients = np.abs(objective.differentiate(whole.params))
    np.testing.assert_allclose(found.sums, [gradients[0] + gradients[1], *gradients[2:]], rtol=1e-5)
    assert found.counts.sum() == (objective.measure(whole.params).counts > 0).sum()
