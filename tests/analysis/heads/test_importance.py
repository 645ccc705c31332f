"""Importance of heads: derivatives that are finite differences; a head that is wired to matter."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import randomize
from bertjax.analysis.heads.importance import (
    ablation_importance,
    draw_pruning_curve,
    gates_without,
    gradient_importance,
    importance_with_company,
    interval_of_orders,
    order_heads,
    random_orders,
)
from bertjax.analysis.heads.objective import masked_language_objective, task_objective
from bertjax.inference.task_outputs import Inference, predict_examples
from bertjax.loaded import load
from bertjax.model.bert import BertForMultipleChoice, BertForTokenClassification
from bertjax.program.errors import UserError
from bertjax.statistics.intervals import bootstrap_ratio
from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.classification import Classification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.tagged_sentences import sentence_of_line
from bertjax.tasks.tagging import Tagging
from tests.analysis.wired import CONFIG, HEAD, LAYER, make_wired_model
from tests.parity.random_models import draw_parameters

TINY = Path(__file__).parents[2] / "parity" / "golden" / "tiny_bert"  # L=5, N=4, M=17
TEXTS = ["this is a cat", "they were all of us", "a b c d e f g h i j k l m n"]
CLASSES = [
    ("a b red c d e", "red"), ("blue", "blue"), ("f red", "red"), ("g g blue h", "blue"),
    ("a c blue k j i h g f", "blue"), ("red b", "red"), ("i red k", "red"),
]  # fmt: skip


@pytest.fixture(scope="module")
def wired():
    return make_wired_model()


@pytest.fixture(scope="module")
def examples():
    return [TextExample(f"f:{i}", text, None, label) for i, (text, label) in enumerate(CLASSES)]


@pytest.fixture(scope="module")
def task():
    return Classification(CONFIG.id2label)


@pytest.fixture(scope="module")
def objective(wired, examples, task):
    return task_objective(wired, task, examples, 13)


@pytest.fixture(scope="module")
def tiny():
    return load(TINY)


@pytest.fixture(scope="module")
def texts(tiny):
    return encode_texts(tiny.tokenizer, TEXTS, 17)


def test_derivative_by_a_gate_is_the_finite_difference(tiny, texts):
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), tiny.params)
        model = type(tiny.module)(tiny.config, jnp.float64)
        objective = masked_language_objective(tiny.replace(module=model, params=params), texts)
        gates = np.random.default_rng(0).uniform(0.5, 1.5, (5, 4))
        derivatives = objective.differentiate(params, gates)
        assert derivatives.shape == (3, 5, 4)
        for place in ((0, 0), (2, 3), (4, 1)):
            losses = []
            for step in (1e-5, -1e-5):
                moved = gates.copy()
                moved[place] += step
                measured = objective.measure(params, moved)
                losses.append(measured.sums / measured.counts)
            slopes = (losses[0] - losses[1]) / 2e-5
            assert np.abs(slopes).min() > 1e-6
            np.testing.assert_allclose(derivatives[:, *place], slopes, rtol=1e-5)


def test_importance_is_the_mean_of_the_examples_absolute_derivatives(tiny, texts):
    objective = masked_language_objective(tiny, texts)
    found = gradient_importance(objective, tiny.params)
    derivatives = objective.differentiate(tiny.params)
    assert (derivatives < 0).any()
    np.testing.assert_allclose(found.heads, np.abs(derivatives).mean(axis=0))
    interval = found.interval()
    np.testing.assert_allclose(interval.value, found.heads)
    assert (interval.low < interval.high).all()
    normalized = gradient_importance(objective, tiny.params, normalize_layers=True)
    np.testing.assert_allclose(np.linalg.norm(normalized.heads, axis=-1), 1)
    np.testing.assert_allclose(
        normalized.heads[1] / normalized.heads[1, 0], found.heads[1] / found.heads[1, 0]
    )


@pytest.mark.whole
def test_masked_tokens_are_the_same_ones_at_every_call(tiny, texts):
    measured = [
        masked_language_objective(tiny, some).measure(tiny.params) for some in (texts, texts[:2])
    ]
    np.testing.assert_array_equal(measured[0].counts, [1, 1, 2])
    np.testing.assert_allclose(measured[0].sums[:2], measured[1].sums, rtol=1e-5)
    assert 0 <= measured[0].score <= 1
    # Each text has masks of its own: the same words twice are not the same examples.
    twice = masked_language_objective(tiny, [texts[2]] * 4).measure(tiny.params)
    assert len(set(twice.sums.round(4).tolist())) > 1
    other = masked_language_objective(tiny, texts, seed=1).measure(tiny.params)
    assert not np.allclose(other.sums, measured[0].sums)


def test_loss_is_that_of_the_masked_tokens(tiny, texts):
    objective = masked_language_objective(tiny, texts)
    measured = objective.measure(tiny.params)
    for number, (masked, positions, labels) in enumerate(objective._items):
        output = jax.jit(tiny.module.apply)(
            {"params": tiny.params}, masked.token_ids[None], masked.token_type_ids[None]
        )
        own = np.asarray(output.mlm_logits[0], np.float64)[positions]
        np.testing.assert_array_equal(texts[number].token_ids[positions], labels)
        losses = np.log(np.exp(own).sum(axis=-1)) - own[np.arange(len(labels)), labels]
        assert measured.sums[number] == pytest.approx(losses.sum(), rel=1e-5)


def make_tagging(wired):
    sentences = [
        sentence_of_line(f"f:{i}", text)._replace(tags=tuple(tags.split()))
        for i, (text, tags) in enumerate(
            [("a b c", "X Y X"), ("red d", "Y Y"), ("e f g h i j k a b", "X X Y Y X X Y Y X")]
        )
    ]
    model = BertForTokenClassification(CONFIG)
    return model, Tagging(("X", "Y")), sentences


def make_choices(wired):
    questions = [
        ChoiceQuestion("f:0", "a b", ("red", "c d"), 1),
        ChoiceQuestion("f:1", "e", ("f", "g h i", "blue"), 0),
        ChoiceQuestion("f:2", "k j i h", ("a b c d", "blue"), 1),
    ]
    return BertForMultipleChoice(CONFIG), MultipleChoice(), questions


@pytest.mark.parametrize("make", [make_tagging, make_choices])
def test_loss_and_score_are_those_of_evaluate(wired, make):
    model, task, examples = make(wired)
    params = draw_parameters(CONFIG, type(model).__name__, seed=7)
    whole = wired.replace(module=model, params=params)
    measured = task_objective(whole, task, examples, 13).measure(params)
    inference = Inference(model, task, wired.tokenizer.pad_id)
    predicted = predict_examples(inference, {"params": params}, task, examples, wired.tokenizer, 13)
    assert measured.loss == pytest.approx(predicted.loss, rel=1e-4)
    expected = task.score(examples, predicted.predictions)[task.main_score]
    assert measured.score == pytest.approx(expected)
    assert 0 < expected < 1


def test_head_that_is_wired_to_decide_is_the_most_important(wired, objective):
    assert objective.score_name == "accuracy"
    assert objective.measure(wired.params).score == 1
    by_gradient = gradient_importance(objective, wired.params).heads
    by_ablation, changes = ablation_importance(objective, wired.params)
    for importance in (by_gradient, by_ablation.heads, -changes):
        assert np.unravel_index(importance.argmax(), importance.shape) == (LAYER, HEAD)
        others = np.delete(importance.ravel(), importance.argmax())
        assert importance.max() > 5 * np.abs(others).max()
    gates = gates_without((3, 4), np.array([[LAYER, HEAD]]))
    without = objective.measure(wired.params, gates)
    expected = without.loss - objective.measure(wired.params).loss
    assert by_ablation.heads[LAYER, HEAD] == pytest.approx(expected)
    assert changes[LAYER, HEAD] == pytest.approx(without.score - 1)


def test_importance_of_the_wired_head_is_told_from_a_random_models(wired, objective):
    control = randomize(wired)
    figures = importance_with_company(objective, wired.params, control.params)
    assert figures.distinguishable[LAYER, HEAD]
    assert figures.model.value[LAYER, HEAD] > 5 * figures.control.high[LAYER, HEAD]
    same = importance_with_company(objective, wired.params, wired.params)
    assert not same.distinguishable.any()


def test_one_more_random_order_is_told_from_random_orders_as_rarely_as_it_should():
    random = np.random.default_rng(4)
    told, trials, counts = 0, 200, np.ones((30, 1))
    for _ in range(trials):
        # The losses of orders differ by 1, those of examples by 0.1.
        means = random.normal(3, 1, (6, 1, 1))
        sums = means + random.normal(0, 0.1, (6, 30, 1))
        control = interval_of_orders(sums[1:], counts)
        told += not control.low[0] <= sums[0].mean() <= control.high[0]
    assert 0 < told < 0.1 * trials
    # Where orders make no difference, examples alone do.
    sums = np.broadcast_to(random.normal(3, 1, (30, 1)), (5, 30, 1))
    np.testing.assert_allclose(interval_of_orders(sums, counts), bootstrap_ratio(sums[0], counts))


def test_score_holds_until_the_wired_head_goes(wired, objective):
    order = order_heads(gradient_importance(objective, wired.params).heads)
    assert sorted(map(tuple, order.tolist())) == list(np.ndindex(3, 4))
    curve = draw_pruning_curve(objective, wired.params, order, steps=6)
    assert curve.removed.tolist() == [0, 2, 4, 6, 8, 10, 12]
    np.testing.assert_array_equal(curve.scores[:-1], 1)
    assert curve.scores[-1] < 0.6
    assert curve.random_scores.shape == (5, 7)
    np.testing.assert_array_equal(curve.random_scores[:, 0], 1)
    assert curve.random_scores[:, 5].mean() < 0.9
    # With half of the heads gone, every second random order has the wired head as well.
    assert not curve.losses.distinguishable[[0, 3, -1]].any()
    assert curve.losses.model.value[0] == pytest.approx(objective.measure(wired.params).loss)
    assert curve.to_json()["score"] == "accuracy"


def test_orders_are_random_and_whole():
    first, second = random_orders((3, 4), 2)
    assert sorted(map(tuple, first.tolist())) == list(np.ndindex(3, 4))
    assert first.tolist() != second.tolist()
    np.testing.assert_array_equal(random_orders((3, 4), 2)[1], second)


def test_what_cannot_be_measured_is_refused(wired, tiny, task, objective):
    with pytest.raises(UserError, match="a BertForSequenceClassification has no masked-LM head"):
        masked_language_objective(wired, encode_texts(wired.tokenizer, ["a"], 13))
    with pytest.raises(UserError, match="no text to measure"):
        masked_language_objective(tiny, [])
    with pytest.raises(UserError, match="no example to measure"):
        task_objective(wired, task, [], 13)
    with pytest.raises(UserError, match="steps=0 must be at least 1"):
        draw_pruning_curve(objective, wired.params, np.zeros((0, 2), int), steps=0)
