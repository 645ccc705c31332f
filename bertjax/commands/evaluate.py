"""`bertjax evaluate`: the scores of a model: on labelled files, or of a masked LM on raw texts."""

import argparse
import collections
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import Number, choose_length, whole_number
from bertjax.commands.model_options import open_model
from bertjax.commands.screen import Stages, add_json, console, count_on, print_json, tell
from bertjax.commands.task_model import (
    add_task_model,
    load_task_model,
    read_data_config,
    refuse_label_options,
)
from bertjax.commands.texts import Texts, choose_reading, tell_readings
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output, write_json
from bertjax.program.wording import counted

if TYPE_CHECKING:
    from bertjax.loaded import Model

SUMMARY = "the scores of a model on labelled files, of a masked LM on raw texts, with intervals"

RESAMPLES = 300
MASKED_LM = "masked-lm"
# Classes of which the confusion matrix fits a screen.
_MOST_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_task_model(parser, required=False)
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        required=True,
        help="labelled files; of a masked LM raw texts, as of `bertjax analyze --input`, of which"
        " 15 %% of the tokens are masked, the same ones every time; for --watch of a pretraining"
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
        help="between two looks at the run that --watch names (default: 10)",
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
        type=whole_number(0),
        help="of labelled files: bootstrap resamples for the intervals; 0 = no intervals (default:"
        f" {RESAMPLES})",
    )
    parser.add_argument(
        "--figures",
        metavar="DIR",
        help="of a model with classes: where to draw the confusion matrix, counts and shares of"
        " each true class, as confusion_matrix.png and .svg (default: nowhere)",
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
    from bertjax.interop.huggingface import inspect_model_directory

    restores_words = "mlm_head" in inspect_model_directory(options.model).parts
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
    """Refuses what cannot be, and what would be said in vain."""
    if options.watch:
        for name in ("output", "resamples", "figures", "without_heads"):
            if getattr(options, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} is for --model; --watch keeps its table in the run"
                    " directory"
                )
        options.interval = 10.0 if options.interval is None else options.interval
        return
    if options.interval is not None:
        raise UserError("--interval is for --watch; leave it out")
    if options.output:
        if not options.output.endswith(".json"):
            raise UserError(f"--output {options.output}: name a .json file")
        check_output(options.output, inputs=options.data)
    if options.figures:
        check_output(options.figures, folder=True, option="--figures")


def _score_labelled(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The result, and what there is to tell behind it."""
    model = load_task_model(options)
    from bertjax.inference.task_outputs import predict_examples
    from bertjax.tasks.reading import describe_classes, read_task_examples
    from bertjax.tasks.scoring import check_known_labels, evaluate_predictions

    if options.figures and model.task.name != "classification":
        raise UserError(
            f"--figures: a model for {model.task.name} has no confusion matrix; leave it out"
        )
    params, about = _remove_heads(options, model.model)
    config = read_data_config(options)
    examples, notes = read_task_examples(model.task.name, options.data, config, with_labels=True)
    check_known_labels(model.task, examples)
    resamples = RESAMPLES if options.resamples is None else options.resamples
    stages = Stages(1 + bool(resamples))
    with stages.count_on("predicting", len(examples)) as progress:
        predicted = predict_examples(
            model.inference,
            {"params": params},
            model.task,
            examples,
            model.model.tokenizer,
            model.max_length,
            progress,
        )
    classes = describe_classes(model.task, {"examples": examples}, config)
    tell([*notes, *classes, *predicted.notes])
    with stages.count_on("resampling", resamples) as progress:
        evaluation = evaluate_predictions(model.task, examples, predicted, resamples, progress)
    labels = model.task.model_fields().get("id2label")
    return {
        "model": str(options.model),
        "data": list(options.data),
        "task": model.task.name,
        **({"labels": list(labels)} if labels else {}),
        **about,
        **evaluation,
    }, []


def _score_texts(options: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """The result of a masked LM on raw texts, and what there is to tell behind it."""
    refuse_label_options(options, "--labels", "a fine-tuned model")
    for name in ("figures", "resamples"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name} is for labelled files and fine-tuned models; leave it out")
    reading = choose_reading(options, options.model, options.format)
    given = Texts(reading, files=options.data, pairs=True).read()
    from bertjax.analysis.capture.encoding import encode_stream
    from bertjax.analysis.heads.masked_scores import score_masked_texts

    whole = open_model(options)
    params, about = _remove_heads(options, whole)
    length = choose_length(options, whole.config.max_position_embeddings)
    tell_readings(whole.tokenizer, given)
    texts = list(encode_stream(whole.tokenizer, given, length, too_long="windows"))
    windows = collections.Counter(text.source for text in texts)
    if cut := [number for number in windows.values() if number > 1]:
        print(
            f"{len(cut):,} of {counted(len(given), 'text')} are longer than {length} tokens and"
            f" were cut between words into {sum(cut):,} windows, each scored by itself",
            file=sys.stderr,
        )
    with count_on("scoring", len(texts)) as progress:
        found = score_masked_texts(whole.replace(params=params), texts, progress=progress)
    return {
        "model": str(options.model),
        "data": list(options.data),
        "task": MASKED_LM,
        **about,
        **found.evaluation(),
    }, [
        f"{MASKED_LM}: 15 % of the tokens are masked, the same ones every time; the perplexity is"
        " that of a masked token, the unigram baseline knows how frequent each token is in these"
        " texts"
    ]


def _remove_heads(options: argparse.Namespace, model: "Model") -> tuple[Any, dict[str, Any]]:
    """The parameters without the heads that are named, and what the result says of them."""
    if options.without_heads is None:
        return model.params, {}
    from bertjax.analysis.heads.pruning import blank_heads, heads_by_layer, name_heads

    removed = name_heads(options.without_heads, model.config, "--without-heads")
    if removed is None:
        raise UserError(
            f"--without-heads {options.without_heads}: name heads as layer-head with commas between"
            " them, for instance 1-3,2-5"
        )
    config = model.config
    heads = config.num_hidden_layers * config.num_attention_heads
    names = ", ".join(f"{layer}-{head}" for layer, head in removed.tolist())
    print(f"without {len(removed)} of {heads} attention heads: {names}", file=sys.stderr)
    # A head without parameters is a head with its gate closed.
    return blank_heads(model.params, removed), {"removed_heads": heads_by_layer(removed)}


def _draw_confusion_matrix(folder: Path, result: dict[str, Any]) -> list[str]:
    """Draws it into the folder; returns a note for what could not be drawn."""
    from bertjax.pictures import draw_confusion_matrix

    folder.mkdir(parents=True, exist_ok=True)
    matrix, notes = result["scores"]["confusion_matrix"], []
    for kind in ("png", "svg"):
        path = folder / f"confusion_matrix.{kind}"
        path.unlink(missing_ok=True)  # lest an old picture be taken for this one
        told = draw_confusion_matrix(path, matrix, result["labels"])
        notes += [*told, *[f"confusion matrix  {path}"] * path.exists()]
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
