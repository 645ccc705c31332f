"""`bertjax verify`: whether a model computes the same however its examples are batched."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bertjax.commands.arguments import Number
from bertjax.commands.model_options import add_model
from bertjax.commands.screen import add_json, console, count_on, print_json
from bertjax.program.errors import UserError

if TYPE_CHECKING:
    from bertjax.verification.checks import Check

SUMMARY = "checks of a model on this machine: reference, padding, packing, devices, ..."

STYLES = {"ok": "green", "FAILED": "bold red", "not checked": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_model(parser, studies=True, dtype=False, devices=False)
    parser.add_argument(
        "--against",
        metavar="DIR_OR_NAME",
        help="a model of the same class that must give the same outputs: another directory, or a"
        " name on the Hugging Face hub, which needs torch and transformers (default: none)",
    )
    parser.add_argument(
        "--tolerance",
        metavar="SHARE",
        type=Number(float, above=0),
        help="the largest difference allowed, as a share of the largest value (default: 1e-5)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Prints a row for each check; 1 where one is over its tolerance."""
    from bertjax.verification.checks import TOLERANCE, checks_of, verify

    tolerance = TOLERANCE if options.tolerance is None else options.tolerance
    if not tolerance > 0:
        raise UserError(f"--tolerance {tolerance} must be above 0")
    names, checks = checks_of(options.against), []
    with count_on("checking", len(names)) as move_on:
        for check in verify(options.model, options.against, tolerance):
            checks.append(check)
            move_on(1)
    if options.json:
        print_json([{**check._asdict(), "result": check.result} for check in checks])
    else:
        _print_table(checks)
    return 1 if any(check.result == "FAILED" for check in checks) else 0


def _print_table(checks: Sequence["Check"]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("check", "difference", "allowed", "result", "compared"):
        table.add_column(column, justify="right" if column in ("difference", "allowed") else "left")
    for check in checks:
        difference = "" if check.difference is None else f"{check.difference:.1e}"
        result = Text(check.result, STYLES[check.result])
        table.add_row(check.name, difference, f"{check.tolerance:.0e}", result, Text(check.detail))
    console().print(table)
