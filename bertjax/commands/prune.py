"""`bertjax prune`: a model without its least important heads."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.commands.task_model import add_model, load_task_model, read_data_config
from bertjax.errors import UserError
from bertjax.program.outputs import check_output, write_json

if TYPE_CHECKING:
    import numpy as np

    from bertjax.analysis.answers import WholeModel
    from bertjax.analysis.objective import Measured, Objective

SUMMARY = "the score of a model before and after its least important heads go, into a new directory"
REPORT_NAME = "pruning.json"
RANDOM_DRAWS = 5

MakeObjective = Callable[["WholeModel", list[str]], "Objective"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser)
    parser.add_argument(
        "--heads",
        metavar="SHARE",
        required=True,
        help="how many heads go: a share of all (40%%), or their number (58) (required)",
    )
    parser.add_argument(
        "--by",
        choices=["importance", "ablation", "random"],
        default="importance",
        help="which go first: those whose gates have the smallest derivatives of the loss (one"
        " pass), those whose removal costs least (a pass for each head), or any (default:"
        " %(default)s)",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        help="labelled files of the model's task, on which the heads are chosen",
    )
    source.add_argument(
        "--text",
        metavar="FILE",
        nargs="+",
        help="in place of --data: raw text, a text a line, for the masked-LM loss",
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
        help="the same number of heads leaves every layer, and the tensors shrink: faster and"
        " smaller, and only bertjax loads it (default: no: the heads are filled with zeros, which"
        " loads everywhere and saves no time)",
    )
    parser.add_argument(
        "--normalize-layers",
        action="store_true",
        help="of --by importance: compare heads after each layer's are scaled to length 1 (default:"
        " no)",
    )
    parser.add_argument(
        "--max-examples",
        metavar="E",
        type=int,
        help="at most so many texts or examples of each kind of file (default: all)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of masks and random heads (default: %(default)s)"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Chooses, measures, writes and prints."""
    output = Path(options.output)
    if output.resolve() == Path(options.model).resolve():
        raise UserError(f"--output {output}: is the model itself; name another directory")
    check_output(options.output, folder=True)
    if output.is_dir() and any(output.iterdir()) and not (output / REPORT_NAME).exists():
        raise UserError(
            f"--output {output}: holds files, and no {REPORT_NAME} of an earlier run that may be"
            " replaced; name another directory"
        )
    if options.max_examples is not None and options.max_examples < 1:
        raise UserError(f"--max-examples {options.max_examples} must be at least 1")
    whole, make_objective = _open_texts(options) if options.text else _open_task(options)
    from bertjax.analysis.importance import gates_without
    from bertjax.analysis.pruning import (
        blank_heads,
        choose_heads,
        drop_heads,
        heads_by_layer,
        read_heads,
    )
    from bertjax.interop.huggingface import save_model_directory

    number = read_heads(options.heads, whole.config, per_layer=options.shrink)
    chosen_on = options.text or options.data
    objective = make_objective(whole, chosen_on)
    importance, about_importance = _rank(options, objective, whole.params)
    removed = choose_heads(importance, number, per_layer=options.shrink)
    tested = objective if not options.test else make_objective(whole, options.test)
    before = tested.measure(whole.params)
    if options.shrink:
        config, params = drop_heads(whole.config, whole.params, removed)
        smaller = whole._replace(model=type(whole.model)(config), params=params)
        after = make_objective(smaller, options.test or chosen_on).measure(params)
    else:
        config, params = whole.config, blank_heads(whole.params, removed)
        after = tested.measure(params)
    draws = []
    with count_on("removing random heads", RANDOM_DRAWS) as progress:
        for seed in range(RANDOM_DRAWS):
            order = _random_importance(importance.shape, options.seed + 1 + seed)
            others = choose_heads(order, number, per_layer=options.shrink)
            gates = gates_without(importance.shape, others)
            draws.append(tested.measure(whole.params, gates))
            progress(1)
    result = {
        "model": str(options.model),
        "by": options.by,
        "heads": importance.size,
        "removed": number,
        "removed_heads": heads_by_layer(removed),
        "shrunk": options.shrink,
        "chosen_on": chosen_on,
        "measured_on": options.test or chosen_on,
        "examples": tested.examples,
        "score": tested.score_name,
        "loss": tested.loss_name,
        "before": describe_measured(before, tested.units),
        "after": describe_measured(after, tested.units),
        "random_heads": [describe_measured(draw, tested.units) for draw in draws],
        "importance": about_importance,
    }
    save_model_directory(output, config, params, options.model, whole.architecture)
    write_json(output / REPORT_NAME, result)
    if options.json:
        print_json(result)
    else:
        _print_table(result)
    print(_tell(options, output), file=sys.stderr)


