"""What a command line may hold: texts that are UTF-8, numbers and lengths within their bounds."""

import argparse
import math
import os
from collections.abc import Callable

from bertjax.config import check_length
from bertjax.program.errors import UserError

# Beyond it, counts overflow somewhere in numpy or jax.
_MOST = 2**31 - 1


def utf8_text(word: str) -> str:
    """Checks a text of the command line, for `type=`: texts are UTF-8, file names are any bytes."""
    try:
        word.encode("utf-8")
        return word
    except UnicodeEncodeError:
        pass
    try:  # a locale without letters: the bytes may be UTF-8 all the same
        return os.fsencode(word).decode("utf-8")
    except UnicodeDecodeError as error:
        raise argparse.ArgumentTypeError(
            f"{word!r} is not UTF-8 (byte 0x{error.object[error.start]:02x} at column"
            f" {error.start + 1}); convert it, for instance with `iconv -f latin1 -t utf8`"
        ) from None


class Number:
    """A number and its bounds, for `type=`.

    Attributes:
        least, most: the bounds; they belong to what is allowed.
        above, below: bounds that do not.
    """

    def __init__(
        self,
        kind: Callable[[str], float],
        *,
        least: float = -math.inf,
        most: float = _MOST,
        above: float = -math.inf,
        below: float = math.inf,
    ) -> None:
        self._kind = kind
        self.least, self.most, self.above, self.below = least, most, above, below
        self.__name__ = kind.__name__  # argparse's word for it

    def __call__(self, word: str) -> float:
        return self._kind(word)

    def check(self, option: str, value: float) -> None:
        """Raises a `UserError` where the value is out of bounds, or no number."""
        if not math.isfinite(value):
            rule = "must be a finite number"
        elif value < self.least:
            rule = f"must be at least {self.least:,}"
        elif value <= self.above:
            rule = f"must be above {self.above:,}"
        elif value > self.most:
            rule = f"must be at most {self.most:,}"
        elif value >= self.below:
            rule = f"must be below {self.below:,}"
        else:
            return
        raise UserError(f"{option} {value} {rule}")


def whole_number(least: int) -> Number:
    """Returns the type of whole numbers that are at least so large."""
    return Number(int, least=least)


def seed_number() -> Number:
    """Returns the type of random seeds that jax takes."""
    return Number(int, least=0, most=2**32 - 1)


def check_numbers(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Checks all numbers of a command line, with the option in its own words.

    Raises:
        UserError: one is out of bounds, or an option that was left out has an error as its default.
    """
    for action in parser._actions:
        value = getattr(options, action.dest, None)
        if isinstance(value, UserError):
            raise value
        if isinstance(action.type, Number) and value is not None:
            for number in value if isinstance(value, list) else [value]:
                action.type.check(action.option_strings[0], number)


def choose_length(
    options: argparse.Namespace, most: int, otherwise: int | None = None, *, least: int = 8
) -> int:
    """Returns the longest sequence: `--max-length`, or its default.

    Args:
        options: with `--max-length`.
        most: positions of the model.
        otherwise: when the option is left out; all the positions without it.
        least: that a sequence has to have room for.

    Raises:
        UserError: the model has no positions for it.
    """
    length = options.max_length
    if length is None:
        return most if otherwise is None else otherwise
    return check_length(length, most, least)
