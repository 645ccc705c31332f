"""The language of requirements: what it computes, and that nothing else is in it."""

import numpy as np
import pytest

from bertjax.gating.gate import read_requirements
from bertjax.gating.requirements import read_requirement
from bertjax.program.errors import UserError
from bertjax.tasks.classification import Classification
from bertjax.tasks.question_answering import QuestionAnswering
from bertjax.tasks.regression import Regression
from bertjax.tasks.tagging import Tagging

KNOWN = {"accuracy", "macro_f1", "p95_ms"}
NEW = {"accuracy": 0.75, "macro_f1": 0.5, "p95_ms": 8.0}
OLD = {"accuracy": 0.5, "macro_f1": 0.25, "p95_ms": 4.0}


def read(text):
    return read_requirement(text, KNOWN, {"flips": "the answers are numbers"})


@pytest.mark.parametrize(
    ("text", "margin"),
    [
        ("accuracy >= old - 0.125", 0.375),
        ("accuracy > old.macro_f1 * 2", 0.25),
        ("p95_ms <= 1.5 * old", -2.0),
        ("0.5 < (accuracy + macro_f1) / 2", 0.125),
        ("-accuracy < +1 - old.accuracy", 1.25),
        ("accuracy >= .5", 0.25),
    ],
)
def test_margin_is_how_far_the_sides_are_apart(text, margin):
    requirement = read(text)
    assert requirement.margin(NEW, OLD) == margin
    several = [{name: np.full(3, value) for name, value in own.items()} for own in (NEW, OLD)]
    assert requirement.margin(*several).tolist() == [margin] * 3


def test_division_by_zero_is_undefined_and_never_met():
    for text in ("accuracy / 0 >= 1", "accuracy >= -1 / 0", "accuracy >= 0 / (old - 0.5)"):
        assert np.isnan(read(text).margin(NEW, OLD))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy >= old", r"'acuracy' is no quantity; did you mean 'accuracy'\?"),
        ("accuracy >= old.acc", "'acc' is no quantity"),
        ("accuracy", "is not one comparison"),
        ("accuracy == 1", "is not one comparison"),
        ("0.5 <= accuracy <= 1", "is not one comparison"),
        ("accuracy >= old and p95_ms <= 9", "is not one comparison"),
        ("accuracy >=", "cannot be read"),
        ("accuracy >= \0", "cannot be read"),
        ("(" * 290 + "accuracy", "cannot be read"),
        ("accuracy >= 1 " + " " * 300, "has 314 characters, and 300 is the most"),
        ("__import__('os').system('true') >= 1", "is not allowed"),
        ("accuracy >= old.accuracy.real", "is not allowed"),
        ("accuracy >= accuracy.real", "is not allowed"),
        ("accuracy >= [1][0]", "is not allowed"),
        ("accuracy >= (lambda: 1)()", "is not allowed"),
        ("accuracy ** 2 >= old", r"accuracy \*\* 2 is none of"),
        ("accuracy >= 7 // 2", "7 // 2 is none of"),
        ("accuracy >= ~1", "is not allowed"),
        ("accuracy >= 'old'", "'old' is not a number"),
        ("accuracy >= True", "True is not a number"),
        ("accuracy >= 1j", "1j is not a number"),
        ("accuracy >= 1e999", "is not a finite number"),
        (f"accuracy >= {'9' * 280}e99", "is not a finite number"),
        ("1 >= 0", "names no quantity of the new model"),
        ("old.accuracy >= 0.9", "names no quantity of the new model"),
        ("accuracy + macro_f1 >= old", "write old.accuracy or old.macro_f1"),
        ("flips <= 0.1", "there is no flips here: the answers are numbers"),
    ],
)
def test_what_is_not_in_the_language_is_refused(text, message):
    with pytest.raises(UserError, match=message) as refused:
        read(text)
    assert str(refused.value).startswith("--require ")


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        (Regression(), "flips_typos <= 0.1", "which do not flip"),
        (Regression(), "brier <= 0.1", "answers of regression have no probabilities"),
        (QuestionAnswering(True), "brier <= 0.1", "answers of question-answering have no"),
        (Tagging(("O", "B-X")), "flips_spacing <= 0.1", "words of tokens are separate already"),
        (Classification(("a", "b")), "p95_ms <= old", "no times are measured"),
    ],
)
def test_quantity_that_a_task_has_not_is_refused_with_the_reason(task, text, message):
    with pytest.raises(UserError, match=message):
        read_requirements(task, [text], speed_texts=0)
