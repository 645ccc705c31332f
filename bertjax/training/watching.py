"""Looks into a run that another process is training: its finished checkpoints, read and no more."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from bertjax.program.errors import UserError
from bertjax.training.metrics import read_metrics


class SavedModel(NamedTuple):
    """The model of a checkpoint.

    Attributes:
        params: the collection "params".
        statistics: the model's other collections.
        identity: what the run said of itself (`training.run_directory.open_run`).
    """

    params: Any
    statistics: Any
    identity: Mapping[str, Any]


def finished_steps(run: Path) -> list[int]:
    """Returns the steps of the run's finished checkpoints, oldest first.

    Raises:
        UserError: it is not a run directory.
    """
    checkpoints = run / "checkpoints"
    if not checkpoints.is_dir():
        raise UserError(f"{run}: no run directory (it has no checkpoints); name that of --run")
    return sorted(int(folder.name) for folder in checkpoints.iterdir() if folder.name.isdigit())


def read_saved_model(run: Path, step: int) -> SavedModel | None:
    """Returns the model of a checkpoint; None where it went while it was read, as old ones do."""
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    folder = (run / "checkpoints" / str(step)).absolute()
    try:
        notes = json.loads((folder / "notes" / "metadata").read_text(encoding="utf-8"))
        state = ocp.StandardCheckpointer().restore(folder / "state")
    except (OSError, ValueError):
        if folder.exists():
            raise
        return None
    params, statistics = jax.tree.map(np.asarray, (state["params"], state["statistics"]))
    return SavedModel(params, statistics, notes["notes"]["identity"])


def is_finished(run: Path) -> bool:
    """Returns whether the run is over, its test split scored if it has one."""
    if (run / "eval_results.json").exists():  # of fine-tuning, where there may be no test split
        return True
    return any(line["split"] == "test" for line in read_metrics(run / "metrics.jsonl"))
