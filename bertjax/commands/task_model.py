"""What commands on labelled files share: a fine-tuned model, made ready, and how files are read."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from bertjax.commands.texts import add_encoding
from bertjax.errors import UserError
from bertjax.tasks.tagging_schemes import Scheme

if TYPE_CHECKING:
    from bertjax.tasks.inference import Inference
    from bertjax.tasks.reading import DataConfig
    from bertjax.tasks.task import Task
    from bertjax.text.tokenizer import Tokenizer


# The fields of `DataConfig` that say how files are read, each an option of its name.
DATA_FIELDS = (
    "text_column", "pair_column", "label_column", "label_columns", "label_separator", "columns",
    "quoting", "spelling", "token_column", "tag_column", "scheme", "labels", "encoding", "errors",
)  # fmt: skip
# Those that texts without labels have no use for.
OF_LABELS = (
    "label_column", "label_columns", "label_separator", "token_column", "tag_column", "scheme",
    "labels",
)  # fmt: skip


class TaskModel(NamedTuple):
    """A model directory made ready for its task."""

    task: "Task"
    inference: "Inference"
    variables: dict[str, Any]
    tokenizer: "Tokenizer"
    max_length: int


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--model`, `--max-length` and `add_data_options`."""
    parser.add_argument(
        "--model",
        metavar="DIR",
        required=required,
        help=f"a fine-tuned model directory{' (required)' * required}",
    )
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=int,
        help="longest sequence in tokens (default: the model's max_position_embeddings)",
    )
    add_data_options(parser)


def add_data_options(parser: argparse.ArgumentParser, names: str = "--labels") -> None:
    """Adds how labelled files are read (`DATA_FIELDS`).

    Args:
        parser: of the command.
        names: what the option for the names of the tags is called.
    """
    parser.add_argument(
        "--text-column", metavar="NAME", help="the text, or the first of a pair (default: by name)"
    )
    parser.add_argument(
        "--pair-column", metavar="NAME", help="the second text of a pair (default: by name)"
    )
    parser.add_argument("--label-column", metavar="NAME", help="the label (default: by name)")
    parser.add_argument(
        "--label-columns",
        metavar="NAME",
        nargs="+",
        default=[],
        help="columns of 0 and 1, each of which is one of several labels (default: none)",
    )
    parser.add_argument(
        "--label-separator",
        metavar="TEXT",
        help="what parts several labels in one cell (default: none)",
    )
    parser.add_argument(
        "--columns",
        metavar="NAME",
        nargs="+",
        default=[],
        help="the names of a table's columns where its first line is no header (default: none)",
    )
    parser.add_argument(
        "--quoting",
        choices=["none", "double"],
        help="what a quotation mark is in a table (default: none in .tsv, double in .csv)",
    )
    parser.add_argument(
        "--spelling",
        choices=["keep", "merge"],
        default="keep",
        help="what becomes of classes that differ in spelling only, such as TRUE and True: merge"
        " makes them one, by the name in --labels (default: %(default)s)",
    )
    parser.add_argument(
        "--token-column",
        metavar="COLUMN",
        help="of tagged sentences: a number from 1, or the name of a field (default: recognised)",
    )
    parser.add_argument(
        "--tag-column", metavar="COLUMN", help="the tags, in the same way (default: recognised)"
    )
    parser.add_argument(
        "--scheme", choices=get_args(Scheme), help="how tags mark entities (default: recognised)"
    )
    parser.add_argument(
        names,
        dest="labels",
        metavar="NAME",
        nargs="+",
        default=[],
        help="the names of the classes, or of the tags in their order where the tags of records"
        " are numbers (default: none)",
    )
    add_encoding(parser)


def read_data_config(options: argparse.Namespace) -> "DataConfig":
    """How the files are read, of the options that `add_model` adds."""
    from bertjax.tasks.reading import CommandDataConfig

    return CommandDataConfig(**{name: getattr(options, name) for name in DATA_FIELDS})


def refuse_label_options(options: argparse.Namespace, names: str, way_out: str) -> None:
    """Checks that nothing is said of labels where none are read.

    Args:
        options: of `add_data_options`.
        names: what it called the option for the names of the tags.
        way_out: the option that names labelled files.

    Raises:
        UserError: something is, with its option.
    """
    for field in OF_LABELS:
        if getattr(options, field) not in (None, []):
            option = names if field == "labels" else f"--{field.replace('_', '-')}"
            raise UserError(
                f"{option} is of labelled files, and none are read; name them with {way_out}, or"
                " leave it out"
            )


def choose_length(options: argparse.Namespace, most: int, otherwise: int | None = None) -> int:
    """The longest sequence: `--max-length`, or what holds without it.

    Args:
        options: of `add_model`.
        most: positions of the model.
        otherwise: when the option is left out; all the positions without it.

    Raises:
        UserError: the model has no positions for it.
    """
    length = options.max_length
    if length is None:
        return most if otherwise is None else otherwise
    if not 8 <= length <= most:
        raise UserError(
            f"--max-length {length} must lie between 8 and the model's {most} positions"
        )
    return length


def load_task_model(options: argparse.Namespace) -> TaskModel:
    """Loads the model of `--model`; what it has to tell goes to stderr.

    Raises:
        UserError: no model directory, or one without a head for a supervised task.
    """
    from bertjax.interop.huggingface import (
        inspect_model_directory,
        load_model_directory,
        load_model_tokenizer,
    )
    from bertjax.model import bert
    from bertjax.tasks.inference import Inference
    from bertjax.tasks.reading import task_of_model

    contents = inspect_model_directory(options.model)
    try:
        task = task_of_model(contents.config, contents.architecture)
    except UserError as error:
        raise UserError(f"{options.model}: {error}") from None
    config, params, architecture, notes = load_model_directory(options.model)
    tokenizer, more = load_model_tokenizer(options.model, config)
    for note in [*notes, *more]:
        print(note, file=sys.stderr)
    length = choose_length(options, config.max_position_embeddings)
    inference = Inference(getattr(bert, architecture)(config), task, tokenizer.pad_id)
    return TaskModel(task, inference, {"params": params}, tokenizer, length)
