"""Which checkpoint is kept: by the score where it can tell, by the loss where it cannot."""

import json
import math
import sys

import numpy as np
import pytest

from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.question_answering import QuestionAnswering
from bertjax.tasks.regression import Regression
from bertjax.tasks.selection import (
    Evaluation,
    describe_selection,
    evaluate_checkpoint,
    select,
    standard_error,
)
from bertjax.tasks.tagging import Tagging


def evaluations(*rows):
    """Of (goodness, loss, error), at the steps 1, 2, ..."""
    return [Evaluation(step, *row) for step, row in enumerate(rows, start=1)]


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(0.9, 0.7, 0.0), (0.9, 0.3, 0.0), (0.9, 0.5, 0.0)], 2),  # equal scores
        ([(0.9, 0.3, 0.0), (0.9, 0.7, 0.0)], 1),
        ([(0.8, 0.1, 0.0), (0.9, 0.7, 0.0)], 2),  # the score knows
        ([(0.90, 0.3, 0.05), (0.93, 0.7, 0.05)], 1),  # chance makes as much
        ([(0.93, 0.7, 0.05), (0.90, 0.3, 0.05)], 2),
        ([(0.80, 0.1, 0.05), (0.90, 0.7, 0.05)], 2),  # chance does not
        ([(0.90, 0.7, 0.05), (0.80, 0.1, 0.05)], 1),
        # Losses fall as the score does: the third is within an error of the second, not the first.
        ([(0.90, 0.7, 0.05), (0.86, 0.6, 0.05), (0.82, 0.5, 0.05)], 2),
        ([(-sys.float_info.max, 0.7, sys.float_info.max), (0.1, 0.9, 0.0)], 2),  # undefined
        ([(-0.7, 0.7, 0.0), (-0.3, 0.3, 0.0), (-0.4, 0.4, 0.0)], 2),  # the loss itself
        ([(0.9, sys.float_info.max, 0.1), (0.9, 0.3, 0.1)], 2),
    ],
)
def test_loss_decides_where_the_score_cannot(rows, kept):
    assert select(evaluations(*rows)).kept.step == kept


def test_patience_counts_from_the_one_that_is_kept():
    rows = [(0.9, 0.7, 0.0), (0.9, 0.3, 0.0), (0.9, 0.5, 0.0), (0.8, 0.2, 0.0)]
    found = [select(evaluations(*rows[:count])) for count in range(1, 5)]
    assert [one.unimproved for one in found] == [0, 0, 1, 2]
    assert [one.changes for one in found] == [1, 2, 2, 2]
    assert found[-1].rivals == 3
    assert select([]) is None


def test_evaluations_come_back_from_json():
    some = evaluations((0.1, 0.2, 0.3), (-sys.float_info.max, sys.float_info.max, 0.0))
    assert [Evaluation(*one) for one in json.loads(json.dumps(some))] == some


def examples_of(labels):
    return [TextExample(f"f:{n}", "a", None, label) for n, label in enumerate(labels)]


def answer(label, probability=0.9):
    other = "b" if label == "a" else "a"
    probabilities = {label: probability, other: 1 - probability}
    return {"label": label, "probability": probability, "probabilities": probabilities}


def test_error_of_an_accuracy_is_that_of_a_share():
    task, examples = Classification(("a", "b")), examples_of("ab" * 50)
    wrong = [answer("ba"[number % 2] if number < 20 else "ab"[number % 2]) for number in range(100)]
    error = standard_error("accuracy", task, examples, wrong)
    assert error == pytest.approx(math.sqrt(0.8 * 0.2 / 100), rel=0.3)
    # A bootstrap of what is all right knows of no error.
    right = [answer("ab"[number % 2]) for number in range(10)]
    assert standard_error("accuracy", task, examples[:10], right) == 0.1


def test_score_that_most_draws_leave_undefined_has_every_error():
    task, examples = Regression(), [TextExample("f:1", "a", None, 1.0)]
    assert standard_error("pearson", task, examples, [{"value": 1.0}]) == sys.float_info.max


def test_loss_needs_no_error():
    task, examples = Classification(("a", "b")), examples_of("ab")
    said = [answer("a"), answer("a")]
    found = evaluate_checkpoint(3, "loss", 0.5, {}, task, examples, said)
    assert found == Evaluation(3, -0.5, 0.5, 0.0)
    found = evaluate_checkpoint(3, "loss", math.nan, {}, task, examples, said)
    assert found.loss == sys.float_info.max


@pytest.mark.parametrize("score", ["pearson", "mse"])
def test_every_score_of_numbers_has_an_error(score):
    task, draw = Regression(), np.random.default_rng(0)
    gold = draw.normal(size=40)
    examples = [TextExample("f:1", "a", None, float(value)) for value in gold]
    said = [{"value": float(value)} for value in gold + draw.normal(size=40) / 2]
    found = evaluate_checkpoint(1, score, 0.3, task.score(examples, said), task, examples, said)
    assert 0 < found.error < 0.2
    assert (found.goodness > 0) == (score == "pearson")


def test_percentages_have_errors_of_percentages():
    assert QuestionAnswering(True).score_scale == 100
    for task in (Tagging(("O", "B-X")), MultipleChoice(), MultiLabelClassification(("a",))):
        assert task.score_scale == 1


def test_what_decided_is_told():
    one, other = (0.95, 0.3, 0.05), (0.97, 0.6, 0.05)
    said, told = describe_selection(select(evaluations(one, other)), "accuracy", 2, 40)
    assert said == (
        "kept step 1 of 2 evaluations by its loss, the lowest among the 2 whose accuracy is within"
        " chance of the best (40 validation examples know accuracy to ± 0.098)"
    )
    assert told == {
        "step": 1, "by": "loss", "evaluations": 2, "rivals": 2, "examples": 40,
        "interval": pytest.approx(0.098),
    }  # fmt: skip
    clear = evaluations((0.5, 0.3, 0.05), (0.9, 0.6, 0.05))
    said, told = describe_selection(select(clear), "accuracy", 2, 40)
    assert (told["by"], told["step"]) == ("score", 2)
    assert "kept step 2 of 2 evaluations, the best by accuracy (40 val" in said
    alone = evaluations((-0.3, 0.3, 0.0))
    said, told = describe_selection(select(alone), "loss", 1, 1)
    assert said == "kept step 1 of 1 evaluation, the one with the lowest loss on 1 example"
    assert (told["by"], told["interval"]) == ("loss", None)
