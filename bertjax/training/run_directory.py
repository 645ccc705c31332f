"""A run directory: config, provenance, checkpoints, metrics and the model that came of it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax.errors import UserError
from bertjax.training.checkpoint import CheckpointConfig, Checkpoints
from bertjax.training.provenance import describe_environment


def open_run(
    run: Path, config: CheckpointConfig, identity: Mapping[str, Any], resume: bool
) -> Checkpoints:
    """Opens, or begins, a run directory and returns its checkpoints.

    Args:
        run: the directory.
        config: which checkpoints are kept.
        identity: what must be as it was when the run was begun.
        resume: whether a run that has checkpoints may be continued.

    Raises:
        UserError: the directory holds something else, or a run that these settings do not continue.
    """
    if run.exists() and not run.is_dir():
        raise UserError(f"--run {run}: is a file; name a directory")
    if run.exists() and any(run.iterdir()) and not (run / "checkpoints").is_dir():
        raise UserError(f"--run {run}: holds something that is not a run; name a new directory")
    run.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(run / "checkpoints", config)
    notes = checkpoints.newest_notes()
    if notes is None:
        return checkpoints
    if not resume:
        raise UserError(
            f"--run {run}: has checkpoints and --resume is false; name a new directory or remove it"
        )
    then = notes["identity"]
    changed = [name for name in identity if identity[name] != then.get(name)]
    if changed:
        details = "; ".join(
            f"{name}: {then.get(name)} then, {identity[name]} now" for name in changed
        )
        raise UserError(
            f"--run {run}: was begun with other settings and can not be continued with these "
            f"({details}). Put them back, or name a new --run directory"
        )
    return checkpoints


def write_provenance(run: Path, config_yaml: str, origin: Mapping[str, Any]) -> None:
    """Writes the resolved config, and where a run comes from: versions, devices, `origin`."""
    about = {**origin, **describe_environment()}
    for name, text in (
        ("config.yaml", config_yaml),
        ("run.json", json.dumps(about, indent=2) + "\n"),
    ):
        aside = run / f"{name}.partial"
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, run / name)
