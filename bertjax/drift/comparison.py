"""Whether a later sample of requests differs from an earlier one, and in what."""

import html
import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from bertjax.drift.samples import Sample
from bertjax.drift.settings import LEVEL, MOST_REQUESTS, PERMUTATIONS
from bertjax.program.errors import UserError
from bertjax.program.notebook_tables import make_table
from bertjax.program.wording import counted
from bertjax.statistics.permutation import (
    Splits,
    adjust_p_values,
    draw_splits,
    energy_coefficient,
    number_energy,
    point_energy,
    share_distance,
)

# Too few to tell: a shift of so many standard deviations would be seen less often than that.
LEAST_SHIFT, POWER = 0.5, 0.8

# Numbers of a request that are compared: of its text, then of its answer.
INPUTS = (
    "tokens", "characters", "unknown", "pieces", "digits", "capitals", "punctuation", "beyond_ascii"
)  # fmt: skip
ANSWERS = ("confidence", "number")
EMBEDDINGS, LABELS = "embeddings", "labels"
# What an effect is: from 0, alike, to 1, nothing in common.
MEASURES = {
    EMBEDDINGS: "energy coefficient of their distance",
    LABELS: "half the differences of the labels' mean shares, at most 1 (total variation)",
}
OF_NUMBERS = "largest difference of the shares below a value (Kolmogorov-Smirnov)"
SHIFT_COLUMNS = ("", "before", "after", "effect", "p-value", "moved")


class Shift(NamedTuple):
    """What is compared, and how far it has moved.

    Attributes:
        name: of a field, "embeddings" or "labels".
        before, after: means of the reference and of the log; of labels those of each; None of
            embeddings.
        effect: from 0, alike, to 1, nothing in common.
        measure: what the effect is.
        p_value: adjusted for all that is compared.
        moved: whether it is at most the level.
    """

    name: str
    before: float | dict[str, float] | None
    after: float | dict[str, float] | None
    effect: float
    measure: str
    p_value: float
    moved: bool

    def cells(self) -> list[str]:
        """Returns what is shown in `SHIFT_COLUMNS`; of labels the shares of the one that has moved
        most.
        """
        before = after = ""
        if isinstance(self.before, dict) and isinstance(self.after, dict):
            gaps = {label: abs(self.before[label] - self.after[label]) for label in self.before}
            most = max(gaps, key=gaps.__getitem__)
            before, after = (f"{most} {part[most]:.3f}" for part in (self.before, self.after))
        elif self.before is not None:
            before, after = f"{self.before:.4g}", f"{self.after:.4g}"
        figures = [f"{self.effect:.3f}", f"{self.p_value:.4f}"]
        return [self.name, before, after, *figures, "yes" if self.moved else "no"]


class Drift(NamedTuple):
    """A comparison of two samples.

    Attributes:
        reference, log: the samples.
        level: the probability, at most, that anything is said to have moved where nothing has.
        visible_shift: of a number's mean, in standard deviations, that is seen 4 times in 5.
        shifts: all that was compared.
        notes: a sentence for what was not.
    """

    reference: Sample
    log: Sample
    level: float
    visible_shift: float
    shifts: list[Shift]
    notes: list[str]

    @property
    def moved(self) -> list[str]:
        """Returns the names of what has moved."""
        return [shift.name for shift in self.shifts if shift.moved]

    @property
    def summary(self) -> str:
        """Returns in a few words what has moved."""
        return f"moved: {', '.join(self.moved)}" if self.moved else "nothing has moved"

    def tabulate(self) -> list[list[str]]:
        """Returns the rows of `SHIFT_COLUMNS`, to be shown."""
        return [shift.cells() for shift in self.shifts]

    def describe_tests(self) -> str:
        """Returns what p-values and effects are, and how small a shift would be seen."""
        return (
            f"p-values are adjusted for {len(self.shifts)} tests; effects are from 0, alike, to 1,"
            f" nothing in common. A shift of {self.visible_shift:.2f} standard deviations would be"
            " seen 4 times in 5."
        )

    def __repr__(self) -> str:
        both = "; ".join(one.describe() for one in (self.reference, self.log))
        return f"Drift({both}; {self.summary})"

    def _repr_html_(self) -> str:
        """Returns a table for a notebook: what was compared, and how far it has moved."""
        both = "<br>".join(html.escape(one.describe()) for one in (self.reference, self.log))
        told = f"{html.escape(self.summary)}<br>{html.escape(self.describe_tests())}"
        return f"<p>{both}</p>{make_table(SHIFT_COLUMNS, self.tabulate())}<p>{told}</p>"

    def to_json(self) -> dict[str, Any]:
        """Returns what `bertjax drift --json` prints."""
        return {
            "reference": self.reference.to_json(),
            "log": self.log.to_json(),
            "alpha": self.level,
            "visible_shift": self.visible_shift,
            "moved": self.moved,
            "tests": [shift._asdict() for shift in self.shifts],
            "notes": self.notes,
        }


