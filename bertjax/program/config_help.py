"""The --help of a program whose options are the fields of a config."""

import argparse
import dataclasses
import json
import typing
from typing import Any, Literal, NoReturn

import docstring_parser

from bertjax.program.config_fields import kinds_of, own_default


def show_help(config_class: type, description: str, program: str | None) -> NoReturn:
    """Prints the help to standard output and ends the program.

    Args:
        config_class: the config; the docstring of each dataclass describes its fields.
        description: what the program does.
        program: the program's name.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [--config FILE.yaml] [--option VALUE ...]",
        description=description,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        help="any of the fields below, with _ for -; options take precedence over it",
    )
    _add_fields(parser, config_class)
    parser.print_help()
    parser.exit()


def _add_fields(
    parser: argparse.ArgumentParser, config_class: type, prefix: str = "", made: Any = None
) -> None:
    """Adds the fields of a dataclass as a group, then those of the dataclasses in it.

    Args:
        parser: of the program.
        config_class: the dataclass.
        prefix: of its fields.
        made: holds the defaults, where they are not those of the class.
    """
    documents = [
        base.__doc__ or "" for base in config_class.__mro__ if dataclasses.is_dataclass(base)
    ]
    group = parser.add_argument_group(documents[0].partition("\n")[0].rstrip("."))
    own = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(own[field.name]):
            continue
        hint, default = own[field.name], field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if made is not None:
            default = getattr(made, field.name)
        required = default is dataclasses.MISSING
        known = "" if required else f" (default: {_shown(default)})"
        said = next(filter(None, (_attribute(text, field.name) for text in documents)), "")
        group.add_argument(
            f"--{prefix}{field.name}",
            metavar=_metavar(hint),
            help=f"{said}{' (required)' if required or default == '' else known}".replace(
                "%", "%%"
            ),
        )
    for field in dataclasses.fields(config_class):
        if dataclasses.is_dataclass(own[field.name]):
            hint = own[field.name]
            _add_fields(parser, hint, f"{prefix}{field.name}.", own_default(field, hint))


def _attribute(document: str, name: str) -> str:
    """Returns what a docstring's `Attributes:` section says of each field."""
    for parameter in docstring_parser.parse(document).params:
        if parameter.arg_name == name:
            return " ".join((parameter.description or "").split())
    return ""


def _metavar(hint: Any) -> str:
    kinds = [kind for kind in kinds_of(hint) if kind is not type(None)]
    if typing.get_origin(kinds[0]) is Literal:
        return "{" + ",".join(map(str, typing.get_args(kinds[0]))) + "}"
    if typing.get_origin(kinds[0]) is list:
        return f"{_metavar(typing.get_args(kinds[0])[0])} ..."
    names = {int: "N", float: "X", bool: "{true,false}", str: "TEXT"}
    return names.get(kinds[0], "JSON")


def _shown(default: Any) -> str:
    """Returns a default as the user would type it."""
    if isinstance(default, list):
        return " ".join(map(str, default)) or "none"
    return default if isinstance(default, str) else json.dumps(default, default=str)


class _HelpFormatter(argparse.HelpFormatter):
    """Help that keeps paragraphs and indented text, and shows options as typed, with hyphens."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n\n".join(
            part
            if part.startswith(" ")
            else super(_HelpFormatter, self)._fill_text(part, width, "")
            for part in text.strip("\n").split("\n\n")
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{action.option_strings[0].replace('_', '-')} {action.metavar}"
