"""What a bootstrap draws: texts, never the windows of a long text, and few enough for memory."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

# More would hardly narrow an interval; each unit holds figures for all heads and all pairs.
MOST_UNITS = 256


def number_units(sources: Iterable[int], most: int = MOST_UNITS) -> Int[np.ndarray, " texts"]:
    """Numbers each text's unit: 0, 1, 2, ... without a gap.

    Windows of one text depend on each other and form one unit; drawn singly they would make every
    interval too narrow. If there is only one text, its windows are all there is to draw, and are
    units of their own. Beyond the limit, texts join the units of earlier ones: sums over groups of
    texts are as good to draw from, and memory does not grow with the number of texts.

    Args:
        sources: the text that each text or window comes from (`EncodedText.source`).
        most: the most units.
    """
    sources, numbers = list(sources), {}
    units = [numbers.setdefault(source, len(numbers)) for source in sources]
    return np.array(units if len(numbers) > 1 else range(len(units)), np.int64) % most


def sum_by_unit(
    values: Float[np.ndarray, "texts ..."], units: Int[np.ndarray, " texts"]
) -> Float[np.ndarray, "units ..."]:
    """Sums the texts' figures by unit.

    Args:
        values: figures of each text.
        units: the unit of each text (`number_units`).
    """
    sums = np.zeros((units.max(initial=-1) + 1, *values.shape[1:]))
    np.add.at(sums, units, values)
    return sums
