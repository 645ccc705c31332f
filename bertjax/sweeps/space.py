"""What a sweep varies: fields of a program's config, their ranges and choices, a trial's values."""

import dataclasses
import importlib
import itertools
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optuna
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from bertjax.program.config_fields import flat_fields
from bertjax.program.config_parser import nearest_field, parse
from bertjax.program.errors import UserError
from bertjax.tasks.scoring import LESS_IS_BETTER

Values = Mapping[str, Any]
Space = dict[str, BaseDistribution]

# What the sweep itself gives every trial, or a trial cannot do.
OWN_FIELDS = {
    "run": "each trial has a run directory of its own",
    "resume": "a trial is always continued",
    "dry_run": "a trial has to train",
    "json": "a trial's scores are read from its metrics.jsonl",
    "seeds": "a trial is one run; put seed into the space to see its effect",
}

_RANGE_KEYS = ("low", "high", "log", "step")

# TPE draws at random until it has seen this many trials, or a third of a short sweep.
_MOST_RANDOM_TRIALS = 10


class Program(NamedTuple):
    """A program whose config can be searched.

    Attributes:
        words: what starts it, after `python`; it reads `--config` and `--run`, writes
            metrics.jsonl and exits with 75 when stopped.
        module: the module of its config.
        config_class: the config's name in it.
    """

    words: list[str]
    module: str
    config_class: str


PROGRAMS = {
    "finetune": Program(
        ["-m", "bertjax", "finetune"], "bertjax.training.finetune_config", "FinetuneConfig"
    ),
    "pretrain": Program(
        ["-m", "bertjax", "pretrain"], "bertjax.training.pretrain_config", "PretrainConfig"
    ),
}


class Recipe(NamedTuple):
    """What all trials of a sweep have in common.

    Attributes:
        config_class: the program's config.
        base: a YAML file with the program's config; none if empty.
        fixed: fields that differ from `base`, by dotted name.
    """

    config_class: type
    base: str | None
    fixed: Values

    def resolve(self, values: Values, run: str) -> Any:
        """Makes the program's config with these values.

        Raises:
            UserError: what the program itself would refuse.
        """
        # Text is given as it is: quotation marks would become part of it.
        flags = [
            f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
            for name, value in {**self.fixed, **values, "run": run}.items()
        ]
        files = ["--config", self.base] if self.base else []
        return parse(self.config_class, "", [*files, *flags])

    def to_yaml(self, values: Values) -> str:
        """Returns the whole config with these values, as the program reads it, without `run`."""
        content = dataclasses.asdict(self.resolve(values, "run"))
        del content["run"]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def for_score(self, name: str, direction: str, space: Space) -> "Recipe":
        """Makes a recipe whose program keeps the model with the best score, where it can choose."""
        field = "scoring.score"  # of bertjax finetune, which itself knows the better direction
        known = field in dict(flat_fields(self.config_class))
        own = "minimize" if name.endswith(LESS_IS_BETTER) else "maximize"
        if not known or direction != own or field in self.fixed or field in space:
            return self
        return self._replace(fixed={**self.fixed, field: name})

    def check(self, space: Space) -> None:
        """Tries every choice and both ends of every range, with the first of the others.

        A value that is wrong by itself is an error now. What is wrong only together with another
        value of the space is left to the trial that draws both.

        Raises:
            UserError: a field does not accept a value; none of the combinations tried is valid.
        """
        ends = {name: _ends(distribution) for name, distribution in space.items()}
        first = {name: values[0] for name, values in ends.items()}
        complaints, tried = [], 0
        for name, values in ends.items():
            for value in values:
                tried += 1
                try:
                    self.resolve(first | {name: value}, "run")
                except UserError as error:
                    complaints.append(str(error))
                    alone = not any(f"{other}=" in str(error) for other in space if other != name)
                    if alone and str(error).startswith((f"{name}:", f"{name}=")):
                        raise UserError(f"space: {error}") from None
        if len(complaints) == tried:
            raise UserError(complaints[0])


def program_config(name: str) -> type:
    """Returns the config class of a program."""
    program = PROGRAMS[name]
    return getattr(importlib.import_module(program.module), program.config_class)


def flatten(mapping: Mapping[str, Any], config_class: type, where: str) -> dict[str, Any]:
    """Returns fields by dotted name, whether they were written so or nested.

    Args:
        mapping: as YAML gives it.
        config_class: the class with these fields.
        where: the mapping's name, for messages.

    Raises:
        UserError: an unknown field, with its nearest neighbour; a field set by the sweep itself.
    """
    names = [name for name, _ in flat_fields(config_class)]
    flat: dict[str, Any] = {}

    def walk(prefix: str, inner: Mapping[str, Any]) -> None:
        for key, value in inner.items():
            name = f"{prefix}{key}"
            if name in OWN_FIELDS and name in names:
                raise UserError(f"{where}: {name} is set by the sweep: {OWN_FIELDS[name]}")
            if name in names:
                flat[name] = value
            elif isinstance(value, Mapping) and any(
                known.startswith(f"{name}.") for known in names
            ):
                walk(f"{name}.", value)
            else:
                raise UserError(
                    f"{where}: unknown field {name}{nearest_field(name, names)}"
                    f" ({config_class.__name__} has {len(names)} fields, --help of the program"
                    " lists them)"
                )

    walk("", mapping)
    return flat


