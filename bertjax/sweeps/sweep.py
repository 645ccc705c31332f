"""Searches the config of a program: tries values, prunes bad trials, saves the best as YAML.

    bertjax sweep --config configs/sweep/sms.yaml --output sweeps/sms

Each trial is the program itself, in a run directory of its own. The same command continues a sweep
that was stopped or killed: running trials continue where they were. Started several times at once,
on one machine or on several that share the disk, it works on one sweep.
"""

import dataclasses
import importlib.metadata
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from bertjax.program.config_parser import to_yaml
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.program.outputs import make_folder, write_json, write_whole
from bertjax.program.strict_json import to_json
from bertjax.training.signals import StopRequest

if TYPE_CHECKING:
    from bertjax.sweeps.progress import SweepProgress
    from bertjax.sweeps.space import Recipe
    from bertjax.sweeps.study import Study
    from bertjax.sweeps.trial import End, Score, TrialRun

# Seconds between checks of what the trials have written.
_PAUSE = 0.2

# This many trials in a row that fail with the same message are no accident.
_MOST_SAME_FAILURES = 3


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A search.

    Attributes:
        program: the program whose config is searched
        base: a YAML file with the program's config, which the trials start from
        fixed: fields of the program for all trials, by dotted name, which override base; each can
            also be an option: --fixed.budget.epochs 1
        space: fields that vary, by dotted name, each {low: L, high: H} with log: true or step: S,
            or {choices: [A, B, ...]}
        score: the figure of the validation lines by which trials are judged: the best of a run
            counts
        direction: which direction is better; auto = known from its name
        trials: how many, failed ones included; none = the whole grid
        sampler: how values are drawn: tpe (Bergstra et al. 2011) learns from earlier trials,
            random, or grid
        pruner: when a trial is pruned: never (none), worse than the median of the others at the
            same validation (median), not among the best third at the 1st, 3rd, 9th ... validation
            (halving), or hyperband, which does so with several degrees of patience
        workers: how many trials run at once
        environments: variables for each worker's trials, as many as there are workers, such as
            CUDA_VISIBLE_DEVICES
        seed: the seed of the draws; the trials' own seed is the program's
        storage: how the study is stored: journal, also for shared disks, or sqlite
        output: directory of the sweep; an existing sweep is continued
        json: print the trials and the best as JSON on standard output
    """

    program: Literal["finetune", "pretrain"] = "finetune"
    base: str | None = None
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)
    space: dict[str, Any] = dataclasses.field(default_factory=dict)
    score: str = "loss"
    direction: Literal["auto", "minimize", "maximize"] = "auto"
    trials: int | None = None
    sampler: Literal["tpe", "grid", "random"] = "tpe"
    pruner: Literal["none", "median", "halving", "hyperband"] = "none"
    workers: int = 1
    environments: list[dict[str, str]] = dataclasses.field(default_factory=list)
    seed: int = 0
    storage: Literal["journal", "sqlite"] = "journal"
    output: str = ""
    json: bool = False

    def __post_init__(self) -> None:
        if not self.output:
            raise UserError("--output DIR is missing: the directory of the sweep")
        if self.base and not Path(self.base).is_file():
            raise UserError(f"base={self.base}: no such file")
        if self.workers < 1:
            raise UserError(f"workers={self.workers} must be at least 1")
        if self.trials is not None and self.trials < 1:
            raise UserError(f"trials={self.trials} must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed={self.seed} must not be negative")
        if self.environments and len(self.environments) != self.workers:
            raise UserError(
                f"environments has {len(self.environments)} entries for workers={self.workers};"
                " give each worker one, or none at all"
            )


def sweep(config: SweepConfig) -> int:
    """Runs a search, from the space to the best config. Returns the exit code."""
    _require_optuna()
    from bertjax.sweeps.progress import SweepProgress
    from bertjax.sweeps.space import (
        PROGRAMS,
        Recipe,
        count_trials,
        flatten,
        program_config,
        read_space,
    )
    from bertjax.sweeps.study import Study, make_pruner
    from bertjax.sweeps.trial import TrialRun, make_score

    # ---------------------------------------------------------------- everything is checked first
    config_class = program_config(config.program)
    score = make_score(config.score, config.direction)
    space = read_space(config.space, config_class)
    recipe = Recipe(config_class, config.base, flatten(config.fixed, config_class, "fixed"))
    recipe = recipe.for_score(score.name, score.direction, space)
    limit = count_trials(config.sampler, space, config.trials)
    recipe.check(space)

    # ---------------------------------------------------------------- the study
    output = Path(config.output)
    _open_output(output)
    pruner = make_pruner(config.pruner, limit)
    study = Study(output, config.storage, score.direction, pruner, _identity(config, recipe, score))
    with study.writing():
        _write_provenance(output, config)
    words = PROGRAMS[config.program].words

    # ---------------------------------------------------------------- the trials
    running: dict[int, TrialRun] = {}  # by worker
    failures: list[str] = []
    progress = SweepProgress(limit, score)
    with progress, StopRequest() as stop:
        try:
            while stop.name is None and not _same_failures(failures):
                nothing_left = False
                for worker in sorted(set(range(config.workers)) - running.keys()):
                    claim = study.claim(space, config.sampler, config.seed, limit)
                    if nothing_left := claim is None:
                        break
                    environment = config.environments[worker] if config.environments else {}
                    running[worker] = TrialRun(claim, output, words, recipe, score, environment)
                    progress.begun(claim)
                for worker, run in list(running.items()):
                    if end := run.look():
                        del running[worker]
                        _close(study, run, end, failures)
                        progress.ended(run, end)
                progress.show(study)
                # What others work on becomes ours if they end before it does.
                if nothing_left and not running and not study.is_worked_on():
                    break
                time.sleep(_PAUSE)
        finally:
            _stop_all(running, study, failures, progress)
    message = _same_failures(failures)
    with study.writing():
        has_scores = _report(study, score, recipe, config, is_over=not (stop.name or message))
    if stop.name:
        progress.say(f"{stop.name}: stopped; the same command continues from there")
        return STOPPED_EXIT_CODE
    if message:
        raise UserError(f"{_MOST_SAME_FAILURES} trials in a row failed with: {message}")
    if not has_scores:
        raise UserError(f"{output}: none of the {limit} trials ended with a score")
    return 0


def _require_optuna() -> None:
    try:
        importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            "a sweep needs optuna, which is not installed; pip install 'bertjax[sweep]'"
        ) from None


def _open_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: is a file; name a directory")
    if output.exists() and any(output.iterdir()) and not (output / "locks").is_dir():
        raise UserError(
            f"--output {output}: holds something that is not a sweep; name a new directory"
        )
    for name in ("locks", "trials"):
        make_folder(output / name)


def _identity(config: SweepConfig, recipe: "Recipe", score: "Score") -> dict[str, Any]:
    """Returns what must be the same for a sweep to be continued."""
    base = yaml.safe_load(Path(config.base).read_text(encoding="utf-8")) if config.base else {}
    parts = {"base": base, "fixed": recipe.fixed, "space": config.space}
    return {
        **{f"{part}.{name}": value for part in parts for name, value in parts[part].items()},
        "program": config.program,
        "score": score.name,
        "direction": score.direction,
        "sampler": config.sampler,
        "seed": config.seed,
    }


def _write_provenance(output: Path, config: SweepConfig) -> None:
    """Writes sweep.yaml, and at the start run.json: seed, versions, devices.

    Another process queries the devices: a process that has seen a GPU keeps its memory.
    """
    write_whole(output / "sweep.yaml", to_yaml(config))
    if (output / "run.json").exists():
        return
    code = (
        "import json; from bertjax.training.provenance import describe_environment;"
        " print(json.dumps(describe_environment()))"
    )
    asked = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    about = {
        "program": "bertjax sweep",
        "of": config.program,
        "seed": config.seed,
        **json.loads(asked.stdout),
    }
    about["packages"]["optuna"] = importlib.metadata.version("optuna")
    write_json(output / "run.json", about)


def _close(study: "Study", run: "TrialRun", end: "End", failures: list[str]) -> None:
    """Records in the study how a trial ended, and releases it."""
    from optuna.trial import TrialState

    trial = run.claim.trial
    if end.state == "complete":
        study.optuna.tell(trial, end.score)
    elif end.state == "pruned":
        study.optuna.tell(trial, state=TrialState.PRUNED)
    elif end.state == "failed":
        trial.set_user_attr("error", end.message)
        study.optuna.tell(trial, state=TrialState.FAIL)
        failures.append(end.message)
    if end.state in ("complete", "pruned"):
        failures.clear()
    run.claim.owner.release()


def _same_failures(failures: list[str]) -> str | None:
    """Returns the message of the last failures, if they are enough and agree."""
    last = failures[-_MOST_SAME_FAILURES:]
    return last[0] if len(last) == _MOST_SAME_FAILURES and len(set(last)) == 1 else None


def _stop_all(
    running: dict[int, "TrialRun"],
    study: "Study",
    failures: list[str],
    progress: "SweepProgress",
) -> None:
    """Lets running trials save and end; they stay in the study, to be continued."""
    for run in running.values():
        run.stop()
    while running:
        for worker, run in list(running.items()):
            if end := run.look():
                del running[worker]
                _close(study, run, end, failures)
                progress.ended(run, end)
        time.sleep(_PAUSE)


def _report(
    study: "Study", score: "Score", recipe: "Recipe", config: SweepConfig, is_over: bool
) -> bool:
    """Writes and prints the results; returns whether there is a best trial."""
    from bertjax.sweeps.report import (
        best_of,
        draw_figures,
        make_rows,
        print_table,
        rank_rows,
        rivals_of_best,
        write_results,
    )

    rows = make_rows(study.trials(), score.name)
    ranked = rank_rows(rows, score.name, score.direction)
    write_results(study.directory, rows, score.name)
    best = best_of(ranked)
    path = study.directory / "best.yaml"
    if best:
        complete = [row for row in ranked if row["state"] == "complete"]
        rivals = len(rivals_of_best(complete, score.name, score.direction))
        why = f", of {rivals} within chance of the best the one with the lowest loss" * (rivals > 1)
        head = (
            f"# Trial {best['trial']} of {len(rows)}: validation {score.name}"
            f" {best[score.name]}{why}.\n"
            f"#\n#   python -m train.{config.program} --config {path} --run RUN\n"
        )
        write_whole(path, head + recipe.to_yaml(best["values"]))
    notes = draw_figures(study.directory, study.optuna, score.name) if is_over else []
    if config.json:
        print(to_json({"trials": rows, "best": best}))
    elif is_over:
        print_table(ranked, score.name)
    for note in notes:
        print(note, file=sys.stderr)
    if best and is_over:
        print(
            f"results    {study.directory / 'results.csv'}\nbest       {path}\n"
            f"its run    {study.directory / 'trials' / format(best['trial'], '04')}",
            file=sys.stderr,
        )
    return best is not None
