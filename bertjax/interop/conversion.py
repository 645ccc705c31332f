"""A model in another form: what it is read from, and the model directory that is made of it."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from bertjax.architectures import BODY, Architecture, find_architecture
from bertjax.config import CLASSIFIERS, BertConfig
from bertjax.families.registry import CONFIG_NAME, family_of
from bertjax.interop.checkpoint_files import (
    WEIGHTS_NAME,
    Tensor,
    find_tensors,
    has_weights,
    read_arrays,
)
from bertjax.interop.google_checkpoint import find_google_checkpoint, read_google_checkpoint
from bertjax.interop.huggingface import (
    lacks,
    read_model_directory,
    save_model_directory,
)
from bertjax.interop.model_tokenizer import load_model_tokenizer
from bertjax.interop.pickled_weights import find_pickled_tensors, has_pickled_weights
from bertjax.interop.sentence_transformers import MODULES_NAME, module_folders
from bertjax.interop.temperature import RECORD_NAME, read_record, write_record
from bertjax.interop.tensor_names import (
    Parameters,
    current_name,
    flatten,
    parts_with_parameters,
)
from bertjax.program.errors import UserError
from bertjax.program.output_directory import whole_directory
from bertjax.program.wording import counted, with_article

# What a model directory may hold, besides other modules of sentence-transformers.
MODEL_FILES = (CONFIG_NAME, WEIGHTS_NAME, "*.json", "*.txt", "*.md", "*.safetensors")
# What is written anew, or belongs to the files that are not.
_MADE_ANEW = (
    CONFIG_NAME, "bert_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    "special_tokens_map.json", "added_tokens.json", RECORD_NAME,
)  # fmt: skip
# Source: google-research/bert modeling.py, `gelu` (that of google-research/electra is exact).
_TANH_NOTE = (
    "hidden_act=gelu is the exact function, as in transformers and in all released conversions;"
    " Google's program approximates it by tanh, from which it differs by less than 0.001:"
    " hidden_act=gelu_new in config.json computes as that does"
)
_TEXTS = (".json", ".md", ".txt")


class Source(NamedTuple):
    """A model as it was found.

    Attributes:
        form: what its weights are, in words.
        folder: of its tokenizer and its other files.
        tensors: by the names of a model directory.
        config: where there is no config.json.
        left_out: a sentence for everything that is no part of a model.
        notes: a sentence for what there is to know of the others.
    """

    form: str
    folder: Path
    tensors: dict[str, Tensor]
    config: BertConfig | None
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()


class Conversion(NamedTuple):
    """What was read and what was written.

    Attributes:
        result: both in figures, for JSON.
        notes: a sentence for everything that is not as the source has it.
    """

    result: dict[str, Any]
    notes: list[str]


def convert(
    path: Path | str,
    output: Path | str,
    architecture: str | None = None,
    dtype: str = "auto",
    *,
    overwrite: bool = False,
) -> Conversion:
    """Makes a model directory of a model in any form, and compares what it wrote with what it read.

    Args:
        path: a model directory, ours or Hugging Face's, pickled ones too where torch is installed;
            or a TensorFlow checkpoint of google-research/bert or electra, its folder or its prefix.
        output: the directory to make.
        architecture: a key of `ARCHITECTURES`, the class to write; that of the source when left
            out. It says what a classifier is where the source does not.
        dtype: to store numbers in: float32, bfloat16, float16, or auto for that of the source.
        overwrite: replace a model directory that is there.

    Raises:
        UserError: no such model, a damaged one, one that lacks what the class needs, numbers that
            are too large for the dtype; or nothing may be written there.
    """
    with whole_directory(output, overwrite, MODEL_FILES, [path]) as partial:
        source = find_source(Path(path), architecture)
        config, params, own, _ = read_model_directory(
            source.folder, architecture, tensors=source.tensors, config=source.config
        )
        wanted = find_architecture(architecture or own, config)
        there = {*params, *({"pooler"} & params["bert"].keys())} - {"bert"}
        params = _take_parts(source.folder, own, wanted, config, params)
        stored = _stored_as(source, config, dtype)
        notes = [*source.notes, *_check_rounding(params, stored), *_name_own_fields(config)]
        if "F64" in _dtypes_of(source, config):
            notes.append("float64 numbers are rounded to float32, which is the most that is stored")
        _, tokenizer_notes = load_model_tokenizer(source.folder, config)
        save_model_directory(partial, config, params, source.folder, wanted.name, stored)
        if wanted.head in CLASSIFIERS:
            write_record(partial, read_record(source.folder))
        copied = _copy_others(source.folder, partial) if source.config is None else []
        compared = _compare(partial, source, config, stored)
        result = {
            "model": str(path),
            "form": source.form,
            "read": {
                "architecture": own,
                "parts": sorted(there),
                "tensors": len(source.tensors),
                "stored_as": ", ".join(_dtypes_of(source, config)),
            },
            "output": str(output),
            "written": {
                "architecture": wanted.name,
                "parts": sorted(there & set(wanted.parts)),
                "tensors": compared,
                "stored_as": stored,
            },
            "left_out": [
                *source.left_out,
                *_name_ignored(source.tensors, config),
                *(
                    f"{part}: {with_article(wanted.name)} has none"
                    for part in sorted(there - {*wanted.parts})
                ),
            ],
            "files_copied": copied,
        }
    return Conversion(result, [*notes, *tokenizer_notes])


def find_source(path: Path, architecture: str | None = None) -> Source:
    """Finds what a model is stored as, and its tensors.

    Args:
        path: a directory, or a file of a checkpoint.
        architecture: the class that is wanted, where the files do not say it.

    Raises:
        UserError: there is no model, or none that can be read.
    """
    if path.is_dir():
        if (path / MODULES_NAME).is_file() and not (path / CONFIG_NAME).is_file():
            raise UserError(
                f"{path}: a directory of sentence-transformers whose encoder is in a folder of its"
                " own; name that"
            )
        if has_weights(path):
            tensors = find_tensors(path)
            files = sorted({tensor.file.name for tensor in tensors.values()})
            what = "safetensors" if files[0].endswith(".safetensors") else "msgpack of Flax"
            form = f"{what}, {len(files)} files" if len(files) > 1 else what
            return Source(form, path, tensors, None)
        if has_pickled_weights(path):
            return Source("pickled PyTorch", path, find_pickled_tensors(path), None)
    prefix = find_google_checkpoint(path)
    if prefix is not None:
        google = read_google_checkpoint(prefix, architecture)
        config = google.config
        is_tanh = config.MODEL_TYPE == "bert" and config.hidden_act == "gelu"
        notes = [_TANH_NOTE] if is_tanh else []
        return Source("TensorFlow checkpoint", *google, notes)
    if path.is_file():
        raise UserError(
            f"{path}: is a file; name the folder that it is in, or what the files of a TensorFlow"
            " checkpoint begin with (DIR/bert_model.ckpt); unpack an archive first"
        )
    # Nothing that is read: what reads it says what is wrong.
    return Source("", path, find_tensors(path) if path.is_dir() else {}, None)


def _take_parts(
    path: Path, own: str, wanted: Architecture, config: BertConfig, params: Parameters
) -> Parameters:
    """Returns the parameters of the class alone; a body may lack the pooler."""
    may_lack = {"pooler"} if wanted.kind == BODY else set()
    lacking = parts_with_parameters(config, wanted) - {*params, *params["bert"]} - may_lack
    if lacking:
        raise lacks(path, own, wanted, lacking)
    left_out = {"pooler"} - set(wanted.parts)
    body = {name: value for name, value in params["bert"].items() if name not in left_out}
    return {"bert": body, **{name: params[name] for name in wanted.parts if name in params}}


def _dtypes_of(source: Source, config: BertConfig) -> list[str]:
    dtypes = {tensor.dtype for name, tensor in source.tensors.items() if current_name(name, config)}
    return sorted(dtypes)


def _stored_as(source: Source, config: BertConfig, dtype: str) -> str:
    """Returns the dtype to store numbers in; float32 where the source has several, or float64."""
    if dtype != "auto":
        return dtype
    return {"BF16": "bfloat16", "F16": "float16"}.get(
        " ".join(_dtypes_of(source, config)), "float32"
    )


def _check_rounding(params: Parameters, dtype: str) -> Iterator[str]:
    """Yields a sentence where numbers become 0 in a dtype.

    Raises:
        UserError: one is too large for it.
    """
    lost = 0
    for name, value in flatten(params):
        with np.errstate(over="ignore"):
            rounded = value.astype(dtype)
        if not np.isfinite(rounded).all():
            raise UserError(
                f"--dtype {dtype}: the parameters {name} hold {np.abs(value).max():g}, and {dtype}"
                f" ends at {float(ml_dtypes.finfo(dtype).max):g}; take bfloat16 or float32"
            )
        lost += int(np.count_nonzero(value) - np.count_nonzero(rounded))
    if lost:
        yield f"--dtype {dtype}: {counted(lost, 'number')} other than 0 became 0"


def _name_own_fields(config: BertConfig) -> Iterator[str]:
    """Yields a sentence where a field that is only ours keeps others from loading the model."""
    for field in ("attention_window", "attention_head_size", "classifier_norm"):
        value = getattr(config, field)
        if value not in (None, "none"):
            yield f"{field}={value}: only bertjax loads the model, in this form and any other"


def _compare(directory: Path, source: Source, config: BertConfig, dtype: str) -> int:
    """Loads what was written, and compares every tensor with its source, byte for byte.

    Returns:
        How many tensors there are.
    """
    from safetensors import safe_open

    read_model_directory(directory)
    theirs = {current_name(name, config): tensor for name, tensor in source.tensors.items()}
    with safe_open(directory / WEIGHTS_NAME, "np") as file:
        names = list(file.keys())
        for name in names:
            [original] = read_arrays({name: theirs[current_name(name, config)]}).values()
            if file.get_tensor(name).tobytes() != original.astype(dtype).tobytes():
                raise RuntimeError(f"{name} is not written as it was read")
    return len(names)


def _name_ignored(tensors: dict[str, Tensor], config: BertConfig) -> Iterator[str]:
    tied = family_of(config).tied
    for name in tensors:
        current = current_name(name, config)
        if current is None:
            yield f"{name}: the numbers 0, 1, 2, ..., which are not learned"
        elif current in tied:
            yield f"{name}: equal to {tied[current]}"


def _copy_others(folder: Path, output: Path) -> list[str]:
    """Copies the texts beside a model, and the other modules of sentence-transformers.

    Returns:
        The names of what was copied.
    """
    names = [
        file.name
        for file in sorted(folder.iterdir())
        if file.is_file() and file.suffix in _TEXTS and ".index." not in file.name
        if file.name not in _MADE_ANEW
    ]
    for name in names:
        shutil.copyfile(folder / name, output / name)
    from safetensors.numpy import save_file

    modules = module_folders(folder)
    for module in modules:
        made = output / module.relative_to(folder)
        shutil.copytree(module, made, ignore=shutil.ignore_patterns("*.bin", ".*"))
        if has_pickled_weights(module) and not has_weights(module):
            save_file(read_arrays(find_pickled_tensors(module)), made / WEIGHTS_NAME)
    return [*names, *(str(module.relative_to(folder)) for module in modules)]
