"""What do I have after ten minutes on this machine? Recipes of pretraining at equal wall clock.

    .venv-parity/bin/python -m benchmarks.bench_budget --rows rows --pairs pairs --output budget \\
        --minutes 10 --seeds 0 1 2
    .venv-parity/bin/python -m benchmarks.bench_budget --output budget --plot budget.png

`rows` and `pairs` are prepared from the same texts with one tokenizer, the first with
`--pairing none`. Every recipe trains a new model of mini size for so many minutes of training on
the wall clock, loading and compilation left out, evaluations and masking not; they take turns, seed
by seed. All are scored by one function on the same held-out rows, without pairs: masked-LM loss and
accuracy, 15 % of the tokens masked, the same ones for all. What is done stays in the output folder
and is not done again.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.budget.recipes import RECIPES, Ours, Torch
from bertjax.architectures import MASKED_LM
from bertjax.loaded import load
from bertjax.objectives.masking import Vocabulary
from bertjax.program.entry import program
from bertjax.program.errors import UserError
from bertjax.program.huge_pages import restart_with_huge_pages
from bertjax.program.outputs import make_folder
from bertjax.program.strict_json import to_json
from bertjax.text.rows import PreparedDirectory, open_prepared
from bertjax.training.evaluation import EvaluationConfig, make_evaluation
from bertjax.training.metrics import read_metrics
from bertjax.training.sharding import MeshConfig, make_mesh

RESULTS_NAME = "results.jsonl"
# Rows of the validation split that the curves are scored on, as in the configs.
CURVE_ROWS = 128


def main() -> None:
    """Trains what is not trained yet, and prints the table of all that is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="folder of the results")
    parser.add_argument("--rows", metavar="DIR", help="prepared with --pairing none")
    parser.add_argument("--pairs", metavar="DIR", help="prepared with pairs, for recipes with them")
    parser.add_argument("--minutes", type=float, default=10, help="each (default: 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument(
        "--recipes", nargs="+", choices=RECIPES, default=list(RECIPES),
        help="(default: all)", metavar="NAME",
    )  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", help="draw the curves of what is done")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if not options.minutes > 0:
        raise UserError("--minutes must be above 0")
    output = Path(options.output)
    if options.rows is not None:
        train_missing(options, output)
    results = read_metrics(output / RESULTS_NAME)
    if not results:
        raise UserError(f"{output}: has no results; give --rows and --pairs to make some")
    if options.plot:
        draw_curves(results, Path(options.plot))
    print(to_json({"results": results}) if options.json else describe(results))


def train_missing(options: argparse.Namespace, output: Path) -> None:
    """Trains and scores every recipe with every seed that is not there yet."""
    wanted = [RECIPES[name] for name in options.recipes]
    missing = [one for one in ("torch", "transformers") if not importlib.util.find_spec(one)]
    if missing and any(isinstance(one, Torch) for one in wanted):
        raise UserError(
            f"{' and '.join(missing)} not installed here: `make test-parity` makes .venv-parity,"
            " whose python has both"
        )
    if options.pairs is None and any(isinstance(one, Ours) and one.pairs for one in wanted):
        raise UserError("--pairs is missing: a recipe learns from rows of pairs")
    rows = open_prepared(options.rows)
    make_folder(output)
    done = {(one["recipe"], one["seed"]) for one in read_metrics(output / RESULTS_NAME)}
    for seed in options.seeds:
        for name in options.recipes:
            if (name, seed) in done:
                continue
            print(f"{name}, seed {seed}", file=sys.stderr)
            with tempfile.TemporaryDirectory() as folder:
                recipe, place = RECIPES[name], Path(folder)
                made = (
                    train_ours(recipe, options, seed, place / "run")
                    if isinstance(recipe, Ours)
                    else train_torch(recipe, rows, options.minutes, seed, place)
                )
            about = {"recipe": name, "says": recipe.says, "seed": seed, "minutes": options.minutes}
            with (output / RESULTS_NAME).open("a", encoding="utf-8") as file:
                file.write(to_json(about | made) + "\n")


