"""`bertjax analyze`: takes a model apart, and writes one report to explore."""

import argparse
from typing import TYPE_CHECKING

from bertjax.commands.arguments import choose_length, seed_number, whole_number
from bertjax.commands.model_options import add_model, open_model
from bertjax.commands.screen import add_json, console, print_json, stage_bars, tell
from bertjax.commands.task_model import (
    add_data_options,
    read_data_config,
    refuse_label_options,
)
from bertjax.commands.text_options import add_arguments_and_files, choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.outputs import check_output

if TYPE_CHECKING:
    from bertjax.analysis.report.analyze import Report

SUMMARY = "what a model's heads and layers do, as a report to explore"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, studies=True)
    add_arguments_and_files(parser, "a text", "--text", pairs=True)
    parser.add_argument(
        "--treebank",
        metavar="FILE",
        nargs="+",
        default=[],
        help="CoNLL-U files: adds heads that follow dependencies, and probes (default: none)",
    )
    parser.add_argument(
        "--labels",
        dest="labelled",
        metavar="FILE",
        nargs="+",
        default=[],
        help="labelled files of a fine-tuned model's task: which heads matter for it (default:"
        " none; a model with a masked-LM head is measured on the texts). The options of"
        " evaluate name their columns, --label-names the names of their tags",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        required=True,
        help="folder of report.html and its figures (required)",
    )
    parser.add_argument(
        "--limit",
        metavar="TEXTS",
        type=whole_number(0),
        default=200,
        help="measure on the first texts only; 0 = all (default: %(default)s)",
    )
    parser.add_argument(
        "--shown",
        metavar="TEXTS",
        type=whole_number(1),
        default=12,
        help="texts whose attention the report shows, or as many as the page has room for"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=whole_number(3),
        help="longest text in tokens; longer ones are cut into windows (default: the model's"
        " max_position_embeddings)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help="seed of the random control (default: %(default)s)",
    )
    add_data_options(parser, "--label-names")
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Measures section by section, then writes the report."""
    from bertjax.program.libraries import require_libraries

    require_libraries("bertjax analyze")
    from bertjax.analysis.report.analyze import plan_analysis, write_analysis

    check_output(options.output, folder=True)
    if not options.labelled:
        refuse_label_options(options, "--label-names", "--labels")
    reading = choose_reading(options, options.model, None if options.labelled else options.format)
    texts = Texts(
        reading, options.texts, options.input, pairs=True, other_tables=bool(options.labelled)
    )
    model = open_model(options)
    length = choose_length(options, model.config.max_length, least=3)
    plan = plan_analysis(
        model,
        texts.stream(),
        treebank=options.treebank,
        labelled=options.labelled or None,
        reading=read_data_config(options) if options.labelled else reading,
        limit=options.limit,
        shown=options.shown,
        max_length=length,
        seed=options.seed,
        name=str(options.model),
    )
    tell(plan.notes)
    with stage_bars() as progress:
        report = write_analysis(plan, options.output, progress)
    tell(report.notes[len(plan.notes) :])
    if options.json:
        print_json(report.numbers)
    else:
        _print(report)


def _print(report: "Report") -> None:
    out, numbers = console(), report.files[1]
    out.print(f"report     {report.page} ({report.page.stat().st_size / 1e6:.1f} MB)")
    out.print(f"numbers    {numbers}")
    out.print(f"figures    {len(report.files) - 2} files in {report.page.parent / 'figures'}")
