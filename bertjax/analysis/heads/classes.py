"""The five classes of attention maps of Kovaleva et al. 2019, by a rule.

They sorted maps by eye, and trained a network on that. Here three numbers are measured of a map,
each the share of its attention that is *more* than chance would put there, so that they do not
depend on the length: 0 is chance, 1 is all of it. Of a map that is a mixture, `a` of a vertical
one, `b` of a diagonal one and the rest even, they are about a and b.

    vertical   attention off the diagonal to the COLUMNS columns that most of it goes to: the same
               tokens, whoever looks; chance is an even spread
    diagonal   attention to the token itself and its two neighbours; chance is what these columns
               have off the diagonal
    block      of the attention off the diagonal, that to the query's own segment (A or B); chance
               is a map with the same columns in which all rows are alike

Which columns those are is found on every second row and measured on the other rows, and the other
way round: rows that have nothing in common have no vertical share, however few they are.

The class is the first that fits:

    vertical_and_diagonal   both above their thresholds
    vertical                above VERTICAL
    diagonal                above DIAGONAL
    block                   above BLOCK; only pairs of segments can be
    heterogeneous           everything else

Source: Kovaleva et al. 2019, section 4.1 and figure 1. Differs: a stated rule, not a network; any
token can make a vertical, not [CLS] and [SEP] alone; a block is measured off the diagonal.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.heads.targets import TokenMarks, count_cells

CLASSES = ("vertical", "diagonal", "vertical_and_diagonal", "block", "heterogeneous")

# Above these, in shares of the attention beyond chance.
VERTICAL = DIAGONAL = BLOCK = 0.3
# How many columns can be a vertical: [CLS] and two [SEP] of a pair.
COLUMNS = 3


class Structure(NamedTuple):
    """The three measures of each head as a fraction, so that those of texts can be added.

    Attributes:
        sums: vertical, diagonal, block, times their counts.
        counts: what an all-vertical, all-diagonal, all-block map would have for `sums`; 0 where
            the map is too small to tell, or has one segment.
    """

    sums: Float[np.ndarray, "3 L N"]
    counts: Float[np.ndarray, "3 L N"]


def measure_structure(
    columns: Float[np.ndarray, "2 L N T"],
    on_diagonal: Float[np.ndarray, "L N"],
    own_segment_off_diagonal: Float[np.ndarray, "L N"],
    marks: TokenMarks,
) -> Structure:
    """Measures the vertical, diagonal and block share of the maps of a text.

    Args:
        columns: the sum of every column off the diagonal, over the even and over the odd rows.
        on_diagonal: the sum over a map's diagonal.
        own_segment_off_diagonal: the sum over the cells of own segments off the diagonal.
        marks: of the text's tokens.
    """
    tokens = len(marks.position)
    nothing = np.zeros_like(on_diagonal, np.float64)
    if tokens <= COLUMNS:
        return Structure(*np.stack([[nothing] * 3] * 2))
    cells = count_cells(marks)

    # As if a column had on the diagonal what it has off it, on the average.
    rows = np.array([[(tokens + 1) // 2], [tokens // 2]])
    off = columns.astype(np.float64) * (rows / np.maximum(cells.off_diagonal, 1))[:, None, None]
    most = np.argsort(-off, axis=-1, kind="stable")[..., :COLUMNS]
    held_out = np.take_along_axis(off[::-1], most, axis=-1).sum(axis=(0, -1))
    vertical = held_out - off.sum(axis=(0, -1)) * COLUMNS / tokens, nothing + tokens - COLUMNS

    alike = off.sum(axis=0) / tokens
    diagonal = on_diagonal - alike @ cells.diagonal, nothing + tokens

    block = nothing, nothing
    if marks.segment.any():
        rest = columns.sum(axis=(0, -1), dtype=np.float64)
        expected = alike @ cells.own_segment
        block = own_segment_off_diagonal - expected, rest - expected
    parts = zip(vertical, diagonal, block, strict=True)
    return Structure(*(np.stack(part) for part in parts))


def classify(
    vertical: Float[np.ndarray, "*shape"],
    diagonal: Float[np.ndarray, "*shape"],
    block: Float[np.ndarray, "*shape"],
) -> Int[np.ndarray, "*shape"]:
    """Classifies each map: the number of its class in `CLASSES`.

    Args:
        vertical, diagonal, block: the shares; NaN where one is not defined, which fits no class.
    """
    is_vertical, is_diagonal = vertical > VERTICAL, diagonal > DIAGONAL
    fits = {
        "vertical_and_diagonal": is_vertical & is_diagonal,
        "vertical": is_vertical,
        "diagonal": is_diagonal,
        "block": block > BLOCK,
    }
    numbers = [CLASSES.index(name) for name in fits]
    return np.select(list(fits.values()), numbers, CLASSES.index("heterogeneous"))
