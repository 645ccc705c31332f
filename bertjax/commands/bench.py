"""`bertjax bench attention`: which attention backends are right here, and how fast each is."""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import Number, whole_number
from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.kernels.backends import NAMES
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output, whole_files, write_json

if TYPE_CHECKING:
    from bertjax.benchmarking.attention_timing import Judged

SUMMARY = "which attention backends are right on this machine, and how fast each is"

# Tokens of a batch, heads and head size of the default shapes.
_TOKENS, _HEADS, _HEAD_SIZE = 8192, 12, 64
_LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("what", choices=["attention"], help="what is measured")
    parser.add_argument(
        "--shapes",
        metavar="BxTxNxH",
        nargs="+",
        default=[f"{_TOKENS // t}x{t}x{_HEADS}x{_HEAD_SIZE}" for t in _LENGTHS],
        help=f"rows x tokens x heads x head size (default: {_TOKENS:,} tokens of {_HEADS} heads of"
        f" {_HEAD_SIZE}, in rows of {_LENGTHS[0]} to {_LENGTHS[-1]:,})",
    )
    parser.add_argument(
        "--backends",
        nargs="+",
        choices=NAMES,
        default=list(NAMES),
        help="the backends to measure (default: all)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16", "float16"],
        help="dtype of query, key and value (default: float32 on CPU, bfloat16 elsewhere)",
    )
    parser.add_argument(
        "--window",
        metavar="TOKENS",
        type=whole_number(1),
        help="tokens that a token sees to either side (default: all)",
    )
    parser.add_argument(
        "--rounds",
        metavar="R",
        type=whole_number(1),
        default=5,
        help="rounds in which the backends run in turn; medians are reported (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--output", metavar="DIR", help="write attention.json and attention.png there, too"
    )
    parser.add_argument(
        "--compare",
        metavar="BASELINE.json",
        help="report what has become slower or larger since; exit code 1 if something has",
    )
    parser.add_argument(
        "--allowed",
        metavar="RATIO",
        type=Number(float, above=0),
        default=1.2,
        help="with --compare: the largest ratio that is not a regression (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Checks, times, prints; returns 1 if a backend is wrong or something has become slower."""
    from bertjax.benchmarking.attention_bench import bench_attention, default_dtype
    from bertjax.benchmarking.attention_timing import Baseline, Shape, find_regressions

    shapes = [Shape.parse(text) for text in options.shapes]
    baseline = None
    if options.compare:
        try:
            baseline = Baseline.read(_read_json(options.compare))
            dtype = options.dtype or default_dtype()
            baseline.check_common(options.backends, shapes, dtype, options.window)
        except UserError as error:
            raise UserError(f"--compare {options.compare}: {error}") from None
    if options.output:
        check_output(options.output, folder=True)
    steps = len(options.backends) * (1 + len(shapes) * (options.rounds + 1))
    with count_on("measuring", steps) as progress:
        results, judged = bench_attention(
            options.backends, shapes, options.dtype, options.window, options.rounds, progress
        )
    regressions = []
    if baseline:
        regressions = list(find_regressions(Baseline.read(results), baseline, options.allowed))
        results["regressions"] = regressions
    if options.output:
        _write(Path(options.output), results)
    if options.json:
        print_json(results)
    else:
        _print(results, judged, options.output)
    return 1 if regressions or any(judgement.passed is False for judgement in judged) else 0


def _read_json(name: str) -> Any:
    """Reads a file; returns None where it is not JSON."""
    try:
        return json.loads(Path(name).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(str(error.strerror)) from None
    except ValueError:
        return None


def _print(results: dict[str, Any], judged: Sequence["Judged"], output: str | None) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("backend", "conformance", "worst", "cases", "how"):
        table.add_column(name)
    for row in judged:
        did = [finding for finding in row.findings if not finding.reason]
        passed = sum(finding.passes(results["dtype"]) for finding in did)
        said = Text("not run", "yellow") if not did else Text("ok", "green")
        if row.passed is False:
            said = Text("WRONG", "bold red")
        worst = f"{row.worst:.1e}" if did else ""
        table.add_row(row.name, said, worst, f"{passed} of {len(did)}" if did else "", row.how)
    out.print(table)
    for row in judged:
        for finding in row.findings:
            if finding.reason:
                out.print(f"{row.name}, {finding.case}: {finding.reason}", style="dim")
            elif not finding.passes(results["dtype"]):
                out.print(
                    f"{row.name} is wrong on {finding.case}: forward {finding.forward:.1e}, "
                    f"backward {finding.backward:.1e} from float64; it is not timed",
                    style="red",
                )
    out.print()
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("BxTxNxH", no_wrap=True)
    table.add_column("backend", no_wrap=True)
    for name in ("fwd ms", "of peak", "+bwd ms", "of peak", "fwd MiB", "+bwd MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in sorted(results["timings"], key=lambda row: int(row["shape"].split("x")[1])):
        seconds = [_number(row[name], 1e3) for name in ("forward", "both")]
        shares = [_number(row[f"{name}_share_of_peak"], 100, "%") for name in ("forward", "both")]
        sizes = [_number(row[name], 2**-20) for name in ("forward_bytes", "both_bytes")]
        shape = row["shape"] if row["shape"] != last else ""
        pairs = zip(seconds, shares, strict=True)
        table.add_row(shape, row["backend"], *itertools.chain(*pairs), *sizes)
        last = row["shape"]
    out.print(table)
    for backend, reason in dict.fromkeys(
        (row["backend"], row["reason"]) for row in results["timings"] if row["reason"]
    ):
        out.print(f"{backend}: {reason}", style="dim")
    window = "" if results["window"] is None else f", a window of {results['window']} tokens"
    out.print(
        f"{results['device']}, {results['dtype']}{window}: medians of {results['rounds']} rounds in"
        f" turn; peak = the machine's own matrix products, {results['matmul_rate'] / 1e9:,.0f}"
        " GFLOP/s",
        style="dim",
    )
    for line in results.get("regressions", []):
        out.print(Text(f"slower: {line}", "red"))
    if output:
        out.print(f"written to {Path(output) / 'attention.json'} and attention.png")


def _number(value: float | None, scale: float, unit: str = "") -> str:
    """Formats to about three digits: at most two decimals, none from 100 on."""
    if value is None:
        return ""
    scaled = scale * value
    decimals = 0 if scaled >= 100 else 1 if scaled >= 10 else 2
    return f"{scaled:,.{decimals}f}{unit}"


def _write(folder: Path, results: dict[str, Any]) -> None:
    from bertjax.benchmarking.attention_plot import plot_timings

    with whole_files(folder) as aside:
        write_json(aside / "attention.json", results)
        plot_timings(results, aside / "attention.png")
