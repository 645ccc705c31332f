"""A line that is a text, or a pair of texts separated by a tab."""

from bertjax.program.errors import UserError
from bertjax.text.given_texts import Text


def separate_pair(place: str, line: str) -> Text:
    """Returns the line's text or pair, without the white space around each.

    A tab at either end of the line separates nothing.

    Raises:
        UserError: more than one tab.
    """
    cells = [cell.strip() for cell in line.strip().split("\t")]
    if len(cells) > 2:
        raise UserError(
            f"{place}: {len(cells) - 1} tabs; one tab separates a pair, and a single text has none"
        )
    return cells[0] if len(cells) == 1 else (cells[0], cells[1])
