"""The content of a report, and the check that its parts are consistent."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.layers.lens import Lens
from bertjax.statistics.intervals import Figures, Interval

# A figure with its control and intervals, with an interval alone, or a plain array.
AnyFigures = Figures | Interval | Float[np.ndarray, "..."]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


class HeadFigure(NamedTuple):
    """A figure of every head.

    Attributes:
        name: the stem of its files: lower-case letters, digits, - and _.
        title: for the reader, for instance "Entropy".
        unit: the unit of the values, for instance "nats"; empty for a share.
        meaning: a sentence that says what it is.
        figures: `[L, N]`.
        categories: for a figure that is a class: value k means `categories[k]`, at most 8.
    """

    name: str
    title: str
    unit: str
    meaning: str
    figures: AnyFigures
    categories: tuple[str, ...] = ()


class Series(NamedTuple):
    """A line of a curve: its name, and a figure for each point."""

    name: str
    figures: AnyFigures


class Curve(NamedTuple):
    """Figures along an axis, for instance a probe's accuracy by layer.

    Attributes:
        name: the stem of its files.
        title: the heading.
        meaning: a sentence that says what it is.
        x_title, y_title: the axes' titles, with units.
        points: the labels along x.
        series: at most 8 lines, `[points]` each.
    """

    name: str
    title: str
    meaning: str
    x_title: str
    y_title: str
    points: tuple[str, ...]
    series: tuple[Series, ...]


class Matrix(NamedTuple):
    """Figures of pairs, for instance CKA between layers.

    Attributes:
        name: the stem of its files.
        title: the heading.
        meaning: a sentence that says what it is.
        row_title, column_title: the axes' titles.
        rows, columns: the labels.
        figures: `[rows, columns]`.
    """

    name: str
    title: str
    meaning: str
    row_title: str
    column_title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    figures: AnyFigures


class Head(NamedTuple):
    """A head, counted from 0; the page shows it as `layer-head`, with a link to it."""

    layer: int
    head: int


class Measure(NamedTuple):
    """A number with its interval and control; None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None
    control: float | None = None
    control_low: float | None = None
    control_high: float | None = None

    @classmethod
    def of(cls, figures: Figures | Interval, index: Any = ()) -> "Measure":
        """Takes an entry of figures; the entry of a single figure is `()`."""
        intervals = (figures.model, figures.control) if isinstance(figures, Figures) else (figures,)
        return cls(*(float(part[index]) for interval in intervals for part in interval))


Cell = str | int | float | Head | Measure | None


class Table(NamedTuple):
    """A table, for instance of relations and their best heads.

    Attributes:
        name: the stem of its files.
        title: the heading.
        meaning: a sentence that says what it is.
        columns: the titles.
        rows: a cell for each column.
    """

    name: str
    title: str
    meaning: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class ReportData(NamedTuple):
    """What the report shows; every section except the title is optional.

    Attributes:
        title: the page's, for instance the model's name.
        facts: about the model and how the report was made, in the order shown.
        head_figures: figures of every head, all of the same `[L, N]`.
        sentences: captures whose attention can be explored; their hidden states are not used.
        lenses: readings of the masked-LM head at every layer.
        curves, matrices, tables: the rest.
        notes: what a reader must know (what was cut, left out, or proves nothing).
    """

    title: str
    facts: Mapping[str, str | int | float] = {}
    head_figures: Sequence[HeadFigure] = ()
    sentences: Sequence[Captured] = ()
    lenses: Sequence[Lens] = ()
    curves: Sequence[Curve] = ()
    matrices: Sequence[Matrix] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def check(data: ReportData) -> None:
    """Checks that the parts are consistent.

    Raises:
        ValueError: a part is not; names it.
    """
    named = [*data.head_figures, *data.curves, *data.matrices, *data.tables]
    for part in named:
        if not is_name(part.name):
            raise ValueError(f"name={part.name!r} must be lower-case letters, digits, - and _")
    names = [part.name for part in named]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"name={min(twice)!r} is used by two parts; their files would be the same")
    shapes = {part.name: values_of(part.figures).shape for part in data.head_figures}
    shapes |= {f"sentences[{k}]": part.probs.shape[:2] for k, part in enumerate(data.sentences)}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"figures of heads must all have the same [L, N], not {shapes}")
    for part in data.matrices:
        expected = (len(part.rows), len(part.columns))
        if values_of(part.figures).shape != expected:
            raise ValueError(f"matrix {part.name}: figures must be {expected}, as the labels are")
    for part in data.curves:
        for line in part.series:
            if values_of(line.figures).shape != (len(part.points),):
                raise ValueError(
                    f"curve {part.name}, {line.name}: a figure for each point is needed"
                )
    for part in data.tables:
        if any(len(row) != len(part.columns) for row in part.rows):
            raise ValueError(f"table {part.name}: every row needs {len(part.columns)} cells")


def is_name(name: str) -> bool:
    """Returns whether files can have this name."""
    return bool(_NAME.fullmatch(name))


def head_shape(data: ReportData) -> tuple[int, int]:
    """Returns L and N; (0, 0) where the data have no figures of heads."""
    if data.head_figures:
        return values_of(data.head_figures[0].figures).shape
    return data.sentences[0].probs.shape[:2] if data.sentences else (0, 0)


def values_of(figures: AnyFigures) -> Float[np.ndarray, "..."]:
    """Returns the model's values alone."""
    if isinstance(figures, Figures):
        return figures.model.value
    return figures.value if isinstance(figures, Interval) else np.asarray(figures)


def distinguishable(figures: AnyFigures) -> Bool[np.ndarray, "..."]:
    """Returns `Figures.distinguishable`; everywhere true if there is no control."""
    if isinstance(figures, Figures):
        return figures.distinguishable
    return np.ones(values_of(figures).shape, bool)
