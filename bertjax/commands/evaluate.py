"""`bertjax evaluate`: the scores of a model: on labelled files, or of a masked LM on raw texts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.architectures import ARCHITECTURES
from bertjax.commands.arguments import Number, choose_length, whole_number
from bertjax.commands.model_options import add_engine, open_model, read_class, runs_exported
from bertjax.commands.screen import (
    add_json,
    console,
    count_on,
    print_fields,
    print_json,
    stage_bars,
    tell,
)
from bertjax.commands.task_model import (
    add_task_model,
    load_task_model,
    read_data_config,
    refuse_label_options,
)
from bertjax.commands.text_options import choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output, write_json
from bertjax.program.stages import StageProgress, Stages
from bertjax.program.wording import counted

if TYPE_CHECKING:
    from bertjax.inference.labelled import Labelled
    from bertjax.loaded import Model

SUMMARY = "the scores of a model on labelled files, of a masked LM on raw texts, with intervals"

RESAMPLES = 300
# Classes of which the confusion matrix fits a screen.
_MOST_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_task_model(parser, required=False)
    add_engine(parser)
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        required=True,
        help="labelled files; for a masked LM raw texts, as for `bertjax analyze --input`, of which"
        " 15 %% of the tokens are masked, the same ones every time; for --watch with a pretraining"
        " run its prepared directory (required)",
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
        type=Number(float, above=0),
        help="between two checks of the run that --watch names (default: 10)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="a .json file for the scores and the quality of each prediction, which `bertjax"
        " compare` reads (default: none)",
    )
    parser.add_argument(
        "--resamples",
        metavar="R",
        type=whole_number(0),
        help="with labelled files: bootstrap resamples for the intervals; 0 = no intervals"
        f" (default: {RESAMPLES})",
    )
    parser.add_argument(
        "--figures",
        metavar="DIR",
        help="for a model with classes: the folder for the confusion matrix, counts and shares of"
        " each true class, as confusion_matrix.png and .svg (default: none)",
    )
    parser.add_argument(
        "--calibrate",
        action="store_true",
        default=None,
        help="with labelled files that the model was not fitted on: also fit a temperature to its"
        " probabilities, and keep it in the model's directory, so that every program that loads"
        " the directory has calibrated probabilities; answers stay as they are (default: no)",
    )
    parser.add_argument(
        "--without-heads",
        metavar="HEADS",
        help="score the model without these attention heads, their gates closed: layer-head with"
        " commas between them, 1-3,2-5 (default: with all of them)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Scores and prints."""
    if bool(options.watch) == bool(options.model):
        raise UserError("give one of --model DIR and --watch RUN")
    _check_options(options)
    if options.watch:
        from bertjax.commands.watching import watch

        watch(options)
        return
    _, architecture = read_class(options)
    restores_words = "token" in ARCHITECTURES[architecture].outputs
    result, notes = (_score_texts if restores_words else _score_labelled)(options)
    if options.output:
        write_json(Path(options.output), result)
    if options.figures:
        notes += _draw_confusion_matrix(Path(options.figures), result)
    if options.json:
        print_json({name: value for name, value in result.items() if name != "outcomes"})
    else:
        _print_table(result)
    tell(notes)


def _check_options(options: argparse.Namespace) -> None:
    """Refuses options that are impossible or have no effect."""
    if options.watch:
        for name in ("output", "resamples", "figures", "calibrate", "without_heads"):
            if getattr(options, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} is for --model; --watch keeps its table in the run"
                    " directory"
                )
        if runs_exported(options):
            raise UserError(f"--engine {options.engine} is for --model; leave it out")
        options.interval = 10.0 if options.interval is None else options.interval
        return
    if runs_exported(options):
        for name in ("calibrate", "without_heads"):
            if getattr(options, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is of the inside of a model, which --engine"
                    f" {options.engine} does not show; name the model that was exported"
                )
    if options.calibrate and options.without_heads:
        raise UserError("--calibrate is of the whole model; leave --without-heads out")
    if options.interval is not None:
        raise UserError("--interval is for --watch; leave it out")
    if options.output:
        if not options.output.endswith(".json"):
            raise UserError(f"--output {options.output}: name a .json file")
        check_output(options.output, inputs=options.data)
    if options.figures:
        check_output(options.figures, folder=True, option="--figures")


