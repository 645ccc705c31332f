"""`bertjax sweep`: the best values for the fields of another program's config."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from bertjax.program.config_parser import parse
from bertjax.sweeps.sweep import SweepConfig
from bertjax.sweeps.sweep import __doc__ as DESCRIPTION
from bertjax.sweeps.sweep import sweep as run

__all__ = ["DESCRIPTION", "read_config", "run"]


def read_config(words: Sequence[str]) -> SweepConfig:
    """Returns the config that the command line gives, `--fixed.NAME VALUE ...` included."""
    others, fixed = _split_fixed(words)
    config = parse(SweepConfig, DESCRIPTION, others, program="bertjax sweep")
    return dataclasses.replace(config, fixed={**config.fixed, **fixed})


def _split_fixed(words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Splits off the options `--fixed.NAME VALUE ...`; returns the others and these by name."""
    others: list[str] = []
    fixed: dict[str, list[str]] = {}
    values = others
    for word in words:
        if word.startswith("--fixed."):
            name, equals, value = word.removeprefix("--fixed.").partition("=")
            values = fixed[name.replace("-", "_")] = [value] if equals else []
        elif word.startswith("--"):
            values = others
            values.append(word)
        else:
            values.append(word)
    return others, {
        name: (given[0] if len(given) == 1 else given) if given else "true"
        for name, given in fixed.items()
    }
