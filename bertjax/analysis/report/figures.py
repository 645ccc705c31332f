"""The report's figures as pictures: PNG to look at, SVG to print."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from bertjax.analysis.report.data import (
    Curve,
    HeadFigure,
    Matrix,
    ReportData,
    distinguishable,
    values_of,
)
from bertjax.statistics.intervals import Figures, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Steps of a palette, which the page interpolates.
_PALETTE_STEPS = 17
# Okabe & Ito 2008: distinguishable for colour-blind readers; yellow, pale on white, comes last.
CATEGORY_COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#7F7F7F", "#F0E442",
)  # fmt: skip
_GREY = "#d4d4d4"
# Figures with more cells than this have no numbers in them.
_MOST_NUMBERS = 200


def palette(name: str) -> list[str]:
    """Returns a palette of matplotlib in even steps, as #rrggbb."""
    import matplotlib

    steps = matplotlib.colormaps[name](np.linspace(0, 1, _PALETTE_STEPS))
    return [matplotlib.colors.to_hex(color) for color in steps]


def draw_figures(data: ReportData) -> Iterator[tuple[str, bytes]]:
    """Yields (file name, content) of every figure, as PNG and as SVG."""
    drawings = [(part.name, _draw_heads, part) for part in data.head_figures]
    drawings += [(part.name, _draw_curve, part) for part in data.curves]
    drawings += [(part.name, _draw_matrix, part) for part in data.matrices]
    for name, draw, part in drawings:
        figure = draw(part)
        for kind in ("png", "svg"):
            yield f"{name}.{kind}", _render(figure, kind)


def _render(figure: "Figure", kind: str) -> bytes:
    import matplotlib

    target = io.BytesIO()
    # The same data give the same bytes: no date, and ids that are not random.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "bertjax", "svg.fonttype": "none"}):
        figure.savefig(target, format=kind, dpi=144, metadata=metadata)
    return target.getvalue()


def _new_figure(width: float, height: float) -> tuple["Figure", "Axes"]:
    """Makes a figure without pyplot, which would keep every figure and choose a window system."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _draw_heads(part: HeadFigure) -> "Figure":
    values = values_of(part.figures)
    layers, heads = values.shape
    figure, axes = _new_figure(max(4.5, 1.9 + 0.42 * heads), max(2.6, 1.2 + 0.34 * layers))
    _draw_grid(
        figure,
        axes,
        values,
        distinguishable(part.figures),
        part.unit or "share",
        part.categories,
    )
    axes.set_title(part.title)
    axes.set_xlabel("head")
    axes.set_ylabel("layer")
    axes.set_xticks(range(heads), [str(head) for head in range(heads)])
    axes.set_yticks(range(layers), [str(layer) for layer in range(layers)])
    return figure


def _draw_matrix(matrix: Matrix) -> "Figure":
    values = values_of(matrix.figures)
    rows, columns = values.shape
    figure, axes = _new_figure(max(4.0, 2.2 + 0.5 * columns), max(3.0, 1.4 + 0.42 * rows))
    _draw_grid(figure, axes, values, distinguishable(matrix.figures), "", ())
    axes.set_title(matrix.title)
    axes.set_xlabel(matrix.column_title)
    axes.set_ylabel(matrix.row_title)
    longest = max(map(len, matrix.columns))
    axes.set_xticks(range(columns), matrix.columns, rotation=0 if longest < 5 else 90)
    axes.set_yticks(range(rows), matrix.rows)
    return figure


def _draw_grid(
    figure: "Figure",
    axes: "Axes",
    values: Float[np.ndarray, "rows columns"],
    certain: Bool[np.ndarray, "rows columns"],
    label: str,
    categories: tuple[str, ...],
) -> None:
    """Draws coloured cells; grey where the figure is within its control's interval."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    shown = np.ma.masked_where(~certain | np.isnan(values), values)
    axes.set_facecolor(_GREY)
    if categories:
        colors = ListedColormap(CATEGORY_COLORS[: len(categories)])
        norm = BoundaryNorm(np.arange(len(categories) + 1) - 0.5, max(2, len(categories)))
        image = axes.imshow(shown, cmap=colors, norm=norm, aspect="auto")
        rows, columns = values.shape
        axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="white", lw=1)
        axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="white", lw=1)
    else:
        image = axes.imshow(shown, cmap="viridis", aspect="auto")
        figure.colorbar(image, ax=axes, label=label)
        if values.size <= _MOST_NUMBERS:
            _write_numbers(axes, values, shown, image)
    handles = [
        Patch(color=color, label=name)
        for name, color in zip(categories, CATEGORY_COLORS, strict=False)
    ]
    if shown.mask.any():
        handles.append(Patch(color=_GREY, label="not distinguishable from a random model"))
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(3, len(handles)), fontsize=8
        )


def _write_numbers(
    axes: "Axes", values: Float[np.ndarray, "rows columns"], shown: Any, image: Any
) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isnan(value):
            continue
        hidden = np.ma.getmaskarray(shown)[row, column]
        red, green, blue, _ = image.cmap(image.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5 and not hidden
        color = "#666666" if hidden else ("white" if dark else "black")
        text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.2f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=color)


def _draw_curve(curve: Curve) -> "Figure":
    from matplotlib.lines import Line2D

    figure, axes = _new_figure(6.4, 3.8)
    places = np.arange(len(curve.points))
    for line, color in zip(curve.series, CATEGORY_COLORS, strict=False):
        values, certain = values_of(line.figures), distinguishable(line.figures)
        axes.plot(places, values, color=color, label=line.name)
        axes.plot(places[certain], values[certain], "o", color=color)
        axes.plot(places[~certain], values[~certain], "o", color=color, markerfacecolor="white")
        interval = line.figures.model if isinstance(line.figures, Figures) else line.figures
        if isinstance(interval, Interval):
            axes.fill_between(places, interval.low, interval.high, color=color, alpha=0.2, lw=0)
        if isinstance(line.figures, Figures):
            control = line.figures.control
            axes.plot(places, control.value, "--", color=color, lw=1, label=f"{line.name}, random")
            axes.fill_between(places, control.low, control.high, color=color, alpha=0.08, lw=0)
    axes.set_title(curve.title)
    axes.set_xlabel(curve.x_title)
    axes.set_ylabel(curve.y_title)
    axes.set_xticks(places, curve.points)
    axes.spines[["top", "right"]].set_visible(False)
    handles, _ = axes.get_legend_handles_labels()
    if not all(distinguishable(line.figures).all() for line in curve.series):
        hollow = {"marker": "o", "color": "gray", "markerfacecolor": "white", "ls": ""}
        handles.append(Line2D([], [], label="not distinguishable from random", **hollow))
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return figure