def _score_labelled(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Returns the result, and what to print behind it."""
    model, task, length = load_task_model(options)
    from bertjax.inference.labelled import evaluate_read, read_labelled
    from bertjax.tasks.reading import describe_classes

    if options.figures and task.name != "classification":
        raise UserError(f"--figures: a model for {task.name} has no confusion matrix; leave it out")
    model, about = _remove_heads(options, model)
    config = read_data_config(options)
    labelled = read_labelled(model, options.data, config)
    tell([*labelled.notes, *describe_classes(task, {"examples": labelled.examples}, config)])
    resamples = RESAMPLES if options.resamples is None else options.resamples
    with stage_bars() as progress:
        fitted = {}
        if options.calibrate:
            fitted = {"calibration": _calibrate(model, labelled, length, progress)}
        result, notes = evaluate_read(model, labelled, resamples, length, progress)
    if fitted:
        notes.append(
            "the scores are of the model as it was, and the temperature is fitted to these"
            " examples: measure calibration on others"
        )
    tell(notes)
    return {"model": str(options.model), **about, **result, **fitted}, []


def _calibrate(
    model: "Model", labelled: "Labelled", length: int, progress: StageProgress
) -> dict[str, Any]:
    from bertjax.inference.calibration import calibrate_directory

    # The model answers before and after.
    step = Stages(1, progress).begin("calibrating", 2 * len(labelled.examples))
    return calibrate_directory(model, labelled, length, step)


def _score_texts(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Returns the result of a masked LM on raw texts, and what to print behind it."""
    refuse_label_options(options, "--labels", "a fine-tuned model")
    for name in ("figures", "resamples", "calibrate"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is for labelled files and fine-tuned models; leave it out")
    reading = choose_reading(options, options.model, options.format)
    texts = Texts(reading, files=options.data, pairs=True).read()
    from bertjax.analysis.heads.masked_scores import MASKED_LM, evaluate_texts

    model, about = _remove_heads(options, open_model(options))
    length = choose_length(options, model.config.max_length)
    with count_on("scoring", len(texts)) as progress:
        result, notes = evaluate_texts(model, texts, max_length=length, progress=progress)
    tell(notes)
    about |= {"data": list(options.data)}
    return {"model": str(options.model), **about, **result}, [
        f"{MASKED_LM}: 15 % of the tokens are masked, the same ones every time; the perplexity is"
        " that of a masked token, the unigram baseline knows how frequent each token is in these"
        " texts"
    ]


def _remove_heads(options: argparse.Namespace, model: "Model") -> tuple["Model", dict[str, Any]]:
    """Returns the model without the heads that are named, and what the result has of them."""
    if options.without_heads is None:
        return model, {}
    from bertjax.analysis.heads.pruning import (
        check_prunable,
        heads_by_layer,
        must_name_heads,
        remove_heads,
    )

    config = model.config
    check_prunable(config, f"--without-heads {options.without_heads}")
    removed = must_name_heads(options.without_heads, config, "--without-heads")
    heads = config.num_hidden_layers * config.num_attention_heads
    names = ", ".join(f"{layer}-{head}" for layer, head in removed.tolist())
    tell([f"without {len(removed)} of {heads} attention heads: {names}"])
    # A head without parameters is a head with its gate closed.
    return remove_heads(model, removed), {"removed_heads": heads_by_layer(removed)}


def _draw_confusion_matrix(folder: Path, result: dict[str, Any]) -> list[str]:
    """Draws it into the folder; returns a note for what could not be drawn."""
    from bertjax.pictures import draw_confusion_matrix

    folder.mkdir(parents=True, exist_ok=True)
    matrix, notes = result["scores"]["confusion_matrix"], []
    for kind in ("png", "svg"):
        path = folder / f"confusion_matrix.{kind}"
        path.unlink(missing_ok=True)  # lest an old picture be taken for this one
        missing = draw_confusion_matrix(path, matrix, result["labels"])
        notes += [*missing, *[f"confusion matrix  {path}"] * path.exists()]
    return notes


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    table = Table("score", "value", "95 % interval", title=counted(result["examples"], "example"))
    for name, value in result["scores"].items():
        if isinstance(value, float):
            interval = result["intervals"].get(name)
            shown = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            table.add_row(name, f"{value:.4f}", shown)
    out.print(table)
    if result["slices"]:
        slices = Table("slice", "examples", result["slice_score"], title="slices")
        for name, part in result["slices"].items():
            slices.add_row(name, f"{part['examples']:,}", f"{part['mean']:.4f}")
        out.print(slices)
    if "calibration" in result:
        print_fields({"calibration": result["calibration"]})
    matrix = result["scores"].get("confusion_matrix")
    if isinstance(matrix, list) and len(matrix) <= _MOST_SHOWN:
        out.print(_tabulate_confusions(matrix, result["labels"]))


def _tabulate_confusions(matrix: list[list[int]], labels: list[str]) -> Any:
    from rich.table import Table

    from bertjax.pictures import short_label

    names = [short_label(label) for label in labels]
    table = Table("true", *names, title="examples by true label (rows) and predicted label")
    for name, row in zip(names, matrix, strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    return table
