"""Resampled scores are those of the drawn examples, scored the slow way."""

import numpy as np
import pytest

from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.classification import Classification, MultiLabelClassification
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.multiple_choice import MultipleChoice
from bertjax.tasks.question_answering import QuestionAnswering
from bertjax.tasks.regression import Regression
from bertjax.tasks.scoring import Predicted, evaluate_predictions, single_scores
from bertjax.tasks.squad import Question
from bertjax.tasks.tagged_sentences import TaggedSentence
from bertjax.tasks.tagging import Tagging

RANDOM = np.random.default_rng(5)
N = 23
LABELS = ("a", "b", "c")


def text_examples(labels):
    return [TextExample(f"f:{n}", f"text {n}", None, label) for n, label in enumerate(labels)]


def classes(labels):
    # Few values, so that several examples have the same.
    rows = RANDOM.integers(1, 5, size=(N, len(labels))) / 1.0
    probabilities = rows / rows.sum(axis=-1, keepdims=True)
    predictions = [{"probabilities": dict(zip(labels, row, strict=True))} for row in probabilities]
    gold = [labels[min(n % 5, len(labels) - 1)] for n in range(N)]
    return Classification(labels), text_examples(gold), predictions


def sets():
    probabilities = RANDOM.integers(0, 5, size=(N, len(LABELS))) / 4
    predictions = [{"probabilities": dict(zip(LABELS, row, strict=True))} for row in probabilities]
    gold = [tuple(label for label in LABELS if RANDOM.random() < 0.4) for _ in range(N)]
    return MultiLabelClassification(LABELS), text_examples(gold), predictions


def numbers():
    gold = RANDOM.integers(0, 4, size=N).astype(float)
    predictions = [{"value": value + RANDOM.normal()} for value in gold]
    return Regression(), text_examples(gold.tolist()), predictions


def tags(labels):
    examples, predictions = [], []
    for number in range(N):
        gold, said = (tuple(RANDOM.choice(labels, size=1 + number % 6)) for _ in range(2))
        said = [
            one if RANDOM.random() < 0.6 else other for one, other in zip(gold, said, strict=True)
        ]
        words = ("w",) * len(gold)
        examples.append(TaggedSentence(f"f:{number}", words, tuple(map(str, gold)), "", ()))
        predictions.append({"tags": list(map(str, said))})
    return Tagging(labels), examples, predictions


def questions(answerable):
    examples, predictions = [], []
    for number in range(N):
        gold = () if not answerable and number % 3 == 0 else ("one two",)
        examples.append(
            Question(str(number), "?", "one two", "", (), not gold, f"f:{number}", gold)
        )
        answer = str(RANDOM.choice(["one two", "one", "three", ""]))
        predictions.append(
            {
                "id": str(number),
                "answer": answer,
                "nbest": [{"text": answer or "two"}],
                "null_odds": None if number == 4 else float(RANDOM.integers(-3, 4)),
            }
        )
    return QuestionAnswering(answerable), examples, predictions


def choices():
    examples = [ChoiceQuestion(f"f:{n}", "?", ("x", "y"), n % 2) for n in range(N)]
    return MultipleChoice(), examples, [{"choice": int(RANDOM.integers(2))} for _ in range(N)]


CASES = {
    "two classes": lambda: classes(LABELS[:2]),
    "three classes": lambda: classes(LABELS),
    "sets": sets,
    "numbers": numbers,
    "entities": lambda: tags(("O", "B-X", "I-X", "B-Y", "I-Y")),
    "tags": lambda: tags(("NOUN", "VERB", "DET")),
    "questions": lambda: questions(True),
    "questions without an answer": lambda: questions(False),
    "choices": choices,
}


def score_slowly(task, examples, predictions, drawn):
    return task.score([examples[n] for n in drawn], [predictions[n] for n in drawn])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
@pytest.mark.parametrize("case", CASES)
def test_scores_of_a_draw_are_those_of_its_examples(case):
    task, examples, predictions = CASES[case]()
    resampled = task.resampler(examples, predictions)
    draws = [np.arange(N), *(np.full(3, n) for n in range(N))]  # all; one alone, thrice
    draws += [RANDOM.integers(N, size=size) for size in (2, 2, 2, 5, 5, N, N, N, N)]
    for drawn in draws:
        expected = score_slowly(task, examples, predictions, drawn)
        found = resampled(drawn)
        assert single_scores(found).keys() == single_scores(expected).keys()
        assert {name: found[name] for name in single_scores(found)} == pytest.approx(
            single_scores(expected), abs=1e-12
        )


@pytest.mark.parametrize("case", CASES)
def test_task_names_the_scores_that_may_choose(case):
    task, examples, predictions = CASES[case]()
    scores = task.score(examples, predictions)
    numbers = {name for name, value in scores.items() if isinstance(value, float | None)}
    assert set(task.score_names) == {name for name in numbers if not name.endswith("_thresh")}
    assert task.main_score in task.score_names


def test_intervals_are_those_of_the_slow_way():
    task, examples, predictions = CASES["entities"]()
    examples = [example._replace(text="text") for example in examples]
    predicted = Predicted(predictions, 0.0, [], 0.0)
    found = evaluate_predictions(task, examples, predicted, resamples=40)["intervals"]
    random = np.random.default_rng(0)
    values = [
        score_slowly(task, examples, predictions, random.integers(N, size=N))["f1"]
        for _ in range(40)
    ]
    assert found["f1"] == pytest.approx(np.percentile(values, [2.5, 97.5]).tolist())
