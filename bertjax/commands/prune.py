"""`bertjax prune`: a model without its least important heads, or without those that are named."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import choose_length, seed_number, whole_number
from bertjax.commands.model_options import open_model
from bertjax.commands.screen import add_json, console, print_json, stage_bars, tell
from bertjax.commands.task_model import (
    add_task_model,
    load_task_model,
    read_data_config,
    refuse_label_options,
)
from bertjax.commands.text_options import add_arguments_and_files, choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output
from bertjax.program.wording import counted

if TYPE_CHECKING:
    from bertjax.analysis.heads.pruning_study import Examples, PruningStudy
    from bertjax.loaded import Model

    # What heads are chosen on, and what scores are measured on where that is something else.
    Measured = tuple[Model, Examples, Examples | None]

SUMMARY = "a model without its least important heads, and its scores before and after"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_task_model(parser, dtype="float32")
    parser.add_argument(
        "--heads",
        metavar="HEADS",
        required=True,
        help="how many heads to remove: a share of all (40%%), or their number (58); or which, by"
        " the names in reports, layer-head with commas between them: 1-3,2-5 (required)",
    )
    parser.add_argument(
        "--by",
        choices=["importance", "ablation", "random"],
        help="what is removed first, where --heads names none: heads whose gates have the smallest"
        " derivatives of the loss (one pass), heads whose removal costs least (a pass for each"
        " head), or random ones (default: importance)",
    )
    add_arguments_and_files(
        parser,
        "for the masked-LM loss, a raw text",
        "--text",
        pairs=True,
        otherwise="or the labelled ones of --data",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        help="labelled files of the model's task, on which the heads are chosen",
    )
    parser.add_argument(
        "--test",
        metavar="FILE",
        nargs="+",
        help="files of the same kind for the scores before and after (default: those on which the"
        " heads are chosen, which flatters the result)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="the new model directory; one that is there is replaced only if prune made it"
        " (required)",
    )
    parser.add_argument(
        "--shrink",
        action="store_true",
        help="remove the same number of heads from every layer, so that the tensors shrink: faster"
        " and smaller, but only bertjax loads it (default: no: the heads are filled with zeros,"
        " which loads everywhere and saves no time)",
    )
    parser.add_argument(
        "--normalize-layers",
        action="store_true",
        help="with --by importance: scale the heads of each layer to length 1 before they are"
        " compared (default: no)",
    )
    parser.add_argument(
        "--max-examples",
        metavar="E",
        type=whole_number(1),
        help="the most texts or examples of each kind of file (default: all)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help="seed of masks and random heads (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Chooses, measures, writes and prints."""
    from bertjax.analysis.heads.pruning_study import REPORT_NAME, study_pruning

    output = Path(options.output)
    if output.resolve() == Path(options.model).resolve():
        raise UserError(f"--output {output}: is the model itself; name another directory")
    check_output(options.output, folder=True)
    if output.is_dir() and any(output.iterdir()) and not (output / REPORT_NAME).exists():
        raise UserError(
            f"--output {output}: holds files, and no {REPORT_NAME} of an earlier run that may be"
            " replaced; name another directory"
        )
    given = [bool(options.data), bool(options.input), bool(options.texts)]
    if sum(given) != 1:
        raise UserError(
            "give one of --data (labelled files), --input (files of texts) and TEXT: what heads are"
            " chosen on and the model is scored on"
        )
    model, chosen_on, tested_on = (_read_labelled if options.data else _read_texts)(options)
    tell([*chosen_on.notes, *(tested_on.notes if tested_on else ())])
    with stage_bars() as progress:
        study = study_pruning(
            model,
            options.heads,
            chosen_on,
            tested_on,
            by=options.by,
            normalize_layers=options.normalize_layers,
            shrink=options.shrink,
            seed=options.seed,
            name=str(options.model),
            progress=progress,
        )
    study.save(output)
    if options.json:
        print_json(study.result)
    else:
        _print_table(study.result)
    tell(_describe(study, output, output / REPORT_NAME, tested=bool(options.test)))


def _read_texts(options: argparse.Namespace) -> "Measured":
    refuse_label_options(options, "--labels", "--data")
    reading = choose_reading(options, options.model, options.format)
    own = Texts(reading, options.texts, options.input, pairs=True).read()
    others = Texts(reading, files=options.test, pairs=True).read() if options.test else []
    from bertjax.analysis.heads.pruning_study import raw_examples

    model = open_model(options)
    length = choose_length(options, model.config.max_length)

    def take(texts: list[Any], names: list[str]) -> "Examples":
        some = texts[: options.max_examples]
        return raw_examples(model, some, names, max_length=length, seed=options.seed)

    chosen_on = take(own, options.input or ["the command line"])
    return model, chosen_on, take(others, options.test) if others else None


def _read_labelled(options: argparse.Namespace) -> "Measured":
    from bertjax.analysis.heads.pruning_study import labelled_examples

    model, _, length = load_task_model(options)
    reading = read_data_config(options)

    def take(files: list[str]) -> "Examples":
        return labelled_examples(
            model, files, reading, max_examples=options.max_examples, max_length=length
        )

    return model, take(options.data), take(options.test) if options.test else None


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    title = (
        f"{result['removed']} of {result['heads']} heads, {counted(result['examples'], 'example')}"
    )
    table = Table("", result["score"], result["loss"], "95 % interval", title=title)
    for name in ("before", "after"):
        row = result[name]
        ends = row["loss_interval"]
        interval = f"{ends[0]:.4f} to {ends[1]:.4f}" if ends else "–"
        table.add_row(name, _figure(row["score"]), _figure(row["loss"]), interval)
    draws = result["random_heads"]
    score, loss = (sum(draw[name] for draw in draws) / len(draws) for name in ("score", "loss"))
    losses = [draw["loss"] for draw in draws]
    table.add_row(
        f"random heads, mean of {len(draws)}",
        _figure(score),
        _figure(loss),
        f"{min(losses):.4f} to {max(losses):.4f} (all of them)",
    )
    console().print(table)


def _figure(value: float) -> str:
    return "not defined" if math.isnan(value) else f"{value:.4f}"


def _describe(study: "PruningStudy", output: Path, report: Path, tested: bool) -> list[str]:
    """Describes what was written, and what the scores are worth."""
    if study.result["shrunk"]:
        kind = "with fewer heads in every layer, smaller and faster; only bertjax loads it"
    else:
        kind = (
            "with zeros in place of these heads; it loads everywhere, and is as large and as slow"
            " as before (--shrink makes it smaller)"
        )
    notes = [f"{output}: a model {kind}; {report} has the figures"]
    if study.result["by"] != "name" and not tested:
        notes.append("the scores are on what the heads were chosen on; --test takes other files")
    return notes
