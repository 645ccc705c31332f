"""What a run comes to, for a Python program."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from bertjax.loaded import Model, load
from bertjax.program.errors import UserError
from bertjax.program.wording import counted

# Scores of a split that are shown of a result.
_MOST_SHOWN = 3


@dataclasses.dataclass(frozen=True, repr=False)
class Result:
    """A run that is over, or was stopped.

    Attributes:
        scores: of the held-out examples, `validation` and `test`, as the run's last file has them;
            `notes` says why a split has none. Empty for a run that was stopped, and a dry run.
        history: the lines of metrics.jsonl.
        run: its directory. One that was not named is temporary, and is gone with this object.
        notes: a sentence for everything that is not as it was given.
        stopped: the signal that stopped the run; None = it is over. The same call continues.
        kept_alive: the temporary directory, which is deleted with the result; None of a named run.
    """

    scores: dict[str, Any]
    history: list[dict[str, Any]]
    run: Path
    notes: list[str]
    stopped: str | None = None
    kept_alive: Any = None

    @property
    def model_directory(self) -> Path:
        """Where the best model so far is saved."""
        return self.run / "model"

    @functools.cached_property
    def model(self) -> Model:
        """The best model so far, loaded when it is first asked for.

        Raises:
            UserError: there is none: the run was stopped before its first evaluation, or it is one
                of several seeds, each of which has a model of its own.
        """
        if not self.model_directory.is_dir():
            raise UserError(
                f"{self.run} has no model yet: it is saved by the first evaluation, and where there"
                " are several seeds in their own directories (seed-0/model)"
            )
        return load(self.model_directory)

    def __repr__(self) -> str:
        state = f"stopped by {self.stopped}" if self.stopped else "over"
        parts = [
            f"run={str(self.run)!r}",
            state,
            f"history of {counted(len(self.history), 'line')}",
        ]
        for split in ("validation", "test"):
            figures = self.scores.get(split, {}).items()
            single = [f"{name} {value:.4g}" for name, value in figures if type(value) is float]
            if single:
                parts.append(f"{split}: {', '.join(single[:_MOST_SHOWN])}")
        if self.scores and not {"validation", "test"} & self.scores.keys():
            parts.append("no scores: there are no validation or test examples")
        return f"Result({', '.join(parts)})"
