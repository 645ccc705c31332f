"""Which score is the better one, and what is told of scores of all tasks."""

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.scoring import goodness, single_scores

SCORES = {
    "accuracy": 0.5, "loss": 0.7, "mse": 4.0, "calibration_error": 0.1, "pearson": None, "total": 3,
    "confusion_matrix": [[1, 0], [0, 1]], "per_label": {},
}  # fmt: skip


def test_single_scores_are_numbers_and_no_counts():
    assert single_scores(SCORES).keys() == {"accuracy", "loss", "mse", "calibration_error"}


@pytest.mark.parametrize("name", ["accuracy", "loss", "mse", "calibration_error"])
def test_better_score_has_more_goodness(name):
    better = SCORES[name] + (0.1 if name == "accuracy" else -0.1)
    assert goodness(name, {**SCORES, name: better}) > goodness(name, SCORES)


@pytest.mark.parametrize("undefined", [None, float("nan")])
def test_score_that_is_not_defined_is_worse_than_any_other_and_better_than_none(undefined):
    least = goodness("pearson", {**SCORES, "pearson": undefined})
    assert float("-inf") < least < goodness("pearson", {**SCORES, "pearson": -1.0})


@pytest.mark.parametrize("name", ["acuracy", "confusion_matrix", "per_label", "total"])
def test_what_is_no_single_number_cannot_choose(name):
    known = "accuracy, calibration_error, loss, mse"
    with pytest.raises(UserError, match=f"scoring.score='{name}' is not one of: {known}"):
        goodness(name, SCORES)