def read_space(given: Mapping[str, Any], config_class: type) -> Space:
    """Reads the distribution of every field that varies.

    Raises:
        UserError: no field at all, an unknown one, or an invalid range or choices.
    """
    hints = dict(flat_fields(config_class))
    space = {
        name: _distribution(name, entry, hints[name])
        for name, entry in flatten(given, config_class, "space").items()
    }
    if not space:
        raise UserError(
            "space is empty: name at least one field, such as"
            " `optimizer.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}`"
        )
    return space


def _distribution(name: str, entry: Any, hint: Any) -> BaseDistribution:
    if not isinstance(entry, Mapping) or not ({"choices"} == set(entry) or _is_range(entry)):
        raise UserError(
            f"space: {name}: {entry!r} is neither {{choices: [...]}} nor {{low: ..., high: ...}}"
            " (with log: true or step: ... if needed)"
        )
    if "choices" in entry:
        return _choices(name, entry["choices"])
    kinds = {float, int} & set(typing.get_args(hint) or [hint])
    if not kinds:
        raise UserError(f"space: {name} is not a number; give it choices: [...], not a range")
    numbers = {
        key: _number(name, key, entry[key]) for key in ("low", "high", "step") if key in entry
    }
    if float not in kinds:
        for key, value in numbers.items():
            if value != int(value):
                raise UserError(f"space: {name} is a whole number, {key}={value} is not")
        numbers = {key: int(value) for key, value in numbers.items()}
    low, high, step, log = numbers["low"], numbers["high"], numbers.get("step"), entry.get("log")
    if not isinstance(log, bool | None):
        raise UserError(f"space: {name}: log={log!r} must be true or false")
    if not low < high:
        raise UserError(f"space: {name}: low={low} must be below high={high}")
    if log and (low <= 0 or step is not None):
        raise UserError(f"space: {name}: log: true needs low={low} above 0, and no step")
    if step is not None and not 0 < step <= high - low:
        raise UserError(f"space: {name}: step={step} must be in (0, high - low]")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-6:
        raise UserError(f"space: {name}: steps of {step} from low={low} do not end at high={high}")
    if float in kinds:
        return FloatDistribution(low, high, log=bool(log), step=step)
    return IntDistribution(low, high, log=bool(log), step=step or 1)


def _is_range(entry: Mapping[str, Any]) -> bool:
    return {"low", "high"} <= set(entry) <= set(_RANGE_KEYS)


def _choices(name: str, choices: Any) -> CategoricalDistribution:
    plain = isinstance(choices, list) and all(
        value is None or isinstance(value, bool | int | float | str) for value in choices
    )
    if not plain or not choices:
        raise UserError(
            f"space: {name}: choices={choices!r} must be a list of numbers, words, true, false"
            " or null"
        )
    if len({json.dumps(value) for value in choices}) < len(choices):
        raise UserError(f"space: {name}: choices={choices!r} has a value twice")
    return CategoricalDistribution(choices)


def _number(name: str, key: str, value: Any) -> float:
    try:  # YAML 1.1 reads 1e-5, without a dot, as text
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if isinstance(value, bool) or not np.isfinite(number):
        raise UserError(f"space: {name}: {key}={value!r} is not a number")
    return int(value) if isinstance(value, int) else number


def _ends(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    return [distribution.low, distribution.high]


def grid_of(space: Space) -> dict[str, list[Any]]:
    """Returns every value of every field.

    Raises:
        UserError: a range of floats without a step, which has infinitely many values.
    """
    grid = {}
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            grid[name] = list(distribution.choices)
        elif distribution.step is None:
            raise UserError(
                f"space: {name} has infinitely many values; a grid needs its step or choices"
            )
        elif distribution.log:
            grid[name] = list(range(distribution.low, distribution.high + 1))
        else:
            count = round((distribution.high - distribution.low) / distribution.step) + 1
            grid[name] = [distribution.low + index * distribution.step for index in range(count)]
    return grid


def count_trials(sampler: str, space: Space, trials: int | None) -> int:
    """Counts the trials of a sweep: the number requested; for a grid at most all of it."""
    if sampler != "grid":
        if trials is None:
            raise UserError("--trials N is missing: how many trials; only a grid is finite")
        return trials
    size = len(list(itertools.product(*grid_of(space).values())))
    return size if trials is None else min(trials, size)


def random_trials(trials: int) -> int:
    """Returns how many trials TPE draws at random, and pruners leave alone, at first."""
    return max(1, min(_MOST_RANDOM_TRIALS, trials // 3))


def sample(
    space: Space,
    sampler: str,
    seed: int,
    so_far: Sequence[optuna.trial.FrozenTrial],
    direction: str,
    trials: int,
) -> dict[str, Any]:
    """Draws the values of the next trial: a pure function of the arguments.

    So a killed sweep continues as it would have gone on, and what a random or grid sampler
    draws for trial n depends on the seed and n alone.

    Args:
        space: the fields.
        sampler: how they are drawn.
        seed: the sweep's seed.
        so_far: all trials, including running ones; their number is the new trial's.
        direction: minimize or maximize.
        trials: how many the sweep will have.
    """
    number = len(so_far)
    of_trial = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if sampler == "grid":
        draws = optuna.samplers.GridSampler(grid_of(space), seed=seed)
    elif sampler == "random":
        draws = optuna.samplers.RandomSampler(seed=of_trial)
    else:
        draws = optuna.samplers.TPESampler(seed=of_trial, n_startup_trials=random_trials(trials))
    study = optuna.create_study(sampler=draws, direction=direction, study_name="sweep")
    study.add_trials(so_far)
    return dict(study.ask(space).params)
