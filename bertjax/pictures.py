"""Pictures of runs and scores, drawn with matplotlib: what they have in common.

Labels are drawn literally (a `$` starts no formula), files are written whole, and a picture that
cannot be drawn costs a note, never the figures that it would have shown.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bertjax.program.outputs import whole_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From Okabe & Ito's palette, which colour-blind people can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

# Longer labels would leave no room for the data.
LONGEST_LABEL = 32

# The points of a shorter line are marked: a single point draws no line.
_FEW_POINTS = 40

# Inches of a confusion matrix's cell, and the most for all of them.
_CELL, _MOST_CELLS = 0.6, 24.0


class Series(NamedTuple):
    """One line of a panel.

    Attributes:
        name: in the legend.
        steps: the points' steps.
        values: the points' values; None where there is none.
    """

    name: str
    steps: Sequence[float]
    values: Sequence[float | None]


class Panel(NamedTuple):
    """One of several diagrams over the same steps.

    Attributes:
        label: the vertical axis's label.
        series: the lines; a line without points is left out.
        baselines: values to compare with, by name, each drawn as a dashed line.
    """

    label: str
    series: Sequence[Series]
    baselines: Mapping[str, float] = {}


def draw_picture(path: Path, make: Callable[[], "Figure"]) -> list[str]:
    """Draws a figure into a file, PNG or SVG by its suffix.

    Args:
        path: the file.
        make: makes the figure, a `matplotlib.figure.Figure` that pyplot need not know.

    Returns:
        A note when it could not be drawn, or not completely; else none.
    """
    try:
        import matplotlib

        plain = {"text.parse_math": False, "text.usetex": False}
        with (
            matplotlib.rc_context(plain),
            warnings.catch_warnings(record=True) as caught,
            whole_file(path) as aside,
        ):
            warnings.simplefilter("always")
            figure = make()
            # Whose layout is fitted to its labels needs no second drawing to find where they end.
            fitted = figure.get_layout_engine() is not None
            figure.savefig(aside, dpi=120, bbox_inches=None if fitted else "tight")
    except ImportError as error:
        return [f"no {path.name}: it needs matplotlib ({error}); pip install 'bertjax[tasks]'"]
    except Exception as error:  # whatever a library raises on unusual labels and numbers
        return [f"no {path.name}: {' '.join(str(error).split()) or type(error).__name__}"]
    missing = sorted({name for one in caught for name in _missing_glyphs(str(one.message))})
    if missing:
        return [f"{path.name}: the font lacks {', '.join(missing)}; they are drawn as boxes"]
    return []


def _missing_glyphs(warning: str) -> list[str]:
    found = re.search(r"Glyph (\d+) .* missing from", warning)
    return [chr(int(found[1]))] if found else []


def short_label(text: str) -> str:
    """Returns a label on one line, cut where it is too long for the picture."""
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def draw_panels(path: Path, panels: Sequence[Panel], marked: Mapping[str, float] = {}) -> list[str]:
    """Draws panels one above the other over the same steps.

    Args:
        path: the file.
        panels: from the top down; a panel without points is left out.
        marked: steps to mark in all of them, by label.

    Returns:
        As `draw_picture`.
    """

    def make() -> "Figure":
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        shown = [panel for panel in panels if any(len(series.steps) for series in panel.series)]
        if not shown:
            raise ValueError("there is nothing to draw")
        figure = Figure(figsize=(7, 0.6 + 2.2 * len(shown)), layout="constrained")
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for panel, one in zip(shown, axes, strict=True):
            _draw_panel(one, panel, marked)
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure

    return draw_picture(path, make)


def _draw_panel(axes: "Axes", panel: Panel, marked: Mapping[str, float]) -> None:
    drawn = [series for series in panel.series if len(series.steps)]
    for number, series in enumerate(drawn):
        values = [float("nan") if value is None else value for value in series.values]
        marker = "o" if len(values) < _FEW_POINTS else ""
        color = COLORS[number % len(COLORS)]
        axes.plot(series.steps, values, marker=marker, markersize=4, color=color, label=series.name)
    for number, (name, value) in enumerate(panel.baselines.items()):
        color = COLORS[(len(drawn) + number) % len(COLORS)]
        axes.axhline(value, linestyle="--", linewidth=1, color=color, label=name)
    for name, step in marked.items():
        axes.axvline(step, linestyle=":", linewidth=1, color="gray", label=name)
    axes.set_ylabel(short_label(panel.label))
    axes.grid(alpha=0.25)
    if len(drawn) + len(panel.baselines) + len(marked) > 1:
        axes.legend(fontsize="small")


def series_of(lines: Sequence[Mapping[str, Any]], name: str, label: str = "") -> Series:
    """Returns the values of this name from log lines, by step; lines without it are ignored."""
    having = sorted((line for line in lines if name in line), key=lambda line: line["step"])
    return Series(label or name, [line["step"] for line in having], [line[name] for line in having])


def draw_table_of_lines(
    path: Path, lines: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> list[str]:
    """Draws the values of these names over the lines' steps, each in a panel of its own.

    A value that is the same in all of several lines gets no panel.

    Returns:
        As `draw_picture`.
    """
    every = [series_of(lines, name) for name in names]
    varied = [series for series in every if len(set(series.values)) > 1]
    shown = varied or every
    return draw_panels(path, [Panel(series.name, [series]) for series in shown])


def draw_confusion_matrix(
    path: Path, matrix: Sequence[Sequence[int]], labels: Sequence[str]
) -> list[str]:
    """Draws a row for each true label and a column for each predicted label.

    Colours are shares of the row, so that a rare class is as visible as a frequent one; the numbers
    are counts, with the shares below them where there is room.

    Args:
        path: the file.
        matrix: counts.
        labels: the names of rows and columns.

    Returns:
        As `draw_picture`.
    """
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    cell = min(_CELL, _MOST_CELLS / max(1, len(labels)))

    def make() -> "Figure":
        from matplotlib.figure import Figure

        side = cell * len(labels)
        figure = Figure(figsize=(side, side))  # labels go around it: the file is as large as both
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        names = [short_label(label) for label in labels]
        size = min(10.0, 72 * cell * 0.9)
        axes.set_xticks(range(len(labels)), names, rotation=45, ha="right", fontsize=size)
        axes.set_yticks(range(len(labels)), names, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title("examples, and their share of the true label", fontsize=9)
        if cell == _CELL:
            for row, counts in enumerate(matrix):
                for column, count in enumerate(counts):
                    share = shares[row][column]
                    axes.text(
                        column, row, f"{count}\n{share:.0%}" if count else "0",
                        ha="center", va="center", fontsize=8,
                        color="white" if share > 0.5 else "black",
                    )  # fmt: skip
        return figure

    return draw_picture(path, make)
