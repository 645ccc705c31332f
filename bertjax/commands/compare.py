"""`bertjax compare`: whether one model is better than another on the same examples."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from bertjax.commands.arguments import Number
from bertjax.commands.screen import add_json, print_fields, print_json
from bertjax.program.errors import UserError

SUMMARY = "whether model B is better than model A on the same examples, by a test"

# What is taken of each file.
NEEDED = ("task", "data", "fingerprint", "slice_score", "outcomes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("a", metavar="A.json", help="what `bertjax evaluate --output` wrote of A")
    parser.add_argument("b", metavar="B.json", help="the same of B, on the same data")
    parser.add_argument(
        "--level",
        type=Number(float, above=0, below=1),
        default=0.05,
        help="chance of calling two equally good models different (default: %(default)s)",
    )
    add_json(parser)


def run(options: argparse.Namespace) -> None:
    """Compares and prints."""
    from bertjax.tasks.significance import compare_evaluations

    names = options.a, options.b
    compared = compare_evaluations(_read(names[0]), _read(names[1]), names, options.level)
    result = {**compared._asdict(), "interval": list(compared.interval)}
    if options.json:
        print_json(result)
    else:
        print_fields(result)
        word = {"better": "is better than", "worse": "is worse than"}.get(
            compared.verdict, "cannot be told apart from"
        )
        print(f"B {word} A")


def _read(path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with `bertjax evaluate --output`") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    missing = [name for name in NEEDED if not isinstance(content, dict) or name not in content]
    if missing:
        raise UserError(f"{path}: not what `bertjax evaluate --output` writes (no {missing[0]})")
    values = content["outcomes"]
    kinds = {"task": str, "data": list, "fingerprint": str, "slice_score": str, "outcomes": list}
    wrong = [name for name, kind in kinds.items() if not isinstance(content[name], kind)]
    if not wrong and not all(isinstance(name, str) for name in content["data"]):
        wrong = ["data"]
    if not wrong and not (values and all(_is_number(value) for value in values)):
        wrong = ["outcomes"]
    if wrong:
        raise UserError(
            f"{path}: {wrong[0]} is not what `bertjax evaluate --output` writes there; evaluate"
            " again"
        )
    return content


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
