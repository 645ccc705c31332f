"""A page that is one file: its template with the styles, the scripts and the data in it."""

import html
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from importlib.resources.abc import Traversable
from typing import Any

from bertjax.analysis.report.figures import palette
from bertjax.program.strict_json import to_json

FOLDER: Traversable = importlib.resources.files("bertjax.analysis.report") / "page"
# What draws the heads of a model (heads.html), in this order.
HEAD_SCRIPTS = (
    "values.js", "maps.js", "grid.js", "lines.js", "matrix.js", "heads.js", "theme.js",
)  # fmt: skip


def assemble(
    template: Traversable,
    title: str,
    styles: Sequence[str | Traversable],
    scripts: Sequence[str | Traversable],
    data: Mapping[str, Any],
) -> str:
    """Assembles a page that loads nothing else.

    Args:
        template: of HTML; `@@TITLE@@`, `@@STYLE@@`, `@@HEADS@@`, `@@DATA@@` and `@@SCRIPT@@` mark
            where the parts go.
        title: of the page.
        styles, scripts: files, those of the report by their names.
        data: for the scripts; the palettes are put to it.
    """
    palettes = {name: palette(name) for name in ("viridis", "cividis", "Blues")}

    def read(files: Sequence[str | Traversable]) -> str:
        found = [FOLDER / file if isinstance(file, str) else file for file in files]
        return "\n".join(file.read_text(encoding="utf-8") for file in found)

    parts = {
        "TITLE": html.escape(title),
        "STYLE": read(styles),
        "HEADS": read(["heads.html"]),
        # A "<" in the data could end its element.
        "DATA": to_json({**data, "palettes": palettes}, compact=True).replace("<", "\\u003c"),
        "SCRIPT": read(scripts),
    }
    # All at once, so that a mark within the data stays as it is.
    return re.sub("@@([A-Z]+)@@", lambda mark: parts[mark[1]], read([template]))
