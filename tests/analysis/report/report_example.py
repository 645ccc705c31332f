"""A report with every kind of part in it, of a tiny body."""

import numpy as np

from bertjax.analysis.capture.maps import capture
from bertjax.analysis.layers.lens import Lens
from bertjax.analysis.report.data import (
    Curve,
    Head,
    HeadFigure,
    Matrix,
    Measure,
    ReportData,
    Series,
    Table,
)
from bertjax.statistics.intervals import Figures, Interval
from tests.analysis.tiny_bodies import make_body, make_texts


def make_figures(value, low=0.05, control=0.5):
    """Intervals of +- `low`; the control is a constant."""
    value = np.asarray(value, float)
    around = Interval(value, value - low, value + low)
    flat = np.full(value.shape, control)
    return Figures(around, Interval(flat, flat - 0.1, flat + 0.1))


def make_lens(encoded):
    """Three layers; the true token rises to the first rank."""
    positions = np.flatnonzero(~encoded.special)
    count = len(positions)
    probability = np.outer([0.001, 0.2, 0.9], np.ones(count))
    rank = np.outer([900, 3, 1], np.ones(count, int))
    ids = np.zeros((3, count, 2), int)
    tokens = tuple(tuple(("the", "</script>") for _ in positions) for _ in range(3))
    return Lens(encoded, positions, True, probability, rank, ids, np.full(ids.shape, 0.3), tokens)


def make_report():
    """L=2, N=4; the figure of layer 0, head 1 is not distinguishable, that of 1-3 not defined."""
    body = make_body()
    captures = list(capture(body, make_texts(body, [6, 4, 5])))
    entropy = np.array([[0.1, 0.5, 0.9, 1.3], [1.7, 2.1, 2.5, np.nan]])
    points = np.array([0.4, 0.8, 0.9])
    return ReportData(
        "tiny & <new> @@DATA@@",
        {"layers": 2, "heads": 4, "parameters": 123456},
        [
            HeadFigure("entropy", "Entropy", "nats", "How widely.", make_figures(entropy)),
            HeadFigure(
                "class", "Class", "", "What it looks like.",
                np.array([[0, 1, 2, 0], [1, 1, 0, 2]]), ("vertical", "diagonal", "block"),
            ),
        ],
        captures,
        [make_lens(captures[0].encoded)],
        [
            Curve(
                "tags", "Tags by layer", "A linear probe.", "layer", "accuracy", ("0", "1", "2"),
                (Series("accuracy", make_figures(points)), Series("selectivity", points / 2)),
            )
        ],
        [
            Matrix(
                "cka", "CKA", "How alike.", "this", "other", ("a", "b"), ("0", "1", "2"),
                make_figures(np.array([[0.1, 0.45, 1], [0.9, 0.2, 0.3]])),
            )
        ],
        [
            Table(
                "relations", "Relations", "Best heads.", ("relation", "head", "accuracy", "words"),
                (
                    ("nsubj", Head(1, 2), Measure(0.7, 0.6, 0.8, 0.2, 0.1, 0.3), 1200),
                    ("det", Head(0, 3), Measure(0.25, 0.2, 0.3, 0.2, 0.1, 0.3), 90),
                    ("aux", None, Measure(float("nan")), 3),
                ),
            )
        ],
        ["Two texts were left out."],
    )  # fmt: skip
