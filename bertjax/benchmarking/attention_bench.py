"""`bertjax bench attention` from the suite to the figures, as one JSON object."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

import bertjax
from bertjax.benchmarking.attention_timing import (
    Judged,
    Shape,
    Timing,
    judge,
    prepare_for_absent,
    time_backends,
)
from bertjax.kernels.visibility import check_window
from bertjax.training.metrics import measure_matmul_rate
from bertjax.training.sharding import AXES


def bench_attention(
    names: Sequence[str],
    shapes: Sequence[Shape],
    dtype: str | None = None,
    window: int | None = None,
    rounds: int = 5,
    progress: Callable[[int, str], None] = lambda done, said: None,
) -> tuple[dict[str, Any], list[Judged]]:
    """Judges every backend, then times those that are right.

    Args:
        names: of backends.
        shapes: what they are timed on.
        dtype: of query, key and value; float32 on CPU and bfloat16 elsewhere when left out.
        window: see `visibility.see`.
        rounds: see `time_backends`.
        progress: is called with the number of steps done: of each backend, one for the suite and
            for each shape one a round, and one more; and with a line on a backend or shape that is
            through, else "".

    Returns:
        The figures, seconds, bytes and FLOP/s, as they are written; and the judgements.
    """
    check_window(window)
    dtype = dtype or default_dtype()
    judged = []
    for name in names:
        judged.append(judge(name, dtype))
        said = "WRONG" if judged[-1].passed is False else judged[-1].how
        progress(1, f"conformance of {name}: {said}")
    fit = [backend.name for backend in judged if backend.passed and backend.timed]
    absent = [
        backend.name for backend in judged if backend.passed is not False and not backend.timed
    ]
    timings: list[Timing] = []
    for shape in shapes if fit else ():
        timings += time_backends(fit, shape, dtype, window, rounds, lambda: progress(1, ""))
        progress(0, f"{shape}: timed")
    for name in absent:
        for shape in shapes:
            timings.append(prepare_for_absent(name, shape, dtype, window))
            progress(rounds + 1, f"{shape}: {name} {timings[-1].reason}")
    device = jax.local_devices()[0]
    mesh = Mesh(np.array([device]).reshape((1,) * len(AXES)), AXES)
    rate = measure_matmul_rate(mesh, dtype)
    results = {
        "bertjax": bertjax.__version__,
        "jax": jax.__version__,
        "device": device.device_kind,
        "dtype": dtype,
        "window": window,
        "rounds": rounds,
        "matmul_rate": rate,
        "conformance": [_describe_judged(backend, dtype) for backend in judged],
        "timings": [_describe_timing(timing, window, rate) for timing in timings],
    }
    return results, judged


def default_dtype() -> str:
    """Returns the name of the type that attention is computed in where nothing is said."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def _describe_judged(result: Judged, dtype: str) -> dict[str, Any]:
    cases = [finding._asdict() | {"passed": finding.passes(dtype)} for finding in result.findings]
    for case in cases:
        # What is no number is null: a NaN is no JSON.
        case |= {name: _number(case[name]) for name in ("forward", "backward")}
    return {"backend": result.name, "how": result.how, "passed": result.passed, "cases": cases}


def _describe_timing(timing: Timing, window: int | None, rate: float) -> dict[str, Any]:
    values = timing._asdict() | {"shape": str(timing.shape)}
    for name, backward in (("forward", False), ("both", True)):
        flops, seconds = timing.shape.flops(window, backward), getattr(timing, name)
        values[f"{name}_flops"] = flops
        values[f"{name}_share_of_peak"] = flops / seconds / rate if seconds else None
    return values


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
