"""How fast each attention backend is, and what memory it takes, once it is shown to be right."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from bertjax.kernels.backends import BACKENDS
from bertjax.planning.absent_devices import compile_for_tpu, lower_for_cuda
from bertjax.program.errors import UserError
from bertjax.verification.conformance import (
    Attention,
    Finding,
    check_conformance,
)

# The slice that is compiled for where there is none.
TPU = "v5e:2x2"
# Of the memory that is free, the share that a program's buffers may take: on a CPU matrix products
# ask for as much again (explicit attention over 8,192 tokens: 13 GiB, and 24 in use).
_SHARE_OF_MEMORY = 0.45


class Shape(NamedTuple):
    """Of query, key and value: B rows, T tokens, N heads of H."""

    rows: int
    length: int
    heads: int
    head_size: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Reads `8x512x12x64`.

        Raises:
            UserError: it is something else.
        """
        parts = text.lower().split("x")
        if len(parts) != 4 or not all(part.isdecimal() and int(part) for part in parts):
            raise UserError(
                f"shape {text!r} must be four whole numbers, rows x tokens x heads x head size, as"
                " 8x512x12x64"
            )
        return cls(*map(int, parts))

    def __str__(self) -> str:
        return "x".join(map(str, self))

    def flops(self, window: int | None, backward: bool) -> int:
        """Counts operations of the matrix products: two forwards, four more backwards.

        What a backend computes again in the backward pass is not counted, and neither are pairs
        that do not see each other.
        """
        pairs = self.length**2
        if window is not None and window < self.length:
            pairs = self.length * (2 * window + 1) - window * (window + 1)
        return (6 if backward else 2) * 2 * self.rows * self.heads * pairs * self.head_size


class Judged(NamedTuple):
    """A backend before it is timed.

    Attributes:
        name: of the backend.
        how: "ran", or what was done in place of it where its device is absent.
        findings: of the conformance suite; none where it could not be run.
        passed: whether it may be timed: it does all that it does not refuse; None where the suite
            could not be run.
        timed: whether it can be: its device is here.
    """

    name: str
    how: str
    findings: list[Finding]
    passed: bool | None
    timed: bool

    @property
    def worst(self) -> float:
        """The largest difference of all cases that it did; NaN of none."""
        did = [max(case.forward, case.backward) for case in self.findings if not case.reason]
        return max(did, default=float("nan"))


class Timing(NamedTuple):
    """What a backend needs for a shape.

    Attributes:
        backend, shape: which.
        forward, both: seconds of the forward pass, and of forward and backward; None where it was
            not run.
        forward_bytes, both_bytes: memory that the compiled program takes beside its inputs and
            outputs; None where it was not compiled.
        reason: why something is None.
    """

    backend: str
    shape: Shape
    forward: float | None = None
    both: float | None = None
    forward_bytes: int | None = None
    both_bytes: int | None = None
    reason: str = ""


def judge(name: str, dtype: str) -> Judged:
    """Runs the conformance suite, on the backend's device or as near to it as can be."""
    backend = BACKENDS[name]
    attention = backend.attention
    if jax.default_backend() in backend.platforms:
        conformance = check_conformance(attention, dtype, dropout=backend.dropout)
        findings, how, timed = list(conformance), "ran", True
    elif backend.interpreted:
        interpreted = functools.partial(attention, interpret=True)
        findings, how, timed = list(check_conformance(interpreted, dtype)), "interpreted", False
    else:
        return Judged(name, "not run: its device is not here", [], None, False)
    passed = all(finding.passes(dtype) for finding in findings)
    return Judged(name, how, findings, passed, timed)


