"""A model as a program of StableHLO, which jax alone runs, with its weights beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from bertjax.exporting.answers import answering
from bertjax.interop.sentence_transformers import SentenceModel
from bertjax.interop.signature import PROGRAM_NAME, input_axes, input_names
from bertjax.interop.tensor_names import flatten, put
from bertjax.kernels.backends import EXPLICIT
from bertjax.loaded import Model

WEIGHTS_NAME = "stablehlo/weights.npz"
PLATFORMS = ("cpu", "cuda", "tpu")


def write_program(model: Model, steps: SentenceModel, folder: Path) -> None:
    """Writes the program, for any number of texts of any length that the model takes.

    Attention is the textbook's: other backends are programs of one kind of device.

    Args:
        model: of any class, in float32.
        steps: how a body makes vectors of texts.
        folder: the model directory, with a folder `stablehlo`.
    """
    model = model.replace(module=model.module.clone(attention=EXPLICIT))
    answer, named = answering(model, steps), dict(flatten(model.params))
    paths = list(named)

    def program(weights: list[Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
        params: dict[str, Any] = {}
        for path, value in zip(paths, weights, strict=True):
            put(params, path, value)
        return answer(params, inputs)

    axes = input_axes(model.kind)
    sizes = export.symbolic_shape(
        ", ".join(axes), constraints=[f"{axes[-1]} <= {model.config.max_length}"]
    )
    inputs = {name: jax.ShapeDtypeStruct(sizes, jnp.int32) for name in input_names(model.config)}
    weights = [np.asarray(value) for value in named.values()]
    shapes = [jax.ShapeDtypeStruct(value.shape, value.dtype) for value in weights]
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(shapes, inputs)
    (folder / PROGRAM_NAME).write_bytes(exported.serialize())
    np.savez(folder / WEIGHTS_NAME, **dict(zip(paths, weights, strict=True)))


def read_program(folder: Path) -> tuple[Any, list[np.ndarray]]:
    """Returns the function of weights and inputs that was written, and the weights.

    Args:
        folder: that `write_program` wrote to.
    """
    exported = export.deserialize((folder / PROGRAM_NAME).read_bytes())
    with np.load(folder / WEIGHTS_NAME) as weights:
        return jax.jit(exported.call), [weights[name] for name in weights.files]
