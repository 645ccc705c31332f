"""The plot of `bertjax bench attention`: seconds and memory over the length."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def plot_timings(results: Mapping[str, Any], path: Path) -> None:
    """Plots forward and backward a token, and the program's memory a token, of every backend."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    backends = list(dict.fromkeys(timing["backend"] for timing in results["timings"]))
    for axis, name, scale, title in (
        (axes[0], "both", 1e6, "forward and backward, µs a token"),
        (axes[1], "both_bytes", 2**-10, "memory beside inputs and outputs, KiB a token"),
    ):
        for number, backend in enumerate(backends):
            points = sorted(
                (int(timing["shape"].split("x")[1]), scale * timing[name] / _tokens(timing))
                for timing in results["timings"]
                if timing["backend"] == backend and timing[name]
            )
            if points:
                axis.plot(*zip(*points, strict=True), "o-", color=f"C{number}", label=backend)
        axis.set(xscale="log", yscale="log", xlabel="tokens a row (T)", title=title)
        lengths = sorted({int(timing["shape"].split("x")[1]) for timing in results["timings"]})
        axis.set_xticks(lengths, [str(length) for length in lengths], minor=False)
        axis.xaxis.minorticks_off()
        # Within a decade there are no powers of ten to read the values off.
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:.3g}"))
        axis.yaxis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    # Of a backend that was compiled and not run, there is nothing but memory.
    axes[1].legend(frameon=False)
    figure.suptitle(f"attention, {results['device']}, {results['dtype']}", fontsize=10)
    figure.savefig(path, dpi=150, format="png")


def _tokens(timing: Mapping[str, Any]) -> int:
    rows, length, *_ = map(int, timing["shape"].split("x"))
    return rows * length
