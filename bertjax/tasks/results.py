"""What a fine-tuning run leaves: scores as JSON, predictions, figures, a model card."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.strict_json import to_json
from bertjax.tasks.scoring import single_scores
from bertjax.tasks.task import Prediction, Task


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes it whole or not at all; a number that is not finite becomes null."""
    aside = path.with_name(f"{path.name}.partial")
    text = to_json(content, indent=2)
    aside.write_text(text + "\n", encoding="utf-8")
    os.replace(aside, path)


def write_predictions(
    directory: Path, task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> None:
    """Writes the task's `predictions.*` into the directory; what else lies there stays."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory) as aside:
        task.write_predictions(Path(aside), examples, predictions)
        for file in Path(aside).iterdir():
            os.replace(file, directory / file.name)


def make_model_card(
    task: Task, results: Mapping[str, Any], recipe: str, data: Sequence[str], base: str
) -> str:
    """The README.md of a model directory: what it is, its scores, data, recipe.

    Args:
        task: what it was fitted to.
        results: as in eval_results.json.
        recipe: the resolved config as YAML.
        data: a line for each split, what it was.
        base: the model directory it began with.
    """
    scores = []
    for split in ("validation", "test"):
        if split in results:
            scores += [f"| {split} | {name} | {value:.4f} |" for name, value in
                       single_scores(results[split]).items()]  # fmt: skip
    said = ["The last checkpoint was kept: there was no validation split."]
    if "validation" in results:
        said = [f"The checkpoint with the best validation {results['score']} was kept."]
    if "test" in results:
        said.append("The test split was scored once, at the end.")
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            f"tags: [bert, {task.name}]",
            "---",
            "",
            f"# {task.architecture} for {task.name}",
            "",
            f"Fine-tuned from `{base}` with bertjax, seed {results['seed']},"
            f" {results['steps']} steps. {' '.join(said)}",
            "",
            "| split | score | value |",
            "|---|---|---|",
            *scores,
            "",
            "## Data",
            "",
            *[f"- {line}" for line in data],
            "",
            "## Recipe",
            "",
            "```yaml",
            recipe.rstrip(),
            "```",
            "",
        ]
    )
