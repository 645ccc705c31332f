"""A model directory for other programs: exported, compared with the model, gated, written whole."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import bertjax
from bertjax.architectures import ARCHITECTURES, BODY, classes_of
from bertjax.exporting import stablehlo
from bertjax.exporting.int8 import quantize
from bertjax.exporting.limits import TOLERANCE, Format
from bertjax.exporting.parity import measure_difference
from bertjax.exporting.quality import Asked, Gate, encode_questions
from bertjax.families.registry import CONFIG_NAME
from bertjax.inference.embedding import choose_steps
from bertjax.inference.onnx_session import OnnxSession
from bertjax.interop.huggingface import write_config
from bertjax.interop.model_tokenizer import write_model_tokenizer
from bertjax.interop.onnx.graph import OPSET
from bertjax.interop.onnx.model import build_model
from bertjax.interop.sentence_transformers import SentenceModel, write_sentence_model
from bertjax.interop.signature import (
    INT8_NAME,
    ONNX_NAME,
    input_axes,
    input_names,
    outputs_of,
)
from bertjax.interop.temperature import write_record
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.libraries import require_libraries
from bertjax.program.output_directory import whole_directory
from bertjax.program.stages import StageProgress, Stages, ignore_stages
from bertjax.tasks import data_format

# What protobuf holds in a file. Source: ONNX, "External Data".
MOST_INSIDE = 2**31 - 2**20
# What an exported directory may hold, `whole_directory`: of weights those of Dense modules alone,
# so that no model directory is taken for one.
FILES = (CONFIG_NAME, "*.json", "*.txt", "*_Dense/model.safetensors", "onnx/*", "stablehlo/*")
# What text-embeddings-inference reads of every family by BERT's names. Source: its `backends/ort`.
_SIZES = ("hidden_size", "num_hidden_layers")


class Export(NamedTuple):
    """What was written.

    Attributes:
        result: in figures, for JSON.
        notes: a sentence for everything that there is to know.
    """

    result: dict[str, Any]
    notes: list[str]


class MovedError(Exception):
    """Answers of an export are too far from its model's; nothing was written.

    Attributes:
        result: what was measured until then, for JSON.
        failures: a sentence for every bound that is not held.
    """

    def __init__(self, result: dict[str, Any], failures: Sequence[str]) -> None:
        super().__init__("; ".join(failures))
        self.result, self.failures = result, list(failures)


def choose_vectors(
    model: Model,
    pooling: str | Sequence[str] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
) -> SentenceModel:
    """Returns how an exported body makes vectors of texts.

    Args:
        model: that is exported.
        pooling, normalize, max_length: as of `choose_steps`.

    Raises:
        UserError: the model has a head, and one of them is given.
    """
    given = {"pooling": pooling, "normalize": normalize, "max-length": max_length}
    if model.kind == BODY:
        return choose_steps(model, *given.values())
    for name, value in given.items():
        if value is not None:
            body = classes_of(model.config)[BODY].name
            raise UserError(
                f"--{name} is of vectors, and {model.architecture} gives none; leave it out, or"
                f" export it as {body}"
            )
    return SentenceModel(Path(), is_told=False)


def export(
    model: Model,
    output: Path | str,
    form: Format = "onnx",
    steps: SentenceModel | None = None,
    *,
    gate: Gate | None = None,
    overwrite: bool = False,
    progress: StageProgress = ignore_stages,
) -> Export:
    """Writes a model directory with the model in another form, once it answers as the model does.

    Args:
        model: of any class.
        output: the directory to make: config.json, the tokenizer's files, `onnx/model.onnx` or
            `stablehlo/`.
        form: onnx or stablehlo.
        steps: how a body makes vectors of texts (`choose_steps`); as its directory says when left
            out.
        gate: measures an export with weights in eight bits; with it there is one, as
            `onnx/model_quantized.onnx`.
        overwrite: replace an exported directory that is there.
        progress: called for every stage as it proceeds.

    Raises:
        MovedError: answers are too far from the model's.
        UserError: a library is missing, the model has something that the form does not keep, or
            nothing may be written there.
    """
    if form == "onnx":
        require_libraries("--format onnx", "onnx")
    if gate and form != "onnx":
        raise UserError(f"--int8 applies to --format onnx, not to {form}; leave it out")
    model = _in_float32(model)
    if model.config.classifier_norm == "batch":
        raise UserError("classifier_norm='batch' is for training only; save the model first")
    steps = choose_vectors(model) if steps is None else steps
    # A mistake in the texts shows before the work.
    asked = encode_questions(model, gate.lines, steps) if gate and gate.lines else None
    stages = Stages(3 if gate else 2, progress)
    inputs = [] if model.directory is None else [model.directory]
    with whole_directory(output, overwrite, FILES, inputs) as partial:
        done = stages.begin("writing", 1)
        write_beside(model, steps, partial)
        (partial / form).mkdir()
        write = write_onnx if form == "onnx" else _write_stablehlo
        exported = write(model, steps, partial)
        done(1)
        done = stages.begin("comparing with the model", 1)
        result = _describe(model, steps, str(output), form)
        differences = measure_difference(model, steps, exported)
        result["largest_difference"] = differences
        done(1)
        if far := {name: gap for name, gap in differences.items() if not gap <= TOLERANCE}:
            raise MovedError(
                result,
                [
                    f"{name} differs from the model's by {gap:.2g} of its largest value, and"
                    f" {TOLERANCE:g} is the most"
                    for name, gap in far.items()
                ],
            )
        if gate:
            done = stages.begin("in eight bits", gate.count(asked))
            _add_int8(model, steps, partial, gate, asked, result, done)
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        result["files"] = {str(file.relative_to(partial)): file.stat().st_size for file in files}
    return Export(result, [*(asked.notes if asked else []), *_notes(model)])


def _in_float32(model: Model) -> Model:
    """Returns the model on one device, with products in float32."""
    params = model.params if model.mesh is None else jax.device_put(jax.device_get(model.params))
    module = model.module.clone(dtype=jnp.float32, remat="none")
    return model.replace(module=module, params=params, mesh=None)


def write_beside(model: Model, steps: SentenceModel, folder: Path) -> None:
    """Writes what a model directory has beside the weights.

    Args:
        model: that is exported.
        steps: how a body makes vectors of texts.
        folder: the new directory.
    """
    architecture = ARCHITECTURES[model.architecture]
    sizes = {name: getattr(model.config, name) for name in _SIZES}
    write_config(folder, model.config, architecture, **sizes)
    write_model_tokenizer(folder, Path(model.tokenizer.name), model.config)
    if model.kind == BODY:
        write_sentence_model(folder, steps, model.config.hidden_size)
    write_record(folder, model.calibration)
    if model.directory and (remembered := data_format.recall(model.directory)):
        data_format.write_fields(folder, remembered)


def write_onnx(model: Model, steps: SentenceModel, folder: Path) -> OnnxSession:
    """Writes the file, and opens it."""
    import onnx_ir

    params = jax.device_get(dict(model.params))
    params = {"bert": params} if model.kind == BODY else params
    architecture = ARCHITECTURES[model.architecture]
    built = build_model(model.config, architecture, params, steps, bertjax.__version__)
    outside = f"{Path(ONNX_NAME).name}_data" if _bytes_of(params) > MOST_INSIDE else None
    onnx_ir.save(built, folder / ONNX_NAME, external_data=outside)
    return OnnxSession(folder / ONNX_NAME)


def _write_stablehlo(model: Model, steps: SentenceModel, folder: Path) -> Callable[[Any], Any]:
    """Writes the program, and reads it as a function of inputs."""
    stablehlo.write_program(model, steps, folder)
    program, weights = stablehlo.read_program(folder)
    return functools.partial(program, jax.device_put(weights))


def _bytes_of(params: Any) -> int:
    return sum(4 * leaf.size for leaf in jax.tree.leaves(params))


def _add_int8(
    model: Model,
    steps: SentenceModel,
    folder: Path,
    gate: Gate,
    asked: Asked | None,
    result: dict[str, Any],
    progress: Callable[[float], None],
) -> None:
    """Writes the model with weights in eight bits, and asks the gate."""
    outside = _bytes_of(model.params) > MOST_INSIDE
    quantize(folder / ONNX_NAME, folder / INT8_NAME, outside=outside)
    quality = gate.measure(model, steps, OnnxSession(folder / INT8_NAME), asked, progress)
    result["int8"] = quality.figures
    if quality.failures:
        raise MovedError(result, quality.failures)


def _describe(model: Model, steps: SentenceModel, output: str, form: Format) -> dict[str, Any]:
    architecture, config = ARCHITECTURES[model.architecture], model.config
    pooler = model.kind != BODY or "pooler" in model.params
    axes = outputs_of(architecture, config, steps.size(config.hidden_size), pooler=pooler)
    return {
        "model": str(model.directory) if model.directory else None,
        "architecture": architecture.name,
        "output": output,
        "format": f"onnx, opset {OPSET}"
        if form == "onnx"
        else f"stablehlo of jax {jax.__version__}",
        "inputs": {name: list(input_axes(model.kind)) for name in input_names(config)},
        "outputs": {name: list(of_one) for name, of_one in axes.items()},
        "max_length": config.max_length,
    }


def _notes(model: Model) -> list[str]:
    window = model.config.attention_window
    if window is None:
        return []
    return [
        f"attention_window={window}: what reads config.json with transformers does not know the"
        " model; the exported file itself runs anywhere"
    ]
