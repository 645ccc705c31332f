"""Large sets of captures: a folder of safetensors files, with a line of JSON a text and an index.

    shards = Shards("maps")
    len(shards), shards.index["layers"], shards[1234].probs

| file | holds |
|---|---|
| `index.json` | format, version, texts, units, layers, heads, dtype, shards (name, first, texts) |
| `shard-00000.safetensors` | `probs_k`, and `hidden_k`, `context_k` where asked for, of text k |
| `shard-00000.jsonl` | a text a line: its number, source, window, tokens, words, ids, offsets |
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.capture.selection import (
    TEXT_FIELDS,
    Selection,
    arrays_of,
    group_captures,
    text_fields,
)
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

INDEX_NAME = "index.json"
SHARDS_FORMAT = "bertjax attention"
SHARDS_VERSION = 1
# Patterns of the files of a folder of shards.
SHARDS_FILES = (INDEX_NAME, "shard-*.safetensors", "shard-*.jsonl")


class Shards:
    """Reads a folder of shards: `shards[number]` is a `Captured`, whose `encoded` is complete.

    Only the arrays of the text that is asked for are read.

    Attributes:
        index: what `index.json` holds: `texts`, `units` (tokens or words), `layers`, `heads`,
            `dtype`, and `shards`, each with its `name`, its `first` text and its number of `texts`.
    """

    def __init__(self, path: Path | str) -> None:
        """Opens the folder.

        Raises:
            UserError: it is none, or one of a newer version.
        """
        self._path = Path(path)
        try:
            self.index = json.loads((self._path / INDEX_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no folder of shards ({error})") from None
        if self.index.get("format") != SHARDS_FORMAT or self.index["version"] > SHARDS_VERSION:
            raise UserError(f"{path}: no folder of shards, or one of a newer bertjax")
        self._firsts = np.array([shard["first"] for shard in self.index["shards"]])
        self._open: tuple[str, list[dict[str, Any]]] = ("", [])

    def __len__(self) -> int:
        return self.index["texts"]

    def __iter__(self) -> Iterator[Captured]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Captured:
        from safetensors import safe_open

        if not 0 <= number < len(self):
            raise IndexError(f"text {number} of {len(self)}")
        shard = self.index["shards"][np.searchsorted(self._firsts, number, side="right") - 1]
        name = shard["name"]
        if self._open[0] != name:
            lines = (self._path / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
            self._open = name, [json.loads(line) for line in lines if line]
        values = self._open[1][number - shard["first"]]
        fields = {
            field: tuple(values[field]) if dtype is None else np.array(values[field], dtype)
            for field, dtype in TEXT_FIELDS.items()
        }
        encoded = EncodedText(source=values["source"], window=values["window"], **fields)
        with safe_open(self._path / f"{name}.safetensors", "np") as tensors:
            present = set(tensors.keys())
            keys = [f"{kind}_{number}" for kind in ("probs", "hidden", "context")]
            arrays = [tensors.get_tensor(key) if key in present else None for key in keys]
        return Captured(encoded, *arrays)


def write_shards(directory: Path, captures: Iterable[Captured], selection: Selection) -> int:
    """Writes the files into a folder that is there, and returns how many texts they hold."""
    from safetensors.numpy import save_file

    count, shards = 0, []
    for group in group_captures(captures):
        name = f"shard-{len(shards):05}"
        tensors = {
            f"{kind}_{count + place}": values
            for place, captured in enumerate(group)
            for kind, values in arrays_of(captured).items()
        }
        save_file(tensors, directory / f"{name}.safetensors")
        with (directory / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for place, captured in enumerate(group):
                fields = {
                    field: values if isinstance(values, tuple) else values.tolist()
                    for field, values in text_fields(captured.encoded).items()
                }
                numbers = {"source": captured.encoded.source, "window": captured.encoded.window}
                line = {"text": count + place, **numbers, **fields}
                file.write(to_json(line) + "\n")
        shards.append({"name": name, "first": count, "texts": len(group)})
        count += len(group)
    about = {"format": SHARDS_FORMAT, "version": SHARDS_VERSION, "texts": count}
    index = to_json(about | selection.describe() | {"shards": shards}, indent=1)
    (directory / INDEX_NAME).write_text(index + "\n", encoding="utf-8")
    return count
