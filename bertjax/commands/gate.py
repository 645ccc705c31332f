"""`bertjax gate`: whether a new model may take the place of an old one, for a release pipeline."""

import argparse
import copy
import sys
from typing import TYPE_CHECKING

from bertjax.commands.arguments import choose_length, seed_number, whole_number
from bertjax.commands.model_options import OF_JAX, add_engine, open_model
from bertjax.commands.screen import add_json, console, print_json, stage_bars, tell
from bertjax.commands.task_model import add_task_model, load_task_model, read_data_config
from bertjax.gating.terms import LEAST_RESAMPLES, RESAMPLES, SPEED_TEXTS, UNITS
from bertjax.interop.hub import find_model
from bertjax.interop.signature import ONNX_NAME
from bertjax.kernels.backends import JAX, ONNXRUNTIME
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output
from bertjax.program.wording import counted

if TYPE_CHECKING:
    from bertjax.gating.verdict import Verdict

SUMMARY = "whether a new model may replace an old one, by requirements on both"
DESCRIPTION = (
    "Measures a new model beside an old one on labelled files that neither was fitted on: scores"
    " with intervals, calibration, slices, robustness to changed texts, size and speed. Each"
    " --require compares quantities of the new model with numbers or with those of the old one:"
    " 'macro_f1 >= old - 0.01', 'p95_ms <= 1.2 * old', 'brier < old.brier + 0.02'. It is met where"
    " it holds with 95 % confidence, by the paired bootstrap (one-sided), not where it happens to"
    " hold on these examples; so a model that is worse than required by however little passes one"
    " time in 20 at most, and equal models need a margin. Exit code 0: all are met; 1: the ones"
    " that are not are named; 2: a mistake in what was asked."
)
EPILOG = (
    "Quantities: the scores of `bertjax evaluate` (of question answering in percent); "
    + "; ".join(f"{name}, {meaning} ({unit})" for name, (unit, meaning) in UNITS.items())
    + ". old is the same quantity of the old model, old.NAME another one."
)

# The exit code where a requirement is not met.
UNMET_EXIT_CODE = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.epilog = EPILOG
    add_task_model(parser)
    add_engine(parser, what="the new model")
    parser.add_argument(
        "--against",
        metavar="DIR",
        required=True,
        help="the old model: a directory or a name on the hub, for the same task and labels"
        " (required)",
    )
    add_engine(parser, "--against-engine", "the old model")
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        required=True,
        help="labelled files that neither model was fitted on (required)",
    )
    parser.add_argument(
        "--require",
        metavar="REQUIREMENT",
        action="append",
        default=[],
        help="what has to hold, in quotation marks; may be given several times (default: nothing,"
        " and all is measured)",
    )
    parser.add_argument(
        "--slice",
        metavar="COLUMN",
        dest="slices",
        action="append",
        default=[],
        help="a column of the files, each of whose values is a slice, beside those by length and"
        " label; may be given several times (default: none)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        help="a folder for report.html, numbers.json and the figures (default: none)",
    )
    parser.add_argument(
        "--resamples",
        metavar="R",
        type=whole_number(LEAST_RESAMPLES),
        default=RESAMPLES,
        help="of the bootstrap (default: %(default)s)",
    )
    parser.add_argument(
        "--speed-texts",
        metavar="N",
        type=whole_number(0),
        default=SPEED_TEXTS,
        help="of how many texts to measure the time, the models in turns; 0 = none"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help="of changes to texts, and of resamples (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Measures, judges and prints; returns the exit code."""
    if options.output:
        check_output(options.output, folder=True)
    config = read_data_config(options)
    new, _, length = load_task_model(_of_side(options, options.engine))
    found = _find(options.against, options.against_engine)
    old = open_model(_of_side(options, options.against_engine, model=found))
    from bertjax.gating.gate import gate
    from bertjax.inference.labelled import read_labelled

    labelled = read_labelled(new, options.data, config)
    tell(labelled.notes)
    given = None if options.max_length is None else length
    if given is not None:
        choose_length(options, old.config.max_length)
    with stage_bars() as progress:
        verdict = gate(
            new,
            old,
            labelled,
            options.require,
            columns=options.slices,
            resamples=options.resamples,
            speed_texts=options.speed_texts,
            max_length=given,
            seed=options.seed,
            progress=progress,
        )
    tell(verdict.notes)
    if options.output:
        from bertjax.gating.page import write_page

        page = write_page(verdict, labelled.task, options.output)[0]
        tell([f"page  {page}"])
    if options.json:
        print_json(verdict.to_json())
    else:
        _print(verdict)
    for one in verdict.unmet:
        print(f"not met: {one.describe()}", file=sys.stderr)
    return UNMET_EXIT_CODE if verdict.unmet else 0


def _of_side(options: argparse.Namespace, engine: str, **of_old: str) -> argparse.Namespace:
    """Returns the options of one of the models; those of how jax computes are of what it runs."""
    runs_one = options.engine != options.against_engine
    without = OF_JAX if runs_one and engine != JAX else {}
    side = copy.copy(options)
    vars(side).update({**without, "engine": engine, **of_old})
    return side


def _find(name: str, engine: str) -> str:
    from bertjax.interop.checkpoint_files import has_weights

    try:
        folder = find_model(name)
    except UserError as error:
        raise UserError(f"--against {error}") from None
    if engine == JAX and (folder / ONNX_NAME).is_file() and not has_weights(folder):
        raise UserError(
            f"--against {folder}: was exported; pass --against-engine {ONNXRUNTIME}, or name the"
            " model that was exported"
        )
    return str(folder)


def _print(verdict: "Verdict") -> None:
    from rich.table import Table

    from bertjax.gating.verdict import QUANTITY_COLUMNS, REQUIREMENT_COLUMNS, show_ends

    out = console()
    table = Table(title=counted(verdict.about["examples"], "example"))
    for number, title in enumerate(QUANTITY_COLUMNS):
        table.add_column(title, no_wrap=number == 0)
    for row in verdict.tabulate_quantities():
        table.add_row(*row)
    out.print(table)
    compared = verdict.comparison
    slices = Table("slice", "examples", "new", "old", "difference", title=compared.score)
    for name, part in verdict.slices.items():
        ends = show_ends(part["interval"], sign="+")
        shown = f"{part['difference']:+.4f}" + (f" ({ends})" if ends else "")
        slices.add_row(
            name, f"{part['examples']:,}", f"{part['new']:.4f}", f"{part['old']:.4f}", shown
        )
    out.print(slices)
    out.print(
        f"{compared.score}: new {compared.B:.4f}, old {compared.A:.4f}, difference"
        f" {compared.difference:+.4f} ({show_ends(compared.interval, sign='+')}),"
        f" p = {compared.p_value:.3g} ({compared.test}): {compared.verdict}"
    )
    if verdict.decisions:
        required = Table(*REQUIREMENT_COLUMNS)
        for row in verdict.tabulate_requirements():
            required.add_row(*row)
        out.print(required)
