"""How good predictions are: from arrays to the scores that the field reports.

    classification_scores, multilabel_scores   one class per example, or any number of labels
    regression_scores                          numbers
    entity_scores, tag_scores                  named entities (seqeval), parts of speech
    calibration_error                          whether probabilities match frequencies

Every function returns plain numbers, lists and dicts that JSON can hold. A precision, recall or F1
of 0 / 0 is 0, as usual; any other undefined score is None.
"""

import importlib
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.program.errors import UserError

# A label of a set is predicted from this probability on.
THRESHOLD = 0.5
# Of the confidence, for the calibration error.
BINS = 15


def scoring_library(name: str) -> ModuleType:
    """Imports a module of scikit-learn, scipy or seqeval when a score needs it.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"scores need {name.partition('.')[0]}, which is not installed ({error}); "
            "pip install 'bertjax[tasks]'"
        ) from None


def classification_scores(
    gold: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N C"], labels: Sequence[str]
) -> dict[str, Any]:
    """Scores one class per example; the most probable is predicted.

    Args:
        gold: class numbers.
        probabilities: those of the classes.
        labels: names of the C classes.

    Returns:
        `accuracy`; `macro_f1`, the mean over the classes that occur in gold or predictions;
        `micro_f1`; `mcc`, Matthews' correlation coefficient, None where all examples are in one
        class; `roc_auc`, that of the second class if there are two, else the mean of each class
        against the rest, None where a class has no example (or all of them); `per_label`,
        precision, recall, f1 and support of each; `confusion_matrix`, a row for each gold class, a
        column for each predicted one.
    """
    metrics = scoring_library("sklearn.metrics")
    gold = np.asarray(gold)
    predicted = probabilities.argmax(axis=-1)
    numbers = np.arange(len(labels))
    areas = [_roc_auc(gold == number, probabilities[:, number]) for number in numbers]
    return {
        "accuracy": float(metrics.accuracy_score(gold, predicted)),
        "macro_f1": float(metrics.f1_score(gold, predicted, average="macro", zero_division=0)),
        "micro_f1": float(metrics.f1_score(gold, predicted, average="micro", zero_division=0)),
        "mcc": float(metrics.matthews_corrcoef(gold, predicted)) if np.ptp(gold) else None,
        "roc_auc": areas[1] if len(labels) == 2 else mean_of(areas),
        "per_label": _per_label(gold, predicted, numbers, labels),
        "confusion_matrix": metrics.confusion_matrix(gold, predicted, labels=numbers).tolist(),
    }


def multilabel_scores(
    gold: Bool[np.ndarray, "N C"],
    probabilities: Float[np.ndarray, "N C"],
    labels: Sequence[str],
) -> dict[str, Any]:
    """Scores any number of labels per example; those of at least the threshold are predicted.

    Args:
        gold: which labels are right.
        probabilities: of each label.
        labels: their names, in the order of the columns.

    Returns:
        `accuracy`, the share of examples whose labels are all right; `macro_f1`, the mean over all
        labels; `micro_f1`, over all pairs of example and label; `roc_auc`, the mean over labels,
        None where one has no example (or all of them); `per_label`; `confusion_matrix`, for each
        label `[[true negatives, false positives], [false negatives, true positives]]`.
    """
    metrics = scoring_library("sklearn.metrics")
    gold = np.asarray(gold).astype(int)
    predicted = (probabilities >= THRESHOLD).astype(int)
    columns = range(len(labels))
    areas = [_roc_auc(gold[:, column], probabilities[:, column]) for column in columns]
    per_label = {
        label: _per_label(gold[:, column], predicted[:, column], [1], [label])[label]
        for column, label in enumerate(labels)
    }
    return {
        "accuracy": float((gold == predicted).all(axis=1).mean()),
        "macro_f1": mean_of([scores["f1"] for scores in per_label.values()]),
        "micro_f1": float(metrics.f1_score(gold.ravel(), predicted.ravel(), zero_division=0)),
        "roc_auc": mean_of(areas),
        "per_label": per_label,
        "confusion_matrix": {
            label: metrics.confusion_matrix(
                gold[:, column], predicted[:, column], labels=[0, 1]
            ).tolist()
            for column, label in enumerate(labels)
        },
    }


def regression_scores(
    gold: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"]
) -> dict[str, float | None]:
    """Computes `pearson` and `spearman` correlation, None where either side is constant, and `mse`,
    the mean squared error.

    Args:
        gold: the right numbers.
        predicted: the model's.
    """
    stats = scoring_library("scipy.stats")
    metrics = scoring_library("sklearn.metrics")
    varied = len(gold) > 1 and np.ptp(gold) > 0 and np.ptp(predicted) > 0
    return {
        "pearson": float(stats.pearsonr(gold, predicted).statistic) if varied else None,
        "spearman": float(stats.spearmanr(gold, predicted).statistic) if varied else None,
        "mse": float(metrics.mean_squared_error(gold, predicted)),
    }


def entity_scores(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Scores whole entities, as CoNLL counts them: those that agree in type, start and end are
    right.

    Args:
        gold: IOB2 tags of each sentence.
        predicted: as many tags for each; an I- without a beginning counts as a B-.

    Returns:
        `precision`, `recall` and `f1` over all entities, and `macro_f1`, the mean over types, each
        None where there is neither a gold nor a predicted entity; `per_type`, precision, recall,
        f1 and support of each.

    Source: Tjong Kim Sang & De Meulder 2003 (conlleval), by seqeval in its default mode.
    """
    metrics = scoring_library("seqeval.metrics")
    with warnings.catch_warnings():
        # Warnings of means over no types, which are not used below.
        warnings.simplefilter("ignore", RuntimeWarning)
        report = metrics.classification_report(
            list(map(list, gold)), list(map(list, predicted)), output_dict=True, zero_division=0
        )
    rows = {
        name: {
            "precision": float(row["precision"]),
            "recall": float(row["recall"]),
            "f1": float(row["f1-score"]),
            "support": int(row["support"]),
        }
        for name, row in report.items()
    }
    total = rows.pop("micro avg")
    del rows["macro avg"], rows["weighted avg"]
    return {
        **{name: total[name] if rows else None for name in ("precision", "recall", "f1")},
        "macro_f1": mean_of([row["f1"] for row in rows.values()]),
        "per_type": rows,
    }


