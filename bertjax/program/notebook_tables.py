"""Tables that a notebook shows of a result."""

import html
from collections.abc import Iterable, Sequence


def make_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table in HTML.

    Args:
        names: of the columns.
        rows: their cells, as they are shown.
    """
    lines = [
        f"<tr>{''.join(f'<{cell}>{html.escape(value)}</{cell}>' for value in row)}</tr>"
        for cell, row in [("th", names), *(("td", row) for row in rows)]
    ]
    return f"<table>{''.join(lines)}</table>"
