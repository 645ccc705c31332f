"""A model directory as Hugging Face lays it out, read and written: numpy and safetensors only."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Key

from bertjax.config import BertConfig
from bertjax.errors import UserError
from bertjax.interop.tensor_names import (
    PARTS,
    TABLE,
    TIED,
    Parameters,
    check_names,
    current_name,
    our_shape,
    put,
    to_ours,
    to_theirs,
)

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
TOKENIZER_NAMES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")

# What a tensor may be stored as; everything is float32 once loaded.
_FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
# transformers reads this as "the layout is torch's", which ours is after `to_theirs`.
_METADATA = {"format": "pt"}


class ModelDirectory(NamedTuple):
    """What a model directory holds.

    Attributes:
        config: the shape of the model.
        params: the flax collection "params" of `BertForPreTraining`, numpy float32.
        notes: a sentence for everything that is not as the files have it, for the caller to tell.
    """

    config: BertConfig
    params: Parameters
    notes: list[str]


class Contents(NamedTuple):
    """What a model directory holds, told by its headers alone.

    Attributes:
        config: the shape of the model.
        architecture: the class that config.json names, for instance BertForMaskedLM.
        parts: the keys of `PARTS` that it has.
        parameters: how many numbers are learned, tied copies counted once.
        dtypes: how they are stored, in safetensors' words (F32, BF16, ...).
    """

    config: BertConfig
    architecture: str | None
    parts: list[str]
    parameters: int
    dtypes: list[str]


class _Tensor(NamedTuple):
    """Where a tensor lies and what it is, from the header."""

    file: Path
    stored_name: str
    shape: tuple[int, ...]
    dtype: str


def load_model_directory(
    path: Path | str,
    *,
    may_lack: Collection[str] = (),
    initialize_missing: Key[Any, ""] | None = None,
) -> ModelDirectory:
    """Reads a model directory, ours or Hugging Face's.

    It takes one `model.safetensors` or several by `model.safetensors.index.json`, names with and
    without the prefix `bert.`, the older `LayerNorm.gamma` and `.beta`, a decoder that is written
    out beside the token embedding it equals, and float16 or bfloat16 (converted to float32).
    Nothing is ever unpickled.

    Args:
        path: the directory.
        may_lack: the parts (keys of `PARTS`) that may be absent, and then are absent from
            the result.
        initialize_missing: a key to draw every other absent part with, as for a new model; when
            left out, an absent part is an error.

    Returns:
        Config, parameters and notes. A part is in the parameters whole or not at all.

    Raises:
        UserError: no such directory, a damaged file, another kind of model, an unexpected or
            missing tensor, or one of another shape than config.json asks for.
    """
    path = Path(path)
    config, tensors = _open(path)
    absent = _check(path, config, tensors)
    lacking = sorted(absent - set(may_lack))
    if lacking and initialize_missing is None:
        first = next(row.theirs for row in TABLE if row.part == lacking[0])
        raise UserError(
            f"{path}: this checkpoint has no {' and no '.join(lacking)} (missing tensor {first}"
            " among others), which is needed here; take a checkpoint of BertForPreTraining,"
            " or train it with `python -m train.pretrain --model.init`"
        )
    arrays = _read_arrays(tensors)
    _check_tied(path, arrays)
    params = to_ours(arrays, config)
    notes = [
        f"{path}: {dtype} weights are converted to float32"
        for dtype in sorted({tensor.dtype for tensor in tensors.values()} - {"F32"})
    ]
    for part in lacking:
        _initialize(part, config, initialize_missing, params)
        notes.append(f"{path}: has no {part}; it is initialised freshly and must be trained")
    return ModelDirectory(config, params, notes)


def inspect_model_directory(path: Path | str) -> Contents:
    """What a model directory holds, without reading its weights.

    Raises:
        UserError: as `load_model_directory`.
    """
    path = Path(path)
    config, tensors = _open(path)
    absent = _check(path, config, tensors)
    architectures = json.loads((path / CONFIG_NAME).read_text(encoding="utf-8")).get(
        "architectures"
    )
    learned = [tensor for name, tensor in tensors.items() if name not in TIED]
    return Contents(
        config,
        architectures[0] if architectures else None,
        [part for part in PARTS if part not in absent],
        sum(int(np.prod(tensor.shape)) for tensor in learned),
        sorted({tensor.dtype for tensor in learned}),
    )


def save_model_directory(
    path: Path | str,
    config: BertConfig,
    params: Any,
    tokenizer_path: Path | str,
    architecture: str = "BertForPreTraining",
) -> None:
    """Writes a model directory that transformers loads, whole or not at all.

    Everything is written to `PATH.partial` first. Where there is no `path`, that becomes it; where
    there is, its files are replaced one by one, the weights last. What else lies there stays.

    Args:
        path: the directory.
        config: the shape of the model.
        params: the flax collection "params" of `BertForPreTraining`; whole parts may be absent.
        tokenizer_path: a directory with the tokenizer, whose files are taken as they are; what it
            lacks of `TOKENIZER_NAMES` is made.
        architecture: the class of transformers that the weights are those of.

    Raises:
        UserError: `path` is a file, or the tokenizer has ids that the model has no embedding for.
        OSError: the disk is full, and the like; what stood at `path` is as it was.
        ValueError: the parameters are not those of the config.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path, tokenizer_path = Path(path), Path(tokenizer_path)
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; a model is a directory")
    tensors = to_theirs(params, config)
    with _replace_whole(path) as partial:
        _write_tokenizer(partial, tokenizer_path, config)
        values = {"architectures": [architecture], **config.to_dict(), "dtype": "float32"}
        (partial / CONFIG_NAME).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        try:
            save_file(tensors, partial / WEIGHTS_NAME, metadata=_METADATA)
        except SafetensorError as error:  # it wraps what the operating system says
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            file = str(path / WEIGHTS_NAME)
            raise OSError(int(code[1]), os.strerror(int(code[1])), file) from None
        # safetensors makes files that only their owner may read.
        shutil.copymode(partial / CONFIG_NAME, partial / WEIGHTS_NAME)


