"""Writes rows and the data card: what makes a prepared directory that `rows` opens."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.program.strict_json import to_json
from bertjax.text.checksums import describe_file
from bertjax.text.rows import (
    BLOCK_ROWS,
    CARD_NAME,
    COLUMN_TYPES,
    FORMAT,
    FORMAT_VERSION,
    SPLITS,
    TOKEN_COUNTS_NAME,
    TOKENIZER_NAME,
    token_id_type,
)

# Record batches in one file: at T = 128 a file is about 50 MB.
FILE_BLOCKS = 64


class RowWriter:
    """Writes the rows of one split into Arrow files, a block at a time, in bounded memory.

    Args:
        directory: the split's directory, which is made.
        max_length: T, at most 65535 (positions are uint16).
        examples_per_row: K, 1 to 255 (sequence ids are uint8).
        vocab_size: V, which decides the type of the ids.
    """

    def __init__(
        self, directory: Path, max_length: int, examples_per_row: int, vocab_size: int
    ) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._types = {
            name: token_id_type(vocab_size) if dtype is None else np.dtype(dtype)
            for name, (_, dtype) in COLUMN_TYPES.items()
        }
        self._widths = {
            name: max_length if axis == "T" else examples_per_row
            for name, (axis, _) in COLUMN_TYPES.items()
        }
        self._pending: list[dict[str, np.ndarray]] = []
        self._pending_rows = 0
        self._files: list[dict[str, Any]] = []
        self._stream = self._ipc = None
        self._vocab_size = vocab_size
        self.token_counts = np.zeros(vocab_size, np.int64)  # special tokens included
        self.rows = 0

    def append(self, columns: Mapping[str, np.ndarray]) -> None:
        """Adds rows: every column of `rows.COLUMNS`, [R, T] or [R, K]."""
        self._pending.append(
            {name: np.asarray(columns[name], dtype) for name, dtype in self._types.items()}
        )
        self._pending_rows += len(self._pending[-1]["token_ids"])
        while self._pending_rows >= BLOCK_ROWS:
            self._write_block(BLOCK_ROWS)

    def close(self) -> list[dict[str, Any]]:
        """Writes the rest; returns `{name, rows, bytes, sha256}` of each file."""
        if self._pending_rows:
            self._write_block(self._pending_rows)
        self._close_file()
        return self._files

    def _write_block(self, size: int) -> None:
        # Here and not before: meanwhile the workers make the first rows.
        import pyarrow

        joined = {
            name: np.concatenate([columns[name] for columns in self._pending])
            for name in self._types
        }
        block = {name: values[:size] for name, values in joined.items()}
        self._pending = [{name: values[size:].copy() for name, values in joined.items()}]
        self._pending_rows -= size
        real = block["token_ids"][block["sequence_ids"] > 0]
        self.token_counts += np.bincount(real, minlength=self._vocab_size)
        schema = pyarrow.schema(
            [
                (name, pyarrow.list_(pyarrow.from_numpy_dtype(dtype), self._widths[name]))
                for name, dtype in self._types.items()
            ]
        )
        arrays = [
            _column(np.ascontiguousarray(values), schema.field(name).type)
            for name, values in block.items()
        ]
        if self._ipc is None:
            name = f"rows-{len(self._files):05d}.arrow"
            self._files.append({"name": name, "rows": 0})
            self._stream = pyarrow.OSFile(str(self._directory / name), "wb")
            self._ipc = pyarrow.ipc.new_file(self._stream, schema)
        self._ipc.write_batch(pyarrow.record_batch(arrays, schema=schema))
        self._files[-1]["rows"] += size
        self.rows += size
        if self._files[-1]["rows"] == BLOCK_ROWS * FILE_BLOCKS:
            self._close_file()

    def _close_file(self) -> None:
        if self._ipc is None:
            return
        self._ipc.close()
        self._stream.close()
        self._ipc = self._stream = None
        self._files[-1] |= describe_file(self._directory / self._files[-1]["name"])


def write_card(
    directory: Path, token_counts: np.ndarray, card: Mapping[str, Any]
) -> dict[str, Any]:
    """Finishes a prepared directory: token counts, hashes and, last of all, the data card.

    Args:
        directory: where `train/ validation/ test/ tokenizer/` already are.
        token_counts: [V], those of the train split.
        card: at least `max_length`, `examples_per_row`, `vocab_size` and `splits` with `rows` and
            `files` of each split.

    Returns:
        The card as written.
    """
    np.save(directory / TOKEN_COUNTS_NAME, token_counts)
    files = [TOKEN_COUNTS_NAME]
    files += sorted(
        str(file.relative_to(directory)) for file in (directory / TOKENIZER_NAME).glob("*")
    )
    described = {name: describe_file(directory / name) for name in files}
    rows = [card[name] for name in ("max_length", "examples_per_row", "vocab_size")]
    rows += [[file["sha256"] for file in card["splits"][split]["files"]] for split in SPLITS]
    rows += [[described[name]["sha256"] for name in files]]
    card = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "fingerprint": hashlib.sha256(to_json(rows).encode()).hexdigest(),
        **card,
        "files": described,
    }
    text = to_json(card, indent=2) + "\n"
    (directory / CARD_NAME).write_text(text, encoding="utf-8")
    return card


# Through buffers: `pyarrow.array` imports pandas if it is installed, taking 1 s.
def _column(values: np.ndarray, list_type: Any) -> Any:
    """Makes [R, width] a column of lists, without a copy."""
    import pyarrow

    buffers = [None, pyarrow.py_buffer(values)]
    flat = pyarrow.Array.from_buffers(list_type.value_type, values.size, buffers)
    return pyarrow.FixedSizeListArray.from_arrays(flat, type=list_type)
