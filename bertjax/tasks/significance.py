"""How sure a score is, and whether two models can be told apart by it.

bootstrap_interval   the interval that a score would lie in with other examples of the same kind
compare_paired       two models by what each got for every example
compare_resampled    two models by a score of all examples together, such as an F1
"""

import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.errors import UserError
from bertjax.tasks.scores import scoring_library

# Elements of the index arrays that are in memory at a time.
_CHUNK = 1 << 21

# From the numbers of examples (one resample of them, or with `vectorized` many: [R, N]) to the
# score (of each: [R]).
ScoreFunction = Callable[[Int[np.ndarray, "..."]], float | Float[np.ndarray, " R"] | None]


class Interval(NamedTuple):
    """Bounds that are part of it."""

    low: float
    high: float


class Comparison(NamedTuple):
    """B against A.

    Attributes:
        difference: the score of B less that of A.
        interval: of the difference, at the confidence 1 - level; None where resampling gave no
            score.
        p_value: the probability of a difference at least as large if both were equally good.
        test: what gave it.
        verdict: better or worse where p_value < level.
    """

    difference: float
    interval: Interval | None
    p_value: float
    test: Literal["McNemar exact", "paired bootstrap"]
    verdict: Literal["better", "worse", "cannot be told apart"]


def bootstrap_interval(
    score_function: ScoreFunction,
    size: int,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    vectorized: bool = False,
) -> Interval | None:
    """The percentile interval of a score over resamples of the examples, drawn with replacement.

    Args:
        score_function: the score of some examples, given by their numbers; None or NaN where it is
            not defined for them.
        size: how many examples there are, N.
        resamples: how many draws.
        confidence: the share of scores inside, in (0, 1).
        seed: the same seed gives the same interval.
        vectorized: whether `score_function` takes many draws at once, `[R, N]`, and gives `[R]`.

    Returns:
        The interval over the draws whose score is defined; None where fewer than half are, and
        where there are no two examples.

    Source: Efron 1979; Efron & Tibshirani 1993, section 13.3.
    """
    if size < 2:
        return None
    scores = _resampled(score_function, size, resamples, seed, vectorized)
    return _percentiles(scores, confidence)


def compare_paired(
    a: Float[np.ndarray, " N"],
    b: Float[np.ndarray, " N"],
    level: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Whether B is better than A on the same examples, each of which has its own score.

    Scores of 0 and 1 (right or wrong) are compared by McNemar's exact test, which looks at the
    examples that one of them got and the other did not; any others by the paired bootstrap.

    Args:
        a: the scores of A, the larger the better.
        b: those of B, in the same order.
        level: the chance to call two equally good ones different, in (0, 1).
        resamples: draws of the bootstrap, which also gives the interval.
        seed: the same seed gives the same answer.

    Raises:
        UserError: another number of scores, fewer than two, or one that is not finite.

    Source: McNemar 1947, exact form; Berg-Kirkpatrick et al. 2012 for the bootstrap.
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    if a.shape != b.shape:
        raise UserError(
            f"A has the scores of {len(a)} examples, B of {len(b)}; "
            "they are compared on the same examples, in the same order"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("a score that is not finite cannot be compared; leave its example out")
    differences = b - a
    comparison = compare_resampled(
        lambda numbers: differences[numbers].mean(axis=-1), len(a), level, resamples, seed
    )
    if not np.isin(np.stack([a, b]), (0, 1)).all():
        return comparison
    stats = scoring_library("scipy.stats")
    gained, lost = int((differences > 0).sum()), int((differences < 0).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return comparison._replace(
        p_value=p_value,
        test="McNemar exact",
        verdict=_verdict(comparison.difference, p_value, level),
    )


def compare_resampled(
    difference_function: Callable[[Int[np.ndarray, "R N"]], Float[np.ndarray, " R"]],
    size: int,
    level: float = 0.05,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Whether B is better than A by a score of all examples together, by the paired bootstrap.

    The differences of the resamples are shifted so that their middle is 0, as if both were equally
    good; the p-value is the share of them that is as far from 0 as the difference there is.

    Args:
        difference_function: the score of B less that of A on draws of examples, `[R, N]` numbers to
            `[R]`; both on the same draw.
        size: how many examples there are, N.
        level, resamples, seed: as in `compare_paired`.

    Raises:
        UserError: fewer than two examples, or no difference on all of them.

    Source: Efron & Tibshirani 1993, section 16.4; Berg-Kirkpatrick et al. 2012.
    """
    if size < 2:
        raise UserError(f"{size} examples are too few to compare two models; at least 2")
    difference = float(np.asarray(difference_function(np.arange(size)[None]))[0])
    if not np.isfinite(difference):
        raise UserError("one of the scores is not defined on these examples")
    draws = _resampled(difference_function, size, resamples, seed, vectorized=True)
    defined = draws[np.isfinite(draws)]
    # Rounding must not make a tie of a difference and itself.
    as_far = np.abs(defined - difference) >= abs(difference) - 1e-12
    p_value = float((1 + as_far.sum()) / (1 + len(defined)))
    return Comparison(
        difference,
        _percentiles(draws, 1 - level),
        p_value,
        "paired bootstrap",
        _verdict(difference, p_value, level),
    )


def _resampled(
    score_function: ScoreFunction, size: int, resamples: int, seed: int, vectorized: bool
) -> Float[np.ndarray, " R"]:
    def statistic(numbers: np.ndarray, axis: int = -1) -> np.ndarray | float:
        scores = score_function(numbers)
        return np.nan if scores is None else scores

    stats = scoring_library("scipy.stats")
    with warnings.catch_warnings():
        # Of draws without a score, which `_percentiles` sees to.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        return stats.bootstrap(
            (np.arange(size),),
            statistic,
            n_resamples=resamples,
            batch=max(1, _CHUNK // size),
            vectorized=vectorized,
            method="percentile",
            rng=seed,
        ).bootstrap_distribution


def _percentiles(scores: Float[np.ndarray, " R"], confidence: float) -> Interval | None:
    defined = scores[np.isfinite(scores)]
    if 2 * len(defined) < len(scores):
        return None
    outside = (1 - confidence) / 2
    low, high = np.quantile(defined, [outside, 1 - outside])
    return Interval(float(low), float(high))


def _verdict(
    difference: float, p_value: float, level: float
) -> Literal["better", "worse", "cannot be told apart"]:
    if p_value >= level or difference == 0:
        return "cannot be told apart"
    return "better" if difference > 0 else "worse"
