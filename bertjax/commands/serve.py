"""`bertjax serve`: models over HTTP."""

import argparse
import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bertjax.commands.arguments import Number, utf8_text, whole_number
from bertjax.commands.model_options import (
    OF_JAX,
    add_engine,
    load_by_engine,
    refuse_without_effect,
    runs_exported,
)
from bertjax.commands.screen import add_json, count_on, print_fields, print_json, tell
from bertjax.kernels.backends import CHOICES, DTYPES
from bertjax.program.errors import UserError
from bertjax.program.libraries import require_libraries
from bertjax.serving.settings import ServeConfig

SUMMARY = "models over HTTP, to the clients that exist"
DESCRIPTION = f"Serves {SUMMARY}, until it is ended."

# Docker sets HOSTNAME to the container's name, and nobody asks to listen there. What is logged, the
# command line alone says.
OF_LOG = ("log_sample", "log_texts", "log_max_bytes")
WITHOUT_VARIABLE = ("hostname", *OF_LOG)

DEFAULTS = ServeConfig()
# Options that an exported model has no use for, and what they are when they are left out.
WITHOUT_EXPORTED = {
    **OF_JAX,
    "explain": False,
    "explain_max_tokens": DEFAULTS.explain_max_tokens,
}


def _from_environment(variable: str, read: Callable[[str], Any], default: Any) -> Any | UserError:
    """Returns the value of an environment variable, or the default where it is unset or empty.

    A value that cannot be read becomes an error, which counts where the option is left out
    (`check_numbers`).

    Args:
        variable: its name; "" for none.
        read: makes the value of its text, or raises a `ValueError` that says what is wrong.
        default: the value without it.
    """
    word = os.environ.get(variable)
    if not word:
        return default
    try:
        return read(word)
    except (ValueError, argparse.ArgumentTypeError) as error:
        return UserError(f"{variable}={word} in the environment: {error}; set another, or unset it")


