"""The `bertjax` command: uses and studies a model. A command imports what it needs when it runs."""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import bertjax
from bertjax.errors import UserError, program

if TYPE_CHECKING:
    from rich.console import Console

    from bertjax.tasks.fill_mask import FilledText


def make_parser() -> argparse.ArgumentParser:
    """The command line: one subparser a command, whose `run` default is the function to call."""
    parser = argparse.ArgumentParser(
        prog="bertjax",
        description="Uses and studies a BERT. The programs that make one are"
        " `python -m train.tokenizer`, `python -m train.prepare` and `python -m train.pretrain`.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bertjax {bertjax.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    fill = _add_command(
        commands, "fill-mask", show_filled_masks, "the likeliest words at every [MASK] of a text"
    )
    fill.add_argument(
        "texts",
        metavar="TEXT",
        nargs="*",
        default=["-"],
        help="a text with one or several [MASK]; - reads standard input, a text a line, empty lines"
        " passed over (default: -)",
    )
    fill.add_argument("--model", metavar="DIR", required=True, help="a model directory (required)")
    fill.add_argument(
        "--top-k",
        metavar="K",
        type=int,
        default=5,
        help="words to show for each mask (default: %(default)s)",
    )
    _add_json(fill)

    info = _add_command(
        commands, "info", show_directory, "what a model, run or prepared directory is"
    )
    info.add_argument("directory", metavar="DIR", help="the directory")
    _add_json(info)
    return parser


def show_filled_masks(options: argparse.Namespace) -> None:
    """`bertjax fill-mask`: prints every text with its masks filled."""
    from bertjax.interop.huggingface import load_model_directory
    from bertjax.text.tokenizer import load_tokenizer

    texts = list(_read_texts()) if options.texts == ["-"] else options.texts
    if not texts:
        raise UserError("standard input: no text; give a text a line, or texts on the command line")
    config, params, notes = load_model_directory(options.model, may_lack=("pooler", "nsp_head"))
    tokenizer = load_tokenizer(options.model)
    for note in notes:
        print(note, file=sys.stderr)

    from rich.progress import Progress

    from bertjax.model.bert import BertForPreTraining
    from bertjax.tasks.fill_mask import fill_mask

    with Progress(
        console=_console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task("filling masks", total=len(texts))
        results = fill_mask(
            BertForPreTraining(config),
            params,
            tokenizer,
            texts,
            options.top_k,
            lambda done: bar.advance(task, done),
        )
    if options.json:
        _print_json([_to_json(result) for result in results])
    else:
        _print_filled(results)


def show_directory(options: argparse.Namespace) -> None:
    """`bertjax info`: prints what a directory is."""
    from bertjax.directories import describe_directory

    description = describe_directory(options.directory)
    if options.json:
        _print_json(description)
    else:
        _print_fields(description)


def run(arguments: Sequence[str]) -> None:
    """Runs one command line, the program's name left out."""
    options = make_parser().parse_args(arguments)
    options.run(options)


def _add_command(commands: Any, name: str, run: Any, summary: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"Prints {summary}.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_true", help="print JSON, for programs to read (default: no)"
    )


def _read_texts() -> Iterator[str]:
    """The lines of standard input that are not empty."""
    if sys.stdin.isatty():
        print("a text a line, with [MASK] in it; end with Ctrl-D", file=sys.stderr)
    for number, line in enumerate(sys.stdin.buffer, start=1):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(
                f"standard input, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at"
                f" column {error.start + 1}); convert it, for instance with"
                " `iconv -f latin1 -t utf8`"
            ) from None
        if text:
            yield text


# ------------------------------------------------------------------------------ what is printed


def _console(stderr: bool = False) -> "Console":
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _to_json(result: "FilledText") -> dict[str, Any]:
    return {
        "text": result.text,
        "masks": [
            {
                "position": mask.position,
                "candidates": [candidate._asdict() for candidate in mask.candidates],
            }
            for mask in result.masks
        ],
    }


def _print_filled(results: Sequence["FilledText"]) -> None:
    from rich.text import Text

    console = _console()
    for number, result in enumerate(results):
        if number:
            console.print()
        console.print(Text(result.text, "dim"))
        console.print(Text(result.filled, "bold"))
        for index, mask in enumerate(result.masks, start=1):
            if len(result.masks) > 1:
                console.print(Text(f"  mask {index}"))
            for rank, candidate in enumerate(mask.candidates):
                style = "green" if rank == 0 else ""
                console.print(Text(f"  {candidate.probability:7.2%}  {candidate.token}", style))


def _print_fields(fields: Mapping[str, Any], indent: str = "") -> None:
    from rich.text import Text

    console = _console()
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        if isinstance(value, Mapping):
            console.print(Text(f"{indent}{name}", "cyan"))
            _print_fields(value, f"{indent}  ")
        else:
            console.print(Text.assemble((f"{indent}{name:<{width}}  ", "cyan"), _show(value)))


def _show(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_show, value)) or "none"
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f"{int(value):,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


@program
def main() -> None:
    """The entry point of the `bertjax` command."""
    run(sys.argv[1:])
