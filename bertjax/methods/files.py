"""Methods of `Model` that write it: as a model directory, or for other programs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertjax.architectures import BODY
from bertjax.methods.arguments import warn_of
from bertjax.program.stages import StageProgress, ignore_stages

if TYPE_CHECKING:
    from bertjax.loaded import Model


def save(model: "Model", folder: Path | str) -> None:
    """Writes a model directory that transformers loads, and how its files are read.

    Args:
        folder: the directory; made where it is not there.

    Raises:
        UserError: it cannot be written.
    """
    import jax

    from bertjax.interop.huggingface import save_model_directory
    from bertjax.interop.temperature import write_record
    from bertjax.tasks import data_format

    # Read first: the folder may be the model's own.
    calibration = model.calibration
    params = jax.device_get(dict(model.params))
    params = {"bert": params} if model.kind == BODY else params
    tokenizer = Path(model.tokenizer.name)
    save_model_directory(folder, model.config, params, tokenizer, model.architecture)
    write_record(Path(folder), calibration)
    if model.directory and (remembered := data_format.recall(model.directory)):
        data_format.write_fields(Path(folder), remembered)


def export(
    model: "Model",
    output: Path | str,
    format: Literal["onnx", "stablehlo"] = "onnx",
    *,
    pooling: str | Sequence[str] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    check: Any = None,
    data: Any = None,
    overwrite: bool = False,
    progress: StageProgress = ignore_stages,
) -> dict[str, Any]:
    """Writes the directory of `bertjax export`, and returns what the command prints as JSON.

    Args:
        output: the directory to make.
        format: onnx, or stablehlo, which jax alone runs.
        pooling, normalize, max_length: of a class without a head, as of `embed`.
        check: texts or tuples of texts; with them a model with weights in eight bits is
            written, too, where both models answer them alike.
        data: labelled files or rows; likewise, where both score alike.
        overwrite: replace an exported directory that is there.
        progress: called for every stage as it proceeds (`program.stages`).

    Raises:
        UserError: a directory that is there, a format or pooling that the model has not; as
            `bertjax.exporting.export.MovedError`, answers that are too far from the model's.
    """
    from bertjax.exporting.export import choose_vectors, export
    from bertjax.exporting.quality import gate_in_memory

    steps = choose_vectors(model, pooling, normalize, max_length)
    gate = gate_in_memory(model, check, data)
    done = export(model, output, format, steps, gate=gate, overwrite=overwrite, progress=progress)
    warn_of(done.notes)
    return done.result
