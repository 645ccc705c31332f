"""Calibration of every task: that of `evaluate` for classes, by hand for the others."""

import numpy as np
import pytest

from bertjax.gating.confidences import judge_confidences
from bertjax.gating.quantities import Answered, sample_examples
from bertjax.tasks import scores
from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.question_answering import QuestionAnswering
from bertjax.tasks.regression import Regression
from bertjax.tasks.tagged_sentences import place_tokens
from bertjax.tasks.tagging import Tagging


def text(label):
    return TextExample("f:1", "x", None, label)


def figures(task, examples, predictions):
    sample = sample_examples(Answered(task, examples, predictions, {}, {}))
    return sample.of(np.arange(len(examples)))


def test_classes_have_the_error_of_evaluate_and_brier_is_the_squared_distance():
    random, labels = np.random.default_rng(0), ("a", "b", "c")
    probabilities = random.dirichlet((1, 1, 1), 60)
    gold = random.integers(3, size=60)
    predictions = [
        {
            "label": labels[one.argmax()],
            "probability": one.max(),
            "probabilities": dict(zip(labels, one.tolist(), strict=True)),
        }
        for one in probabilities
    ]
    task, examples = Classification(labels), [text(labels[one]) for one in gold]
    confidences = judge_confidences(task, examples, predictions)
    found = figures(task, examples, predictions)
    expected = scores.calibration_error(gold, probabilities)
    assert found["calibration_error"] == pytest.approx(expected)
    gaps = confidences.gaps.sum(axis=0)
    assert np.abs(gaps).sum() / 60 == pytest.approx(expected)
    assert found["brier"] == pytest.approx(np.square(probabilities - np.eye(3)[gold]).sum() / 60)
    bins = confidences.describe_bins()
    assert sum(one["answers"] for one in bins) == 60
    assert sum(one["answers"] * one["right"] for one in bins) == pytest.approx(
        (probabilities.argmax(axis=1) == gold).sum()
    )
    right, confidence = confidences.reliability()
    known = np.isfinite(right.value)
    assert [one["confidence"] for one in bins] == pytest.approx(confidence.value[known].tolist())


def test_each_of_several_labels_is_an_answer():
    task = MultiLabelClassification(("art", "war"))
    predictions = [{"labels": ["art"], "probabilities": {"art": 0.75, "war": 0.4}}] * 3
    examples = [text(("art",)), text(("war",)), text(("art",))]
    found = figures(task, examples, predictions)
    # Three with confidence 0.75 and three with 0.6, two of each right.
    assert found["calibration_error"] == pytest.approx((0.25 + 0.2) / 6)
    squares = 2 * (0.25**2 + 0.4**2) + 0.75**2 + 0.6**2
    assert found["brier"] == pytest.approx(squares / 6)


def test_each_word_is_an_answer():
    task = Tagging(("O", "B-X"))
    sentences = [
        place_tokens("f:1", ["a", "b", "c"], ["O", "B-X", "O"], None),
        place_tokens("f:5", ["a"], ["O"], None),
    ]
    predictions = [
        {"tags": ["O", "O", "O"], "probabilities": [0.9, 0.9, 0.9], "entities": []},
        {"tags": ["O"], "probabilities": [0.9], "entities": []},
    ]
    found = figures(task, sentences, predictions)
    assert found["calibration_error"] == pytest.approx(0.9 - 0.75)
    assert found["brier"] == pytest.approx((3 * 0.1**2 + 0.9**2) / 4)


def test_choices_are_classes():
    question = ChoiceQuestion("f:1", "x", ("a", "b", "c"), 1)
    predictions = [{"choice": 1, "probabilities": [0.2, 0.7, 0.1]}]
    found = figures(MultipleChoice(), [question], predictions)
    assert found["calibration_error"] == pytest.approx(0.3)
    assert found["brier"] == pytest.approx(0.04 + 0.09 + 0.01)


@pytest.mark.parametrize("task", [Regression(), QuestionAnswering(True)])
def test_answers_without_probabilities_have_no_calibration(task):
    assert judge_confidences(task, [], []) is None
