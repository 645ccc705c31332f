"""The table of docs/deployment.md: how far ONNX is from the model, of each class and family.

.venv/bin/python -m tests.exporting.onnx_table --configurations 4
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np
import onnx
import onnx_ir

from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.config import BertConfig
from bertjax.exporting.answers import answering
from bertjax.inference.onnx_session import OnnxSession
from bertjax.interop.onnx.graph import OPSET
from bertjax.interop.onnx.model import build_model
from bertjax.interop.sentence_transformers import Normalize, SentenceModel
from bertjax.interop.signature import input_names
from bertjax.interop.tensor_names import Parameters
from bertjax.loaded import Model
from tests.parity.cases import CLASSES_OF, OF_FAMILY, draw_cases
from tests.parity.ladder import Case
from tests.parity.random_models import draw_parameters

STEPS = SentenceModel(Path(), ("weightedmean", "max", "lasttoken", "mean"), (Normalize(),))


def write(
    folder: Path, config: BertConfig, name: str, params: Parameters, steps: SentenceModel = STEPS
) -> OnnxSession:
    """Writes a model, has the checker of ONNX look at it, and returns its session."""
    built = build_model(config, ARCHITECTURES[name], params, steps, "0")
    onnx_ir.save(built, folder / "model.onnx")
    onnx.checker.check_model(str(folder / "model.onnx"), full_check=True)
    model = onnx.load(folder / "model.onnx")
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]
    return OnnxSession(folder / "model.onnx")


def answer(
    config: BertConfig,
    name: str,
    params: Parameters,
    inputs: dict[str, np.ndarray],
    steps: SentenceModel = STEPS,
) -> dict[str, np.ndarray]:
    """Returns what the model answers."""
    module = ARCHITECTURES[name].module(config)
    own = params["bert"] if ARCHITECTURES[name].kind == BODY else params
    return jax.device_get(jax.jit(answering(Model(module, {}, None), steps))(own, inputs))


def inputs_of(case: Case, name: str) -> dict[str, np.ndarray]:
    """Returns the inputs of a class for a case."""
    every = {
        "input_ids": case.token_ids,
        "attention_mask": case.real,
        "token_type_ids": case.token_type_ids,
    }
    inputs = {key: every[key].astype(np.int32) for key in input_names(case.config)}
    if ARCHITECTURES[name].kind != "choice":
        return inputs
    shape = (-1, case.choices, case.token_ids.shape[1])
    return {key: values.reshape(shape) for key, values in inputs.items()}


def measure(case: Case, name: str, seed: int) -> float:
    """Returns the largest difference of any output, as a share of its largest value above 1."""
    params, inputs = draw_parameters(case.config, name, seed), inputs_of(case, name)
    with tempfile.TemporaryDirectory() as folder:
        actual = write(Path(folder), case.config, name, params)(inputs)
    expected = answer(case.config, name, params, inputs)
    assert actual.keys() == expected.keys()
    return max(
        float(np.abs(actual[key] - values).max() / max(1.0, np.abs(values).max()))
        for key, values in expected.items()
    )


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--configurations", type=int, default=4, help="of each family (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    jax.config.update("jax_disable_most_optimizations", True)
    print("| class | largest difference |\n|---|---|")
    for family in OF_FAMILY:
        cases = draw_cases(family, options.configurations)
        for name in CLASSES_OF[family]:
            largest = max(measure(case, name, number) for number, case in enumerate(cases))
            print(f"| {name} | {largest:.1e} |", flush=True)


if __name__ == "__main__":
    main()