def _open_texts(options: argparse.Namespace) -> tuple["WholeModel", MakeObjective]:
    from bertjax.analysis.answers import load_whole_model
    from bertjax.analysis.encoding import encode_texts
    from bertjax.analysis.objective import masked_language_objective
    from bertjax.text.readers import ReaderConfig, list_sources, read_documents

    whole = load_whole_model(options.model)
    for note in whole.notes:
        print(note, file=sys.stderr)
    most = whole.config.max_position_embeddings
    length = most if options.max_length is None else options.max_length
    if not 8 <= length <= most:
        raise UserError(
            f"--max-length {length} must lie between 8 and the model's {most} positions"
        )

    def make(whole: "WholeModel", files: list[str]) -> "Objective":
        column = {"text_column": options.text_column} if options.text_column else {}
        config = ReaderConfig(files, encoding=options.encoding, errors=options.errors, **column)
        texts = [
            line
            for source in list_sources(config)
            for document in read_documents(source, config)
            for line in document.text.split("\n")
            if line.strip()
        ]
        encoded = encode_texts(
            whole.tokenizer, texts[: options.max_examples], length, too_long="windows"
        )
        return masked_language_objective(whole, encoded, options.seed)

    return whole, make


def _open_task(options: argparse.Namespace) -> tuple["WholeModel", MakeObjective]:
    model = load_task_model(options)
    from bertjax.analysis.answers import WholeModel
    from bertjax.analysis.objective import task_objective
    from bertjax.tasks.reading import read_task_examples
    from bertjax.tasks.scoring import check_known_labels

    whole = WholeModel(model.inference.model, model.variables["params"], model.tokenizer)

    def make(whole: "WholeModel", files: list[str]) -> "Objective":
        examples, notes = read_task_examples(
            model.task.name, files, read_data_config(options), with_labels=True
        )
        for note in notes:
            print(note, file=sys.stderr)
        check_known_labels(model.task, examples)
        return task_objective(whole, model.task, examples[: options.max_examples], model.max_length)

    return whole, make


def _rank(
    options: argparse.Namespace, objective: "Objective", params: Any
) -> tuple["np.ndarray[Any, Any]", dict[str, Any]]:
    """The importance of each head, and what the report says of it."""
    from bertjax.analysis.importance import ablation_importance, gradient_importance

    shape = objective.open_gates.shape
    if options.by == "random":
        return _random_importance(shape, options.seed), {}
    if options.by == "importance":
        with count_on("differentiating", objective.examples) as progress:
            found = gradient_importance(
                objective, params, normalize_layers=options.normalize_layers, progress=progress
            )
        more = {}
    else:
        with count_on("removing each head", shape[0] * shape[1]) as progress:
            found, changes = ablation_importance(objective, params, progress=progress)
        more = {"score_changes": changes.tolist()}
    interval = found.interval(options.seed)
    parts = {name: part.tolist() for name, part in interval._asdict().items()}
    return found.heads, {**parts, **more}


def _random_importance(shape: tuple[int, ...], seed: int) -> "np.ndarray[Any, Any]":
    import numpy as np

    return np.random.default_rng(seed).random(shape)


def describe_measured(measured: "Measured", units: "np.ndarray[Any, Any]") -> dict[str, Any]:
    """Score and loss, the loss with its interval over `units`, for the report."""
    from bertjax.analysis.company import bootstrap_ratio
    from bertjax.analysis.drawn_units import sum_by_unit

    sums, counts = (sum_by_unit(part, units) for part in (measured.sums, measured.counts))
    interval = bootstrap_ratio(sums, counts)
    return {
        "score": measured.score,
        "loss": measured.loss,
        # Of one unit there is none.
        "loss_interval": None if len(sums) < 2 else [*map(float, interval[1:])],
    }


def _print_table(result: dict[str, Any]) -> None:
    from rich.table import Table

    title = f"{result['removed']} of {result['heads']} heads, {result['examples']:,} examples"
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


def _tell(options: argparse.Namespace, output: Path) -> str:
    if options.shrink:
        kind = "with fewer heads in every layer, smaller and faster; only bertjax loads it"
    else:
        kind = (
            "with zeros in place of these heads; it loads everywhere, and is as large and as slow"
            " as before (--shrink makes it smaller)"
        )
    told = f"{output}: a model {kind}; {output / REPORT_NAME} has the figures"
    if not options.test:
        told += "\nthe scores are on what the heads were chosen on; --test takes other files"
    return told
