"""Centred kernel alignment: how alike two layers, of whatever width, represent the same tokens."""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import capture
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.statistics.bootstrap import CONFIDENCE
from bertjax.statistics.drawn_units import number_units
from bertjax.statistics.intervals import Interval

# Tokens that are gathered before a matrix product: of a text's few it would be mere memory traffic.
CHUNK_TOKENS = 1024
# Of a delete-a-group jackknife: more make the interval firmer and take as much more memory.
FOLDS = 5
# Of unbiased CKA.
LEAST_TOKENS = 4


class PairSums(NamedTuple):
    """Sums over tokens of two representations of them, X and Y: all that linear CKA needs.

    Their size does not depend on the number of tokens; the sums of two sets of tokens add up to
    those of their union. `SECOND` is the width of Y.

    Attributes:
        tokens: how many, n.
        cross: X'Y.
        first, second: the sum of the rows of X, and of Y.
        first_by_length, second_by_length: sum of `x |y|^2`, and of `y |x|^2`.
        first_lengths, second_lengths, lengths: sum of `|x|^2`, `|y|^2`, `|x|^2 |y|^2`.
    """

    tokens: int
    cross: Float[np.ndarray, "D SECOND"]
    first: Float[np.ndarray, " D"]
    second: Float[np.ndarray, " SECOND"]
    first_by_length: Float[np.ndarray, " D"]
    second_by_length: Float[np.ndarray, " SECOND"]
    first_lengths: float
    second_lengths: float
    lengths: float

    @classmethod
    def of(
        cls, first: Float[np.ndarray, "n D"], second: Float[np.ndarray, "n SECOND"]
    ) -> "PairSums":
        """Computes the sums over the rows; the same row of both is the same token.

        Args:
            first: vectors of the tokens in one layer.
            second: those of the same tokens in another.
        """
        first_lengths = np.einsum("nd,nd->n", first, first)
        second_lengths = np.einsum("nd,nd->n", second, second)
        parts = (
            first.T @ second,
            first.sum(axis=0),
            second.sum(axis=0),
            second_lengths @ first,
            first_lengths @ second,
            first_lengths.sum(),
            second_lengths.sum(),
            first_lengths @ second_lengths,
        )
        return cls(len(first), *(np.asarray(part, np.float64) for part in parts))

    def plus(self, other: "PairSums") -> "PairSums":
        """Returns the sums over the tokens of both.

        Args:
            other: sums over other tokens, of the same layers.
        """
        return PairSums(*map(operator.add, self, other))

    def minus(self, other: "PairSums") -> "PairSums":
        """Returns the sums over this one's tokens without the other's.

        Args:
            other: sums over some of the same tokens.
        """
        return PairSums(*map(operator.sub, self, other))

    def dependence(self, unbiased: bool) -> float:
        """Computes the Hilbert-Schmidt independence criterion with linear kernels, up to a factor.

        Args:
            unbiased: whether the products of a token with itself are left out. Without that,
                dependence grows with width / tokens even between unrelated representations.

        Source: Gretton et al. 2005 (biased); Song et al. 2012, eq. 5 (unbiased), both written in
        feature space: with K = XX' the trace of KL is `|X'Y|^2`.
        """
        n = self.tokens
        if not unbiased:
            centred = self.cross - np.outer(self.first, self.second) / n
            return float(np.einsum("de,de->", centred, centred)) / n**2
        trace = np.einsum("de,de->", self.cross, self.cross) - self.lengths
        whole = (self.first @ self.first - self.first_lengths) * (
            self.second @ self.second - self.second_lengths
        )
        rows = (
            self.first @ self.cross @ self.second
            - self.first @ self.first_by_length
            - self.second @ self.second_by_length
            + self.lengths
        )
        return float(trace + whole / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)) / (n * (n - 3))


