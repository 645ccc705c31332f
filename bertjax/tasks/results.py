"""What a fine-tuning run leaves: scores as JSON, predictions, figures, a model card."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertjax.strict_json import to_json
from bertjax.tasks.scores import scoring_library
from bertjax.tasks.scoring import single_scores
from bertjax.tasks.task import Prediction, Task

# From Okabe & Ito's palette, which colour-blind people can tell apart.
_BLUE, _ORANGE = "#0072b2", "#d55e00"


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


def draw_curves(path: Path, lines: Sequence[Mapping[str, Any]], score: str) -> None:
    """Training and validation loss over steps, and the score below them, as PNG.

    Args:
        path: of the picture.
        lines: of metrics.jsonl.
        score: the one that chose the checkpoint.
    """
    figure, (above, below) = _subplots(2, 1, figsize=(7, 6), sharex=True)
    for split, color in (("train", _BLUE), ("validation", _ORANGE)):
        steps = [line["step"] for line in lines if line["split"] == split]
        losses = [line["loss"] for line in lines if line["split"] == split]
        above.plot(steps, losses, marker="o" * (split != "train"), color=color, label=split)
    above.set_ylabel("loss")
    above.legend()
    scored = [line for line in lines if line["split"] == "validation" and score in line]
    below.plot(
        [line["step"] for line in scored], [line[score] for line in scored], "o-", color=_ORANGE
    )
    below.set_ylabel(f"validation {score}")
    below.set_xlabel("step")
    _save(figure, path)


def draw_lines(path: Path, lines: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """The numbers of these names over the lines' steps, each in a panel of its own, as PNG."""
    figure, panels = _subplots(
        len(names), 1, figsize=(7, 1.8 * len(names)), sharex=True, squeeze=False
    )
    ordered = sorted(lines, key=lambda line: line["step"])
    steps = [line["step"] for line in ordered]
    for name, panel in zip(names, panels[:, 0], strict=True):
        panel.plot(steps, [line.get(name) for line in ordered], "o-", color=_BLUE)
        panel.set_ylabel(name)
    panels[-1, 0].set_xlabel("step")
    _save(figure, path)


def draw_confusion_matrix(
    path: Path, matrix: Sequence[Sequence[int]], labels: Sequence[str]
) -> None:
    """A row for each true label, a column for each predicted one, as PNG."""
    figure, axes = _subplots(1, 1, figsize=(2 + 0.6 * len(labels), 1.5 + 0.6 * len(labels)))
    shares = [[count / max(1, sum(row)) for count in row] for row in matrix]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if len(labels) <= 20:
        for row, counts in enumerate(matrix):
            for column, count in enumerate(counts):
                color = "white" if shares[row][column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
    _save(figure, path)


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


def _subplots(rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    scoring_library("matplotlib").use("Agg", force=False)
    return scoring_library("matplotlib.pyplot").subplots(rows, columns, **options)


def _save(figure: Any, path: Path) -> None:
    aside = path.with_name(f"{path.stem}.partial{path.suffix}")
    figure.savefig(aside, dpi=120, bbox_inches="tight")
    scoring_library("matplotlib.pyplot").close(figure)
    os.replace(aside, path)
