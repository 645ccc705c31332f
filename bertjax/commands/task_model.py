"""What commands on labelled files share: a fine-tuned model, made ready, and how files are read."""

import argparse
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

from bertjax.commands.arguments import choose_length, whole_number
from bertjax.commands.model_options import add_model, open_model, read_class
from bertjax.commands.screen import tell
from bertjax.commands.text_options import add_encoding, add_tables, add_text_columns
from bertjax.program.errors import UserError
from bertjax.tasks.tagging_schemes import Scheme
from bertjax.text.record_config import FileFormat

if TYPE_CHECKING:
    from bertjax.loaded import Model
    from bertjax.tasks.data_config import DataConfig
    from bertjax.tasks.task import Task


# Options of `add_data_options` that texts without labels have no use for.
OF_LABELS = (
    "label_column", "label_columns", "label_separator", "spelling", "token_column", "tag_column",
    "scheme", "labels",
)  # fmt: skip


class TaskModel(NamedTuple):
    """A model made ready for its task."""

    model: "Model"
    task: "Task"
    max_length: int


def add_task_model(
    parser: argparse.ArgumentParser,
    required: bool = True,
    labels: bool = True,
    dtype: str = "auto",
) -> None:
    """Adds `model_options.add_model`, `--max-length` and `add_data_options`."""
    add_model(parser, "a fine-tuned model directory", required=required)
    parser.set_defaults(dtype=dtype)
    parser.add_argument(
        "--max-length",
        metavar="T",
        type=whole_number(8),
        help="longest sequence in tokens (default: the model's max_position_embeddings)",
    )
    add_data_options(parser, labels=labels)


def add_data_options(
    parser: argparse.ArgumentParser,
    names: str = "--labels",
    *,
    labels: bool = True,
    file_format: str = "--format",
) -> None:
    """Adds how labelled files are read; without these options, as the model was fitted.

    Args:
        parser: of the command.
        names: what the option for the names of the classes or tags is called.
        file_format: what the option for the format of the files is called.
        labels: whether the command reads the labels in them; else there is nothing to say of them.
    """
    group = parser.add_argument_group(
        "how files are read",
        "An option that is left out is as in the fine-tuning of the model (bertjax_data.json in"
        " its directory), where '' for a name cancels it; otherwise it is as stated here.",
    )
    add_text_columns(group, pairs=True)
    add_tables(group)
    group.add_argument(
        file_format,
        dest="format",
        choices=get_args(FileFormat),
        help="the format of the files, whatever their names end in (by their names)",
    )
    group.add_argument(
        "--token-column",
        metavar="COLUMN",
        help="in tagged sentences: the column of the words, a number from 1 or a name (recognised)",
    )
    group.add_argument(
        "--scheme", choices=get_args(Scheme), help="how tags mark entities (recognised)"
    )
    if labels:
        _add_label_options(group, names)
    add_encoding(group)


def _add_label_options(group: "argparse._ArgumentGroup", names: str) -> None:
    from bertjax.tasks.columns import KNOWN_COLUMNS

    group.add_argument(
        "--label-column",
        metavar="NAME",
        help=f"the label (recognised: {KNOWN_COLUMNS['labels']})",
    )
    group.add_argument(
        "--label-columns",
        metavar="NAME",
        nargs="+",
        help="columns of 0 and 1, each of which is one of several labels (none)",
    )
    group.add_argument(
        "--label-separator",
        metavar="TEXT",
        help="what separates several labels in one cell (none)",
    )
    group.add_argument(
        "--spelling",
        choices=["keep", "merge"],
        help="what to do with classes that differ in spelling only, such as TRUE and True: merge"
        " makes them one, with the name that the model has (keep)",
    )
    group.add_argument(
        "--tag-column",
        metavar="COLUMN",
        help="in tagged sentences: the column of the tags, a number from 1 or a name (recognised)",
    )
    group.add_argument(
        names,
        dest="labels",
        metavar="NAME",
        nargs="+",
        help="the names of the classes, or of the tags in their order where the tags of records"
        " are numbers (none)",
    )


def read_data_config(
    options: argparse.Namespace, remembered: Mapping[str, Any] | None = None
) -> "DataConfig":
    """Returns how files are read: by the options, and as the model was fitted.

    What is taken from the latter is printed on stderr.

    Args:
        options: of the command, with `--model` where there is one.
        remembered: how the model was fitted; left out, as its directory says.
    """
    from bertjax.tasks import data_format

    where = getattr(options, "model", None) or "the run's model"
    if remembered is None:
        remembered = data_format.recall(options.model)
    given = {
        name: getattr(options, name, None)
        for name in (*data_format.REMEMBERED, "encoding", "errors")
    }
    config = data_format.join(remembered, given)
    if config.spelling == "merge" and not config.labels and options.model:
        config = dataclasses.replace(config, labels=_labels_of(options.model))
    tell(data_format.describe(remembered, config, where))
    return config


def _labels_of(model: str) -> list[str]:
    from bertjax.families.registry import load_config

    return list(load_config(model).id2label)


def refuse_label_options(options: argparse.Namespace, names: str, way_out: str) -> None:
    """Checks that no option describes labels where none are read.

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
                f"{option} applies to labelled files, and none are read; name them with {way_out},"
                " or leave it out"
            )


def load_task_model(options: argparse.Namespace) -> TaskModel:
    """Loads the model of `--model`; its notes go to stderr.

    Raises:
        UserError: no model directory, or one without a head for a supervised task.
    """
    from bertjax.tasks.data_format import recall
    from bertjax.tasks.reading import task_of_model
    from bertjax.tasks.tagging import Tagging

    config, architecture = read_class(options)
    try:
        scheme = options.scheme or recall(options.model).get("scheme")
        task = task_of_model(config, architecture, scheme)
    except UserError as error:
        raise UserError(f"{options.model}: {error}") from None
    model = open_model(options)
    if isinstance(task, Tagging) and (reading := task.describe_reading()):
        tell([f"{options.model}: {reading}"])
    length = choose_length(options, model.config.max_length)
    return TaskModel(model, task, length)
