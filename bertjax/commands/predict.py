"""`bertjax predict`: what a fine-tuned model predicts for texts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.commands.model_options import add_engine
from bertjax.commands.screen import count_on, tell
from bertjax.commands.task_model import add_task_model, load_task_model, read_data_config
from bertjax.commands.text_options import add_arguments_and_files, choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.errors import UserError
from bertjax.program.outputs import check_output
from bertjax.program.strict_json import to_json

if TYPE_CHECKING:
    from bertjax.tasks.task import Task

SUMMARY = "what a fine-tuned model predicts for texts: labels, numbers, tags, answers, choices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_task_model(parser, labels=False)
    add_engine(parser)
    add_arguments_and_files(
        parser,
        "a text (for question answering: question and context; for multiple choice: a context and"
        " its choices, separated by tabs)",
        pairs=True,
        kinds="files in any format that `bertjax finetune` reads, labels not needed, or .txt files"
        " (one text per line{pairs}; of a tagger they are columns, as there)",
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        default="-",
        help="a .jsonl file with an object per line, or a table: .csv, .tsv or .parquet; a folder"
        " for the formats of the field (predictions.*); - for an object per line on standard"
        " output. Every row has all columns of its input, too (default: -)",
    )


def run(options: argparse.Namespace) -> None:
    """Predicts and writes."""
    output = Path(options.output)
    from bertjax.tasks.prediction_tables import SUFFIXES, join_rows, write_rows

    if options.output != "-" and output.suffix and output.suffix not in SUFFIXES:
        raise UserError(
            f"--output {output}: what kind of file is this? Name one that ends in"
            f" {', '.join(SUFFIXES)}, or a folder for the formats of the field"
        )
    if options.output != "-":
        check_output(options.output, folder=not output.suffix, inputs=options.input)
    model = load_task_model(options)
    _check_scheme(options.scheme, model.task)
    from bertjax.inference.labelled import predict_read
    from bertjax.tasks.reading import read_task_examples
    from bertjax.tasks.results import write_predictions

    if _are_lines(options, model.task.name):
        if options.token_column is not None:
            raise UserError(
                "--token-column applies to files of tagged sentences, and texts are read here;"
                " leave it out"
            )
        reading = choose_reading(options, options.model, options.format)
        given = Texts(reading, options.texts, options.input, pairs=True)
        lines = list(given.lines())
        if not lines:
            raise given.no_text()
        given.tell_passed_over()
        texts, places = [line.cells[0] for line in lines], [line.place for line in lines]
        examples = model.task.examples_of_lines(texts, places)
    elif options.texts:
        raise UserError("give texts as arguments, or files with --input, not both")
    else:
        examples, notes = read_task_examples(
            model.task.name, options.input, read_data_config(options), with_labels=False
        )
        tell(notes)
    with count_on("predicting", len(examples)) as progress:
        predicted = predict_read(model.model, model.task, examples, model.max_length, progress)
    rows, notes = join_rows(examples, predicted.predictions)
    if options.output == "-":
        for row in rows:
            print(to_json(row))
    elif output.suffix:
        notes += write_rows(output, rows)
    else:
        write_predictions(output, model.task, examples, predicted.predictions)
    tell([*predicted.notes, *notes])


def _check_scheme(scheme: str | None, task: "Task") -> None:
    """Refuses a scheme without effect: no tags are read here, only the model has them."""
    from bertjax.tasks.tagging import Tagging

    if scheme is None:
        return
    if not isinstance(task, Tagging):
        raise UserError(
            f"--scheme {scheme}: applies to models that tag tokens, and this model's task is"
            f" {task.name}; leave it out"
        )
    task.check_scheme("--scheme")


def _are_lines(options: argparse.Namespace, task: str) -> bool:
    """Returns whether the input has one text a line, rather than records."""
    files = options.input
    if files in ([], ["-"]):
        return True
    # A format of its own has that ending, or what is said of the files goes before it.
    has_own = task in ("tokens", "question-answering") or options.format is not None
    return not has_own and all(name.lower().removesuffix(".gz").endswith(".txt") for name in files)
