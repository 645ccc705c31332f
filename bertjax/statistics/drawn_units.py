"""What a bootstrap draws: texts, never the windows of a long one, and few enough for memory."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

# More make an interval hardly firmer; of each there are the figures of all heads, and of all pairs.
MOST_UNITS = 256


def number_units(sources: Iterable[int], most: int = MOST_UNITS) -> Int[np.ndarray, " texts"]:
    """Which unit each text is of: 0, 1, 2, ... without a gap.

    Windows of one text depend on each other, and are of one unit; drawn one by one they would make
    every interval too narrow. Of a single text they are all that there is to draw, and are units of
    their own. Beyond so many units, texts join those of earlier ones: sums over groups of texts
    are as good to draw from, and memory does not grow with the number of texts.

    Args:
        sources: of each text, or window of one, which text it is of (`EncodedText.source`).
        most: units.
    """
    sources, numbers = list(sources), {}
    found = [numbers.setdefault(source, len(numbers)) for source in sources]
    return np.array(found if len(numbers) > 1 else range(len(found)), np.int64) % most


def sum_by_unit(
    values: Float[np.ndarray, "texts ..."], units: Int[np.ndarray, " texts"]
) -> Float[np.ndarray, "units ..."]:
    """What is measured of the texts, added up to units."""
    sums = np.zeros((units.max(initial=-1) + 1, *values.shape[1:]))
    np.add.at(sums, units, values)
    return sums