def train_ours(recipe: Ours, options: argparse.Namespace, seed: int, run: Path) -> dict[str, Any]:
    """Trains by `bertjax pretrain` in a process of its own, and scores its model."""
    words = options_of(recipe, options, seed, run)
    subprocess.run([sys.executable, "-m", "train.pretrain", *words], check=True)
    lines = read_metrics(run / "metrics.jsonl")
    curve = [
        {"seconds": line["timing"]["seconds_of_training"], "step": line["step"],
         "loss": line["mlm_loss"]}
        for line in lines if line["split"] == "validation"
    ]  # fmt: skip
    return {
        "steps": lines[-1]["step"],
        "curve": curve,
        **score(open_prepared(options.rows), run / "model"),
    }


def options_of(recipe: Ours, options: argparse.Namespace, seed: int, run: Path) -> list[str]:
    """Returns the words of `bertjax pretrain` for a recipe."""
    fields = {
        "data": options.rows, "run": run, "seed": seed, "budget.minutes": options.minutes,
        **recipe.fields,
    }  # fmt: skip
    if recipe.pairs:
        fields |= {"phases.shares": 1.0, "phases.data": options.pairs}
    words = [
        word
        for name, value in fields.items()
        for word in (f"--{name}", *map(str, value if isinstance(value, tuple) else (value,)))
    ]
    return ["--config", f"configs/pretrain/{recipe.config}.yaml", *words]


def train_torch(
    recipe: Torch, rows: PreparedDirectory, minutes: float, seed: int, folder: Path
) -> dict[str, Any]:
    """Trains with torch in this process, and scores what it saved on the way."""
    from benchmarks.budget import torch_run

    made = torch_run.train(recipe, rows, minutes, seed, folder)
    saved = sorted((tuple(map(int, path.name.split("-"))), path) for path in folder.iterdir())
    curve = [
        {"seconds": seconds, "step": step,
         "loss": score(rows, path, "validation", CURVE_ROWS)["loss"]}
        for (seconds, step), path in saved
    ]  # fmt: skip
    return {**made, "curve": curve, **score(rows, saved[-1][1])}


def score(
    rows: PreparedDirectory, directory: Path, split: str = "test", limit: int = 0
) -> dict[str, float]:
    """Returns the held-out loss and accuracy of a model directory, whoever wrote it."""
    model = load(directory, MASKED_LM, dtype="float32")
    vocabulary, mesh = Vocabulary.of(model.tokenizer), make_mesh(MeshConfig())
    evaluate = make_evaluation(
        EvaluationConfig(), model.module, vocabulary, rows.token_counts, mesh
    )
    scores, _ = evaluate(model.params, getattr(rows, split), limit)
    return {"loss": scores["mlm_loss"], "accuracy": scores["mlm_accuracy"]}


def describe(results: list[dict[str, Any]]) -> str:
    """Returns the table of what is done: the mean over the seeds, and the lowest and highest."""
    by_recipe = defaultdict(list)
    for one in results:
        by_recipe[one["recipe"]].append(one)
    lines = [
        "| recipe | seeds | steps | loss | lowest to highest | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for name, own in by_recipe.items():
        losses = [one["loss"] for one in own]
        steps = statistics.mean(one["steps"] for one in own)
        accuracy = statistics.mean(one["accuracy"] for one in own)
        lines.append(
            f"| {name}: {own[0]['says']} | {len(own)} | {steps:,.0f} |"
            f" {statistics.mean(losses):.3f} | {min(losses):.3f} to {max(losses):.3f} |"
            f" {accuracy:.1%} |"
        )
    return "\n".join(lines)


def draw_curves(results: list[dict[str, Any]], path: Path) -> None:
    """Draws the held-out loss by minutes and by steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_minutes, by_steps = figure.subplots(1, 2, sharey=True)
    colors: dict[str, str] = {}
    for one in results:
        first = one["recipe"] not in colors
        color = colors.setdefault(one["recipe"], f"C{len(colors)}")
        label = one["says"] if first else None
        losses = [point["loss"] for point in one["curve"]]
        minutes = [point["seconds"] / 60 for point in one["curve"]]
        steps = [point["step"] for point in one["curve"]]
        by_minutes.plot(minutes, losses, color=color, label=label, linewidth=1.2)
        by_steps.plot(steps, losses, color=color, linewidth=1.2)
    # A model that learns to predict the next token restores masked ones worse than none.
    by_minutes.set(
        xlabel="minutes of training", ylabel="held-out masked-LM loss (nats)", ylim=(None, 8.5)
    )
    by_steps.set(xlabel="steps", xscale="log")
    by_minutes.legend(fontsize=8)
    for axes in (by_minutes, by_steps):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
