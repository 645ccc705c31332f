"""The shapes of batches: a closed set, known before any text is, so that compilations are bounded.

A model of 512 positions has the lengths 16, 24, 32, 48, 64, 96, ... 384, 512. Each length has a
few numbers of rows, the largest as many as a budget allows, each about a quarter of the one before.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from bertjax.numerics.placement import count_sharers
from bertjax.text.workers import count_cores

SHORTEST = 16


class Shape(NamedTuple):
    """The shape of a batch.

    Attributes:
        rows: B.
        length: T.
        slots: what a row has room for beside its tokens: sequences (K), or places that are asked
            for (P).
    """

    rows: int
    length: int
    slots: int


class Shapes:
    """All shapes that the batches of one use of a model can have.

    Args:
        longest: tokens of the longest row.
        fits: how many rows of a length a device takes in a batch; at least one is taken.
        slots: the numbers of slots that rows of a length can have, in rising order.
        between: whether there are lengths between powers of two, which are of use where what
            follows an item in its row is padding.
        mesh: of the devices that share the rows out; each gets as many.
        ratio: of a number of rows to the next smaller one.
        shortest: tokens of the shortest row, a power of two.
    """

    def __init__(
        self,
        longest: int,
        fits: Callable[[int], int],
        *,
        slots: Callable[[int], Sequence[int]] = lambda length: (1,),
        between: bool = True,
        mesh: Mesh | None = None,
        ratio: int = 4,
        shortest: int = SHORTEST,
    ) -> None:
        sharers = 1 if mesh is None else count_sharers(mesh)
        platform = jax.default_backend() if mesh is None else mesh.devices.flat[0].platform
        # XLA shares the rows of a batch out among the cores of a CPU: as many for each.
        group = count_cores() if platform == "cpu" and sharers == 1 else 1
        self._lengths = tuple(_lengths(longest, shortest, between))
        self._slots = {length: tuple(slots(length)) for length in self._lengths}
        self._rows = {
            length: tuple(sharers * rows for rows in _row_numbers(fits(length), group, ratio))
            for length in self._lengths
        }

    @property
    def shortest(self) -> int:
        """Returns the tokens of the shortest row."""
        return self._lengths[0]

    @property
    def longest(self) -> int:
        """Returns the tokens of the longest row."""
        return self._lengths[-1]

    def __iter__(self) -> Iterator[Shape]:
        for length in self._lengths:
            for slots in self._slots[length]:
                yield from (Shape(rows, length, slots) for rows in self._rows[length])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def length_for(self, tokens: int) -> int:
        """Returns the least length of rows that hold so many tokens.

        Args:
            tokens: of an item.

        Raises:
            ValueError: none does.
        """
        for length in self._lengths:
            if length >= tokens:
                return length
        raise ValueError(f"{tokens} tokens do not fit rows of {self.longest}")

    def slots_for(self, length: int, wanted: int) -> int:
        """Returns the least number of slots of rows of this length that is enough.

        Args:
            length: one of the set, in tokens.
            wanted: slots that are needed; at most those of the largest shape.
        """
        return next(slots for slots in self._slots[length] if slots >= wanted)

    def most_rows(self, length: int) -> int:
        """Returns the rows of the largest batch of rows of this length.

        Args:
            length: one of the set, in tokens.
        """
        return self._rows[length][0]

    def fill(self, rows: int, length: int) -> int:
        """Returns the rows of the batch to run first, of so many rows of this length that wait.

        It holds them all where at least half of it is full, and is full otherwise.

        Args:
            rows: that wait.
            length: one of the set, in tokens.
        """
        options = self._rows[length]
        holds_all = [most for most in options if most >= rows]
        if holds_all and 2 * rows > holds_all[-1]:
            return holds_all[-1]
        return next((most for most in options if most <= rows), options[-1])

    def divide(self, rows: int, length: int) -> list[int]:
        """Returns the rows of each batch that together hold so many rows of this length.

        The last rows go into a batch that they fill for the most part, or into smaller ones.

        Args:
            rows: to run.
            length: one of the set, in tokens.
        """
        parts: list[int] = []
        for most in self._rows[length]:
            full, rows = divmod(rows, most)
            parts += [most] * full
            if rows > 0.75 * most:
                return [*parts, most]
        return parts + [most] * (rows > 0)


def _lengths(longest: int, shortest: int, between: bool) -> Iterator[int]:
    """Yields powers of two, 3/2 of them where wanted, and the longest itself."""
    length = shortest
    while length < longest:
        yield length
        if between and 3 * length // 2 < longest:
            yield 3 * length // 2
        length *= 2
    yield longest


def _row_numbers(fits: int, group: int, ratio: int) -> Iterator[int]:
    """Yields the numbers of rows of a device, falling; all but the least are multiples of the
    group.
    """
    rows = max(1, fits // group * group or fits)
    while rows > 1:
        yield rows
        rows = max(1, rows // ratio // group * group)
    yield 1


def few_or_all(length: int) -> tuple[int, ...]:
    """Returns slots for places that are asked for: one in a row, a few, or every token.

    Args:
        length: of a row, in tokens.
    """
    return tuple(sorted({min(slots, length) for slots in (1, 8, length)}))
