"""A model directory as Hugging Face lays it out, read and written: numpy and safetensors only."""

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Key

from bertjax.architectures import BODY, PRETRAINING, Architecture, classes_of, find_architecture
from bertjax.config import CLASSIFIERS, BertConfig
from bertjax.families.registry import CONFIG_NAME, FAMILIES, family_of, load_config
from bertjax.interop.checkpoint_files import (
    WEIGHTS_NAME,
    Tensor,
    describe_convertible,
    find_tensors,
    read_arrays,
)
from bertjax.interop.model_tokenizer import write_model_tokenizer
from bertjax.interop.temperature import RECORD_NAME
from bertjax.interop.tensor_names import (
    Parameters,
    check_names,
    current_name,
    describe_likeness,
    find_parts,
    parts_of,
    parts_with_parameters,
    shared_names,
    to_ours,
    to_theirs,
)
from bertjax.program.errors import UserError
from bertjax.program.outputs import whole_files
from bertjax.program.strict_json import to_json
from bertjax.program.wording import with_article

# What a tensor may be stored as; everything is float32 once loaded.
_FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
# transformers reads this as "the layout is torch's", which ours is after `to_theirs`.
_METADATA = {"format": "pt"}


class ModelDirectory(NamedTuple):
    """What a model directory holds.

    Attributes:
        config: the shape of the model.
        params: the flax collection "params" of the class asked for, numpy float32; that of
            `BertModel` stands under "bert", as in the other classes.
        architecture: the name of that class.
        notes: a sentence for everything that is not as the files have it, for the caller to report.
    """

    config: BertConfig
    params: Parameters
    architecture: str
    notes: list[str]


class Contents(NamedTuple):
    """What a model directory holds, by its headers alone.

    Attributes:
        config: the shape of the model.
        architecture: the class that config.json names, for instance BertForMaskedLM; where it
            names none, the smallest one that has all the parts.
        parts: what it has on its body (`BertConfig.PARTS`).
        parameters: how many numbers are learned, tied copies counted once.
        dtypes: how they are stored, in safetensors' words (F32, BF16, ...).
    """

    config: BertConfig
    architecture: str
    parts: list[str]
    parameters: int
    dtypes: list[str]


class _Opened(NamedTuple):
    """A model directory whose headers are read and checked; tensors by their `current_name`."""

    config: BertConfig
    architecture: str
    parts: set[str]
    tensors: dict[str, Tensor]


