"""The parity table of docs/parity.md: the largest difference of each class and quantity from torch.

    .venv-parity/bin/python -m tests.parity.table --configurations 50 --checkpoint DIR ...

The reference is torch in float64, the measure that of `ladder.differences`. Rows are classes, a
table each for bertjax in float64 and float32 and, to compare with, torch in float32. A checkpoint
is measured as every class of its family. With `--figures FILE` what was measured is kept there, a
line for each configuration, and not measured again: a run that is stopped goes on where it was.
The classes of a family have the same configurations, each of which is one program
(`ladder.compute_family`): five to ten seconds of one core, nearly all of them to trace and compile,
with XLA_FLAGS=--xla_cpu_use_fusion_emitters=false, which jaxlib before 0.11 knows. They are
compiled without most of XLA's optimizations, as in the tests.
"""

import argparse
import gc
import itertools
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from bertjax.architectures import classes_of
from bertjax.families.registry import load_config
from bertjax.interop.huggingface import load_model_directory
from bertjax.interop.tensor_names import Parameters
from bertjax.text.tokenizer import load_tokenizer
from tests.parity.cases import CLASSES_OF, OF_FAMILY, draw_cases
from tests.parity.ladder import (
    QUANTITIES,
    TOLERANCES,
    Case,
    Results,
    compute_family,
    compute_ours,
    compute_theirs,
    differences,
    make_case,
)
from tests.parity.random_models import draw_parameters

SENTENCES = (
    "The capital of France is a city on the river Seine.",
    "Let us take a walk.",
    "Nobody had told her that the museum closes at five on the last Sunday of the month, had they?",
    "No.",
)
COLUMNS = {"float64": "bertjax, float64", "float32": "bertjax, float32", "torch": "torch, float32"}

# Column -> quantity -> largest difference.
Largest = dict[str, dict[str, float]]
# Dtype -> what was computed.
Ours = dict[str, Results]


def compare_torch(case: Case, architecture: str, params: Parameters, ours: Ours) -> Largest:
    """Returns the largest differences of one case from torch.

    Args:
        case: the batch.
        architecture: the class.
        params: its parameters.
        ours: what bertjax computed of it, by dtype.
    """
    expected = compute_theirs(case, architecture, params)
    theirs = compute_theirs(case, architecture, params, "float32")
    compared = {**ours, "torch": theirs}
    return {column: differences(case, own, expected) for column, own in compared.items()}


def measure_random(
    families: Sequence[str], configurations: int, figures: Path | None
) -> dict[str, Largest]:
    """Returns the largest differences of every class of families over random configurations.

    Args:
        families: their names.
        configurations: of each.
        figures: where the differences of each are appended, and those that it has are taken from.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, none of them garbage
    cases = {name: draw_cases(name, configurations) for name in families}
    done = _read_figures(figures)
    largest: dict[str, Largest] = {
        name: {column: {} for column in COLUMNS}
        for family in families
        for name in CLASSES_OF[family]
    }
    # All families have as many when a run is stopped.
    for number, family in itertools.product(range(configurations), families):
        place = (family, number, repr(cases[family][number].config))
        if place not in done:
            print(
                f"\r  {number + 1}/{configurations} {family:20}",
                end="",
                file=sys.stderr,
                flush=True,
            )
            done[place] = _measure_family(cases[family][number], CLASSES_OF[family])
            if figures is not None:
                with figures.open("a", encoding="utf-8") as file:
                    file.write(json.dumps([*place, done[place]]) + "\n")
            jax.clear_caches()  # what was compiled is never of use again, and is gigabytes
        for name, columns in done[place].items():
            for column, values in columns.items():
                most = largest[name][column]
                for quantity, value in values.items():
                    most[quantity] = max(most.get(quantity, 0.0), value)
    print(file=sys.stderr)
    return largest


def _measure_family(case: Case, classes: Sequence[str]) -> dict[str, Largest]:
    params = {name: draw_parameters(case.config, name) for name in classes}
    by_dtype = {dtype: compute_family(case, params, dtype) for dtype in TOLERANCES}
    return {
        name: compare_torch(
            case, name, params[name], {dtype: found[name] for dtype, found in by_dtype.items()}
        )
        for name in classes
    }


def _read_figures(path: Path | None) -> dict[tuple[str, int, str], dict[str, Largest]]:
    """Reads the differences of each family, number and configuration, by class."""
    if path is None or not path.exists():
        return {}
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {(family, number, config): found for family, number, config, found in lines}


def measure_checkpoint(path: Path, architecture: str) -> Largest:
    """The largest differences on a checkpoint; what it has no head for gets a fresh one."""
    loaded = load_model_directory(
        path,
        architecture,
        initialize_missing=jax.random.key(0),
        changes={"id2label": ("A", "B", "C"), "problem_type": None},
    )
    tokenizer = load_tokenizer(path)
    texts = [
        [tokenizer.cls_id, *ids, tokenizer.sep_id] for ids in tokenizer.encode_batch(SENTENCES)
    ]
    token_ids = np.full((len(texts), max(map(len, texts))), tokenizer.pad_id)
    for row, ids in enumerate(texts):
        token_ids[row, : len(ids)] = ids
    real = (token_ids != tokenizer.pad_id).astype(np.int64)
    case = make_case(loaded.config, token_ids, real, choices=2, seed=0)
    ours = {dtype: compute_ours(case, architecture, loaded.params, dtype) for dtype in TOLERANCES}
    return compare_torch(case, architecture, loaded.params, ours)


def print_tables(title: str, measured: dict[str, Largest]) -> bool:
    """Prints a table for each column; returns whether all of ours is within its tolerance."""
    good = True
    for column, what in COLUMNS.items():
        tolerance = TOLERANCES.get(column)
        allowed = f", at most {tolerance:.0e} allowed" if tolerance else ""
        print(f"\n**{title}: {what}{allowed}**\n")
        print(f"| class | {' | '.join(QUANTITIES)} |")
        print(f"|---|{'---|' * len(QUANTITIES)}")
        for architecture, largest in measured.items():
            values = [largest[column].get(quantity) for quantity in QUANTITIES]
            cells = ["" if value is None else f"{value:.1e}" for value in values]
            print(f"| {architecture} | {' | '.join(cells)} |")
            if tolerance:
                good &= all(value is None or value <= tolerance for value in values)
    return good


def main(arguments: Sequence[str]) -> int:
    """Prints the tables; 1 where a difference is over its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--configurations", type=int, default=50, help="a class (default: 50)")
    parser.add_argument("--checkpoint", type=Path, nargs="*", default=[], help="model directories")
    parser.add_argument("--families", nargs="*", choices=OF_FAMILY, help="(default: all)")
    parser.add_argument("--figures", type=Path, help="the file of what was measured, and is")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    wanted = options.families or list(OF_FAMILY)
    good = True
    for path in options.checkpoint:
        measured = {}
        for its in classes_of(load_config(path)).values():
            print(f"{path.name}: {its.name} ...", file=sys.stderr, flush=True)
            measured[its.name] = measure_checkpoint(path, its.name)
        good &= print_tables(path.name, measured)
    if options.configurations:
        measured = measure_random(wanted, options.configurations, options.figures)
        good &= print_tables(f"{options.configurations} random configurations a class", measured)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
