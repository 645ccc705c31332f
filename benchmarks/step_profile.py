"""Where the time of a training step goes, by kind of operation, from a trace of jax's profiler."""

import collections
import gzip
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

# What an operation of the compiled program is: the first pattern that fits its name, opcode and
# the name that it had in the model.
KINDS = (
    ("products of attention", r"->.*dot_general"),
    ("products, forward", r"^\S+ \S+ jit\(step\)/jvp.*dot_general"),
    ("products, backward", r"dot_general|/transpose\S*/transpose$"),
    ("sums and maxima", r"reduce_|reduce-window"),
    ("copies, conversions, fills", r"^\S*(copy|wrapped_convert|wrapped_broadcast|dynamic|concat)"),
    ("optimizer", r"^\S+ \S+ jit\(step\)/(?!.*BertFor)"),
    ("element by element", r""),
)
_OPERATION = re.compile(r"^\s*(?:ROOT )?%([\w.\-]+) = .*? ([\w\-]+)\(", re.MULTILINE)
_ORIGIN = re.compile(r'op_name="([^"]*)"')


def profile_step(
    program: jax.stages.Compiled, run: Callable[[], Any], steps: int
) -> dict[str, float]:
    """Milliseconds a step of every kind of `KINDS`, summed over the threads that work at once.

    Args:
        program: the compiled step.
        run: takes a step and waits for it.
        steps: so many are traced.
    """
    kinds = _kinds_of(program.as_text())
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                run()
        [path] = Path(folder).rglob("*.trace.json.gz")
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
    total: dict[str, float] = collections.Counter({kind: 0.0 for kind, _ in KINDS})
    for event in events:
        name = event.get("args", {}).get("hlo_op")
        if event.get("ph") == "X" and name in kinds:
            total[kinds[name]] += event["dur"] / 1e3 / steps
    return dict(total)


def _kinds_of(text: str) -> dict[str, str]:
    """Name of an operation -> its kind; loops, calls and branches hold others, so they are none."""
    kinds = {}
    for line in text.splitlines():
        found = _OPERATION.match(line)
        if not found or found[2] in ("while", "conditional", "call"):
            continue
        origin = _ORIGIN.search(line)
        about = f"{found[1]} {found[2]} {origin[1] if origin else ''}"
        kinds[found[1]] = next(kind for kind, pattern in KINDS if re.search(pattern, about))
    return kinds