def linear_cka(
    first: Float[np.ndarray, "n D"], second: Float[np.ndarray, "n SECOND"], unbiased: bool = True
) -> float:
    """Computes linear CKA of two representations of the same n things.

    Args:
        first, second: a row a thing; the widths may differ.
        unbiased: see `PairSums.dependence`; such a value may be a little below 0.

    Returns:
        1 for representations that differ by a rotation and a scale, near 0 for unrelated ones. NaN
        where one of them is constant.

    Raises:
        UserError: fewer than four things.

    Source: Kornblith et al. 2019, section 3 and eq. 5.
    """
    first, second = (np.asarray(part, np.float64) for part in (first, second))
    _check_number(len(first))
    first, second = first - first.mean(axis=0), second - second.mean(axis=0)
    between, of_first, of_second = (
        PairSums.of(*pair).dependence(unbiased)
        for pair in ((first, second), (first, first), (second, second))
    )
    return _ratio(between, of_first, of_second)


def compare_layers(
    first: Model,
    second: Model,
    texts: Sequence[EncodedText],
    *,
    unbiased: bool = True,
    first_layers: Sequence[int] | None = None,
    second_layers: Sequence[int] | None = None,
    special: bool = False,
    folds: int = FOLDS,
    progress: Callable[[int], None] = lambda done: None,
) -> Interval:
    """Computes linear CKA between all layers of two models, or of a model with itself.

    The models may be of other widths and depths, two checkpoints of one run, or a model and its
    random control (`capture.randomize`). Memory does not grow with the number of texts: it is
    8 bytes x (folds + 1) x D x D for each pair of layers, so that a choice of layers keeps a large
    model small.

    Args:
        first, second: with the same tokenizer; the same object twice is worked through once.
        texts: encoded by it.
        unbiased: see `linear_cka`.
        first_layers, second_layers: which hidden states, 0 = the embeddings' output, L = the last
            layer's; all when left out.
        special: whether [CLS] and [SEP] count, whose large vectors can rule the figure.
        folds: groups of texts of the jackknife, at least 2; windows of a text are of one group.
        progress: called with the number of texts done since the last call.

    Returns:
        CKA `[first layers, second layers]` with 95 % intervals of the delete-a-group jackknife: a
        bootstrap would draw a text twice, which the unbiased estimate does not allow.

    Raises:
        UserError: other tokenizers, a layer that is not there, or too few texts.

    Source: Kornblith et al. 2019, section 6; Efron & Tibshirani 1993, chapter 11 (jackknife).
    """
    if first.tokenizer.fingerprint != second.tokenizer.fingerprint:
        raise UserError(
            "the two models have other tokenizers, so that their hidden states are not of the same"
            " tokens; compare models that share a tokenizer (checkpoints of one run, for instance)"
        )
    units = number_units(text.source for text in texts)
    if (number := units.max(initial=-1) + 1) < folds or folds < 2:
        raise UserError(
            f"{counted(number, 'text')} in {counted(folds, 'fold')}: an interval needs at"
            " least two folds and a text in each; give more texts"
        )
    rows, columns = (
        _choose(body, layers) for body, layers in ((first, first_layers), (second, second_layers))
    )
    same = first is second and rows == columns
    sums: list[dict[Any, PairSums]] = [{} for _ in range(folds)]
    start: list[Float[np.ndarray, "layers 1 D"]] = []
    for fold, hidden in _chunks(
        first, second, texts, (rows, columns), special, units % folds, same, progress
    ):
        # No figure depends on where the origin is; near the mean little is lost to cancellation.
        start = start or [part.mean(axis=1, keepdims=True) for part in hidden]
        left, right = (part - origin for part, origin in zip(hidden, start, strict=True))
        for key, pair in _pairs(left, right, same):
            new = PairSums.of(*pair)
            sums[fold][key] = sums[fold][key].plus(new) if key in sums[fold] else new
    total = {
        key: functools.reduce(PairSums.plus, [part[key] for part in sums if key in part])
        for key in sums[0]
    }
    _check_number(next(iter(total.values())).tokens)
    shape = len(rows), len(columns)
    value = _alignment(total, shape, unbiased, same)
    without = []
    for part in sums:
        rest = {key: total[key].minus(part[key]) for key in total}
        _check_number(next(iter(rest.values())).tokens)
        without.append(_alignment(rest, shape, unbiased, same))
    return _jackknife(value, np.stack(without))