def time_backends(
    names: Sequence[str],
    shape: Shape,
    dtype: str,
    window: int | None = None,
    rounds: int = 5,
    progress: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Compiles all, then runs them in turn, round after round; medians over the rounds.

    Args:
        names: of backends that run here.
        shape: of query, key and value; the rows are full.
        dtype: of them.
        window: see `visibility.see`.
        rounds: how many.
        progress: is called after each backend of each round.
    """
    random = np.random.default_rng(0)
    inputs = [jnp.asarray(random.normal(size=shape), dtype) for _ in range(3)]
    ids = jnp.ones(shape[:2], jnp.int32)
    compiled, timings = {}, {}
    free = _free_memory()
    for name in names:
        timing = Timing(name, shape)
        try:
            programs = [
                jax.jit(function).lower(*inputs, ids).compile()
                for function in (forward_of(name, window), both_of(name, window))
            ]
        except UserError as error:
            timings[name] = timing._replace(reason=str(error))
            continue
        sizes = [program.memory_analysis().temp_size_in_bytes for program in programs]
        timing = timing._replace(forward_bytes=sizes[0], both_bytes=sizes[1])
        if free is not None and max(sizes) > _SHARE_OF_MEMORY * free:
            reason = (
                f"needs {max(sizes) / 2**30:.1f} GiB, more than {_SHARE_OF_MEMORY:.0%} of the"
                f" {free / 2**30:.1f} GiB that are free"
            )
            timings[name] = timing._replace(reason=reason)
            continue
        compiled[name], timings[name] = programs, timing
    seconds: dict[str, list[list[float]]] = {name: [[], []] for name in compiled}
    # The first round warms up.
    for number in range(rounds + 1):
        for name in names:
            for program, taken in zip(compiled.get(name, ()), seconds.get(name, ()), strict=True):
                started = time.perf_counter()
                jax.block_until_ready(program(*inputs, ids))
                if number:
                    taken.append(time.perf_counter() - started)
            progress()
    for name, measured in seconds.items():
        forward, both = map(statistics.median, measured)
        timings[name] = timings[name]._replace(forward=forward, both=both)
    return [timings[name] for name in names]


def prepare_for_absent(name: str, shape: Shape, dtype: str, window: int | None = None) -> Timing:
    """Compiles for a TPU, or lowers for an NVIDIA GPU, what cannot run here."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for _ in range(3)]
    arguments.append(jax.ShapeDtypeStruct(shape[:2], jnp.int32))
    functions = forward_of(name, window), both_of(name, window)
    timing = Timing(name, shape)
    try:
        if BACKENDS[name].platforms == ("gpu",):
            for function in functions:
                lower_for_cuda(function, arguments)
            return timing._replace(reason="lowered for CUDA, not run")
        programs = [compile_for_tpu(function, arguments, TPU) for function in functions]
    except UserError as error:
        return timing._replace(reason=str(error))
    sizes = [program.memory_analysis().temp_size_in_bytes for program in programs]
    return timing._replace(
        forward_bytes=sizes[0], both_bytes=sizes[1], reason=f"compiled for a TPU ({TPU}), not run"
    )


def forward_of(name: str, window: int | None) -> Callable[..., Array]:
    """Returns the forward pass of a backend."""
    return functools.partial(BACKENDS[name].attention, window=window)


def both_of(name: str, window: int | None) -> Callable[..., tuple[Array, ...]]:
    """Returns forward and backward: the context, and the gradients by query, key and value.

    The context is an output, as a layer goes on with it: of gradients alone, XLA leaves out its
    product where the backward pass does not need it. Its gradient is the query, as good as another.
    """
    attention: Attention = forward_of(name, window)

    def both(query: Array, key: Array, value: Array, ids: Array) -> tuple[Array, ...]:
        context, pull_back = jax.vjp(lambda *parts: attention(*parts, ids), query, key, value)
        return context, *pull_back(query.astype(context.dtype))

    return both


# What a run is compared by, as its timings name it.
_COMPARED = ("forward", "both", "forward_bytes", "both_bytes")


class Baseline(NamedTuple):
    """What a run before measured.

    Attributes:
        matmul_rate: FLOP/s of the machine's own matrix products.
        entries: (backend, shape, dtype, window) -> seconds and bytes by name, where they are known.
    """

    matmul_rate: float
    entries: Mapping[tuple[Any, ...], Mapping[str, float]]

    @classmethod
    def read(cls, run: Any) -> "Baseline":
        """Reads what `bertjax bench attention --json` prints.

        Raises:
            UserError: it is something else.
        """
        try:
            about, rate = (run["dtype"], run["window"]), float(run["matmul_rate"])
            entries = {
                (timing["backend"], timing["shape"], *about): {
                    name: float(timing[name]) for name in _COMPARED if timing[name]
                }
                for timing in run["timings"]
            }
            figures = [rate, *(value for entry in entries.values() for value in entry.values())]
            right = all(np.isfinite(value) and value > 0 for value in figures)
        except (KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise UserError("not what `bertjax bench attention --output` writes")
        return cls(rate, entries)

    def check_common(
        self, names: Sequence[str], shapes: Sequence[Shape], dtype: str, window: int | None
    ) -> None:
        """Raises a `UserError` where a run of these would have nothing to be compared with."""
        wanted = {(name, str(shape), dtype, window) for name in names for shape in shapes}
        if wanted.isdisjoint(self.entries):
            there = ["{} {} {} window {}".format(*key) for key in self.entries]
            raise UserError(
                "has no backend, shape, dtype and window in common with this run; give the options"
                f" of that one ({', '.join(there[:4]) or 'it timed nothing'}"
                f"{', ...' if len(there) > 4 else ''})"
            )


def find_regressions(now: Baseline, before: Baseline, allowed: float) -> Iterator[str]:
    """Yields what has become slower, or needs more memory, than in a run before.

    Seconds are counted in matrix products of each run's own rate, so that a slower machine is no
    regression.

    Args:
        now, before: of the two runs.
        allowed: the largest ratio that is none.
    """
    for key, figures in now.entries.items():
        other = before.entries.get(key, {})
        for name in _COMPARED:
            if name not in figures or name not in other:
                continue
            ratio = figures[name] / other[name]
            if not name.endswith("bytes"):
                ratio *= now.matmul_rate / before.matmul_rate
            if ratio > allowed:
                yield f"{key[0]} at {key[1]}: {name} is {ratio:.2f} x what it was"


def _free_memory() -> int | None:
    """Returns free bytes of the device, or of the machine; None where neither is known."""
    memory = jax.local_devices()[0].memory_stats()
    if memory:
        return memory["bytes_limit"] - memory["bytes_in_use"]
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":") for line in lines)
    except OSError:
        return None
    return 1024 * int(fields["MemAvailable"].split()[0])
