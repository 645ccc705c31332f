"""A temperature that is kept in a model directory: folded into the last layer of the head.

Logits divided by a temperature are the logits of a last layer whose weights and bias are divided
by it. Whatever reads the directory then has the calibrated probabilities: every command, the
server, an export, transformers, text-embeddings-inference; and no program can forget to divide.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from bertjax.config import BertConfig
from bertjax.interop.checkpoint_files import Tensor, find_tensors
from bertjax.interop.tensor_names import Parameters, current_name, rows_of, their_names
from bertjax.program.errors import UserError
from bertjax.program.outputs import whole_file, write_json

# What is known of the temperature, beside the weights that have it.
RECORD_NAME = "bertjax_calibration.json"


def fold_temperature(params: Mapping[str, Any], head: str, temperature: float) -> Parameters:
    """Returns the parameters with a head whose logits are divided by the temperature.

    Args:
        params: the collection "params" of a class with the head.
        head: a part with a `ClassifierHead`.
        temperature: above 0.
    """
    own = dict(params[head])
    own["dense"] = {name: _divide(value, temperature) for name, value in own["dense"].items()}
    return {**params, head: own}


def write_temperature(
    directory: Path, config: BertConfig, head: str, temperature: float, record: Mapping[str, Any]
) -> None:
    """Divides the weights of a head in a model directory, and notes what is known of it.

    The file of the weights is replaced whole; all other tensors in it stay as they are, byte for
    byte.

    Args:
        directory: with safetensors.
        config: of the model.
        head: as of `fold_temperature`.
        temperature: above 0.
        record: for `read_record`.

    Raises:
        UserError: as `check_writable`.
    """
    tensors = check_writable(directory, config, head)
    for file in sorted({tensor.file for tensor in tensors}):
        with whole_file(file) as aside:
            shutil.copyfile(file, aside)
            with aside.open("r+b") as stream:
                header, start = _read_header(stream)
                for tensor in tensors:
                    if tensor.file == file:
                        first, end = header[tensor.stored_name]["data_offsets"]
                        stream.seek(start + first)
                        values = np.frombuffer(stream.read(end - first), "<f4")
                        stream.seek(start + first)
                        stream.write(_divide(values, temperature).astype("<f4").tobytes())
    write_record(directory, record)


def check_writable(directory: Path, config: BertConfig, head: str) -> list[Tensor]:
    """Returns the tensors of a head's last layer in a directory, once they can be divided.

    Raises:
        UserError: they are stored in few bits, in another format, or behind a link.
    """
    way_out = f"make a directory of it that can: `bertjax convert --model {directory} --output DIR"
    tensors = list(_last_layer(directory, config, head))
    for tensor in tensors:
        if tensor.dtype != "F32":
            raise UserError(
                f"{tensor.file}: {tensor.stored_name} is stored as {tensor.dtype}, which cannot"
                f" keep a temperature without changing answers; {way_out} --dtype float32`"
            )
        if tensor.file.suffix != ".safetensors":
            raise UserError(f"{tensor.file}: cannot keep a temperature; {way_out}`")
        if tensor.file.is_symlink():
            raise UserError(
                f"{tensor.file}: is a link, to a copy of what is on the hub for instance, which"
                f" stays as it is; {way_out}`"
            )
    return tensors


def read_record(directory: Path | str) -> dict[str, Any]:
    """Returns what a directory knows of its temperature; nothing where it has none.

    Raises:
        UserError: the file is damaged.
    """
    file = Path(directory) / RECORD_NAME
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if not float(record["temperature"]) > 0:
            raise ValueError("its temperature is not above 0")
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{file}: damaged ({error!s:.100}); remove it: the weights have the temperature"
        ) from None
    return record


def write_record(directory: Path, record: Mapping[str, Any]) -> None:
    """Writes what `read_record` returned for a directory whose weights have the same temperature;
    nothing where there is none.
    """
    if record:
        write_json(directory / RECORD_NAME, record)


def _divide(values: Any, temperature: float) -> np.ndarray:
    return (np.asarray(values, np.float64) / temperature).astype(np.float32)


def _last_layer(directory: Path, config: BertConfig, head: str) -> Iterator[Tensor]:
    own = {
        name
        for row in rows_of(config, {head})
        if row.ours.startswith(f"{head}/dense/")
        for name in their_names(row, config)
    }
    for stored, tensor in find_tensors(directory).items():
        if current_name(stored, config) in own:
            yield tensor


def _read_header(stream: BinaryIO) -> tuple[dict[str, Any], int]:
    """Returns the header of a file of safetensors, and where its data begin.

    Source: safetensors, "Format": 8 bytes with the length of the JSON that follows.
    """
    size = int.from_bytes(stream.read(8), "little")
    return json.loads(stream.read(size)), 8 + size
