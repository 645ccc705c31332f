"""The parity table of docs/parity.md: the largest difference of each class and quantity from torch.

    .venv-parity/bin/python -m tests.parity.table --configurations 50 --checkpoint DIR ...

The reference is torch in float64, the measure that of `ladder.differences`. Rows are classes, a
table each for bertjax in float64 and float32 and, to compare with, torch in float32. A checkpoint
is measured as every class of its family. BERT takes half an hour on one core, nearly all of it to
compile, with XLA_FLAGS=--xla_cpu_use_fusion_emitters=false, which jaxlib before 0.11 knows; what
random configurations run is compiled without most of XLA's optimizations, as in the tests.
"""

import argparse
import functools
import itertools
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from bertjax.architectures import ARCHITECTURES, classes_of
from bertjax.families.registry import load_config
from bertjax.interop.huggingface import load_model_directory
from bertjax.interop.tensor_names import Parameters
from bertjax.text.tokenizer import load_tokenizer
from tests.parity.cases import CLASSES, OF_FAMILY, for_random_cases
from tests.parity.ladder import (
    QUANTITIES,
    TOLERANCES,
    Case,
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


def compare(case: Case, architecture: str, params: Parameters) -> Largest:
    """The largest differences of one case."""
    expected = compute_theirs(case, architecture, params)
    found = {
        dtype: differences(case, compute_ours(case, architecture, params, dtype), expected)
        for dtype in TOLERANCES
    }
    found["torch"] = differences(
        case, compute_theirs(case, architecture, params, "float32"), expected
    )
    return found


def measure_random(architecture: str, configurations: int) -> Largest:
    """The largest differences over random configurations."""
    jax.config.update("jax_disable_most_optimizations", True)
    largest: Largest = {column: {} for column in COLUMNS}
    number = itertools.count(1)

    def add(case: Case) -> None:
        print(f"\r  {next(number)}/{configurations}", end="", file=sys.stderr, flush=True)
        found = compare(case, architecture, draw_parameters(case.config, architecture))
        for column, values in found.items():
            for quantity, value in values.items():
                largest[column][quantity] = max(largest[column].get(quantity, 0.0), value)

    for_random_cases(add, architecture, configurations)
    print(file=sys.stderr)
    jax.clear_caches()  # what was compiled is never of use again, and is gigabytes in the end
    return largest


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
    return compare(case, architecture, loaded.params)


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
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    wanted = options.families or list(OF_FAMILY)
    classes = [name for name in CLASSES if ARCHITECTURES[name].family in wanted]
    sources: list[tuple[str, list[str], Callable[[str], Largest]]] = [
        (
            path.name,
            [its.name for its in classes_of(load_config(path)).values()],
            functools.partial(measure_checkpoint, path),
        )
        for path in options.checkpoint
    ]
    if options.configurations:
        title = f"{options.configurations} random configurations a class"
        sources.append((title, classes, lambda name: measure_random(name, options.configurations)))
    good = True
    for title, names, measure in sources:
        measured = {}
        for architecture in names:
            print(f"{title}: {architecture} ...", file=sys.stderr, flush=True)
            measured[architecture] = measure(architecture)
        good &= print_tables(title, measured)
        sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
