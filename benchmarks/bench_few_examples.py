"""Accuracy on held-out examples of fine-tunings with few examples, all options at their defaults.

    .venv/bin/python benchmarks/bench_few_examples.py --data shared/data --model DIR --json FILE

Each draw of so many rows is a user's file: `bertjax finetune` takes validation and test from it as
it does by default; with --validation, validation is a file of its own, of so many more rows. The
model that it keeps is then scored on rows of the same collection that are in no draw. All draws
share the compiled programs where their rows fit one layout. A draw is the same whatever the other
options, so that the rows of two recipes, or of two versions of the code, can be compared draw by
draw. What is in the JSON file already is not measured again.
"""

import argparse
import collections
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bertjax.tasks.batches
from bertjax.inference.task_outputs import Inference
from bertjax.program.compiled_programs import keep_compiled_programs
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.huge_pages import restart_with_huge_pages
from bertjax.program.strict_json import to_json
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.reading import read_task_data
from bertjax.tasks.units import Layout, count_rows
from bertjax.training import finetune as finetuning
from bertjax.training.finetune import run_finetuning
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.progress import RunProgress
from bertjax.training.starting_model import FinetunedModelConfig

# Scores of VADER's tweets below and above which their mood is called negative or positive.
NEGATIVE, POSITIVE = -0.5, 1.0

# Tokens of a text, and of a row.
LENGTH = 64
# Rows that a batch is given for each of its examples, and sequences of a row at most.
ROWS_AN_EXAMPLE, SLOTS = 0.6, 21


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True, help="folder with classification/")
    parser.add_argument("--model", required=True, help="the pretrained model directory")
    parser.add_argument("--collections", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[24, 100, 400], help="rows a draw")
    parser.add_argument("--draws", type=int, default=10, help="draws of each size (default: 10)")
    parser.add_argument("--held-out", type=int, default=1000, help="rows to score (default: 1000)")
    parser.add_argument(
        "--validation", type=int, default=0, help="more rows, as a validation file (default: none)"
    )
    parser.add_argument("--learning-rate", type=float, help="instead of the default")
    parser.add_argument("--json", metavar="FILE", required=True, help="where the figures are kept")
    options = parser.parse_args()
    keep_compiled_programs()
    share_layouts()
    file = Path(options.json)
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for draw in range(options.draws):
        for name in options.collections:
            for size in options.sizes:
                key = f"{name} {size} {draw}"
                if key not in results:
                    results[key] = measure(name, size, draw, options)
                    file.write_text(to_json(results, indent=1) + "\n", encoding="utf-8")
                    print(key, results[key], flush=True)
    print("\n".join(describe(results)))


def read_sms(folder: Path) -> list[tuple[str, str]]:
    """Label and text of UCI's SMS Spam Collection."""
    lines = (folder / "sms_spam.tsv").read_text(encoding="utf-8").splitlines()
    return [(label, text) for label, text in (line.split("\t", 1) for line in lines)]


def read_tweets(folder: Path) -> list[tuple[str, str]]:
    """Label and text of VADER's tweets, in three classes."""
    rows = []
    for line in (folder / "vader_tweets.tsv").read_text(encoding="utf-8").splitlines():
        _, score, text = line.split("\t", 2)
        mood = float(score)
        label = "negative" if mood < NEGATIVE else "positive" if mood > POSITIVE else "neutral"
        rows.append((label, text))
    return rows


READERS = {"sms": read_sms, "tweets": read_tweets}


