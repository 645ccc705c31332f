"""Watches a run that another process is training: its finished checkpoints, which are only read."""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from bertjax.pictures import draw_table_of_lines
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.training.metrics import read_metrics

TABLE_NAME, PLOT_NAME = "watch.jsonl", "watch.png"


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


def watch_run(
    run: Path,
    data: Sequence[str],
    make_scorer: Callable[[Mapping[str, Any]], Callable[[SavedModel], dict[str, float]]],
    interval: float,
) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """Scores new checkpoints until the run is over, into its watch.jsonl and watch.png.

    Checkpoints that the table has are not scored again.

    Args:
        run: the directory.
        data: the names of what is scored on, for the table.
        make_scorer: makes from the run's identity what computes scores (`checkpoint_scores`).
        interval: seconds between two checks for checkpoints.

    Returns:
        For each checkpoint its line of the table, and what could not be drawn.

    Raises:
        UserError: the table has scores on other data, or this is no run directory.
    """
    lines: list[dict[str, Any]] = read_metrics(run / TABLE_NAME)
    for other in (line["data"] for line in lines if line.get("data", data) != data):
        raise UserError(
            f"{run / TABLE_NAME}: has the scores on {' '.join(other)}; give --data the same, or"
            " move the table away"
        )
    score = None
    while True:
        over = is_finished(run)  # checked before the checkpoints, so that none is missed
        known = {line["step"] for line in lines}
        for step in finished_steps(run):
            saved = None if step in known else read_saved_model(run, step)
            if saved is None:
                continue
            score = score or make_scorer(saved.identity)
            scores = score(saved)
            line = {"step": step, "data": data, **scores}
            lines.append(line)
            with (run / TABLE_NAME).open("a", encoding="utf-8") as table:
                table.write(to_json(line) + "\n")
            yield line, draw_table_of_lines(run / PLOT_NAME, lines, list(scores))
        if over:
            return
        time.sleep(interval)
