"""`pytorch_model.bin`, read by torch's `weights_only`, which builds tensors and runs no code."""

import importlib.util
import re
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes

from bertjax.interop.checkpoint_files import Tensor, missing, read_index, tensor_of_array
from bertjax.interop.hub import PICKLED_NAMES
from bertjax.program.errors import UserError

PICKLED_NAME = "pytorch_model.bin"
PICKLED_INDEX_NAME = "pytorch_model.bin.index.json"
# Before it, a file made for it could still corrupt memory (CVE-2026-24747).
_OLDEST = (2, 10)
_INSTALL = "pip install 'bertjax[torch]'"


def has_pickled_weights(path: Path) -> bool:
    """Returns whether a directory has such files."""
    return any(path.glob(PICKLED_NAMES))


def find_pickled_tensors(path: Path) -> dict[str, Tensor]:
    """Returns every tensor of `pytorch_model.bin`, or of its shards, by its name.

    Raises:
        UserError: torch is missing or too old, a file is damaged, or holds anything but tensors.
    """
    torch = _import_torch(path)
    if (path / PICKLED_NAME).is_file():
        return _read(torch, path / PICKLED_NAME)
    if not (path / PICKLED_INDEX_NAME).is_file():
        [first, *_] = sorted(path.glob(PICKLED_NAMES))
        raise UserError(
            f"{first}: no {PICKLED_NAME} and no {PICKLED_INDEX_NAME} beside it, which says what it"
            " is a part of; fetch the directory again"
        )
    places = read_index(path / PICKLED_INDEX_NAME)
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if not (path / name).is_file():
            raise missing(path / name, PICKLED_INDEX_NAME)
        tensors |= _read(torch, path / name)
    if tensors.keys() != places.keys():
        differing = sorted(tensors.keys() ^ places.keys())
        raise UserError(
            f"{path / PICKLED_INDEX_NAME}: lists other tensors than its files hold"
            f" ({differing[0]}); fetch the directory again"
        )
    return tensors


def _import_torch(path: Path) -> Any:
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{path}: {PICKLED_NAME} is pickled, and only torch reads that without running code,"
            f" which is not installed: {_INSTALL}; or load the model in transformers and save it"
            " with `save_pretrained`"
        )
    import torch

    version = tuple(map(int, re.findall(r"\d+", torch.__version__)[:2]))
    if version < _OLDEST:
        raise UserError(
            f"{path}: {PICKLED_NAME} is pickled, and torch {torch.__version__} does not read that"
            f" safely; a version from {'.'.join(map(str, _OLDEST))} on does: {_INSTALL}"
        )
    return torch


def _read(torch: Any, file: Path) -> dict[str, Tensor]:
    try:
        # Mapped where the file allows it: files of before torch 1.6 are no archives.
        with file.open("rb") as stream:
            is_archive = stream.read(4) == b"PK\x03\x04"
        with warnings.catch_warnings(action="ignore"):  # torch's, for those who maintain it
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=is_archive)
    except Exception as error:  # whatever the damaged or malicious bytes lead to
        raise UserError(
            f"{file}: damaged, or holds more than tensors, which is not run and not read"
            f" ({_reason(error)}); fetch it again, from whom you trust"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items()
    ):
        raise UserError(
            f"{file}: holds something else than tensors by their names, as `model.state_dict()`"
            " has them; save that"
        )
    size = file.stat().st_size
    return {name: _to_tensor(torch, file, name, value, size) for name, value in content.items()}


def _to_tensor(torch: Any, file: Path, name: str, value: Any, size: int) -> Tensor:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise UserError(f"{file}: tensor {name} is sparse or quantised, which is not read")
    # A few bytes with strides of 0 can stand for any number of them.
    if value.numel() * value.element_size() > size:
        raise UserError(
            f"{file}: tensor {name} {list(value.shape)} has more numbers than the file; it is"
            " damaged"
        )
    value = value.detach()
    if value.dtype == torch.bfloat16:  # numpy has no such type, and torch does not know ours
        array = value.contiguous().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor_of_array(file, name, array)
    try:
        return tensor_of_array(file, name, value.numpy())
    except (TypeError, RuntimeError):  # one of torch's other types, which its reader refuses
        return Tensor(file, name, tuple(value.shape), str(value.dtype))


def _reason(error: Exception) -> str:
    """Returns the first sentence that says what is wrong, without torch's advice to run it all."""
    text = str(error)
    said = re.search(r"WeightsUnpickler error: (.*)", text)
    return (said[1] if said else text.strip().split("\n")[0]) or type(error).__name__
