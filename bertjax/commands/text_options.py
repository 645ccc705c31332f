"""Options that name texts and say how files of them are read.

One rule holds everywhere. A line of a .txt file or of standard input is a text, white space around
it is ignored. Where a command takes pairs, a tab separates the texts of a pair; elsewhere a tab is
white space. Empty lines, cells and arguments are passed over and counted, except where a command
returns something for every line.
"""

import argparse
from typing import TYPE_CHECKING

from bertjax.commands.arguments import utf8_text

if TYPE_CHECKING:
    from bertjax.tasks.data_config import CommandDataConfig

KINDS = (
    ".txt files (one text per line{pairs}), .csv, .tsv, .json, .jsonl or .parquet files (one text"
    " per record, see --text-column), each also .gz; folders or globs of these"
)
PAIRS = ", a tab between the texts of a pair"

# The options of `add_columns` and of `add_encoding`.
OF_TABLES = (
    "text_column", "pair_column", "columns", "delimiter", "quoting", "extra_columns"
)  # fmt: skip
OF_TEXT_FILES = ("encoding", "errors")


def add_texts(
    parser: argparse.ArgumentParser, what: str = "a text", *, pairs: bool, keep_empty: bool = False
) -> None:
    """Adds texts as arguments, `--input` and how it is read.

    Args:
        parser: of the command.
        what: what a text is, for the help.
        pairs: whether the command takes pairs.
        keep_empty: whether an empty line is a text, too.
    """
    add_arguments_and_files(parser, what, pairs=pairs, keep_empty=keep_empty)
    add_columns(parser, pairs=pairs)
    add_encoding(parser)


def add_arguments_and_files(
    parser: argparse.ArgumentParser,
    what: str,
    *names: str,
    pairs: bool,
    keep_empty: bool = False,
    otherwise: str = "or standard input",
    kinds: str = KINDS,
) -> None:
    """Adds texts as arguments, and `--input`, also under other names.

    Args:
        parser: of the command.
        what: what a text is, for the help.
        names: of `--input`, too.
        pairs, keep_empty: as in `add_texts`.
        otherwise: what else is read where no texts are given.
        kinds: of the files, with a place for what is said of pairs.
    """
    parser.add_argument(
        "texts",
        metavar="TEXT",
        type=utf8_text,
        nargs="*",
        default=[],
        help=f"{what}{', or a pair of texts with a tab between them' * pairs}; - reads standard"
        f" input (default: the files of --input, {otherwise})",
    )
    empty = "is a text, too" if keep_empty else "is passed over and counted on stderr"
    parser.add_argument(
        "--input",
        *names,
        metavar="FILE",
        nargs="+",
        default=[],
        help=f"in place of TEXT: {kinds.format(pairs=PAIRS * pairs)}; - reads standard input like"
        f" a .txt file. An empty line or cell {empty}",
    )


def add_columns(parser: argparse.ArgumentParser, *, pairs: bool) -> None:
    """Adds how tables are read; what is left out is as the model was fitted."""
    add_text_columns(parser, pairs=pairs)
    add_tables(parser)


def add_text_columns(parser: "argparse._ActionsContainer", *, pairs: bool) -> None:
    """Adds which columns of a table are the texts."""
    from bertjax.tasks.columns import KNOWN_COLUMNS

    known = KNOWN_COLUMNS["texts"] + f"; of pairs {KNOWN_COLUMNS['pairs']}" * pairs
    parser.add_argument(
        "--text-column",
        metavar="NAME",
        help=f"in tables: the column of the text{', or of the first of a pair' * pairs}"
        f" (recognised: {known})",
    )
    if pairs:
        parser.add_argument(
            "--pair-column",
            metavar="NAME",
            help="in tables: the column of the second text of a pair (recognised with it)",
        )
    else:
        parser.set_defaults(pair_column=None)


def add_tables(parser: "argparse._ActionsContainer") -> None:
    """Adds what the cells of a table are."""
    parser.add_argument(
        "--columns",
        metavar="NAME",
        nargs="*",
        help="the names of a table's columns if its first line is not a header (none)",
    )
    parser.add_argument(
        "--delimiter",
        metavar="CHARACTER",
        type=utf8_text,
        help="what separates a table's cells, such as ';' or '|', or tab (recognised by the header"
        " line in .csv, else a comma; a tab in .tsv)",
    )
    parser.add_argument(
        "--quoting",
        choices=["none", "double"],
        help="how quotation marks are read in a table (none in .tsv, double in .csv)",
    )
    parser.add_argument(
        "--extra-columns",
        choices=["refuse", "ignore"],
        help="what to do with cells after the last named column (refuse)",
    )


def add_encoding(parser: argparse.ArgumentParser) -> None:
    """Adds what messages about bytes that are not of the encoding name as the way out."""
    parser.add_argument(
        "--encoding",
        default="utf-8",
        help="encoding of the text files and of standard input (default: %(default)s)",
    )
    parser.add_argument(
        "--errors",
        choices=["strict", "replace", "ignore"],
        default="strict",
        help="what to do with bytes that are not of that encoding (default: %(default)s)",
    )


def choose_reading(
    options: argparse.Namespace, model: str | None, file_format: str | None = None
) -> "CommandDataConfig":
    """Returns how files of texts are read: by the options, else as the model was fitted.

    Args:
        options: with those of `add_columns` and `add_encoding`.
        model: the directory of the model; None where there is none.
        file_format: what the files are, whatever their names end in.
    """
    from bertjax.tasks.data_format import join, recall

    remembered = recall(model) if model else {}
    said = {name: getattr(options, name) for name in (*OF_TABLES, *OF_TEXT_FILES)}
    if options.text_column is not None:
        remembered.pop("pair_column", None)  # a text of its own choice stands alone
    return join(remembered, {**said, "format": file_format})