def _one_of(choices: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(word: str) -> Any:
        if word.lower() not in choices:
            raise ValueError(f"it is not one of {', '.join(choices)}")
        return choices[word.lower()]

    return read


def _number(kind: Number) -> Callable[[str], float]:
    def read(word: str) -> float:
        value = kind(word)
        kind.check("the value", value)
        return value

    return read


_TRUTHS = _one_of({"true": True, "1": True, "false": False, "0": False})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--model",
        dest="models",
        metavar="[NAME=]DIR",
        type=utf8_text,
        action="append",
        required=True,
        help="a model directory, or its name on the Hugging Face hub, and the name by which calls"
        " name it; several times for several models, the first of which answers calls that name"
        " none (required)",
    )
    add_engine(parser, what="all of them")
    parser.add_argument(
        "--dtype",
        choices=DTYPES,
        default=_from_environment("DTYPE", _one_of({name: name for name in DTYPES}), "auto"),
        help="of the matrix products; auto = bfloat16 on GPU and TPU, float32 on CPU"
        " (DTYPE; default: %(default)s)",
    )
    parser.add_argument(
        "--attention",
        choices=CHOICES,
        default="auto",
        help="what computes the attention (default: %(default)s)",
    )

    def add(field: str, metavar: str, kind: Number | type[str], meaning: str) -> None:
        variable = "" if field in WITHOUT_VARIABLE else field.upper()
        read = _number(kind) if isinstance(kind, Number) else utf8_text
        parser.add_argument(
            f"--{field.replace('_', '-')}",
            metavar=metavar,
            type=utf8_text if kind is str else kind,
            default=_from_environment(variable, read, getattr(DEFAULTS, field)),
            help=f"{meaning} ({variable}{'; ' * bool(variable)}default: %(default)s)",
        )

    add("hostname", "ADDRESS", str, "where to listen; 0.0.0.0 = on every network of the machine")
    add("port", "PORT", Number(int, least=0, most=65535), "where to listen; 0 = any free port")
    add("max_concurrent_requests", "TEXTS", whole_number(1), "that may wait; more get status 429")
    add(
        "max_batch_tokens", "TOKENS", whole_number(0),
        "of a batch, padding included; 0 = what suits the device",
    )  # fmt: skip
    add(
        "max_batch_wait_ms", "MILLISECONDS", Number(float, least=0, most=1000),
        "that a batch that is not full waits for more",
    )  # fmt: skip
    add("max_client_batch_size", "TEXTS", whole_number(1), "of one call, at most")
    add(
        "max_input_length", "TOKENS", whole_number(0),
        "of one text, at most; 0 = what the model's directory says",
    )  # fmt: skip
    parser.add_argument(
        "--auto-truncate",
        action=argparse.BooleanOptionalAction,
        default=_from_environment("AUTO_TRUNCATE", _TRUTHS, DEFAULTS.auto_truncate),
        help="cut longer texts, where a call does not say (AUTO_TRUNCATE; default: %(default)s)",
    )
    add("payload_limit", "BYTES", whole_number(1), "of a call's body, at most")
    add("request_timeout", "SECONDS", Number(float, above=0), "that a call may take")
    parser.add_argument(
        "--explain",
        action=argparse.BooleanOptionalAction,
        help="answer /explain and /attention, whose programs are compiled at startup, too; left"
        " out, where jax runs the models",
    )
    add(
        "explain_max_tokens", "TOKENS", whole_number(3),
        "of a text that is explained, at most",
    )  # fmt: skip
    parser.add_argument(
        "--api-key-file",
        metavar="FILE",
        help="answer only those who send one of its keys, one a line, as `Authorization: Bearer"
        " KEY`; the variable API_KEY has more of them (default: answer everybody)",
    )
    parser.add_argument(
        "--cors-allow-origin",
        metavar="ORIGIN",
        type=utf8_text,
        nargs="+",
        default=_from_environment(
            "CORS_ALLOW_ORIGIN", lambda word: utf8_text(word).replace(",", " ").split(), []
        ),
        help="let pages of these origins call, for instance https://example.org; * = any"
        " (CORS_ALLOW_ORIGIN; default: none)",
    )
    parser.add_argument(
        "--access-log",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write a line of JSON for every call to standard error, without its texts (default:"
        " %(default)s)",
    )
    parser.add_argument(
        "--log",
        metavar="DIR",
        default=DEFAULTS.log,
        help="keep a sample of requests and answers in this folder, which `bertjax drift` compares,"
        " without their texts (default: none)",
    )
    add(
        "log_sample", "SHARE", Number(float, above=0, most=1),
        "of the requests that --log keeps, by a hash of their ids",
    )  # fmt: skip
    parser.add_argument(
        "--log-texts",
        action="store_true",
        help="keep the texts themselves in the folder of --log, too (default: no)",
    )
    add(
        "log_max_bytes", "BYTES", whole_number(80_000),
        "of the folder of --log; the oldest lines are deleted",
    )  # fmt: skip
    parser.add_argument(
        "--allow-reload",
        action="store_true",
        help="let POST /models/NAME/reload read a model again from its directory, while the old one"
        " answers",
    )
    add("tokenization_workers", "THREADS", whole_number(0), "that tokenize; 0 = one a core")
    parser.add_argument(
        "--check",
        action="store_true",
        help="load, compile, print what would be served, its memory and its rate, and end",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Serves until a signal ends it, or tells what it would serve."""
    names = {}
    for given in options.models:
        name, _, directory = given.rpartition("=")
        if not directory:
            raise UserError(f"--model {given!r} names no directory; pass NAME=DIR, or DIR")
        name = name or directory
        if name in names:
            raise UserError(f"--model {given}: another model has the name {name}; give it its own")
        names[name] = directory
    if options.max_input_length in (1, 2):
        raise UserError(
            f"--max-input-length {options.max_input_length} leaves a text no room beside its"
            " special tokens; pass 3 or more, or 0 for the model's own length"
        )
    for field in OF_LOG:
        if not options.log and getattr(options, field) != getattr(DEFAULTS, field):
            raise UserError(
                f"--{field.replace('_', '-')} has no effect without --log DIR; pass both"
            )
    if options.explain is None:
        options.explain = not runs_exported(options)
    if runs_exported(options):
        refuse_without_effect(options, WITHOUT_EXPORTED)
    if options.json and not options.check:
        raise UserError("--json prints what --check finds; pass both")
    require_libraries("bertjax serve", "serve")
    from bertjax.serving.checkup import check_up
    from bertjax.serving.keys import read_keys
    from bertjax.serving.listen import listen, open_sockets
    from bertjax.serving.request_log import open_log
    from bertjax.serving.server import Server

    file = Path(options.api_key_file) if options.api_key_file else None
    keys = read_keys(file, os.environ.get("API_KEY"))
    values = {field: getattr(options, field) for field in ServeConfig._fields}
    values["cors_allow_origin"] = tuple(values["cors_allow_origin"])
    config = ServeConfig(**values)
    # Before the models are loaded: an address in use costs no minute.
    sockets = [] if options.check else open_sockets(config.hostname, config.port)
    log = open_log(config)
    models = {name: load_by_engine(options, directory) for name, directory in names.items()}
    with contextlib.closing(Server(models, config, log)) as server:
        for name, model in models.items():
            directory = "" if name == names[name] else f" ({names[name]})"
            tell([f"{name}{directory}: {model.architecture}", *model.notes])

        def warm_up() -> None:
            shapes = sum(served.shapes for served in server.models.values())
            with count_on("compiling", shapes) as progress:
                server.warm_up(progress)
            tell([f"ready: {shapes} shapes are compiled"])

        if not options.check:
            listen(server, sockets, keys, warm_up)
            return
        warm_up()
        found = check_up(server, keys)
    if options.json:
        print_json(found)
    else:
        print_fields(found)
