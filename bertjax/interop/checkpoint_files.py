"""The files that hold a checkpoint's tensors: of safetensors or of Flax, one or several."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertjax.interop.flax_msgpack import read_flax_weights
from bertjax.interop.hub import PICKLED_NAMES
from bertjax.interop.signature import ONNX_NAME, PROGRAM_NAME
from bertjax.program.errors import UserError

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
FLAX_NAME = "flax_model.msgpack"
FLAX_INDEX_NAME = "flax_model.msgpack.index.json"

# numpy's names -> safetensors'.
_TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Tensor(NamedTuple):
    """Where a tensor is and what it is, from the header; `array` where that is read already."""

    file: Path
    stored_name: str
    shape: tuple[int, ...]
    dtype: str
    array: np.ndarray | None = None


def tensor_of_array(file: Path, stored_name: str, array: np.ndarray) -> Tensor:
    """Returns the tensor of an array that is read already."""
    dtype = _TYPES.get(array.dtype.name, array.dtype.name)
    return Tensor(file, stored_name, array.shape, dtype, array)


def has_weights(path: Path) -> bool:
    """Returns whether a directory has a file that `find_tensors` reads."""
    names = (WEIGHTS_NAME, INDEX_NAME, FLAX_NAME, FLAX_INDEX_NAME)
    return any((path / name).is_file() for name in names)


def find_tensors(path: Path) -> dict[str, Tensor]:
    """Returns every tensor by the name it is stored under."""
    if (path / WEIGHTS_NAME).is_file():
        return _read_header(path / WEIGHTS_NAME)
    if (path / INDEX_NAME).is_file():
        return _read_shards(path)
    if (path / FLAX_NAME).is_file():
        return _read_flax(path / FLAX_NAME)
    if (path / FLAX_INDEX_NAME).is_file():
        return _read_flax_shards(path)
    way_out = describe_convertible(path) or (
        "the directory is not a whole model: fetch or save it again"
    )
    if (path / ONNX_NAME).is_file():
        way_out = (
            f"it has {ONNX_NAME}, which `bertjax serve`, `predict`, `embed`, `evaluate`, `gate` and"
            " `drift` run with --engine onnxruntime; for all else name the model that was exported"
        )
    elif (path / PROGRAM_NAME).is_file():
        way_out = f"it has {PROGRAM_NAME}, for jax alone; name the model that it was exported from"
    raise UserError(f"{path}: no {WEIGHTS_NAME}; {way_out}")


def describe_convertible(path: Path) -> str:
    """Says what a directory has that `bertjax convert` alone reads; "" where it has nothing."""
    pickled = sorted(file.name for file in path.glob(PICKLED_NAMES))
    if pickled and (path / "config.json").is_file():
        what = f"it has {pickled[0]}, which is not read because unpickling runs code"
    elif any(path.glob("*.ckpt*.index")):
        what = "it has a TensorFlow checkpoint, which is not read as it is"
    else:
        return ""
    return (
        f"{what}: make a model directory of it with `bertjax convert --model {path} --output DIR`"
    )


def fingerprint_weights(path: Path | str) -> str:
    """Computes the sha256 of the files with the tensors of a model directory, wherever that is.

    Raises:
        UserError: as `find_tensors`.
    """
    whole = hashlib.sha256()
    for file in sorted({tensor.file for tensor in find_tensors(Path(path)).values()}):
        with file.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    return whole.hexdigest()


def read_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Returns the tensors themselves, float32.

    Raises:
        UserError: one holds NaN or infinity.
    """
    import ml_dtypes  # noqa: F401 - numpy knows no bfloat16 until this is imported
    from safetensors import safe_open

    arrays = {}
    with contextlib.ExitStack() as stack:
        files: dict[Path, Any] = {}
        for name, tensor in tensors.items():
            value = tensor.array
            if value is None:
                if tensor.file not in files:
                    files[tensor.file] = stack.enter_context(safe_open(tensor.file, "np"))
                value = files[tensor.file].get_tensor(tensor.stored_name)
            arrays[name] = value.astype(np.float32, copy=False)
            if not np.isfinite(arrays[name]).all():
                raise UserError(
                    f"{tensor.file}: tensor {name} holds NaN or infinity: the file is damaged, or"
                    " the training that made it diverged"
                )
    return arrays


def _read_header(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            tensors = {}
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                entry = opened.get_slice(name)
                shape = tuple(entry.get_shape())
                tensors[name] = Tensor(file, name, shape, entry.get_dtype())
            return tensors
    except FileNotFoundError:
        raise missing(file, INDEX_NAME) from None
    except SafetensorError as error:
        raise UserError(
            f"{file}: damaged or cut short, or not safetensors ({error}); fetch or save it again"
        ) from None


def _read_shards(path: Path) -> dict[str, Tensor]:
    places = read_index(path / INDEX_NAME)
    headers = {name: _read_header(path / name) for name in sorted(set(places.values()))}
    for tensor, file in places.items():
        if tensor not in headers[file]:
            raise UserError(
                f"{path / file}: no tensor {tensor}, though {INDEX_NAME} says so; fetch the"
                " directory again"
            )
    return {tensor: headers[file][tensor] for tensor, file in places.items()}


def _read_flax(file: Path) -> dict[str, Tensor]:
    arrays = read_flax_weights(file)
    return {name: tensor_of_array(file, name, array) for name, array in arrays.items()}


def _read_flax_shards(path: Path) -> dict[str, Tensor]:
    places = read_index(path / FLAX_INDEX_NAME)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if not (path / name).is_file():
            raise missing(path / name, FLAX_INDEX_NAME)
        tensors |= _read_flax(path / name)
    if len(tensors) != len(places):
        raise UserError(
            f"{path / FLAX_INDEX_NAME}: lists {len(places)} tensors, its files hold"
            f" {len(tensors)}; fetch the directory again"
        )
    return tensors


def read_index(index: Path) -> dict[str, str]:
    """Reads the file in the same directory that holds each tensor, by the tensor's name."""
    try:
        places = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        if any(Path(name).name != name for name in places.values()):
            raise ValueError("a file outside the directory")
        return places
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{index}: damaged, its weight_map cannot be read ({error}); fetch the directory again"
        ) from None


def missing(file: Path, index_name: str) -> UserError:
    return UserError(f"{file}: missing, though {index_name} lists it; fetch the directory again")
