"""`bertjax evaluate --watch`: scores every new checkpoint of a run as it appears."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertjax.commands.arguments import choose_length
from bertjax.commands.screen import tell
from bertjax.commands.task_model import read_data_config
from bertjax.program.strict_json import to_json

if TYPE_CHECKING:
    from bertjax.training.checkpoint_scores import Scorer


def watch(options: argparse.Namespace) -> None:
    """Prints the scores of checkpoints until the run is over, or is interrupted."""
    from bertjax.training.watching import watch_run

    run, known_notes = Path(options.watch), set[str]()

    def make_scorer(identity: Mapping[str, Any]) -> "Scorer":
        return _make_scorer(identity, run, options)

    print(f"watching {run}; Ctrl-C ends it", file=sys.stderr)
    for line, notes in watch_run(run, list(options.data), make_scorer, options.interval):
        scores = {name: value for name, value in line.items() if name not in ("step", "data")}
        shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(to_json(line) if options.json else f"step {line['step']}: {shown}", flush=True)
        if set(notes) != known_notes:
            known_notes = set(notes)
            tell(notes)


def _make_scorer(identity: Mapping[str, Any], run: Path, options: argparse.Namespace) -> "Scorer":
    """Makes the scorer of a run: of fine-tuning on labelled files, of pretraining on rows."""
    from bertjax.families.registry import read_config
    from bertjax.training.checkpoint_scores import score_on_labelled_files, score_on_rows

    if "task" not in identity:
        return score_on_rows(identity, options.data)
    remembered = json.loads((run / "run.json").read_text(encoding="utf-8")).get("data_format", {})
    reading = read_data_config(options, remembered)
    most = read_config(identity["model"]).max_length
    length = choose_length(options, most, identity["max_length"])
    score, notes = score_on_labelled_files(identity, options.data, reading, length)
    tell(notes)
    return score
