"""The tables of docs/serving.md: settings as `bertjax serve --help` says, and every status."""

import argparse
import re
from pathlib import Path

from bertjax import cli
from bertjax.serving import problems

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"


def make_table():
    """The table, of every option but --help; defaults as they are without environment variables."""
    [commands] = (
        action
        for action in cli.make_parser()._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    rows = ["| option | variable | default | meaning |", "|---|---|---|---|"]
    for action in commands.choices["serve"]._actions:
        if "--help" in action.option_strings:
            continue
        meaning, _, told = action.help.partition(" (")
        meaning = meaning if told else action.help
        variable = re.search(r"\b[A-Z]+(?:_[A-Z]+)*\b", told)
        default = action.default
        if isinstance(default, bool):
            default = "yes" if default else "no"
        elif not isinstance(default, int | float | str):  # None, or an empty list
            default = ""
        option = " ".join(filter(None, (action.option_strings[0], action.metavar)))
        name = ", ".join(f"`{one}`" for one in (option, *action.option_strings[1:]))
        named = f"`{variable[0]}`" if variable else ""
        rows.append(f"| {name} | {named} | {default} | {meaning} |")
    return "\n".join(rows)


def test_table_is_what_the_command_takes():
    table = make_table()
    assert table in PAGE.read_text(encoding="utf-8"), f"docs/serving.md lacks:\n{table}"


def test_every_status_of_a_refusal_is_documented():
    kinds = [kind for kind in vars(problems).values() if isinstance(kind, problems.Kind)]
    page = PAGE.read_text(encoding="utf-8")
    documented = {int(status) for status in re.findall(r"^\| (\d{3}) \|", page, re.M)}
    assert documented == {kind.status for kind in kinds} - {500}  # a bug is no refusal