def load_model_directory(
    path: Path | str,
    architecture: str | None = None,
    *,
    may_lack: Collection[str] = (),
    initialize_missing: Key[Any, ""] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ModelDirectory:
    """Reads a model directory, ours or Hugging Face's.

    It takes one `model.safetensors`, several by `model.safetensors.index.json`, or
    `flax_model.msgpack`; names with and without the prefix of the body, the older `LayerNorm.gamma`
    and `.beta`, a decoder that is written out beside the token embedding it equals, and float16 or
    bfloat16 (converted to float32). Nothing is ever unpickled.

    Args:
        path: the directory.
        architecture: the class whose parameters are wanted, by its name or its kind; that of the
            checkpoint when left out. What else the checkpoint has is left out of the result.
        may_lack: the parts that may be absent, and then are absent from the result.
        initialize_missing: a key to draw every other absent part with, as for a new model; when
            left out, an absent part is an error.
        changes: fields of the config that are to be otherwise (`id2label`, dropout), those that
            shape the body excepted, for `BertConfig.with_head`; a classifier whose labels or
            normalisation they change counts as absent.

    Returns:
        Config, parameters, class and notes. A part is in the parameters whole or not at all.

    Raises:
        UserError: no such directory, a damaged file, another kind of model, an unexpected or
            missing tensor, or one of another shape than config.json asks for.
    """
    path = Path(path)
    opened = _open(path, architecture)
    wanted_class = find_architecture(architecture or opened.architecture, opened.config)
    architecture = wanted_class.name
    wanted = parts_with_parameters(opened.config, wanted_class)
    config = opened.config
    if changes:
        config = config.with_head(wanted_class.head, **changes)
    there = opened.parts & wanted
    if _classifier_of(config) != _classifier_of(opened.config):
        there -= set(CLASSIFIERS)
    lacking = sorted(wanted - there - set(may_lack))
    if lacking and initialize_missing is None:
        raise lacks(path, opened.architecture, wanted_class, lacking)
    params, notes = _read_params(path, opened, there)
    if initialize_missing is not None:
        notes += [
            f"{path}: its {part} is left out, {architecture} has none"
            for part in sorted(opened.parts - wanted)
        ]
    for part in lacking:
        drawn = _initialize(part, wanted_class, config, initialize_missing)
        (params["bert"] if part == "pooler" else params)[part] = drawn
        if part in opened.parts:
            what = f"its {part} has other labels or another normalisation than are wanted here"
        else:
            what = f"it has no {part}"
        notes.append(f"{path}: {what}; one is initialised freshly and must be trained")
    return ModelDirectory(config, params, architecture, notes)


def read_model_directory(
    path: Path | str,
    asked: str | None = None,
    *,
    tensors: Mapping[str, Tensor] | None = None,
    config: BertConfig | None = None,
) -> ModelDirectory:
    """Reads all that a model directory holds, as `load_model_directory` reads it.

    Args:
        path: the directory.
        asked: the class that is wanted, which says what a classifier is where config.json names no
            class.
        tensors: by the names in the directory; those that `find_tensors` finds when left out.
        config: where there is no config.json.

    Returns:
        The class is that of the checkpoint; the parameters are of all parts that there are.
    """
    path = Path(path)
    opened = _open(path, asked, tensors, config)
    params, notes = _read_params(path, opened, opened.parts)
    return ModelDirectory(opened.config, params, opened.architecture, notes)


def inspect_model_directory(path: Path | str) -> Contents:
    """Returns what a model directory holds, without reading its weights.

    Args:
        path: the directory.

    Raises:
        UserError: as `load_model_directory`.
    """
    opened = _open(Path(path))
    tied = family_of(opened.config).tied
    learned = [tensor for name, tensor in opened.tensors.items() if name not in tied]
    return Contents(
        opened.config,
        opened.architecture,
        [part for part in parts_of(opened.config) if part in opened.parts],
        sum(int(np.prod(tensor.shape)) for tensor in learned),
        sorted({tensor.dtype for tensor in learned}),
    )


def save_model_directory(
    path: Path | str,
    config: BertConfig,
    params: Any,
    tokenizer_path: Path | str,
    architecture: str = PRETRAINING,
    dtype: str = "float32",
) -> None:
    """Writes a model directory that transformers loads, whole or not at all.

    Where there is a `path`, its files are replaced one by one, the weights last. What else is
    there stays.

    Args:
        path: the directory.
        config: the shape of the model. A `classifier_norm` other than none makes a directory that
            only bertjax reads; batch cannot be saved: see `model.heads.fold_batch_norm`.
        params: the flax collection "params" of the class; that of `BertModel` under "bert".
        tokenizer_path: a directory with the tokenizer; its files are written as the tokenizer reads
            texts, with the length that the model has positions for.
        architecture: the class, by its name or its kind. A body may lack the pooler.
        dtype: of the tensors in the file: float32, bfloat16 or float16.

    Raises:
        UserError: `path` is a file, or the tokenizer has ids that the model has no embedding for.
        OSError: the disk is full, and the like; what stood at `path` is as it was.
        ValueError: the parameters are not those of the config and the class.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path, tokenizer_path = Path(path), Path(tokenizer_path)
    if config.classifier_norm == "batch":
        raise ValueError("running statistics have no place in a model directory; fold them first")
    saved = find_architecture(architecture, config)
    parts = set(saved.parts)
    if saved.kind == BODY and "pooler" not in params["bert"]:
        parts.discard("pooler")
    tensors = to_theirs(params, config, parts, np.dtype(dtype))
    if saved.kind == BODY:
        prefix = f"{family_of(config).body}."
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    with whole_files(path, last=WEIGHTS_NAME) as partial:
        write_model_tokenizer(partial, tokenizer_path, config)
        write_config(partial, config, saved, dtype)
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
    (path / RECORD_NAME).unlink(missing_ok=True)  # it was of the weights that stood here


def read_architecture(path: Path, config: BertConfig) -> str:
    """Returns the class that the config.json of a directory names, which may have no weights.

    Args:
        path: the directory.
        config: of the model.

    Raises:
        UserError: it names none of the family's.
    """
    said = _stated_architectures(path)
    name = said[0] if isinstance(said, list) and said else None
    if name not in (its.name for its in classes_of(config).values()):
        raise UserError(
            f"{path / CONFIG_NAME}: architectures={to_json(said)} names no class of the family;"
            " export the model again"
        )
    return name


def _stated_architectures(path: Path) -> Any:
    return json.loads((path / CONFIG_NAME).read_text(encoding="utf-8")).get("architectures")


def write_config(
    folder: Path,
    config: BertConfig,
    architecture: Architecture,
    dtype: str = "float32",
    **more: Any,
) -> None:
    """Writes the config.json of a model.

    Args:
        folder: of the model.
        config: its shape.
        architecture: its class.
        dtype: that its tensors are stored in.
        more: fields beside those of the family.
    """
    if architecture.head in ("span_head", "order_head"):  # transformers makes one output a label
        config = dataclasses.replace(config, id2label=BertConfig.id2label)
    values = {"architectures": [architecture.name], **config.to_dict(), "dtype": dtype, **more}
    (folder / CONFIG_NAME).write_text(to_json(values, indent=2) + "\n", encoding="utf-8")


def _open(
    path: Path,
    asked: str | None = None,
    tensors: Mapping[str, Tensor] | None = None,
    config: BertConfig | None = None,
) -> _Opened:
    """Reads the headers and checks them; `asked` is the class where config.json names none."""
    if not path.is_dir():
        kind = "is a file" if path.exists() else "no such directory"
        raise UserError(
            f"{path}: {kind}; a model is a directory on this disk with {CONFIG_NAME},"
            f" {WEIGHTS_NAME} and the tokenizer's files, or a name on the Hugging Face hub,"
            " ORGANISATION/NAME"
        )
    said = None
    if config is None:
        if not (path / CONFIG_NAME).exists() and (way_out := describe_convertible(path)):
            raise UserError(f"{path}: no {CONFIG_NAME}; {way_out}")
        config = load_config(path)
        said = _stated_architectures(path)
    named: dict[str, Tensor] = {}
    for stored, tensor in (find_tensors(path) if tensors is None else tensors).items():
        name = current_name(stored, config)
        if name is None:
            continue
        if name in named:
            raise UserError(
                f"{path}: {stored} and {named[name].stored_name} are two names of the same tensor;"
                " keep one"
            )
        if tensor.dtype not in _FLOAT_TYPES:
            raise UserError(
                f"{tensor.file}: tensor {name} is stored as {tensor.dtype}; bertjax reads"
                f" {', '.join(_FLOAT_TYPES)}, so take the checkpoint before it was quantised"
            )
        named[name] = tensor
    classes = {its.name: its for its in classes_of(config).values()}
    own = classes.get(said[0]) if isinstance(said, list) and said else None
    telling = own
    if own is None and asked is not None:
        telling = find_architecture(asked, config)
    parts = find_parts(named, config, telling)

    def refuse(what: object) -> UserError:
        stored = [tensor.stored_name for tensor in named.values()]
        return UserError(f"{path}: {what}{describe_likeness(stored, config)}")

    for name, several in shared_names(config).items():
        if name in named and not parts & several:
            kinds = [name for name, its in classes.items() if set(its.parts) & several]
            raise refuse(
                f"has a classifier, and {CONFIG_NAME} does not say of what"
                f" (architectures={to_json(said)}); name its class there: {', '.join(kinds)}"
            )
    if config.classifier_norm == "batch":
        raise UserError(
            f"{path / CONFIG_NAME}: classifier_norm='batch' is for training only: a model directory"
            " has no place for running statistics; `bertjax finetune` folds them into the"
            " classifier when it saves"
        )
    try:
        if "mlm_head" in parts:
            config.check_decoder()
        check_names({name: tensor.shape for name, tensor in named.items()}, config, parts)
    except UserError as error:
        raise refuse(error) from None
    if own is None:
        enough = [its for its in classes.values() if parts <= {"pooler", *its.parts}]
        own = min(enough, key=lambda its: len(its.parts), default=classes_of(config)[BODY])
    return _Opened(config, own.name, parts, named)


def _classifier_of(config: BertConfig) -> tuple[Any, ...]:
    """Returns what makes a trained classifier the one that is wanted."""
    return config.id2label, config.label_meaning, config.classifier_norm


def _read_params(
    path: Path, opened: _Opened, parts: Collection[str]
) -> tuple[Parameters, list[str]]:
    """Returns the parameters of the body and these parts, and notes on them."""
    arrays = read_arrays(opened.tensors)
    _check_tied(path, arrays, family_of(opened.config).tied)
    return to_ours(arrays, opened.config, parts), [
        f"{path}: {dtype} weights are converted to float32"
        for dtype in sorted({tensor.dtype for tensor in opened.tensors.values()} - {"F32"})
    ]


def lacks(path: Path | str, own: str, wanted: Architecture, lacking: Collection[str]) -> UserError:
    """Says what parts of a class a model lacks.

    Args:
        path: of the model.
        own: its class.
        wanted: the class that is wanted.
        lacking: the parts that it lacks.
    """
    lacking, family = sorted(lacking), FAMILIES[wanted.family]
    first = next(row for row in family.tensor_rows(family.config()) if row.part == lacking[0])
    return UserError(
        f"{path}: is {with_article(own)} and has no {' and no '.join(lacking)} (missing tensor"
        f" {first.theirs} among others), which {wanted.name} needs; take a checkpoint of that"
        " class, or train it (`bertjax finetune`, `bertjax pretrain`, with --model.init)"
    )


def _check_tied(path: Path, arrays: Mapping[str, np.ndarray], tied: Mapping[str, str]) -> None:
    for copy, original in tied.items():
        if copy in arrays and not np.array_equal(arrays[copy], arrays[original]):
            raise UserError(
                f"{path}: {copy} differs from {original}: the decoder is not tied to the token"
                " embedding, which bertjax does not support (Devlin et al. tie them)"
            )


def _initialize(
    part: str, architecture: Architecture, config: BertConfig, key: Key[Any, ""]
) -> Parameters:
    """Returns the parameters of a part as a new model has them."""
    import jax
    import jax.numpy as jnp

    module = architecture.module(config)

    def draw(key: Key[Any, ""]) -> Any:
        params = module.init(key, jnp.zeros((1, 1), jnp.int32))["params"]
        body = params if architecture.kind == BODY else params.get("bert", {})
        return body["pooler"] if part == "pooler" else params[part]

    return jax.tree.map(np.asarray, jax.jit(draw)(key))
