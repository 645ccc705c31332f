"""Which labelled files there are, and how those of each task are read."""

import dataclasses
from collections.abc import Set
from pathlib import Path
from typing import ClassVar, Literal

from bertjax.program.errors import UserError
from bertjax.tasks.columns import ColumnsConfig
from bertjax.tasks.tagged_sentences import TaggedConfig

TaskName = Literal[
    "classification", "multi-label", "regression", "tokens", "question-answering", "multiple-choice"
]


# What a split of rows that a program has in memory is called, where files have their paths.
IN_MEMORY = "memory:"


@dataclasses.dataclass(frozen=True)
class DataConfig(ColumnsConfig, TaggedConfig):
    """Labelled files, and which of their columns hold what.

    Attributes:
        train: files, folders or globs to learn from
        validation: files that choose the best checkpoint; none = a share of train
        test: files for the final scores; none = a share of train
        validation_share: of train, by the hash of its texts, where there are no validation files;
            none = a tenth, or nothing where a tenth is fewer than 25 examples
        test_share: of train, where there are no test files; none = a tenth, or nothing where a
            tenth is fewer than 10 examples
    """

    train: list[str] = dataclasses.field(default_factory=list)
    validation: list[str] = dataclasses.field(default_factory=list)
    test: list[str] = dataclasses.field(default_factory=list)
    validation_share: float | None = None
    test_share: float | None = None
    option_prefix: ClassVar[str] = "--data."

    def absolute_paths(self, split: str) -> list[str]:
        """Returns a split's files as absolute paths; names of anything else stay as they are.

        Args:
            split: train, validation or test.
        """
        return [
            name
            if name.startswith(("dataset:", IN_MEMORY))
            else str(Path(name).expanduser().absolute())
            for name in getattr(self, split)
        ]

    def __post_init__(self) -> None:
        for name in ("validation_share", "test_share"):
            if not 0 <= (getattr(self, name) or 0.0) < 1:
                raise UserError(f"data.{name}={getattr(self, name)} must be in [0, 1)")
        for name in ("labels", "label_columns"):
            names = getattr(self, name)
            if twice := [name for name in names if names.count(name) > 1]:
                raise UserError(f"{name}={names} has {twice[0]!r} twice; name each label once")


@dataclasses.dataclass(frozen=True)
class CommandDataConfig(DataConfig):
    """A `DataConfig` whose fields are a command's options, without the prefix `data.`.

    Attributes:
        remembered: the fields whose values the model remembers
    """

    remembered: frozenset[str] = frozenset()
    option_prefix: ClassVar[str] = "--"


def field_names(config: type) -> set[str]:
    """Returns the names of the fields of a dataclass."""
    return {field.name for field in dataclasses.fields(config)}


# The fields of a `DataConfig` that name files.
_SPLITS = {"train", "validation", "test", "validation_share", "test_share"}


def check_options(name: TaskName, config: DataConfig, read: Set[str]) -> None:
    """Refuses options without effect: those that are not among the fields that are `read`."""
    default = DataConfig()
    for field in sorted(field_names(DataConfig) - _SPLITS - read):
        given = getattr(config, field)
        if given != getattr(default, field):
            raise UserError(
                f"{config.option(field)} {given!r}: is not read with task={name}; leave it out"
            )
