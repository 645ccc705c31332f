"""How fast rows become batches on the device, and what masking them there costs of a step.

    python benchmarks/bench_input.py --data rows128 rows512   # tokens a second
    python benchmarks/bench_input.py --masking                # share of the base-size step

Conformance first: the pipeline must give the rows of the files, every one once an epoch. Then, in
alternating rounds: batches made one after the other (made), made ahead by a thread (ahead), and
made ahead and placed on the device (placed), which is what training does between its steps. Tokens
are those of the rows, padding included. A core's share counts the processor time of all threads.

With --masking: `PretrainingObjective.prepare` alone, compiled, and the training step that has it
inside (that of bench_step.py), in turn.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from bench_step import compile_step

from bertjax.config import BertConfig
from bertjax.objectives.masking import MaskingConfig, Vocabulary
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.huge_pages import restart_with_huge_pages
from bertjax.program.strict_json import to_json
from bertjax.text.rows import open_prepared
from bertjax.training.batches import TrainingBatches, read_ahead
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows

# Seconds of one measurement.
LONG_ENOUGH = 0.3


def main() -> None:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", metavar="DIR", nargs="*", default=[], help="prepared directories")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 256], help="rows a batch")
    parser.add_argument("--masking", action="store_true", help="measure masking instead")
    parser.add_argument("--rounds", type=int, default=7, help="measurements (default: 7)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if bool(options.data) == options.masking:
        raise UserError("give --data DIR ..., or --masking")
    if min(options.rounds, *options.batch_size) < 1:
        raise UserError("--rounds and --batch-size must be at least 1")
    for path in options.data:
        rows, most = len(open_prepared(path).train), max(options.batch_size)
        if most > rows:
            raise UserError(f"--batch-size {most} is more than the {rows} training rows of {path}")
    if options.masking:
        figures = [measure_masking(options.rounds)]
    else:
        figures = [
            measure_input(path, size, options.rounds)
            for path in options.data
            for size in options.batch_size
        ]
    print(to_json(figures) if options.json else "\n\n".join(map(show, figures)))


def measure_input(path: str, batch_size: int, rounds: int) -> dict[str, Any]:
    """Tokens a second, and a second of processor time, of every stage."""
    rows = open_prepared(path).train
    mesh = make_mesh(MeshConfig())
    check_batches(TrainingBatches(rows, batch_size, 0, -(-len(rows) // batch_size)), len(rows))
    batches = TrainingBatches(rows, batch_size, seed=0, steps=1 << 40)

    def made() -> Iterator[Any]:
        return (batches[step] for step in itertools.count())

    stages: dict[str, Callable[[], Iterator[Any]]] = {
        "made": made,
        "ahead": lambda: read_ahead(batches, 0),
        "placed": lambda: (place_rows(batch, mesh) for batch in read_ahead(batches, 0)),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in stages}
    for _ in range(rounds):
        for name, stage in stages.items():
            found[name].append(measure_rate(stage(), batch_size * rows.max_length))
    figures: dict[str, Any] = {
        "rows": f"{path}: {len(rows):,} of {rows.max_length} tokens, {batch_size} a batch",
        "device": jax.devices()[0].device_kind,
    }
    for name, rates in found.items():
        wall, core = (statistics.median(kind) for kind in zip(*rates, strict=True))
        figures[f"{name}: million tokens a second"] = wall
        figures[f"{name}: million tokens a second of a core"] = core
    return figures


def check_batches(batches: TrainingBatches, rows: int) -> None:
    """Sees that the first epoch has every row once, with the tokens that its number has."""
    numbers = []
    for batch in read_ahead(batches, 0):
        first = batch.epochs == 0
        numbers += batch.row_numbers[first].tolist()
        row = batches._rows[batch.row_numbers[:1]]
        same = [np.array_equal(getattr(batch, name)[:1], value) for name, value in row.items()]
        if not all(same):
            raise SystemExit(f"conformance: row {batch.row_numbers[0]} has other tokens on disk")
    if sorted(numbers) != list(range(rows)):
        raise SystemExit("conformance: an epoch does not have every row once")


def measure_rate(batches: Iterator[Any], tokens: int) -> tuple[float, float]:
    """Million tokens a second: on the clock, and of processor time."""
    batch = next(batches)
    count, started, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < LONG_ENOUGH:
        batch = next(batches)
        count += 1
    jax.block_until_ready(batch)
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    return count * tokens / wall / 1e6, count * tokens / cpu / 1e6


def measure_masking(rounds: int) -> dict[str, Any]:
    """Seconds of masking a batch, of the step, and the share."""
    step_options = argparse.Namespace(rows=8, length=128, remat="auto")
    config = BertConfig.of_size("base", max_position_embeddings=step_options.length)
    take_step, state, batch = compile_step(
        config, step_options, make_mesh(MeshConfig()), jnp.dtype("float32")
    )
    special = [0, 1, 2, 3, 4]
    vocabulary = Vocabulary(config.vocab_size, 4, special, np.zeros(config.vocab_size, bool))
    prepares = {
        strategy: jax.jit(
            PretrainingObjective(None, MaskingConfig(strategy), vocabulary, seed=0).prepare
        )
        for strategy in ("token", "whole-word", "span")
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("step", *prepares)}
    for prepare in prepares.values():
        jax.block_until_ready(prepare(batch))
    for _ in range(rounds):
        started = time.perf_counter()
        state, report = take_step(state, batch, jnp.float32(1))
        jax.block_until_ready(report)
        seconds["step"].append(time.perf_counter() - started)
        for name, prepare in prepares.items():
            started = time.perf_counter()
            for _ in range(10):
                masked = prepare(batch)
            jax.block_until_ready(masked)
            seconds[name].append((time.perf_counter() - started) / 10)
    step = statistics.median(seconds.pop("step"))
    figures: dict[str, Any] = {
        "model": f"base, {batch.token_ids.shape[0]} x {batch.token_ids.shape[1]} tokens, float32",
        "device": jax.devices()[0].device_kind,
        "training step, s": step,
    }
    for name, times in seconds.items():
        figures[f"masking by {name}, ms"] = 1000 * statistics.median(times)
        figures[f"masking by {name}, % of the step"] = 100 * statistics.median(times) / step
    return figures


def show(figures: dict[str, Any]) -> str:
    """A line for each."""
    return "\n".join(
        f"{name:45} {value:.4g}" if isinstance(value, float) else f"{name:45} {value}"
        for name, value in figures.items()
    )


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
