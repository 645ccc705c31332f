"""What every attention backend must do, forwards and backwards, held against float64."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from bertjax.numerics.dropout import Dropout, draw_kept
from bertjax.program.errors import UserError

Attention = Callable[..., Float[Array, "B T N H"]]

# The largest difference allowed, as a share of the largest value. A bfloat16 has 8 bits, and the
# probabilities are rounded to it before the second product.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}

# Of the cases with dropout.
_HEADS = 2
_SEED = 7


class Case(NamedTuple):
    """One thing that a backend is tried on.

    Attributes:
        name: what is special about it.
        sequence_ids: the rows; the length is theirs.
        head_size: H.
        window: how many tokens to either side a token sees.
        local: whether the window applies, told when the program runs; it does where it is None.
        dropout: share of the probabilities that is dropped.
    """

    name: str
    sequence_ids: Int[np.ndarray, "B T"]
    head_size: int = 64
    window: int | None = None
    local: bool | None = None
    dropout: float = 0.0


class Finding(NamedTuple):
    """How a backend did in a case.

    Attributes:
        case: its name.
        forward: the largest difference of the context, as a share of the largest value.
        backward: that of the gradients by query, key and value.
        reason: why the backend does not do it, in its own words; "" where it did.
    """

    case: str
    forward: float
    backward: float
    reason: str = ""

    def passes(self, dtype: str) -> bool:
        """Returns whether both are small enough, or the backend says that it cannot do it."""
        return bool(self.reason) or max(self.forward, self.backward) <= TOLERANCES[dtype]


def cases() -> list[Case]:
    """Makes the cases: padding, packing, odd, single or empty, head sizes, windows, dropout."""
    packed = np.array([[1] * 50 + [2] * 40 + [3] * 38, [1] * 100 + [2] * 20 + [0] * 8])
    return [
        Case("full rows", np.ones((2, 128), int)),
        Case("padding", np.array([[1] * 90 + [0] * 38, [1] * 128])),
        Case("padding in the middle", np.array([[1] * 60 + [0] * 20 + [1] * 48])),
        Case("packing", packed),
        Case("a row of nothing but padding", np.array([[0] * 64, [1] * 64])),
        Case("a single token", np.ones((2, 1), int)),
        Case("examples of a single token", np.array([[1, 2, 3, 0], [1, 1, 2, 2]])),
        Case("an odd length", np.array([[1] * 77 + [2] * 24, [1] * 101])),
        Case("a length of many blocks", np.array([[1] * 300 + [2] * 300 + [0] * 40])),
        *(Case(f"head size {size}", packed[:, :96], size) for size in (32, 128)),
        Case("a window", packed, window=7),
        Case("a window in many blocks", np.array([[1] * 400 + [2] * 240]), window=40),
        Case("a layer with a window", np.array([[1] * 400 + [2] * 240]), window=40, local=True),
        Case("a layer without the window", packed, window=7, local=False),
        Case("dropped probabilities", packed, dropout=0.3),
    ]


def check_conformance(
    attention: Attention,
    dtype: str,
    some: Sequence[Case] | None = None,
    *,
    dropout: bool = False,
) -> Iterator[Finding]:
    """Tries a backend on each case.

    Args:
        attention: with the signature of the backends.
        dtype: of query, key and value, a key of `TOLERANCES`.
        some: the cases; all of `cases()` when left out.
        dropout: whether the backend drops probabilities; the cases with dropout are left out where
            it does not.
    """
    run = jax.jit(functools.partial(_run, attention), static_argnames=("window", "rate"))
    for number, case in enumerate(cases() if some is None else some):
        if case.dropout and not dropout:
            continue
        random = np.random.default_rng(number)
        shape = (*case.sequence_ids.shape, _HEADS, case.head_size)
        drawn = [random.normal(size=shape) for _ in range(4)]
        drawn[0] *= 2  # scores that are not all alike
        # What the backend is given, rounding and all, is what the reference is given.
        given = [jnp.asarray(part, dtype) for part in drawn]
        exact = [np.asarray(part.astype(jnp.float32), np.float64) for part in given]
        ids = jnp.asarray(case.sequence_ids, jnp.int32)
        rows, length = case.sequence_ids.shape
        kept = draw_kept(
            jax.random.key(_SEED), jnp.arange(rows), (_HEADS, length, length), case.dropout
        )
        factors = np.asarray(kept, np.float64) / (1 - case.dropout)
        expected, expected_gradients = attend_exactly(
            *exact, case.sequence_ids, None if case.local is False else case.window, factors
        )
        try:
            context, gradients = run(*given, ids, case.local, window=case.window, rate=case.dropout)
        except UserError as error:
            yield Finding(case.name, np.nan, np.nan, str(error))
            continue
        backward = max(map(_differ, gradients, expected_gradients))
        yield Finding(case.name, _differ(context, expected), backward)


def _run(
    attention: Attention,
    query: Array,
    key: Array,
    value: Array,
    by_context: Array,
    sequence_ids: Array,
    local: Array | bool | None,
    window: int | None,
    rate: float,
) -> tuple[Array, tuple[Array, ...]]:
    """Returns the context, and the gradients by query, key and value."""
    options: dict[str, object] = {} if local is None else {"local": local}
    if rate > 0:
        options["dropout"] = Dropout(rate, jax.random.key(_SEED), jnp.arange(len(sequence_ids)))

    def attended(*inputs: Array) -> Array:
        return attention(*inputs, sequence_ids, window=window, **options)

    context, pull_back = jax.vjp(attended, query, key, value)
    return context, pull_back(by_context.astype(context.dtype))


def _differ(actual: Array, expected: Float[np.ndarray, "..."]) -> float:
    """Computes the largest difference as a share of the largest value; NaN where not finite."""
    difference = np.abs(np.asarray(actual.astype(jnp.float32), np.float64) - expected)
    return float(difference.max() / max(1.0, np.abs(expected).max()))


def attend_exactly(
    query: Float[np.ndarray, "B T N H"],
    key: Float[np.ndarray, "B T N H"],
    value: Float[np.ndarray, "B T N H"],
    by_context: Float[np.ndarray, "B T N H"],
    sequence_ids: Int[np.ndarray, "B T"],
    window: int | None = None,
    factors: Float[np.ndarray, "B N T S"] | None = None,
) -> tuple[Float[np.ndarray, "B T N H"], tuple[Float[np.ndarray, "B T N H"], ...]]:
    """Computes context and gradients by query, key and value in numpy and float64, row by row.

    Written apart from everything that it judges.

    Args:
        factors: of the probabilities: 0 where one is dropped.
    """
    scale, length = query.shape[-1] ** -0.5, sequence_ids.shape[1]
    context = np.zeros_like(value)
    by_query, by_key, by_value = (np.zeros_like(part) for part in (query, key, value))
    for row, ids in enumerate(sequence_ids):
        for place in range(length):
            if ids[place] == 0:
                continue
            sees = ids == ids[place]
            if window is not None:
                sees &= np.abs(np.arange(length) - place) <= window
            keys, values = key[row, sees], value[row, sees]
            scores = np.einsum("nh,snh->ns", query[row, place], keys) * scale
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            probs = weights / weights.sum(axis=1, keepdims=True)
            factor = 1.0 if factors is None else factors[row, :, place][:, sees]
            context[row, place] = np.einsum("ns,snh->nh", factor * probs, values)
            pulled = by_context[row, place]
            by_value[row, sees] += np.einsum("ns,nh->snh", factor * probs, pulled)
            by_probs = factor * np.einsum("nh,snh->ns", pulled, values)
            by_scores = probs * (by_probs - (by_probs * probs).sum(axis=1, keepdims=True)) * scale
            by_query[row, place] = np.einsum("ns,snh->nh", by_scores, keys)
            by_key[row, sees] += np.einsum("ns,nh->snh", by_scores, query[row, place])
    return context, (by_query, by_key, by_value)
