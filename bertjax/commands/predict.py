"""`bertjax predict`: what a fine-tuned model says of texts."""

import argparse
import sys
from pathlib import Path

from bertjax.commands.screen import count_on, read_lines
from bertjax.commands.task_model import add_model, load_task_model, read_data_config
from bertjax.errors import UserError
from bertjax.program.outputs import check_output, write_whole
from bertjax.strict_json import to_json

SUMMARY = "what a fine-tuned model says of texts: labels, numbers, tags, answers, choices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser)
    parser.add_argument(
        "--input",
        metavar="FILE",
        nargs="+",
        default=["-"],
        help="files in any format that train.finetune reads, labels not needed; - reads standard"
        " input, a text a line, the two of a pair parted by a tab; it passes over empty"
        " lines and says how many on stderr (default: -)",
    )
    parser.add_argument(
        "--output",
        metavar="PATH",
        default="-",
        help="a .jsonl file with an object a line; a folder for the formats of the field"
        " (predictions.*); - for an object a line on standard output (default: -)",
    )


def run(options: argparse.Namespace) -> None:
    """Predicts and writes."""
    output = Path(options.output)
    if options.output != "-" and output.suffix and output.suffix != ".jsonl":
        raise UserError(
            f"--output {output}: what kind of file is this? Name a .jsonl file, or a folder for the"
            " formats of the field"
        )
    if options.output != "-":
        check_output(options.output, folder=not output.suffix)
    model = load_task_model(options)
    from bertjax.tasks.reading import read_task_examples
    from bertjax.tasks.results import write_predictions
    from bertjax.tasks.scoring import predict_examples

    if options.input == ["-"]:
        prompt = "a text a line, the two of a pair parted by a tab"
        lines = list(read_lines(prompt, keep_empty=True, as_given=True))
        texts = [line for line in lines if line.strip()]
        if empty := len(lines) - len(texts):
            print(
                f"standard input: {empty:,} of {len(lines):,} lines are empty and are passed over",
                file=sys.stderr,
            )
        examples = model.task.examples_of_lines(texts)
    else:
        examples, notes = read_task_examples(
            model.task.name, options.input, read_data_config(options), with_labels=False
        )
        for note in notes:
            print(note, file=sys.stderr)
    if not examples:
        raise UserError("standard input: no text; give a text a line, or name files with --input")
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
    for note in predicted.notes:
        print(note, file=sys.stderr)
    if options.output == "-":
        for prediction in predicted.predictions:
            print(to_json(prediction))
    elif output.suffix == ".jsonl":
        write_whole(output, "".join(to_json(one) + "\n" for one in predicted.predictions))
    else:
        write_predictions(output, model.task, examples, predicted.predictions)
