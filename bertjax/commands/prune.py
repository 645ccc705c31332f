"""`bertjax prune`: a model without its least important heads, or without those that are named."""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import choose_length, seed_number, whole_number
from bertjax.commands.model_options import open_model
from bertjax.commands.screen import Stages, add_json, console, print_json, tell
from bertjax.commands.task_model import (
    add_task_model,
    load_task_model,
    read_data_config,
    refuse_label_options,
)
from bertjax.commands.texts import (
    Texts,
    add_arguments_and_files,
    choose_reading,
    tell_readings,
)
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output, write_json
from bertjax.program.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from bertjax.analysis.heads.objective import Measured, Objective
    from bertjax.config import BertConfig
    from bertjax.loaded import Model

SUMMARY = "the score of a model before and after its least important heads go, into a new directory"
REPORT_NAME = "pruning.json"
RANDOM_DRAWS = 5

# The model -> what it is measured by, on the examples of --test or on the others.
MakeObjective = Callable[..., "Objective"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_task_model(parser, dtype="float32")
    parser.add_argument(
        "--heads",
        metavar="HEADS",
        required=True,
        help="how many heads go: a share of all (40%%), or their number (58); or which, by the"
        " names that reports print, layer-head with commas between them: 1-3,2-5 (required)",
    )
    parser.add_argument(
        "--by",
        choices=["importance", "ablation", "random"],
        help="which go first, where --heads names none: those whose gates have the smallest"
        " derivatives of the loss (one pass), those whose removal costs least (a pass for each"
        " head), or any (default: importance)",
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
        type=whole_number(1),
        help="at most so many texts or examples of each kind of file (default: all)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help="of masks and random heads (default: %(default)s)",
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
    given = [bool(options.data), bool(options.input), bool(options.texts)]
    if sum(given) != 1:
        raise UserError(
            "give one of --data (labelled files), --input (files of texts) and TEXT: what heads are"
            " chosen on and the model is scored on"
        )
    whole, make_objective = _open_task(options) if options.data else _open_texts(options)
    from bertjax.analysis.heads.importance import gates_without
    from bertjax.analysis.heads.pruning import blank_heads, choose_heads, drop_heads, heads_by_layer
    from bertjax.interop.huggingface import save_model_directory
    from bertjax.tasks import data_format

    named, number = _read_wanted(options, whole.config)
    own = options.data or options.input or ["the command line"]
    objective = make_objective(whole, test=False)
    stages = Stages(1 if named is not None or options.by == "random" else 2)
    if named is None:
        importance, about_importance = _rank(options, objective, whole.params, stages)
        removed = choose_heads(importance, number, per_layer=options.shrink)
    else:
        removed, about_importance = named, None
    tested = make_objective(whole, test=True) if options.test else objective
    before = tested.measure(whole.params)
    if options.shrink:
        config, params = drop_heads(whole.config, whole.params, removed)
        smaller = whole.replace(config=config, params=params)
        after = make_objective(smaller, test=bool(options.test)).measure(params)
    else:
        config, params = whole.config, blank_heads(whole.params, removed)
        after = tested.measure(params)
    shape, draws = tested.open_gates.shape, []
    with stages.count_on("removing random heads", RANDOM_DRAWS) as progress:
        for seed in range(RANDOM_DRAWS):
            order = _random_importance(shape, options.seed + 1 + seed)
            others = choose_heads(order, number, per_layer=options.shrink)
            draws.append(tested.measure(whole.params, gates_without(shape, others)))
            progress(1)
    result = {
        "model": str(options.model),
        "by": (options.by or "importance") if named is None else "name",
        "heads": tested.open_gates.size,
        "removed": number,
        "removed_heads": heads_by_layer(removed),
        "shrunk": options.shrink,
        "chosen_on": own if named is None else None,
        "measured_on": options.test or own,
        "examples": tested.examples,
        "score": tested.score_name,
        "loss": tested.loss_name,
        "before": describe_measured(before, tested.units),
        "after": describe_measured(after, tested.units),
        "random_heads": [describe_measured(draw, tested.units) for draw in draws],
        "importance": about_importance,
    }
    save_model_directory(output, config, params, options.model, whole.architecture)
    if remembered := data_format.recall(options.model):
        data_format.write_fields(output, remembered)
    write_json(output / REPORT_NAME, result)
    if options.json:
        print_json(result)
    else:
        _print_table(result)
    print(_tell(options, output, chosen=named is None), file=sys.stderr)


def _read_wanted(
    options: argparse.Namespace, config: "BertConfig"
) -> "tuple[np.ndarray[Any, Any] | None, int]":
    """The heads that `--heads` names, or None, and how many go."""
    from bertjax.analysis.heads.pruning import check_shrinkable, name_heads, read_heads

    if options.normalize_layers and options.by not in (None, "importance"):
        raise UserError("--normalize-layers is of --by importance; leave it out")
    named = name_heads(options.heads, config, "--heads")
    if named is None:
        return None, read_heads(options.heads, config, per_layer=options.shrink)
    for name in ("by", "normalize_layers", "test"):
        if getattr(options, name):
            raise UserError(
                f"--{name.replace('_', '-')} is for heads that are chosen, and --heads"
                f" {options.heads} names them; leave it out"
                + " (the model is scored on --data or the texts)"
                * (name == "test")
            )
    if options.shrink:
        check_shrinkable(named, config, options.heads)
    return named, len(named)


def _open_texts(options: argparse.Namespace) -> tuple["Model", MakeObjective]:
    refuse_label_options(options, "--labels", "--data")
    reading = choose_reading(options, options.model, options.format)
    own = Texts(reading, options.texts, options.input, pairs=True).read()
    tested = own
    if options.test:
        tested = Texts(reading, files=options.test, pairs=True).read()
    from bertjax.analysis.capture.encoding import encode_stream
    from bertjax.analysis.heads.objective import masked_language_objective

    whole = open_model(options)
    length = choose_length(options, whole.config.max_position_embeddings)
    tell_readings(whole.tokenizer, own if tested is own else [*own, *tested])

    def make(whole: "Model", test: bool) -> "Objective":
        texts = (tested if test else own)[: options.max_examples]
        encoded = encode_stream(whole.tokenizer, texts, length, too_long="windows")
        return masked_language_objective(whole, list(encoded), options.seed)

    return whole, make


def _open_task(options: argparse.Namespace) -> tuple["Model", MakeObjective]:
    model = load_task_model(options)
    from bertjax.analysis.heads.objective import task_objective
    from bertjax.tasks.reading import read_task_examples
    from bertjax.tasks.scoring import check_known_labels

    def make(whole: "Model", test: bool) -> "Objective":
        examples, notes = read_task_examples(
            model.task.name,
            options.test if test else options.data,
            read_data_config(options),
            with_labels=True,
        )
        tell(notes)
        check_known_labels(model.task, examples)
        return task_objective(whole, model.task, examples[: options.max_examples], model.max_length)

    return model.model, make


def _rank(
    options: argparse.Namespace, objective: "Objective", params: Any, stages: Stages
) -> tuple["np.ndarray[Any, Any]", dict[str, Any]]:
    """The importance of each head, and what the report says of it."""
    from bertjax.analysis.heads.importance import ablation_importance, gradient_importance

    shape = objective.open_gates.shape
    by = options.by or "importance"
    if by == "random":
        return _random_importance(shape, options.seed), {}
    if by == "importance":
        with stages.count_on("differentiating", objective.examples) as progress:
            found = gradient_importance(
                objective, params, normalize_layers=options.normalize_layers, progress=progress
            )
        more = {}
    else:
        with stages.count_on("removing each head", shape[0] * shape[1]) as progress:
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
    from bertjax.statistics.drawn_units import sum_by_unit
    from bertjax.statistics.intervals import bootstrap_ratio

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


def _tell(options: argparse.Namespace, output: Path, chosen: bool) -> str:
    if options.shrink:
        kind = "with fewer heads in every layer, smaller and faster; only bertjax loads it"
    else:
        kind = (
            "with zeros in place of these heads; it loads everywhere, and is as large and as slow"
            " as before (--shrink makes it smaller)"
        )
    told = f"{output}: a model {kind}; {output / REPORT_NAME} has the figures"
    if chosen and not options.test:
        told += "\nthe scores are on what the heads were chosen on; --test takes other files"
    return told
