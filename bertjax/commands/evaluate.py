"""`bertjax evaluate`: the scores of a fine-tuned model on labelled files."""

import argparse
import sys
from pathlib import Path
from typing import Any

from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.commands.task_model import add_model, load_task_model, read_data_config
from bertjax.errors import UserError
from bertjax.program.outputs import check_output, write_json

SUMMARY = "the scores of a fine-tuned model on labelled files, with intervals and slices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, required=False)
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        required=True,
        help="labelled files; for --watch of a pretraining run its prepared directory (required)",
    )
    parser.add_argument(
        "--watch",
        metavar="RUN",
        help="in place of --model: score every new checkpoint of this run directory as it appears,"
        " into its watch.jsonl and watch.png, until the run is finished",
    )
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="between two looks at the run that --watch names (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="a .json file for the scores and how good each prediction is, which `bertjax compare`"
        " takes (default: none)",
    )
    parser.add_argument(
        "--resamples",
        metavar="R",
        type=int,
        default=300,
        help="bootstrap resamples for the intervals; 0 = no intervals (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Scores and prints."""
    if bool(options.watch) == bool(options.model):
        raise UserError("give one of --model DIR and --watch RUN")
    if options.watch:
        if options.output:
            raise UserError("--output is for --model; --watch keeps its table in the run directory")
        from bertjax.commands.watching import watch

        watch(options)
        return
    if options.resamples < 0:
        raise UserError(f"--resamples {options.resamples} must not be negative")
    if options.output and not options.output.endswith(".json"):
        raise UserError(f"--output {options.output}: name a .json file")
    if options.output:
        check_output(options.output)
    model = load_task_model(options)
    from bertjax.tasks.reading import describe_classes, read_task_examples
    from bertjax.tasks.scoring import check_known_labels, evaluate_predictions, predict_examples

    config = read_data_config(options)
    examples, notes = read_task_examples(model.task.name, options.data, config, with_labels=True)
    check_known_labels(model.task, examples)
    with count_on("predicting", len(examples)) as progress:
        predicted = predict_examples(
            model.inference,
            model.variables,
            model.task,
            examples,
            model.tokenizer,
            model.max_length,
            progress,
        )
    classes = describe_classes(model.task, {"examples": examples}, config)
    for note in [*notes, *classes, *predicted.notes]:
        print(note, file=sys.stderr)
    with count_on("resampling", options.resamples) as progress:
        evaluation = evaluate_predictions(
            model.task, examples, predicted, options.resamples, progress
        )
    result = {
        "model": str(options.model),
        "data": list(options.data),
        "task": model.task.name,
        **evaluation,
    }
    if options.output:
        write_json(Path(options.output), result)
    if options.json:
        print_json({name: value for name, value in result.items() if name != "outcomes"})
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    table = Table("score", "value", "95 % interval", title=f"{result['examples']:,} examples")
    for name, value in result["scores"].items():
        if isinstance(value, float):
            interval = result["intervals"].get(name)
            shown = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            table.add_row(name, f"{value:.4f}", shown)
    out.print(table)
    slices = Table("slice", "examples", result["slice_score"], title="slices")
    for name, part in result["slices"].items():
        slices.add_row(name, f"{part['examples']:,}", f"{part['mean']:.4f}")
    out.print(slices)
