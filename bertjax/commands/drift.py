"""`bertjax drift`: whether what a served model is asked, and what it answers, has moved."""

import argparse
import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import Number, seed_number, utf8_text, whole_number
from bertjax.commands.model_options import add_engine, load_by_engine, read_class
from bertjax.commands.screen import add_json, console, count_on, print_json, tell
from bertjax.commands.task_model import add_data_options, read_data_config
from bertjax.commands.text_options import choose_reading
from bertjax.commands.texts import Texts
from bertjax.drift.settings import LEVEL, MOST_REQUESTS, PERMUTATIONS
from bertjax.program.errors import UserError
from bertjax.program.libraries import require_libraries

if TYPE_CHECKING:
    from bertjax.drift.comparison import Drift
    from bertjax.drift.reference import Request
    from bertjax.drift.samples import Sample

SUMMARY = "whether what a served model is asked, and what it answers, has moved, by tests"
DESCRIPTION = (
    f"Prints {SUMMARY}. Exit code 0: nothing has moved as far as can be told; 1: what is named has."
)

# Tasks whose files are read as in fine-tuning; all others have a text or a pair each.
_WITH_READERS = ("tokens", "question-answering", "multiple-choice")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--reference",
        metavar="R",
        nargs="+",
        required=True,
        help="what the log is compared with: the folder of an earlier log, or of the same one, of"
        " which it is what was logged before --since; or files with texts of the model's task, with"
        " or without labels, which --model answers (required)",
    )
    parser.add_argument(
        "--log",
        metavar="DIR",
        required=True,
        help="the folder that `bertjax serve --log` writes (required)",
    )
    parser.add_argument(
        "--model",
        metavar="DIR",
        help="with files as --reference: the model directory that is served, or its name on the"
        " Hugging Face hub (default: none)",
    )
    _add_engine(parser)
    parser.add_argument(
        "--name",
        metavar="NAME",
        type=utf8_text,
        help="of the model on the server (default: the only one in the log)",
    )
    for option, meaning in (("--since", "from"), ("--until", "before")):
        parser.add_argument(
            option,
            metavar="TIME",
            type=utf8_text,
            help=f"only requests of the log {meaning} this time, such as 2026-11-30 or"
            " 2026-11-30T12:00, in UTC unless it ends in an offset such as +01:00 (default: all)",
        )
    parser.add_argument(
        "--alpha",
        type=Number(float, above=0, below=1),
        default=LEVEL,
        help="chance, at most, that anything is said to have moved where nothing has (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--permutations",
        metavar="P",
        type=whole_number(99),
        default=PERMUTATIONS,
        help="of the requests, from which the p-values are (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=seed_number(),
        default=0,
        help=f"of the permutations, and of the {MOST_REQUESTS:,} requests that are drawn of more"
        " (default: %(default)s)",
    )
    add_json(parser)
    add_data_options(parser, labels=False)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add_engine(parser, what="that model, as on the server")
    parser.set_defaults(dtype="auto")


