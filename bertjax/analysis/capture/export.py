"""Attention maps, and what goes with them, into files.

| format | for |
|---|---|
| `npz` | numpy: `probs_0, tokens_0, words_0, ..., probs_1, ...`, each read when it is asked for |
| `parquet`, `arrow` | tables: a row a text, arrays flat beside their shapes |
| `shards` | large sets: a folder of safetensors files with a JSON index; `Shards` reads it |
| `bertviz` | JSON that bertviz draws: an object a line, or an array of them |

    selection = select(body.config, layers=[0, 5], words=True)
    write_captures("maps.npz", capture(body, texts), selection)

All of them are written as the captures come: memory does not grow with the number of texts, but for
the table of contents of an npz file, about 5 KB a text. A file is written under another name and
renamed at the end.
"""

import array
import contextlib
import itertools
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bertjax.analysis.capture.bertviz import write_bertviz
from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.capture.selection import (
    TEXT_FIELDS,
    Selection,
    arrays_of,
    group_captures,
    text_fields,
)
from bertjax.analysis.capture.shards import SHARDS_FILES, write_shards
from bertjax.program.errors import UserError
from bertjax.program.output_directory import whole_directory
from bertjax.program.outputs import whole_file
from bertjax.program.strict_json import to_json

if TYPE_CHECKING:
    import pyarrow

Format = Literal["npz", "parquet", "arrow", "shards", "bertviz"]
FORMATS = ("npz", "parquet", "arrow", "shards", "bertviz")
_SUFFIXES: dict[str, Format] = {
    ".npz": "npz",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "bertviz",
    ".json": "bertviz",
    "": "shards",
}
# The same captures give the same bytes; zip knows no earlier date.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def format_of(path: Path | str) -> Format:
    """Returns the format that a path's suffix names; without a suffix, a folder of shards.

    Raises:
        UserError: any other suffix.
    """
    suffix = Path(path).suffix
    if suffix not in _SUFFIXES:
        raise UserError(
            f"--output {path}: what kind of file is {suffix}? Name an .npz, .parquet or .arrow"
            " file, a .jsonl or .json file for bertviz, or a folder (without a suffix) for shards;"
            f" or choose with --format among {', '.join(FORMATS)}"
        )
    return _SUFFIXES[suffix]


def write_captures(
    path: Path | str,
    captures: Iterable[Captured],
    selection: Selection,
    format: Format | None = None,
    *,
    overwrite: bool = False,
    inputs: Sequence[Path | str] = (),
) -> int:
    """Writes what is selected of the captures, as they come.

    Args:
        path: the file, which is replaced if it is there, or the folder.
        captures: as `capture` gives them.
        selection: of what.
        format: by the path's suffix when left out.
        overwrite: replace a folder of shards that is there.
        inputs: what the texts were read from; none of it is overwritten.

    Returns:
        How many texts (or windows of long ones) were written.

    Raises:
        UserError: no capture at all; a path that cannot be written to, or that is an input.
    """
    path, format = Path(path), format or format_of(path)
    selected = map(selection.apply, captures)
    if format == "shards":
        with whole_directory(path, overwrite, SHARDS_FILES, inputs) as directory:
            return write_shards(directory, _at_least_one(selected), selection)
    _check_file(path, inputs)
    selected = _at_least_one(selected)
    writers = {"npz": _write_npz, "parquet": _write_parquet, "arrow": _write_arrow}
    with whole_file(path) as aside:
        if format != "bertviz":
            return writers[format](aside, selected, selection)
        with aside.open("w", encoding="utf-8") as file:
            return write_bertviz(file, selected, selection, lines=path.suffix != ".json")


def _check_file(path: Path, inputs: Sequence[Path | str]) -> None:
    """Refuses a folder, and an input; makes the folder of the file."""
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; name a file, or choose --format shards")
    for name in inputs:
        if path.exists() and Path(name).exists() and path.samefile(name):
            raise UserError(f"--output {path}: is the input; name another file")
    path.parent.mkdir(parents=True, exist_ok=True)


