"""The `bertjax` command: uses and studies a model. A command imports what it needs when it runs."""

import argparse
import importlib
from collections.abc import Sequence

import bertjax
from bertjax.commands import (
    analyze,
    attention,
    bench,
    compare,
    contexts,
    convert,
    drift,
    embed,
    evaluate,
    explain,
    export,
    fill_mask,
    gate,
    info,
    plan,
    predict,
    prune,
    serve,
    verify,
    what_if,
)
from bertjax.commands.arguments import check_numbers
from bertjax.interop.hub import find_model
from bertjax.program.compiled_programs import keep_compiled_programs
from bertjax.program.entry import program
from bertjax.program.wording import nearest

# Programs whose options are the fields of a config: they are listed, and read them themselves.
PROGRAMS = {
    "tokenizer": "a tokenizer, from raw text",
    "prepare": "rows to pretrain on, from raw text",
    "pretrain": "a BERT, from rows",
    "adapt": "a BERT adapted to the texts of a domain",
    "finetune": "a BERT fitted to a labelled task",
    "sweep": "the best values for fields of a config, by trials",
}
COMMANDS = {
    "fill-mask": fill_mask,
    "predict": predict,
    "evaluate": evaluate,
    "compare": compare,
    "gate": gate,
    "embed": embed,
    "analyze": analyze,
    "attention": attention,
    "explain": explain,
    "what-if": what_if,
    "contexts": contexts,
    "prune": prune,
    "serve": serve,
    "drift": drift,
    "convert": convert,
    "export": export,
    "info": info,
    "verify": verify,
    "bench": bench,
    "plan": plan,
}


def make_parser() -> argparse.ArgumentParser:
    """The command line: one subparser a command, whose `run` default is the function to call."""
    parser = argparse.ArgumentParser(
        prog="bertjax",
        description="Makes, uses and studies a BERT.",
        epilog="What jax compiles is kept in ~/.cache/bertjax, at most 0.5 GB, and compiled once."
        " JAX_COMPILATION_CACHE_DIR=DIR keeps it elsewhere, JAX_ENABLE_COMPILATION_CACHE=false"
        " nowhere.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bertjax {bertjax.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in PROGRAMS.items():
        commands.add_parser(name, help=summary, add_help=False)
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=command.SUMMARY,
            description=getattr(command, "DESCRIPTION", f"Prints {command.SUMMARY}."),
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run, parser=subparser)
    return parser


def run(arguments: Sequence[str]) -> int | None:
    """Runs one command line, the program's name left out; returns its exit code."""
    if arguments and arguments[0] in PROGRAMS:
        keep_compiled_programs()  # before jax reads its variables
        command = importlib.import_module(f"bertjax.commands.{arguments[0]}")
        return command.run(command.read_config(arguments[1:]))
    options, unknown = make_parser().parse_known_args(arguments)
    if unknown:
        known = [name for action in options.parser._actions for name in action.option_strings]
        options.parser.error(f"unknown argument {unknown[0]}{nearest(unknown[0], known)}")
    check_numbers(options.parser, options)
    keep_compiled_programs()
    if getattr(options, "model", None):
        options.model = str(find_model(options.model))
    return options.run(options)


def main(arguments: Sequence[str]) -> None:
    """Runs one command line and ends the process with its exit code."""
    program(lambda: run(arguments))()
