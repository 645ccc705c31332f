"""`bertjax attention`: what every head of a model attends to, into files."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import choose_length, whole_number
from bertjax.commands.model_options import add_model
from bertjax.commands.screen import add_json, count_on, print_json, tell
from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts, tell_readings
from bertjax.program.errors import UserError
from bertjax.program.wording import counted

if TYPE_CHECKING:
    from bertjax.analysis.capture.encoding import EncodedText

SUMMARY = "what every head attends to in texts, into an .npz, .parquet, .arrow or other file"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, studies=True, dtype=False)
    add_texts(parser, pairs=True)
    parser.add_argument(
        "--output",
        metavar="PATH",
        default="-",
        help="an .npz, .parquet or .arrow file; a .jsonl or .json file for bertviz; a name without"
        " a suffix is a folder of shards, for large sets; - for JSON lines in bertviz's form on"
        " standard output (default: -)",
    )
    parser.add_argument(
        "--format",
        dest="output_format",  # `format` is what the files that are read are
        choices=["npz", "parquet", "arrow", "shards", "bertviz"],
        help="format of the output (default: by its suffix)",
    )
    parser.add_argument(
        "--overwrite",
        choices=["true", "false"],
        default="false",
        help="replace an existing folder of shards; a file is always replaced (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--layers",
        metavar="L",
        type=whole_number(0),
        nargs="+",
        help="numbers from 0 (default: all)",
    )
    parser.add_argument(
        "--heads",
        metavar="N",
        type=whole_number(0),
        nargs="+",
        help="numbers from 0, the same in every layer (default: all)",
    )
    parser.add_argument(
        "--words",
        action="store_true",
        help="merge subwords to words: to a word the sum, from it the mean (default: no)",
    )
    parser.add_argument(
        "--hidden", action="store_true", help="write hidden states, too (default: no)"
    )
    parser.add_argument(
        "--context",
        action="store_true",
        help="write each head's output before the projection, too (default: no)",
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "float16"],
        default="float32",
        help="dtype of the arrays; float16 takes half the space (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=whole_number(3),
        help="longest text in tokens (default: the model's max_position_embeddings)",
    )
    parser.add_argument(
        "--too-long",
        choices=["refuse", "windows"],
        default="refuse",
        help="what to do with a longer text: stop with an error, or cut it into windows between"
        " words; pairs are never cut (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Reads everything once to check it, then captures and writes."""
    from bertjax.analysis.capture.bertviz import write_bertviz
    from bertjax.analysis.capture.encoding import encode_stream
    from bertjax.analysis.capture.export import format_of, write_captures
    from bertjax.analysis.capture.maps import capture
    from bertjax.analysis.capture.selection import select
    from bertjax.architectures import BODY
    from bertjax.loaded import load
    from bertjax.training.sharding import choose_mesh

    to_screen = options.output == "-"
    if to_screen and options.output_format not in (None, "bertviz"):
        raise UserError(f"--format {options.output_format} is for a file; name one with --output")
    format = options.output_format or ("bertviz" if to_screen else format_of(options.output))
    for name in ("hidden", "context"):
        if getattr(options, name) and format == "bertviz":
            raise UserError(
                f"--{name}: bertviz's form holds attention alone; name an .npz, .parquet or .arrow"
                " file, or a folder, with --output"
            )
    texts = Texts(choose_reading(options, options.model), options.texts, options.input, pairs=True)
    mesh = choose_mesh(options.devices)
    body = load(options.model, BODY, dtype="float32", mesh=mesh)
    config = body.config
    selection = select(
        config, options.layers, options.heads, words=options.words, dtype=options.dtype
    )
    length = choose_length(options, config.max_length, least=3)

    def encode() -> Iterator["EncodedText"]:
        return encode_stream(body.tokenizer, texts, length, too_long=options.too_long)

    total = sum(1 for _ in encode())
    if not total:
        raise texts.no_text()
    texts.tell_passed_over()
    tell_readings(body.tokenizer, texts)
    tell(body.notes)
    with count_on("attending", total) as progress:
        captures = capture(
            body, encode(), hidden=options.hidden, context=options.context, progress=progress
        )
        if to_screen:
            write_bertviz(sys.stdout, map(selection.apply, captures), selection)
            return
        count = write_captures(
            options.output,
            captures,
            selection,
            format,
            overwrite=options.overwrite == "true",
            inputs=texts.files,
        )
    _tell(options, count, format, selection.describe())


def _tell(options: argparse.Namespace, count: int, format: str, about: dict[str, Any]) -> None:
    """Prints what was written, on standard error, or as JSON on standard output."""
    path = Path(options.output)
    size = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()))
    if options.json:
        fields = {"output": options.output, "format": format, "texts": count, "bytes": size}
        print_json(fields | about)
    else:
        print(
            f"{path}: {counted(count, 'text')}, {counted(len(about['layers']), 'layer')} x"
            f" {counted(len(about['heads']), 'head')},"
            f" between {about['units']}, {about['dtype']}, {size / 1e6:,.1f} MB",
            file=sys.stderr,
        )