def _at_least_one(captures: Iterator[Captured]) -> Iterator[Captured]:
    first = next(captures, None)
    if first is None:
        raise UserError("there is no text to write the attention of")
    return itertools.chain([first], captures)


def _write_npz(path: Path, captures: Iterable[Captured], selection: Selection) -> int:
    """Writes `NAME_k` of text k, and `sources`, `windows`, `layers` and `heads` of all."""
    sources, windows = array.array("q"), array.array("q")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, values: Any) -> None:
            member = zipfile.ZipInfo(f"{name}.npy", _ZIP_DATE)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)

        for number, captured in enumerate(captures):
            for name, values in (arrays_of(captured) | text_fields(captured.encoded)).items():
                add(f"{name}_{number}", values)
            sources.append(captured.encoded.source)
            windows.append(captured.encoded.window)
        for name, values in (("sources", sources), ("windows", windows)):
            add(name, np.array(values, np.int64))
        for name in ("layers", "heads"):
            add(name, np.array(getattr(selection, name), np.int64))
    return len(sources)


def _write_parquet(path: Path, captures: Iterable[Captured], selection: Selection) -> int:
    from pyarrow import parquet

    # Attention hardly repeats or compresses: neither dictionaries nor compression are worth while.
    with path.open("wb") as file:  # pyarrow takes no name that is not UTF-8
        return _write_table(
            captures,
            selection,
            lambda schema: parquet.ParquetWriter(
                file, schema, use_dictionary=False, compression="none", write_statistics=False
            ),
        )


def _write_arrow(path: Path, captures: Iterable[Captured], selection: Selection) -> int:
    import pyarrow as pa

    with path.open("wb") as file:  # as above
        return _write_table(captures, selection, lambda schema: pa.ipc.new_file(file, schema))


def _write_table(
    captures: Iterable[Captured],
    selection: Selection,
    open_writer: "Callable[[pyarrow.Schema], Any]",
) -> int:
    """Writes a row for each text; the selection is in the schema's metadata."""
    about = {"bertjax": to_json(selection.describe())}
    writer, count = None, 0
    with contextlib.ExitStack() as stack:
        for group in group_captures(captures):
            batch = _record_batch(group).replace_schema_metadata(about)
            writer = writer or stack.enter_context(open_writer(batch.schema))
            writer.write_batch(batch)
            count += len(group)
    return count


def _record_batch(group: Sequence[Captured]) -> "pyarrow.RecordBatch":
    """Columns source, window, those of the text, and for each array its values and its shape."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        "source": pa.array([captured.encoded.source for captured in group], pa.int64()),
        "window": pa.array([captured.encoded.window for captured in group], pa.int32()),
    }
    texts = [text_fields(captured.encoded) for captured in group]
    for name, dtype in TEXT_FIELDS.items():
        values = [text[name] for text in texts]
        if dtype is None:
            columns[name] = pa.array(values, pa.list_(pa.string()))
        else:
            flat = pa.array(np.concatenate(values).reshape(-1))
            if values[0].ndim == 2:
                flat = pa.FixedSizeListArray.from_arrays(flat, values[0].shape[1])
            columns[name] = pa.ListArray.from_arrays(_bounds(values, np.int32), flat)
    arrays = [arrays_of(captured) for captured in group]
    for name, first in arrays[0].items():
        values = [named[name].reshape(-1) for named in arrays]
        flat = pa.array(np.concatenate(values))
        columns[name] = pa.LargeListArray.from_arrays(_bounds(values, np.int64), flat)
        shapes = pa.array(np.array([named[name].shape for named in arrays], np.int32).reshape(-1))
        columns[f"{name}_shape"] = pa.FixedSizeListArray.from_arrays(shapes, first.ndim)
    return pa.RecordBatch.from_pydict(columns)


def _bounds(values: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.cumsum([0, *map(len, values)], dtype=dtype)
