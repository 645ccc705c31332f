"""The report: a page to explore a BERT in, its figures as pictures, its numbers as JSON."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.layers.lens import Lens
from bertjax.analysis.report.assembly import FOLDER, HEAD_SCRIPTS, assemble
from bertjax.analysis.report.data import (
    AnyFigures,
    Cell,
    Head,
    Measure,
    ReportData,
    check,
    head_shape,
    is_name,
)
from bertjax.analysis.report.figures import draw_figures
from bertjax.analysis.report.maps import MAP_BYTES, store_maps
from bertjax.program.errors import UserError
from bertjax.program.outputs import make_folder, write_whole
from bertjax.program.strict_json import to_json
from bertjax.statistics.intervals import Figures, Interval


def write_report(
    data: ReportData, output_dir: Path | str, *, map_bytes: int = MAP_BYTES
) -> list[Path]:
    """Writes `report.html`, `numbers.json` and `figures/*.png, *.svg`.

    The page is one file that loads nothing else. Each file is written whole, the page last.

    Args:
        data: what to show.
        output_dir: made if missing; figures of an earlier report that this one lacks are removed,
            so that nobody takes them for its own; other files stay.
        map_bytes: for the page's attention maps; with more texts each keeps fewer edges.

    Returns:
        The files, the page first.

    Raises:
        UserError: too many or too long texts for the page.
        ValueError: parts contradict each other.
    """
    output_dir = Path(output_dir)
    check(data)
    page = assemble_page(data, map_bytes)
    folder = output_dir / "figures"
    make_folder(folder)
    drawn = dict(draw_figures(data))
    for name in _figures_of_report(output_dir) - drawn.keys():
        (folder / name).unlink(missing_ok=True)
    written = [_replace(folder / name, content) for name, content in drawn.items()]
    numbers = to_json(numbers_of(data), indent=1)
    written.insert(0, _replace(output_dir / "numbers.json", numbers))
    written.insert(0, _replace(output_dir / "report.html", page))
    return written


def _figures_of_report(output_dir: Path) -> set[str]:
    """Returns the figures' file names of the existing report; none without a report."""
    try:
        numbers = json.loads((output_dir / "numbers.json").read_text(encoding="utf-8"))
        names = {
            part["name"] for kind in ("headFigures", "curves", "matrices") for part in numbers[kind]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {f"{name}.{kind}" for name in names if is_name(name) for kind in ("png", "svg")}


def assemble_page(data: ReportData, map_bytes: int = MAP_BYTES) -> str:
    """Assembles the page, with everything in it."""
    values = numbers_of(data)
    values["shape"] = head_shape(data)
    values["sentences"] = _sentences(data.sentences, map_bytes)
    scripts = [*HEAD_SCRIPTS, "sections.js", "report.js"]
    return assemble(FOLDER / "report.html", data.title, ["report.css"], scripts, values)


def numbers_of(data: ReportData) -> dict[str, Any]:
    """Returns all numbers except the attention maps, as JSON; undefined ones are null."""
    return {
        "title": data.title,
        "facts": [[name, _plain(value)] for name, value in data.facts.items()],
        "notes": list(data.notes),
        "headFigures": [
            {
                "name": part.name,
                "title": part.title,
                "unit": part.unit,
                "meaning": part.meaning,
                "categories": list(part.categories),
                "figures": _figures_json(part.figures),
            }
            for part in data.head_figures
        ],
        "lenses": [_lens_json(lens) for lens in data.lenses],
        "curves": [
            {
                "name": part.name,
                "title": part.title,
                "meaning": part.meaning,
                "xTitle": part.x_title,
                "yTitle": part.y_title,
                "points": list(part.points),
                "series": [
                    {"name": line.name, "figures": _figures_json(line.figures)}
                    for line in part.series
                ],
            }
            for part in data.curves
        ],
        "matrices": [
            {
                "name": part.name,
                "title": part.title,
                "meaning": part.meaning,
                "rowTitle": part.row_title,
                "columnTitle": part.column_title,
                "rows": list(part.rows),
                "columns": list(part.columns),
                "figures": _figures_json(part.figures),
            }
            for part in data.matrices
        ],
        "tables": [
            {
                "name": part.name,
                "title": part.title,
                "meaning": part.meaning,
                "columns": list(part.columns),
                "rows": [[_cell(cell) for cell in row] for row in part.rows],
            }
            for part in data.tables
        ],
    }


def _figures_json(figures: AnyFigures) -> dict[str, Any]:
    """Returns `Figures.to_json` without missing parts."""
    if isinstance(figures, Figures):
        parts = figures.to_json()
        return {
            name: part if name == "distinguishable" else _plain(np.array(part, float))
            for name, part in parts.items()
        }
    if isinstance(figures, Interval):
        return {name: _plain(part) for name, part in figures._asdict().items()}
    return {"value": _plain(np.asarray(figures))}


def _sentences(sentences: Sequence[Captured], map_bytes: int) -> list[dict[str, Any]]:
    stored = store_maps([captured.probs for captured in sentences], map_bytes)
    return [
        {
            "tokens": list(encoded.tokens),
            "words": list(encoded.words),
            "wordIds": encoded.word_ids.tolist(),
            "special": encoded.special.astype(int).tolist(),
            "segments": encoded.token_type_ids.tolist(),
            "maps": maps.to_json(),
        }
        for (encoded, *_), maps in zip(sentences, stored, strict=True)
    ]


def _lens_json(lens: Lens) -> dict[str, Any]:
    return {
        "text": " ".join(
            word
            for word, special in zip(lens.encoded.words, lens.encoded.special_words, strict=True)
            if not special
        ),
        "tokens": [lens.encoded.tokens[position] for position in lens.positions],
        "masked": lens.masked,
        "probability": _plain(lens.probability),
        "rank": lens.rank.tolist(),
        "topTokens": lens.top_tokens,
        "topProbability": _plain(lens.top_probability),
    }


def _cell(cell: Cell) -> Any:
    if isinstance(cell, Head):
        return {"layer": int(cell.layer), "head": int(cell.head)}
    if isinstance(cell, Measure):
        fields = {
            name: _plain(value) for name, value in cell._asdict().items() if value is not None
        }
        if cell.control_low is not None and cell.control_high is not None:
            outside = cell.value < cell.control_low or cell.value > cell.control_high
            fields["distinguishable"] = bool(outside)
        return fields
    return _plain(cell)


def _plain(value: Any) -> Any:
    """Returns Python lists and numbers, to five digits; NaN and infinities are null."""
    if isinstance(value, np.ndarray):
        return [_plain(part) for part in value] if value.ndim else _plain(value.item())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def _replace(path: Path, content: str | bytes) -> Path:
    if path.is_dir():
        raise UserError(f"{path}: is a directory; the report needs a file of that name")
    write_whole(path, content)
    return path