def _choose(body: Model, layers: Sequence[int] | None) -> list[int]:
    last = body.config.num_hidden_layers
    if layers is None:
        return list(range(last + 1))
    wrong = [layer for layer in layers if not 0 <= layer <= last]
    if wrong:
        raise UserError(
            f"layer {wrong[0]}: the model's hidden states are numbered from 0 (the embeddings'"
            f" output) to {last} (the last layer's)"
        )
    return list(layers)


def _chunks(
    first: Model,
    second: Model,
    texts: Sequence[EncodedText],
    layers: tuple[list[int], list[int]],
    special: bool,
    folds: Int[np.ndarray, " texts"],
    same: bool,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, list[Float[np.ndarray, "layers n D"]]]]:
    """Gives (fold, hidden states of both models), about CHUNK_TOKENS tokens at a time."""
    waiting: list[list[list[np.ndarray]]] = [[] for _ in range(folds.max() + 1)]
    captures = capture(first, texts, hidden=True, progress=progress)
    others = [] if same else [capture(second, texts, hidden=True)]
    for fold, captured, *other in zip(folds.tolist(), captures, *others, strict=True):
        kept = slice(None) if special else ~captured.encoded.special
        parts = [
            captured_text.hidden[chosen][:, kept]
            for captured_text, chosen in zip([captured, *other], layers, strict=False)
        ]
        waiting[fold].append(parts)
        if sum(part[0].shape[1] for part in waiting[fold]) >= CHUNK_TOKENS:
            yield fold, _join(waiting[fold])
            waiting[fold] = []
    yield from ((fold, _join(parts)) for fold, parts in enumerate(waiting) if parts)


def _join(parts: list[list[np.ndarray]]) -> list[Float[np.ndarray, "layers n D"]]:
    joined = [np.concatenate(part, axis=1) for part in zip(*parts, strict=True)]
    return joined if len(joined) == 2 else joined * 2


def _pairs(
    left: Float[np.ndarray, "layers n D"], right: Float[np.ndarray, "others n SECOND"], same: bool
) -> Iterator[tuple[Any, tuple[np.ndarray, np.ndarray]]]:
    """Lists the products to compute: of pairs of layers, and of each layer with itself."""
    for i, first in enumerate(left):
        for j, second in enumerate(right):
            if not same or i <= j:
                yield (i, j), (first, second)
    if not same:
        for name, stack in (("first", left), ("second", right)):
            yield from (((name, i), (layer, layer)) for i, layer in enumerate(stack))


def _alignment(
    sums: dict[Any, PairSums], shape: tuple[int, int], unbiased: bool, same: bool
) -> Float[np.ndarray, "layers others"]:
    dependences = {key: pair.dependence(unbiased) for key, pair in sums.items()}
    result = np.empty(shape)
    for i, j in np.ndindex(shape):
        if same:
            result[i, j] = _ratio(
                dependences[min(i, j), max(i, j)], dependences[i, i], dependences[j, j]
            )
        else:
            result[i, j] = _ratio(
                dependences[i, j], dependences["first", i], dependences["second", j]
            )
    return result


def _ratio(between: float, of_first: float, of_second: float) -> float:
    product = of_first * of_second
    return between / np.sqrt(product) if min(of_first, of_second) > 0 else float("nan")


def _jackknife(
    value: Float[np.ndarray, "..."], without: Float[np.ndarray, "folds ..."]
) -> Interval:
    from scipy.stats import t

    folds = len(without)
    spread = np.sqrt((folds - 1) * without.var(axis=0))
    half = t.ppf(0.5 + CONFIDENCE / 2, folds - 1) * spread
    return Interval(value, value - half, value + half)


def _check_number(tokens: int) -> None:
    if tokens < LEAST_TOKENS:
        raise UserError(
            f"{tokens} tokens: CKA needs at least {LEAST_TOKENS}, and says little below a few 100"
        )
