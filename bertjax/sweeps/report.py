"""The results of a sweep: its table, results.csv, results.jsonl, best.yaml and three figures."""

import csv
import functools
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from bertjax.pictures import draw_picture
from bertjax.program.outputs import write_whole
from bertjax.program.strict_json import to_json
from bertjax.training.progress import describe_duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
    TrialState.WAITING: "unfinished",
}

# Fewer trials than this say little about importance.
_FEW_TRIALS = 40


def make_rows(trials: Sequence[FrozenTrial], score: str) -> list[dict[str, Any]]:
    """Makes a row for each trial, by number.

    The score of a pruned or unfinished trial is its last one.
    """
    rows = []
    for trial in trials:
        last = trial.intermediate_values.get(trial.last_step)
        value = trial.value if trial.value is not None else last
        rows.append(
            {
                "trial": trial.number,
                "state": _STATES[trial.state],
                score: None if value is None or value != value else value,
                "validations": len(trial.intermediate_values),
                "seconds": trial.user_attrs.get("seconds"),
                # That of the evaluation whose checkpoint was kept.
                **{
                    name: trial.user_attrs.get(name)
                    for name in ("step", "loss", "standard_error")
                    if name != score
                },
                "values": dict(trial.params),
                "error": trial.user_attrs.get("error"),
            }
        )
    return rows


