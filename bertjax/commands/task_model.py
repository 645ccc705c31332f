"""What `predict` and `evaluate` share: a fine-tuned model, made ready, and its labelled files."""

import argparse
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from bertjax.tasks.inference import Inference
    from bertjax.tasks.reading import DataConfig
    from bertjax.tasks.task import Task
    from bertjax.text.tokenizer import Tokenizer


class TaskModel(NamedTuple):
    """A model directory made ready for its task."""

    task: "Task"
    inference: "Inference"
    variables: dict[str, Any]
    tokenizer: "Tokenizer"
    max_length: int


def add_model(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--model`, `--max-length` and how a table's columns are called."""
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
    parser.add_argument(
        "--text-column", metavar="NAME", help="the text, or the first of a pair (default: by name)"
    )
    parser.add_argument(
        "--pair-column", metavar="NAME", help="the second text of a pair (default: by name)"
    )
    parser.add_argument("--label-column", metavar="NAME", help="the label (default: by name)")
    parser.add_argument(
        "--columns",
        metavar="NAME",
        nargs="+",
        default=[],
        help="the names of a table's columns where its first line is no header",
    )
    parser.add_argument(
        "--encoding", default="utf-8", help="of the text files (default: %(default)s)"
    )


def read_data_config(options: argparse.Namespace) -> "DataConfig":
    """How the files are read, of the options that `add_model` adds."""
    from bertjax.tasks.reading import DataConfig

    return DataConfig(
        encoding=options.encoding,
        columns=options.columns,
        text_column=options.text_column,
        pair_column=options.pair_column,
        label_column=options.label_column,
    )


def load_task_model(options: argparse.Namespace) -> TaskModel:
    """Loads the model of `--model`; what it has to tell goes to stderr.

    Raises:
        UserError: no model directory, or one without a head for a supervised task.
    """
    from bertjax.errors import UserError
    from bertjax.interop.huggingface import inspect_model_directory, load_model_directory
    from bertjax.model import bert
    from bertjax.tasks.inference import Inference
    from bertjax.tasks.reading import task_of_model
    from bertjax.text.tokenizer import load_tokenizer

    contents = inspect_model_directory(options.model)
    try:
        task = task_of_model(contents.config, contents.architecture)
    except UserError as error:
        raise UserError(f"{options.model}: {error}") from None
    config, params, architecture, notes = load_model_directory(options.model)
    for note in notes:
        print(note, file=sys.stderr)
    most = config.max_position_embeddings
    length = most if options.max_length is None else options.max_length
    if not 8 <= length <= most:
        raise UserError(
            f"--max-length {length} must lie between 8 and the model's {most} positions"
        )
    tokenizer = load_tokenizer(options.model)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{options.model}: its tokenizer has {tokenizer.vocab_size} tokens, more than the"
            f" model's vocab_size={config.vocab_size}; it is the tokenizer of another model"
        )
    inference = Inference(getattr(bert, architecture)(config), task, tokenizer.pad_id)
    return TaskModel(task, inference, {"params": params}, tokenizer, length)