def _read_time(option: str, word: str | None) -> float | None:
    """Returns a time in seconds since 1970; None where the option is left out."""
    if word is None:
        return None
    try:
        time = datetime.datetime.fromisoformat(word)
    except ValueError:
        raise UserError(
            f"{option} {word}: not a time; write it as 2026-11-30 or 2026-11-30T12:00"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp()


def run(options: argparse.Namespace) -> int:
    """Compares and prints; returns 1 where anything has moved."""
    require_libraries("bertjax drift", "serve")
    from bertjax.drift.comparison import compare
    from bertjax.serving.request_log import is_log

    folder, first = Path(options.log), Path(options.reference[0])
    since, until = _read_time("--since", options.since), _read_time("--until", options.until)
    log = _collect(
        folder, options.log, name=options.name, since=since, until=until, seed=options.seed
    )
    if len(options.reference) == 1 and is_log(first):
        _refuse_file_options(options)
        is_same = first.samefile(folder)
        if is_same and since is None:
            raise UserError(
                f"--reference {first} is --log, too: then it is what was logged before --since;"
                " pass it"
            )
        source = f"{first} before --since" if is_same else str(first)
        before = since if is_same else None
        reference = _collect(
            first, source, name=log.model, must_have_name=is_same, fingerprint=log.fingerprint,
            until=before, seed=options.seed,
        )  # fmt: skip
    else:
        reference = _ask_files(options, log)
    with count_on("comparing", 1) as progress:
        drift = compare(reference, log, options.alpha, options.permutations, options.seed, progress)
    if options.json:
        print_json(drift.to_json())
    else:
        _print_table(drift)
    tell(drift.notes)
    return 1 if drift.moved else 0


def _collect(folder: Path, source: str, **choice: Any) -> "Sample":
    """Returns the requests of a log; see `drift.samples.collect`."""
    from bertjax.drift.samples import collect
    from bertjax.serving.request_log import count_bytes, read_log

    with count_on(f"reading {source}", count_bytes(folder)) as progress:
        return collect(read_log(folder, progress), source, **choice)


def _refuse_file_options(options: argparse.Namespace) -> None:
    """Raises a `UserError` where an option is given that only files have a use for."""
    parser = argparse.ArgumentParser()
    add_data_options(parser, labels=False)
    _add_engine(parser)
    parser.set_defaults(model=None)
    for name, default in vars(parser.parse_args([])).items():
        if getattr(options, name) != default:
            raise UserError(
                f"--{name.replace('_', '-')} is for files as --reference, and"
                f" {options.reference[0]} is a log; leave it out"
            )


def _ask_files(options: argparse.Namespace, log: "Sample") -> "Sample":
    """Returns the texts of files, as the model answers them."""
    source = ", ".join(options.reference)
    if options.model is None:
        raise UserError(
            f"--reference {source}: is no log, and with files --model DIR has to name the model"
            " that is served"
        )
    from bertjax.drift.reference import ask_model, count_asked

    requests = _read_files(options)
    model = load_by_engine(options, options.model)
    tell(model.notes)
    max_length = log.lines[0]["max_length"]
    with count_on("answering", count_asked({source: requests})) as progress:
        [sample] = ask_model(
            model, {source: requests}, name=log.model, max_length=max_length, seed=options.seed,
            progress=progress,
        )  # fmt: skip
    return sample


def _read_files(options: argparse.Namespace) -> "list[Request]":
    """Reads the texts of files, each with its place."""
    from bertjax.architectures import ARCHITECTURES, NEXT_SENTENCE

    config, architecture = read_class(options)
    task = ARCHITECTURES[architecture].task_of(config.label_meaning)
    if task not in _WITH_READERS:
        for name in ("token_column", "scheme"):
            if getattr(options, name) is not None:
                raise UserError(
                    f"--{name.replace('_', '-')} applies to files of tagged sentences, and texts"
                    " are read here; leave it out"
                )
        reading = choose_reading(options, options.model, options.format)
        pairs = task is not None or ARCHITECTURES[architecture].kind == NEXT_SENTENCE
        texts = Texts(reading, files=options.reference, pairs=pairs).read()
        return [(place, (text,) if isinstance(text, str) else text) for place, text in texts]
    from bertjax.tasks.reading import read_task_examples

    data = read_data_config(options)
    examples, notes = read_task_examples(task, options.reference, data, with_labels=False)
    tell(notes)
    return [(one.place, _texts_of(task, one)) for one in examples]


def _texts_of(task: str, example: Any) -> tuple[str, ...]:
    if task == "tokens":
        return (example.text,)
    if task == "question-answering":
        return (example.question, example.context)
    return (example.context, *example.choices)


def _print_table(drift: "Drift") -> None:
    from rich.table import Table

    from bertjax.drift.comparison import SHIFT_COLUMNS

    print(drift.reference.describe())
    print(drift.log.describe())
    table = Table(*SHIFT_COLUMNS, box=None, pad_edge=False)
    for row in drift.tabulate():
        table.add_row(*row)
    console().print(table)
    print(drift.describe_tests())
    print(drift.summary)
