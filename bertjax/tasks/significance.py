"""Whether two models differ, by the scores of each on every example."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.statistics.bootstrap import Ends, draw_samples, find_ends
from bertjax.tasks.scores import scoring_library


class Comparison(NamedTuple):
    """The comparison of B with A.

    Attributes:
        difference: the score of B minus that of A.
        interval: that of the difference, at confidence 1 - level, by the percentile bootstrap.
        p_value: the probability of a difference at least as large if both were equally good.
        test: the test that gave it.
        verdict: better or worse where p_value < level.
    """

    difference: float
    interval: Ends
    p_value: float
    test: Literal["McNemar exact", "paired bootstrap"]
    verdict: Literal["better", "worse", "cannot be told apart"]


class ComparedModels(NamedTuple):
    """The comparison of model B with model A on the same examples.

    Attributes:
        score: what each example is scored by; higher is better.
        examples: how many.
        A: the mean score of A.
        B: that of B.
        difference, interval, p_value, test, verdict: as of `Comparison`.
    """

    score: str
    examples: int
    A: float
    B: float
    difference: float
    interval: Ends
    p_value: float
    test: Literal["McNemar exact", "paired bootstrap"]
    verdict: Literal["better", "worse", "cannot be told apart"]

    def __repr__(self) -> str:
        low, high = self.interval
        return (
            f"ComparedModels({self.score} of {counted(self.examples, 'example')}: A {self.A:.4f},"
            f" B {self.B:.4f}, difference {self.difference:+.4f} ({low:+.4f} to {high:+.4f}),"
            f" p = {self.p_value:.3g}, {self.test}: {self.verdict})"
        )


def compare_evaluations(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    names: tuple[str, str] = ("A", "B"),
    level: float = 0.05,
) -> ComparedModels:
    """Tests whether the second model is better than the first.

    Args:
        first: its evaluation, as `bertjax evaluate --output` writes it.
        second: that of the other.
        names: what messages call them.
        level: see `compare_paired`.

    Raises:
        UserError: they are not of the same examples.
    """
    a, b = names
    if first["fingerprint"] != second["fingerprint"]:
        if first["task"] == second["task"] == "masked-lm" and first["data"] == second["data"]:
            raise UserError(
                f"{a} and {b} are of the same texts and not of the same masked"
                " tokens: the models have other vocabularies, whose losses cannot be compared, or"
                " were evaluated with another --max-length, or the files have changed"
            )
        raise UserError(
            f"{a} and {b} are not of the same examples: {_describe(first)} and"
            f" {_describe(second)}; evaluate both models on the same files"
        )
    if len(first["outcomes"]) != len(second["outcomes"]):
        raise UserError(
            f"{a} and {b} have {len(first['outcomes'])} and"
            f" {len(second['outcomes'])} outcomes of the same examples; evaluate again"
        )
    comparison = compare_paired(first["outcomes"], second["outcomes"], level)
    means = [sum(result["outcomes"]) / len(result["outcomes"]) for result in (first, second)]
    return ComparedModels(first["slice_score"], len(first["outcomes"]), *means, *comparison)


def _describe(result: Mapping[str, Any]) -> str:
    return f"{len(result['outcomes'])} of {result['task']} in {', '.join(result['data'])}"


def compare_paired(
    a: Float[np.ndarray, " N"],
    b: Float[np.ndarray, " N"],
    level: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Tests whether B is better than A on the same examples, each with a score of its own.

    Scores of 0 and 1 (right or wrong) are compared by McNemar's exact test, which looks at the
    examples that only one of them got right; any others by the paired bootstrap: the mean
    differences of the resamples are shifted so that their centre is 0, as if both were equally
    good, and the p-value is the share of them that are at least as far from 0 as the real one.

    Args:
        a: the scores of A, the larger the better.
        b: those of B, in the same order.
        level: the probability of calling two equally good ones different, in (0, 1).
        resamples: bootstrap resamples, which also give the interval.
        seed: the same seed gives the same result.

    Raises:
        UserError: the numbers of scores differ, there are fewer than two, or one is not finite.

    Source: McNemar 1947, exact form; Efron & Tibshirani 1993, section 16.4, and Berg-Kirkpatrick et
        al. 2012 for the bootstrap.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise UserError(
            f"A has the scores of {len(a)} examples, B of {len(b)}; "
            "they are compared on the same examples, in the same order"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("a score that is not finite cannot be compared; leave its example out")
    if len(a) < 2:
        raise UserError(f"{counted(len(a), 'example')}: too few to compare two models; at least 2")
    differences = b - a
    difference = float(differences.mean())
    samples = draw_samples(len(a), resamples, seed)
    resampled = np.concatenate([differences[drawn].mean(axis=1) for drawn in samples])
    if np.isin(np.stack([a, b]), (0, 1)).all():
        test = "McNemar exact"
        gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
        stats = scoring_library("scipy.stats")
        p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    else:
        test = "paired bootstrap"
        shifts = np.abs(resampled - difference)
        # Rounding must not break the tie of the difference with itself.
        as_far = int((shifts >= abs(difference) - 1e-12).sum())
        p_value = (1 + as_far) / (1 + resamples)
    return Comparison(
        difference,
        Ends(*map(float, find_ends(resampled, confidence=1 - level))),
        p_value,
        test,
        _verdict(difference, p_value, level),
    )


def _verdict(
    difference: float, p_value: float, level: float
) -> Literal["better", "worse", "cannot be told apart"]:
    if p_value >= level or difference == 0:
        return "cannot be told apart"
    return "better" if difference > 0 else "worse"