def entity_f1_of_sentences(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> Float[np.ndarray, " N"]:
    """Computes the F1 of each sentence's entities; 1 where there is rightly none."""
    scores = np.ones(len(gold))
    for number, (right, tags_given) in enumerate(zip(gold, predicted, strict=True)):
        wanted, entities = entities_of(right), entities_of(tags_given)
        if wanted or entities:
            scores[number] = 2 * len(wanted & entities) / (len(wanted) + len(entities))
    return scores


def entities_of(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Returns type, first and last token of every entity that a sentence's IOB2 tags mark."""
    sequence_labeling = scoring_library("seqeval.metrics.sequence_labeling")
    return set(sequence_labeling.get_entities(list(tags)))


def tag_scores(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Scores tags that do not mark entities, such as parts of speech: `accuracy` over all
    tokens, `macro_f1` over the tags that occur, `per_label`.

    Args:
        gold: the right tags of each sentence.
        predicted: the model's.
    """
    metrics = scoring_library("sklearn.metrics")
    for right, tags_given in zip(gold, predicted, strict=True):
        assert len(right) == len(tags_given), (len(right), len(tags_given))
    wanted = [tag for tags in gold for tag in tags]
    given = [tag for tags in predicted for tag in tags]
    labels = sorted({*wanted, *given})
    per_label = _per_label(wanted, given, labels, labels)
    return {
        "accuracy": float(metrics.accuracy_score(wanted, given)),
        "macro_f1": mean_of([scores["f1"] for scores in per_label.values()]),
        "per_label": per_label,
    }


def calibration_error(
    gold: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N C"], bins: int = BINS
) -> float:
    """Computes the expected calibration error: how far the confidence in the predicted class is
    from the share of right predictions, in bins of equal width, weighted by their examples.

        sum over bins of |examples in it| / N * |accuracy in it - mean confidence in it|

    Args:
        gold: the numbers of the right classes.
        probabilities: of each class.
        bins: of the confidence.

    Returns:
        In [0, 1]; 0 if predictions with confidence 0.8 are right in 80 of 100 cases.

    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", eq. 3.
    """
    return sum_of_gaps(*calibration_gaps(gold, probabilities, bins))


def calibration_gaps(
    gold: Int[np.ndarray, " N"], probabilities: Float[np.ndarray, "N C"], bins: int = BINS
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns each example's bin, and what it adds to the bin's accuracy minus confidence."""
    confidence = probabilities.max(axis=-1).astype(float)
    return confidence_gaps(confidence, probabilities.argmax(axis=-1) == gold, bins)


def confidence_gaps(
    confidence: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = BINS
) -> tuple[Int[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns the bin of each answer, and what it adds to the bin's accuracy minus confidence.

    Args:
        confidence: the probability of the answer that was given.
        right: whether it was right.
        bins: how many, of equal width.
    """
    # Bins are open below and closed above, as in the paper.
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1), right - confidence


def sum_of_gaps(places: Int[np.ndarray, " N"], gaps: Float[np.ndarray, " N"]) -> float:
    """Sums what `calibration_gaps` returns to the calibration error."""
    return float(np.abs(np.bincount(places, weights=gaps)).sum() / len(gaps))


def _per_label(
    gold: Any, predicted: Any, values: Sequence[Any], labels: Sequence[str]
) -> dict[str, dict[str, float | int]]:
    """Returns precision, recall, f1 and support of each of `values`, by its name in `labels`."""
    metrics = scoring_library("sklearn.metrics")
    columns = metrics.precision_recall_fscore_support(
        gold, predicted, labels=list(values), average=None, zero_division=0
    )
    return {
        label: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    }


def _roc_auc(gold: np.ndarray, probabilities: np.ndarray) -> float | None:
    if not 0 < np.count_nonzero(gold) < len(gold):
        return None
    metrics = scoring_library("sklearn.metrics")
    return float(metrics.roc_auc_score(gold, probabilities))


def mean_of(values: Sequence[float | None]) -> float | None:
    """Returns the mean; None where there are no values, or one of them is undefined."""
    if not values or any(value is None for value in values):
        return None
    return float(np.mean(values))