@contextlib.contextmanager
def _replace_whole(path: Path) -> Iterator[Path]:
    """Gives `PATH.partial` to write into; its files replace those at `path` if all goes well."""
    partial = path.with_name(f"{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.iterdir():  # a power cut after the rename must not leave empty files
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        if not path.exists():
            partial.rename(path)
            return
        for file in sorted(partial.iterdir(), key=lambda file: file.name == WEIGHTS_NAME):
            os.replace(file, path / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_tokenizer(directory: Path, tokenizer_path: Path, config: BertConfig) -> None:
    from bertjax.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_path)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{tokenizer_path}: the tokenizer has {tokenizer.vocab_size} ids, more than the model's"
            f" vocab_size={config.vocab_size}; it is not the tokenizer of this model"
        )
    tokenizer.save(directory)
    folder = tokenizer_path if tokenizer_path.is_dir() else tokenizer_path.parent
    for name in TOKENIZER_NAMES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, directory / name)


def _open(path: Path) -> tuple[BertConfig, dict[str, _Tensor]]:
    """The config, and every tensor by its `current_name`."""
    if not path.is_dir():
        kind = "is a file" if path.exists() else "no such directory"
        raise UserError(
            f"{path}: {kind}; a model is a directory on this disk with {CONFIG_NAME},"
            f" {WEIGHTS_NAME} and the tokenizer's files"
        )
    config = _load_config(path)
    if (path / WEIGHTS_NAME).is_file():
        tensors = _read_header(path / WEIGHTS_NAME)
    elif (path / INDEX_NAME).is_file():
        tensors = _read_shards(path)
    else:
        pickled = sorted(file.name for file in path.glob("pytorch_model*.bin"))
        way_out = (
            f"it has {pickled[0]}, which is not read because unpickling runs code: load it in"
            " transformers and save it with `save_pretrained`"
            if pickled
            else "the directory is not a whole model: fetch or save it again"
        )
        raise UserError(f"{path}: no {WEIGHTS_NAME}; {way_out}")
    named: dict[str, _Tensor] = {}
    for stored, tensor in tensors.items():
        name = current_name(stored)
        if name is None:
            continue
        if name in named:
            raise UserError(
                f"{path}: {stored} and {named[name].stored_name} are two names of the same tensor;"
                " keep one"
            )
        named[name] = tensor
    return config, named