def rank_rows(
    rows: Sequence[Mapping[str, Any]], score: str, direction: str
) -> list[Mapping[str, Any]]:
    """Returns the complete trials, the best first and the rest by score, then the others.

    As with the checkpoints of a run (`tasks.selection`), the best has the lowest loss of those
    whose score is within a standard error of the best score.
    """
    sign = 1 if direction == "minimize" else -1

    def order(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return (sign * row[score], *_by_loss(row))

    complete = sorted((row for row in rows if row["state"] == "complete"), key=order)
    others = [row for row in rows if row["state"] != "complete"]
    if not complete:
        return others
    best = min(
        rivals_of_best(complete, score, direction), key=lambda row: (*_by_loss(row), order(row))
    )
    return [best, *(row for row in complete if row is not best), *others]


def best_of(ranked: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Returns the best trial of `rank_rows`; None where no trial is complete."""
    return ranked[0] if ranked and ranked[0]["state"] == "complete" else None


def rivals_of_best(
    complete: Sequence[Mapping[str, Any]], score: str, direction: str
) -> list[Mapping[str, Any]]:
    """Returns the complete trials within a standard error of the best score, the best included."""
    sign = 1 if direction == "minimize" else -1
    best = min(complete, key=lambda row: sign * row[score])
    error = 0.0 if best.get("standard_error") is None else best["standard_error"]
    return [row for row in complete if sign * row[score] <= sign * best[score] + error]


def _by_loss(row: Mapping[str, Any]) -> tuple[float, int]:
    loss = row.get("loss")
    return (math.inf if loss is None else loss), row["trial"]


def write_results(directory: Path, rows: Sequence[Mapping[str, Any]], score: str) -> None:
    """Writes results.csv, with a column for each field, and results.jsonl."""
    names = sorted({name for row in rows for name in row["values"]})
    kept = [name for name in ("step", "loss", "standard_error") if name != score]
    columns = ["trial", "state", score, *kept, "validations", "seconds", *names, "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        flat = {name: value for name, value in row.items() if name != "values"}
        writer.writerow(flat | {name: _shown(value) for name, value in row["values"].items()})
    write_whole(directory / "results.csv", text.getvalue())
    lines = "".join(to_json(row) + "\n" for row in rows)
    write_whole(directory / "results.jsonl", lines)


def print_table(ranked: Sequence[Mapping[str, Any]], score: str) -> None:
    """Prints the trials to standard output."""
    names = sorted({name for row in ranked for name in row["values"]})
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("trial", justify="right")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    for name in (score, "time", "state"):
        table.add_column(name, justify="left" if name == "state" else "right")
    for row in ranked:
        values = [_shown(row["values"].get(name)) for name in names]
        seconds = row["seconds"]
        state = row["state"] if row["error"] is None else f"failed: {row['error']}"
        if row["state"] == "pruned":
            state = f"pruned after {row['validations']}"
        table.add_row(
            str(row["trial"]),
            *values,
            "" if row[score] is None else f"{row[score]:.4f}",
            "" if seconds is None else describe_duration(seconds),
            state,
        )
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a file has no width
        console = Console(highlight=False, markup=False, width=200)
    console.print(table)


def describe_values(values: Mapping[str, Any]) -> str:
    """Returns `learning_rate=0.0003 batch_size=16`: the last part of a name, where unambiguous."""
    short = [name.rpartition(".")[2] for name in values]
    return " ".join(
        f"{last if short.count(last) == 1 else name}={_shown(value)}"
        for (name, value), last in zip(values.items(), short, strict=True)
    )


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def draw_figures(directory: Path, study: optuna.Study, score: str) -> list[str]:
    """Draws history.png, importance.png and parallel_coordinates.png.

    In the last two a pruned trial counts with its last score: bad values show only there.

    Returns:
        A sentence for each figure that could not be drawn.
    """
    import matplotlib

    matplotlib.use("agg")  # optuna draws with pyplot
    from matplotlib import pyplot

    judged = _with_pruned_as_complete(study)
    varied = len({json.dumps(trial.params, sort_keys=True) for trial in judged.trials})
    notes = []
    for name, draw, least, shown in (
        ("history", _draw_history, 1, study),
        ("parallel_coordinates", _draw_parallel_coordinates, 2, judged),
        ("importance", _draw_importance, 2, judged),
    ):
        if varied < least:
            few = "1 trial with a score" if least == 1 else f"{least} different trials with scores"
            notes.append(f"no {name}.png: it needs {few}")
            continue
        notes += draw_picture(directory / f"{name}.png", functools.partial(draw, shown, score))
    pyplot.close("all")
    return notes


def _with_pruned_as_complete(study: optuna.Study) -> optuna.Study:
    judged = optuna.create_study(direction=study.direction)
    for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED)):
        if trial.value is not None:
            trial.state = TrialState.COMPLETE
            judged.add_trial(trial)
    return judged


def _draw_history(study: optuna.Study, score: str) -> "Figure":
    from optuna.visualization.matplotlib import plot_optimization_history

    axes = plot_optimization_history(study, target_name=score)
    pruned = [
        (trial.number, trial.value)
        for trial in study.get_trials(states=(TrialState.PRUNED,))
        if trial.value is not None
    ]
    if pruned:
        axes.scatter(*zip(*pruned, strict=True), marker="x", color="gray", label="pruned, last")
        axes.legend(bbox_to_anchor=(1.02, 1.0), loc="upper left")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title(f"{score} of each trial")
    return axes.figure


def _draw_importance(study: optuna.Study, score: str) -> "Figure":
    from optuna.visualization.matplotlib import plot_param_importances

    # By default it looks at the best tenth alone, which is one of a dozen trials.
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    axes = plot_param_importances(study, evaluator=evaluator, target_name=score)
    axes.get_legend().remove()
    few = ": few, a rough guess" if len(study.trials) < _FEW_TRIALS else ""
    axes.set_title(
        f"Share of the variance of {score} ({len(study.trials)} trials{few})", loc="left"
    )
    axes.set_xlabel("importance (fANOVA, Hutter et al. 2014)")
    axes.set_ylabel("")
    return axes.figure


def _draw_parallel_coordinates(study: optuna.Study, score: str) -> "Figure":
    from matplotlib.ticker import NullLocator
    from optuna.visualization.matplotlib import plot_parallel_coordinate

    values = {name: {trial.params.get(name) for trial in study.trials} for name in _names_of(study)}
    names = [name for name, tried in values.items() if len(tried) > 1]
    axes = plot_parallel_coordinate(study, names, target_name=score)
    figure = axes.figure
    figure.set_size_inches(3 + 1.9 * len(names), 5)
    # Full names, and no lines as white as the paper.
    axes.set_xticks(range(len(names) + 1), [score, *names], rotation=20, ha="right")
    maximize = study.direction.name == "MAXIMIZE"
    axes.collections[0].set_cmap("viridis_r" if maximize else "viridis")
    axes.set_title(f"{score} of {len(study.trials)} trials and their values")
    for plot in figure.axes:
        if plot.get_yscale() == "log":
            low, high = plot.get_ylim()
            ticks = [low * (high / low) ** (index / 4) for index in range(5)]
            plot.yaxis.set_minor_locator(NullLocator())
            plot.set_yticks(ticks, [f"{tick:.2g}" for tick in ticks])
        for label in plot.get_yticklabels():  # lines run below them
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5})
    return figure


def _names_of(study: optuna.Study) -> list[str]:
    return sorted({name for trial in study.trials for name in trial.params})
