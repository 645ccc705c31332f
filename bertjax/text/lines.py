"""A line that is a text, or the two of a pair with a tab between them."""

from bertjax.program.errors import UserError


def separate_pair(place: str, line: str) -> str | tuple[str, str]:
    """Returns the line's text or pair, without the white space around each.

    A tab at an end of the line separates nothing.

    Raises:
        UserError: several tabs.
    """
    cells = [cell.strip() for cell in line.strip().split("\t")]
    if len(cells) > 2:
        raise UserError(
            f"{place}: {len(cells) - 1} tabs; one tab separates the two of a pair, and a text has"
            " none"
        )
    return cells[0] if len(cells) == 1 else (cells[0], cells[1])