class _Compared(NamedTuple):
    """Something that is compared: its values of all requests, the reference's first."""

    name: str
    values: Float[np.ndarray, "requests ..."]
    test: Callable[[Any, Splits], Float[np.ndarray, " splits"]]

    def known(self, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the values that are known of each sample."""
        there = ~np.isnan(self.values.reshape(len(self.values), -1)).any(axis=1)
        return self.values[:first][there[:first]], self.values[first:][there[first:]]


def compare(
    reference: Sample,
    log: Sample,
    level: float = LEVEL,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Callable[[float], None] = lambda done: None,
) -> Drift:
    """Compares the requests of a log with those of a reference, by permutation tests.

    All tests share their permutations, and their p-values are adjusted together, so that the
    probability that any of them is at most `level` where nothing has moved is at most `level`.

    Args:
        reference: the earlier requests, or texts.
        log: the later ones.
        level: above, 0 to 1.
        permutations: of the requests.
        seed: of the permutations.
        progress: is called with the share of the work done since the call before.

    Raises:
        UserError: two models, too few requests or permutations to tell, or what `check_level`
            raises.
    """
    check_level(level)
    if reference.fingerprint != log.fingerprint:
        raise UserError(
            f"{reference.source} and {log.source}: of different models (fingerprints"
            f" {reference.fingerprint} and {log.fingerprint}), whose answers cannot be compared;"
            " compare requests to one model; an exported one is another than the one it was made of"
        )
    labels = sorted({label for one in (reference, log) for line in one.lines
                     for label in line["labels"] or ()})  # fmt: skip
    compared = [
        *(
            _Compared(field, np.concatenate([one.numbers(field) for one in (reference, log)]),
                      number_energy)
            for field in (*INPUTS, *ANSWERS)
        ),
        _Compared(EMBEDDINGS, np.concatenate([one.sketches() for one in (reference, log)]),
                  point_energy),
    ]  # fmt: skip
    if labels:
        shares = np.concatenate([one.shares(labels) for one in (reference, log)])
        compared.append(_Compared(LABELS, shares, share_distance))
    first, second = len(reference.lines), len(log.lines)
    there = [one for one in compared if all(map(len, one.known(first)))]
    _check_enough(reference, log, least_requests(len(there), level))
    chosen, notes = _leave_out(compared, first, least_requests(len(there), level))
    if reference.left_out:
        notes.append(
            f"{reference.source}: {counted(reference.left_out, 'request')} that other models"
            f" answered as {reference.model} left out"
        )
    if permutations + 1 < len(chosen) / level:
        raise UserError(
            f"--permutations {permutations:,}: with {len(chosen)} tests, one that alone has moved"
            f" may have no p-value as low as --alpha {level:g}; pass at least"
            f" {math.ceil(len(chosen) / level):,}"
        )
    splits = draw_splits(first, second, permutations, seed)
    distances = []
    for one in chosen:
        distances.append(one.test(one.values, splits))
        progress(1 / len(chosen))
    p_values = adjust_p_values(np.stack(distances)).adjusted
    shifts = [
        _describe(one, first, labels, float(p_value), level)
        for one, p_value in zip(chosen, p_values, strict=True)
    ]
    visible = LEAST_SHIFT * math.sqrt(least_requests(len(chosen), level) * (1 / first + 1 / second))
    return Drift(reference, log, level, visible, shifts, notes)


def check_level(level: float) -> None:
    """Checks a probability of a false alarm.

    Args:
        level: above 0 and below 1.

    Raises:
        UserError: it is not.
    """
    if not 0 < level < 1:
        raise UserError(f"--alpha {level!r:.60} must be above 0 and below 1")


def least_requests(tests: int, level: float) -> float:
    """Returns what `n m / (n + m)` of two samples has to be, so that there is enough to tell.

    It is that of a test of means at `level`, adjusted for the number of tests, which sees a shift
    of `LEAST_SHIFT` standard deviations with probability `POWER`.

    Args:
        tests: how many.
        level: the probability of a false alarm, at most, 0 to 1.
    """
    quantile = NormalDist().inv_cdf
    return ((quantile(1 - level / (2 * tests)) + quantile(POWER)) / LEAST_SHIFT) ** 2


def _check_enough(reference: Sample, log: Sample, least: float) -> None:
    """Raises a `UserError` where the samples have too few requests, with how many they need."""
    first, second = len(reference.lines), len(log.lines)
    if first * second >= least * (first + second):
        return
    told = f"{reference.describe()}; {log.describe()}"
    if _beside(first, least) <= MOST_REQUESTS:
        few, needed = [log], f"{log.source} needs {_beside(first, least):,}"
    elif _beside(second, least) <= MOST_REQUESTS:
        few, needed = [reference], f"{reference.source} needs {_beside(second, least):,}"
    else:
        few, needed = [reference, log], f"both need {math.ceil(2 * least):,}"
    # Texts, unlike a log, have no time.
    ways = {
        "Give more texts" if one.first is None
        else "Wait, raise --log-sample of `bertjax serve`, or name a longer time"
        for one in few
    }  # fmt: skip
    raise UserError(
        f"{told}: too few to tell; {needed}, so that a shift of {LEAST_SHIFT:g} standard deviations"
        f" is seen 4 times in 5. {'. '.join(sorted(ways))}"
    )


def _beside(other: int, least: float) -> float:
    """Returns how many requests are enough beside some others; infinity where none are."""
    return math.ceil(1 / (1 / least - 1 / other)) if other > least else math.inf


def _leave_out(
    compared: list[_Compared], first: int, least: float
) -> tuple[list[_Compared], list[str]]:
    """Returns what can be compared, and a sentence for what is known too seldom."""
    chosen, notes = [], []
    for one in compared:
        n, m = map(len, one.known(first))
        if n * m and n * m >= least * (n + m):
            chosen.append(one)
        elif n or m or one.name == EMBEDDINGS:  # which an exported model with a head has not
            notes.append(
                f"{one.name}: not compared, since {counted(n, 'request')} before and {m:,} after"
                " have any"
            )
    return chosen, notes


def _describe(one: _Compared, first: int, labels: list[str], p_value: float, level: float) -> Shift:
    own, other = one.known(first)
    before: Any = None
    after: Any = None
    if one.name == EMBEDDINGS:
        effect = energy_coefficient(own, other)
    elif one.name == LABELS:
        means = [part.mean(axis=0) for part in (own, other)]
        before, after = (dict(zip(labels, mean.tolist(), strict=True)) for mean in means)
        effect = float(min(1.0, np.abs(means[0] - means[1]).sum() / 2))
    else:
        before, after = float(own.mean()), float(other.mean())
        places = np.sort(np.concatenate([own, other]))
        below = [
            np.searchsorted(np.sort(part), places, "right") / len(part) for part in (own, other)
        ]
        effect = float(np.abs(below[0] - below[1]).max())
    measure = MEASURES.get(one.name, OF_NUMBERS)
    return Shift(one.name, before, after, effect, measure, p_value, p_value <= level)
