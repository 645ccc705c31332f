"""The table of docs/deployment.md: how far ONNX is from the model, of each class and family.

    .venv/bin/python -m tests.exporting.onnx_table --configurations 50

The classes of a family have the same configurations, each of which is one program of jax
(`answer_family`): a second or two of one core, compiled without most of XLA's optimizations, as in
the tests. With `--figures FILE` what was measured is kept there, a line for each configuration, and
not measured again: a run that is stopped goes on where it was.
"""

import argparse
import functools
import gc
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
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
from tests.parity.ladder import Case, answer_with, body_of
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


def answer_family(case: Case, params: Mapping[str, Parameters]) -> dict[str, dict[str, np.ndarray]]:
    """Returns what every class answers, by one program in which the body is computed once.

    Args:
        case: the inputs.
        params: of each class; all have the same body. That without a head is among them.
    """
    whole = body_of(params)
    modules = {name: ARCHITECTURES[name].module(case.config) for name in params}
    [body] = [name for name in params if ARCHITECTURES[name].kind == BODY]

    @jax.jit
    def compute(params: Any, rows: Any, inputs: Any) -> Any:
        hidden = modules[body].apply({"params": params[body]}, *rows)
        with nn.intercept_methods(functools.partial(answer_with, hidden)):
            return {
                name: answering(Model(module, {}, None), STEPS)(params[name], inputs[name])
                for name, module in modules.items()
            }

    rows = [values.astype(np.int32) for values in (case.token_ids, case.token_type_ids, case.real)]
    inputs = {name: inputs_of(case, name) for name in params}
    return jax.device_get(compute({**params, body: whole}, rows, inputs))


def measure_family(case: Case, classes: Sequence[str], seed: int) -> dict[str, float]:
    """Returns by class the largest difference of any output, as a share of its largest value where
    that is above 1.
    """
    params = {name: draw_parameters(case.config, name, seed) for name in classes}
    expected, largest = answer_family(case, params), {}
    for name, own in params.items():
        with tempfile.TemporaryDirectory() as folder:
            actual = write(Path(folder), case.config, name, own)(inputs_of(case, name))
        assert actual.keys() == expected[name].keys()
        gaps = [
            np.abs(actual[key] - values).max() / max(1.0, np.abs(values).max())
            for key, values in expected[name].items()
        ]
        largest[name] = float(np.max(gaps))  # NaN is the largest
    return largest


def print_table(largest: Mapping[str, float]) -> None:
    """Prints the differences, a column for each family."""
    bodies = [name for name in largest if ARCHITECTURES[name].kind == BODY]
    prefixes = [name.removesuffix("Model") for name in bodies]
    endings = dict.fromkeys(
        name.removeprefix(prefix)
        for prefix in prefixes
        for name in largest
        if name.startswith(prefix)
    )
    print(f"| class | {' | '.join(prefixes)} |\n|---|{'---|' * len(prefixes)}")
    for ending in endings:
        cells = [largest.get(prefix + ending) for prefix in prefixes]
        shown = ["" if value is None else f"{value:.1e}" for value in cells]
        print(f"| `...{ending}` | {' | '.join(shown)} |")


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--configurations", type=int, default=50, help="of each family (default: %(default)s)"
    )
    parser.add_argument("--families", nargs="*", choices=OF_FAMILY, help="(default: all)")
    parser.add_argument("--figures", type=Path, help="the file of what was measured, and is")
    options = parser.parse_args(arguments)
    families = options.families or list(OF_FAMILY)
    jax.config.update("jax_disable_most_optimizations", True)
    gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, none of them garbage
    cases = {family: draw_cases(family, options.configurations) for family in families}
    done = read_figures(options.figures)
    largest: dict[str, float] = {}
    # All families have as many when a run is stopped.
    for number, family in itertools.product(range(options.configurations), families):
        case = cases[family][number]
        place = (family, number, repr(case.config))
        if place not in done:
            what = f"\r  {number + 1}/{options.configurations} {family:20}"
            print(what, end="", file=sys.stderr, flush=True)
            done[place] = measure_family(case, CLASSES_OF[family], number)
            if options.figures:
                with options.figures.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([*place, done[place]]) + "\n")
            jax.clear_caches()  # what was compiled is never of use again
        for name, gap in done[place].items():
            largest[name] = np.maximum(largest.get(name, 0.0), gap)
    print(file=sys.stderr)
    print_table(largest)


def read_figures(path: Path | None) -> dict[tuple[str, int, str], dict[str, float]]:
    """Reads the differences by family, number and configuration."""
    if path is None or not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(family, number, config): found for family, number, config, found in lines}


if __name__ == "__main__":
    main()