def draws_of(
    rows: Sequence[tuple[str, str]], size: int, draw: int, held_out: int, validation: int = 0
) -> Iterator[tuple[list[tuple[str, str]], ...]]:
    """Rows of the draw, those held out and more for validation; again and again, should a draw be
    of no use.

    Those that are held out are the same for all draws; texts that they have are in none of them.
    Every class is in every draw.
    """
    order = np.random.default_rng(0).permutation(len(rows))
    held = [rows[number] for number in order[:held_out]]
    known = {" ".join(text.casefold().split()) for _, text in held}
    others = [rows[number] for number in order[held_out:]]
    pool = [row for row in others if " ".join(row[1].casefold().split()) not in known]
    random = np.random.default_rng((size, draw))
    labels = {label for label, _ in rows}
    while True:
        taken = [pool[number] for number in random.permutation(len(pool))[: size + validation]]
        drawn = taken[:size]
        if {label for label, _ in drawn} == labels:
            yield drawn, held, taken[size:]


def measure(name: str, size: int, draw: int, options: argparse.Namespace) -> dict[str, Any]:
    """One fine-tuning, and its accuracy on what is held out."""
    rows = READERS[name](Path(options.data) / "classification")
    refused = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for splits in draws_of(rows, size, draw, options.held_out, options.validation):
            held = splits[1]
            paths = [Path(folder) / f"{split}.tsv" for split in ("train", "test", "validation")]
            for path, some in zip(paths, splits, strict=True):
                lines = ["label\ttext", *(f"{label}\t{text}" for label, text in some)]
                path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            given = DataConfig(
                train=[str(paths[0])], validation=[str(paths[2])] * bool(options.validation)
            )
            try:
                data = read_task_data("classification", given)
                test = read_task_data(
                    "classification", DataConfig(train=[str(paths[0])], test=[str(paths[1])])
                ).test
            except UserError as error:  # a class or a split without an example
                refused.append(str(error).replace(folder, ""))
                continue
            break
        config = FinetuneConfig(
            run=str(Path(folder) / "run"),
            data=given,
            model=FinetunedModelConfig(init=options.model),
            max_length=LENGTH,
        )
        if options.learning_rate:
            optimizer = dataclasses.replace(config.optimizer, learning_rate=options.learning_rate)
            config = dataclasses.replace(config, optimizer=optimizer)
        result = run_finetuning(config, data._replace(test=test), reporter=RunProgress())
        if result.stopped:
            raise SystemExit(STOPPED_EXIT_CODE)
        results = result.scores
    majority = collections.Counter(label for label, _ in held).most_common(1)[0][1] / len(held)
    return {
        "accuracy": results["test"]["accuracy"],
        "majority": majority,
        "steps": results["steps"],
        "kept": results.get("kept"),
        "train": len(data.train),
        "validation": len(data.validation),
        "refused": refused,
        "seconds": round(time.perf_counter() - started, 1),
    }


def share_layouts() -> None:
    """Gives all batches of one size the same rows, where they fit, so that little is compiled."""
    choose = bertjax.tasks.batches.choose_layout

    def choose_shared(batches: Sequence[Any], hidden_size: int, **how: Any) -> Layout:
        rows = round(ROWS_AN_EXAMPLE * max(map(len, batches)) + 0.5)
        lengths = [np.array([unit.length for unit in batch]) for batch in batches]
        if max(count_rows(batch, LENGTH, SLOTS) for batch in lengths) <= rows:
            return Layout(rows, LENGTH, SLOTS, 1)
        return choose(batches, hidden_size, **how)

    bertjax.tasks.batches.choose_layout = choose_shared
    Inference._layout = lambda self, units: Layout(16, LENGTH, SLOTS, 1)
    finetuning.measure_matmul_rate = lambda mesh, dtype: 1e12


def describe(results: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each collection and size."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, result in results.items():
        groups.setdefault(key.rpartition(" ")[0], []).append(result)
    lines = ["collection and rows   draws   accuracy: mean (least to most)   always the majority"]
    for name, some in groups.items():
        values = [result["accuracy"] for result in some]
        refused = sum(len(result["refused"]) for result in some)
        lines.append(
            f"{name:21s} {len(some):5d}   {statistics.fmean(values):.3f} ({min(values):.3f} to"
            f" {max(values):.3f})   {some[0]['majority']:.3f}"
            + (f"   {refused} draws refused" if refused else "")
        )
    return lines


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
