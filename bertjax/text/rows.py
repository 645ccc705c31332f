"""Rows: the only thing that passes from text to the model, on disk as memory-mapped Arrow.

A prepared directory holds `train/ validation/ test/` (Arrow IPC files of rows),
`train/token_counts.npy`, `tokenizer/` and `data_card.json`. One row of length T carries several
examples, each in the frame of the tokenizer, here BERT's:

    | column | shape | on disk | meaning |
    |---|---|---|---|
    | token_ids | [T] | uint16 or int32 | `[CLS] A [SEP] B [SEP] [CLS] A [SEP] B [SEP] ... [PAD]` |
    | token_type_ids | [T] | uint8 | 0 for A, 1 for B |
    | sequence_ids | [T] | uint8 | 0 = padding, k = the k-th example of the row |
    | position_ids | [T] | uint16 | starts at 0 for every example |
    | example_starts | [K] | uint16 | where each example begins; 0 in an unused slot |
    | next_sentence_labels | [K] | int8 | 0 = B is next, 1 = random, -1 = unused slot or no pair |
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.program.errors import UserError
from bertjax.text.checksums import STAMP_NAME, check_files

SPLITS = ("train", "validation", "test")
CARD_NAME = "data_card.json"
TOKENIZER_NAME = "tokenizer"
TOKEN_COUNTS_NAME = "train/token_counts.npy"
# Patterns of the files of a prepared directory.
PREPARED_FILES = (
    CARD_NAME,
    f"{STAMP_NAME}*",
    TOKEN_COUNTS_NAME,
    f"{TOKENIZER_NAME}/*",
    *(f"{split}/rows-*.arrow" for split in SPLITS),
)
FORMAT = "bertjax rows"
FORMAT_VERSION = 1

# Rows in one Arrow record batch. It bounds the writer's memory (3 MB at T = 512) and makes finding
# a row a division.
BLOCK_ROWS = 1024

# column -> (is it [T] or [K], type on disk); the type of token_ids depends on the vocabulary.
COLUMN_TYPES = {
    "token_ids": ("T", None),
    "token_type_ids": ("T", np.uint8),
    "sequence_ids": ("T", np.uint8),
    "position_ids": ("T", np.uint16),
    "example_starts": ("K", np.uint16),
    "next_sentence_labels": ("K", np.int8),
}
COLUMNS = tuple(COLUMN_TYPES)
MOST_EXAMPLES = 255  # sequence_ids is uint8 and 0 is padding


def token_id_type(vocab_size: int) -> np.dtype:
    """Returns the type of token ids on disk: uint16 where every id fits, else int32.

    Args:
        vocab_size: V.
    """
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.int32)


class Rows:
    """The rows of one split, read from disk when they are requested.

    `rows[indices]` takes an integer array or a slice and returns `{column: array}`, R rows each:
    `token_ids`, `token_type_ids`, `sequence_ids`, `position_ids` of shape [R, T] and
    `example_starts`, `next_sentence_labels` of shape [R, K]. `token_ids` is always int32; the
    others have their type on disk. Only the requested rows are read.

    Attributes:
        max_length: T, tokens per row.
        examples_per_row: K, example slots per row.
    """

    def __init__(self, files: Sequence[Path], max_length: int, examples_per_row: int) -> None:
        self.max_length = max_length
        self.examples_per_row = examples_per_row
        blocks = [block for file in files for block in self._map(file)]
        self._blocks = {name: [block[name] for block in blocks] for name in COLUMNS}
        sizes = [len(block) for block in self._blocks["token_ids"]]
        self._length = sum(sizes)
        if any(size != BLOCK_ROWS for size in sizes[:-1]):
            raise UserError(f"{files[0].parent}: damaged: a block before the last is not full")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, indices: slice | Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        if isinstance(indices, slice):
            start, stop, step = indices.indices(self._length)
            if step == 1 and start < stop and start // BLOCK_ROWS == (stop - 1) // BLOCK_ROWS:
                return self._view(start, stop)
            indices = np.arange(start, stop, step)
        indices = np.asarray(indices, dtype=np.int64)
        if indices.ndim != 1:
            raise IndexError(f"rows take a slice or a list of row numbers, not {indices!r}")
        outside = (indices < -self._length) | (indices >= self._length)
        if outside.any():
            raise IndexError(f"row {indices[outside][0]} of {self._length} rows")
        return self._gather(np.where(indices < 0, indices + self._length, indices))

    def _view(self, start: int, stop: int) -> dict[str, np.ndarray]:
        number, first = divmod(start, BLOCK_ROWS)
        return {
            name: _as_returned(name, blocks[number][first : first + stop - start])
            for name, blocks in self._blocks.items()
        }

    def _gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        # Row by row, which costs less than a mask for each of the blocks that contain a few rows.
        places = [divmod(index, BLOCK_ROWS) for index in indices.tolist()]
        result = {}
        for name, (axis, dtype) in COLUMN_TYPES.items():
            width = self.max_length if axis == "T" else self.examples_per_row
            values = np.empty((len(indices), width), np.int32 if dtype is None else dtype)
            if places:
                blocks = self._blocks[name]
                rows = [blocks[block][inside] for block, inside in places]
                np.concatenate(rows, out=values.reshape(-1))
            result[name] = values
        return result

    def _map(self, file: Path) -> list[dict[str, np.ndarray]]:
        import pyarrow

        try:
            with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_file(source) as reader:
                batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
            blocks = [
                {name: _flat(batch.column(name)).reshape(len(batch), -1) for name in COLUMNS}
                for batch in batches
            ]
        except (pyarrow.ArrowInvalid, KeyError, ValueError) as error:
            raise UserError(f"{file}: not a file of rows ({error}); prepare it again") from None
        for block in blocks:
            for name, (axis, _) in COLUMN_TYPES.items():
                width = self.max_length if axis == "T" else self.examples_per_row
                if block[name].shape[1] != width:
                    raise UserError(
                        f"{file}: {name} is {block[name].shape[1]} wide, the data card says"
                        f" {width}; prepare it again"
                    )
        return blocks


class PreparedDirectory:
    """An opened prepared directory. Open one with `open_prepared`.

    Attributes:
        path: where it is.
        card: the data card.
        train, validation, test: the rows of each split.
        tokenizer_path: the directory of the tokenizer that made the rows.
        fingerprint: sha256 over what defines the rows; directories with the same rows have the
            same one.
        token_counts: [V] int64, the count of each token id in the train split, special tokens
            left out (0).
    """

    def __init__(self, path: Path, card: Mapping[str, Any]) -> None:
        self.path = path
        self.card = card
        self.fingerprint: str = card["fingerprint"]
        self.tokenizer_path = path / TOKENIZER_NAME
        self.train, self.validation, self.test = (
            Rows(
                [path / split / file["name"] for file in card["splits"][split]["files"]],
                card["max_length"],
                card["examples_per_row"],
            )
            for split in SPLITS
        )
        self.token_counts: np.ndarray = np.load(path / TOKEN_COUNTS_NAME)

    @property
    def has_pairs(self) -> bool:
        """Whether next sentences can be told from its rows."""
        return self.card["options"]["pairs"]["pairing"] != "none"


def open_prepared(path: Path | str, check_again: bool = False) -> PreparedDirectory:
    """Opens a prepared directory after checking that it is whole.

    Args:
        path: the directory.
        check_again: read all files and compare their sha256 with the data card's, even those that
            were good before and have not been written to since.

    Raises:
        UserError: the directory is missing, half-written or of another kind, or one of its files
            is missing, damaged or of another format.
    """
    path = Path(path)
    again = "make it again with `bertjax prepare`"
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; {again}")
    try:
        card = json.loads((path / CARD_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no {CARD_NAME}, so this is no prepared directory, or one that was never"
            f" finished; {again}"
        ) from None
    except ValueError as error:
        raise UserError(f"{path / CARD_NAME}: damaged, not JSON ({error}); {again}") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise UserError(f"{path / CARD_NAME}: not the data card of a prepared directory; {again}")
    if card.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path}: rows of format version {card.get('format_version')}, this program reads"
            f" {FORMAT_VERSION}; {again}"
        )
    try:
        check_files(path, _described(card), again, check_again)
        prepared = PreparedDirectory(path, card)
        for split in SPLITS:
            if len(getattr(prepared, split)) != card["splits"][split]["rows"]:
                raise UserError(
                    f"{path / split}: {len(getattr(prepared, split))} rows, the data card says"
                    f" {card['splits'][split]['rows']}; {again}"
                )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path / CARD_NAME}: damaged: no field {error}; {again}") from None
    return prepared


def _described(card: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns what the card says of every file, by its name in the directory."""
    described = dict(card["files"])
    for split in SPLITS:
        described |= {f"{split}/{file['name']}": file for file in card["splits"][split]["files"]}
    return described


# Through buffers: `to_numpy` imports pandas if it is installed, taking 1 s.
def _flat(column: Any) -> np.ndarray:
    """Returns the values of a column of lists, without a copy."""
    dtype = np.dtype(str(column.type.value_type))
    return np.frombuffer(column.values.buffers()[1], dtype, len(column) * column.type.list_size)


def _as_returned(name: str, values: np.ndarray) -> np.ndarray:
    return values.astype(np.int32, copy=False) if name == "token_ids" else values