def _load_config(path: Path) -> BertConfig:
    try:
        return BertConfig.load(path)
    except TypeError as error:  # a word where a number belongs
        raise UserError(
            f"{path / CONFIG_NAME}: a field has a value of the wrong type ({error})"
        ) from None


def _read_header(file: Path) -> dict[str, _Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "np") as opened:
            tensors = {}
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                entry = opened.get_slice(name)
                shape = tuple(entry.get_shape())
                tensors[name] = _Tensor(file, name, shape, entry.get_dtype())
            return tensors
    except FileNotFoundError:
        raise UserError(
            f"{file}: missing, though {INDEX_NAME} lists it; fetch the directory again"
        ) from None
    except SafetensorError as error:
        raise UserError(
            f"{file}: damaged or cut short, or not safetensors ({error}); fetch or save it again"
        ) from None


def _read_shards(path: Path) -> dict[str, _Tensor]:
    index = path / INDEX_NAME
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(places.values()))
        if any(Path(name).name != name for name in files):
            raise ValueError("a file outside the directory")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{index}: damaged, its weight_map cannot be read ({error}); fetch the directory again"
        ) from None
    headers = {name: _read_header(path / name) for name in files}
    for tensor, file in places.items():
        if tensor not in headers[file]:
            raise UserError(
                f"{path / file}: no tensor {tensor}, though {INDEX_NAME} says so; fetch the"
                " directory again"
            )
    return {tensor: headers[file][tensor] for tensor, file in places.items()}


def _check(path: Path, config: BertConfig, tensors: dict[str, _Tensor]) -> set[str]:
    """The parts that are absent; everything else must be as config.json says."""
    try:
        absent = check_names({name: tensor.shape for name, tensor in tensors.items()}, config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOAT_TYPES:
            raise UserError(
                f"{tensor.file}: tensor {name} is stored as {tensor.dtype}; bertjax reads"
                f" {', '.join(_FLOAT_TYPES)}, so take the checkpoint before it was quantised"
            )
    return absent


def _read_arrays(tensors: dict[str, _Tensor]) -> dict[str, np.ndarray]:
    from safetensors import safe_open

    arrays = {}
    for file in sorted({tensor.file for tensor in tensors.values()}):
        with safe_open(file, "np") as opened:
            for name, tensor in tensors.items():
                if tensor.file != file:
                    continue
                arrays[name] = opened.get_tensor(tensor.stored_name).astype(np.float32, copy=False)
                if not np.isfinite(arrays[name]).all():
                    raise UserError(
                        f"{file}: tensor {name} holds NaN or infinity: the file is damaged, or the"
                        " training that made it diverged"
                    )
    return arrays


def _check_tied(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for copy, original in TIED.items():
        if copy in arrays and not np.array_equal(arrays[copy], arrays[original]):
            raise UserError(
                f"{path}: {copy} differs from {original}: the decoder is not tied to the token"
                " embedding, which bertjax does not support (Devlin et al. tie them)"
            )


def _initialize(part: str, config: BertConfig, key: Key[Any, ""], params: Parameters) -> None:
    """Adds a part as a new model has it: kernels drawn, biases 0, scales 1."""
    import jax

    from bertjax.model.layers import initialize_weights

    draw = initialize_weights(config.initializer_range)
    for number, row in enumerate(TABLE):
        if row.part != part:
            continue
        shape = our_shape(row, config)
        if row.ours.endswith("/kernel"):
            value = np.asarray(draw(jax.random.fold_in(key, number), shape))
        else:
            value = np.full(shape, row.ours.endswith("/scale"), np.float32)
        put(params, row.ours, value)
