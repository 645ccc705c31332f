"""The results of a fine-tuning run: scores as JSON, predictions, figures, a model card."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.architectures import find_architecture, kind_of
from bertjax.config import BertConfig
from bertjax.program.outputs import whole_files
from bertjax.tasks.scoring import single_scores
from bertjax.tasks.task import Prediction, Task


def write_predictions(
    directory: Path, task: Task, examples: Sequence[Any], predictions: Sequence[Prediction]
) -> None:
    """Writes the task's `predictions.*` into the directory; other files there stay."""
    with whole_files(directory) as aside:
        task.write_predictions(aside, examples, predictions)


def make_model_card(
    config: BertConfig,
    task: Task,
    results: Mapping[str, Any],
    recipe: str,
    data: Sequence[str],
    base: str,
) -> str:
    """Makes the README.md of a model directory: what it is, its scores, data, recipe.

    Args:
        config: of the model.
        task: the task it was fine-tuned for.
        results: as in eval_results.json.
        recipe: the resolved config as YAML.
        data: a line about each split.
        base: the model directory it started from.
    """
    scores = []
    for split in ("validation", "test"):
        if split in results:
            scores += [f"| {split} | {name} | {value:.4f} |" for name, value in
                       single_scores(results[split]).items()]  # fmt: skip
    said = ["The last checkpoint was kept: there was no validation split."]
    if "validation" in results:
        best = f"the best validation {results['score']}"
        said = [f"The checkpoint with {best} was kept."]
        if results.get("kept", {}).get("by") == "loss" and results["score"] != "loss":
            said = [
                f"Of the checkpoints within chance of {best} that with the lowest loss was kept."
            ]
    if "test" in results:
        said.append("The test split was scored once, at the end.")
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            f"tags: [{config.MODEL_TYPE}, {task.name}]",
            "---",
            "",
            f"# {find_architecture(kind_of(task.name), config).name} for {task.name}",
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
