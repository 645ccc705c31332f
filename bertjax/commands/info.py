"""`bertjax info`: what a model, run or prepared directory is."""

import argparse

from bertjax.commands.screen import add_json, print_fields, print_json

SUMMARY = "what a model, export, run, prepared directory or tokenizer is"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "directory", metavar="DIR", help="the directory, or a model's name on the Hugging Face hub"
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Prints what a directory is."""
    from bertjax.directories import describe_directory
    from bertjax.interop.hub import find_model

    description = describe_directory(find_model(options.directory))
    if options.json:
        print_json(description)
    else:
        print_fields(description)
