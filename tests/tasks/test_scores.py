"""Scores: their closed forms on small examples, what is undefined, and their libraries."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.scores import (
    calibration_error,
    classification_scores,
    entity_f1_of_sentences,
    entity_scores,
    multilabel_scores,
    regression_scores,
    scoring_library,
    tag_scores,
)


def one_hot(predicted, classes, confidence=0.9):
    probabilities = np.full((len(predicted), classes), (1 - confidence) / (classes - 1))
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return probabilities


# Two of the three of class 0 are found, one of the two of class 1; class 2 is taken for the others.
GOLD = np.array([0, 0, 0, 1, 1])
PREDICTED = [0, 0, 1, 1, 2]


def test_classification_scores_are_their_definitions():
    scores = classification_scores(GOLD, one_hot(PREDICTED, 3), ["a", "b", "c"])
    assert scores["accuracy"] == scores["micro_f1"] == pytest.approx(3 / 5)
    assert scores["per_label"]["a"] == pytest.approx(
        {"precision": 1, "recall": 2 / 3, "f1": 4 / 5, "support": 3}
    )
    assert scores["per_label"]["b"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    )
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)
    assert scores["confusion_matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    json.dumps(scores)


def test_macro_f1_leaves_out_a_class_that_neither_side_has():
    scores = classification_scores(GOLD, one_hot(PREDICTED, 4), ["a", "b", "c", "d"])
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)
    assert scores["per_label"]["d"]["support"] == 0


def test_matthews_correlation_is_that_of_the_table():
    gold = np.array([1] * 8 + [0] * 7)
    predicted = [1] * 6 + [0] * 2 + [1] * 3 + [0] * 4  # tp=6, fn=2, fp=3, tn=4
    scores = classification_scores(gold, one_hot(predicted, 2), ["no", "yes"])
    assert scores["mcc"] == pytest.approx((6 * 4 - 3 * 2) / np.sqrt(9 * 8 * 7 * 6))


def test_area_under_the_curve_is_of_the_second_of_two_classes():
    positive = np.array([0.1, 0.4, 0.35, 0.8])
    probabilities = np.stack([1 - positive, positive], axis=1)
    # Of the four pairs of a negative and a positive one is in the wrong order.
    scores = classification_scores(np.array([0, 0, 1, 1]), probabilities, ["no", "yes"])
    assert scores["roc_auc"] == pytest.approx(3 / 4)


def test_area_tells_small_probabilities_apart():
    # In float32 the probability of the first class is 1 in both.
    probabilities = np.array([[1, 1e-9], [1, 1e-8]], np.float32)
    assert classification_scores(np.array([0, 1]), probabilities, ["no", "yes"])["roc_auc"] == 1


def test_area_is_the_mean_over_classes_and_none_where_one_has_no_example():
    # The ranks of class 0 are right, those of classes 1 and 2 in one of two pairs.
    probabilities = np.array([[0.8, 0.1, 0.1], [0.3, 0.3, 0.4], [0.2, 0.6, 0.2]])
    scores = classification_scores(np.array([0, 1, 2]), probabilities, ["a", "b", "c"])
    assert scores["roc_auc"] == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    scores = classification_scores(np.array([0, 1, 1]), probabilities, ["a", "b", "c"])
    assert scores["roc_auc"] is None


def test_scores_of_a_single_class_are_not_made_up():
    scores = classification_scores(np.array([1, 1]), one_hot([1, 0], 2), ["no", "yes"])
    assert (scores["roc_auc"], scores["mcc"], scores["accuracy"]) == (None, None, 0.5)


def test_multilabel_scores_are_their_definitions():
    gold = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0]], bool)
    probabilities = np.array([[0.9, 0.2, 0.4], [0.6, 0.7, 0.1], [0.8, 0.9, 0.3]])
    scores = multilabel_scores(gold, probabilities, ["a", "b", "c"])
    assert scores["accuracy"] == pytest.approx(1 / 3)  # only the last has all labels right
    assert scores["micro_f1"] == pytest.approx(2 * 4 / (5 + 5))
    assert scores["macro_f1"] == pytest.approx((2 * 2 / (3 + 2) + 1 + 0) / 3)
    assert scores["confusion_matrix"]["a"] == [[0, 1], [0, 2]]
    assert scores["confusion_matrix"]["c"] == [[2, 0], [1, 0]]
    assert scores["roc_auc"] == pytest.approx(1)
    assert multilabel_scores(gold & [1, 1, 0], probabilities, "abc")["roc_auc"] is None
    json.dumps(scores)


def test_label_of_exactly_the_threshold_is_predicted_as_decoding_has_it():
    scores = multilabel_scores(np.array([[1], [0]], bool), np.array([[0.5], [0.4]]), ["a"])
    assert scores["accuracy"] == 1


def test_multilabel_scores_take_a_single_label():
    scores = multilabel_scores(np.array([[1], [0]], bool), np.array([[0.9], [0.8]]), ["a"])
    assert scores["confusion_matrix"] == {"a": [[0, 1], [0, 1]]}
    assert scores["accuracy"] == 0.5


def test_regression_scores_are_their_definitions():
    gold = np.array([1.0, 2.0, 3.0, 10.0])
    scores = regression_scores(gold, np.array([2.0, 1.0, 4.0, 5.0]))
    assert scores["mse"] == pytest.approx((1 + 1 + 1 + 25) / 4)
    assert scores["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    # Deviations from the means 4 and 3.
    covariance = 3 * 1 + 2 * 2 + -1 * 1 + 6 * 2
    assert scores["pearson"] == pytest.approx(covariance / np.sqrt(50 * 10))


def test_correlation_of_a_constant_is_none():
    varied = np.array([1.0, 2.0])
    for gold, predicted in ((varied, varied * 0), (varied * 0, varied), (varied[:1], varied[:1])):
        scores = regression_scores(gold, predicted)
        assert scores["pearson"] is scores["spearman"] is None


TAGS = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "B-LOC", "O"], ["O"]]
FOUND = [["B-PER", "O", "O", "B-LOC"], ["B-LOC", "I-LOC", "O"], ["I-PER"]]


def test_entities_count_only_whole():
    scores = entity_scores(TAGS, FOUND)
    # Right is one LOC; found are PER, LOC, LOC of two tokens, PER; gold are PER and three LOC.
    assert (scores["precision"], scores["recall"], scores["f1"]) == (1 / 4, 1 / 4, 1 / 4)
    assert scores["per_type"]["LOC"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "support": 3}
    )
    assert scores["per_type"]["PER"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert scores["macro_f1"] == pytest.approx(1 / 5)
    json.dumps(scores)


def test_entity_that_nothing_begins_counts_as_conlleval_counts_it():
    assert entity_scores([["B-A", "I-A", "O"]], [["I-A", "I-A", "O"]])["f1"] == 1


def test_entity_scores_without_any_entity_are_none():
    assert entity_scores([["O"]], [["O"]]) == {
        "precision": None,
        "recall": None,
        "f1": None,
        "macro_f1": None,
        "per_type": {},
    }


def test_sentence_has_an_f1_of_its_own():
    # One of two and two entities is right; none of two and one; none where there is none.
    assert entity_f1_of_sentences(TAGS, FOUND).tolist() == [1 / 2, 0, 0]
    assert entity_f1_of_sentences([["O"], ["B-A"]], [["O"], ["B-A"]]).tolist() == [1, 1]


def test_tag_scores_count_tokens():
    scores = tag_scores([["NOUN", "VERB"], ["NOUN"]], [["NOUN", "NOUN"], ["NOUN"]])
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["per_label"]["NOUN"]["precision"] == pytest.approx(2 / 3)
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 0) / 2)
    with pytest.raises(AssertionError):
        tag_scores([["NOUN", "VERB"]], [["NOUN"]])


def test_calibration_error_is_the_gap_in_each_bin():
    # 0.8 in four cases of which three are right; 0.95 in two of which one is.
    gold = np.array([0, 0, 0, 1, 0, 1])
    probabilities = np.array([[0.8, 0.2]] * 4 + [[0.95, 0.05]] * 2)
    expected = (4 * abs(0.75 - 0.8) + 2 * abs(0.5 - 0.95)) / 6
    assert calibration_error(gold, probabilities) == pytest.approx(expected)
    assert calibration_error(np.zeros(3, int), one_hot([0, 0, 0], 2, 1.0)) == 0


def test_calibration_error_adds_up_gaps_of_both_signs_with_bins_closed_above():
    # All right at 0.5, the upper bound of the first of two bins; all wrong at 0.6.
    gold = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.5, 0.5]] * 2 + [[0.6, 0.4]] * 2)
    assert calibration_error(gold, probabilities, bins=2) == pytest.approx((0.5 + 0.6) / 2)
    assert calibration_error(gold, probabilities, bins=1) == pytest.approx((0.6 - 0.5) / 2)


def test_missing_library_is_told_with_its_extra(monkeypatch):
    def import_module(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", import_module)
    with pytest.raises(UserError, match=r"scores need sklearn, .*pip install 'bertjax\[tasks\]'"):
        scoring_library("sklearn.metrics")


def test_reading_and_scoring_import_neither_jax_nor_the_libraries_before_they_need_them():
    code = (
        "import sys, bertjax.tasks.labelled, bertjax.tasks.conll, bertjax.tasks.squad\n"
        "import bertjax.tasks.choice_questions, bertjax.tasks.significance\n"
        "heavy = {'jax', 'sklearn', 'scipy', 'seqeval', 'matplotlib', 'pyarrow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
