"""Fits a pretrained BERT to a labelled task: classification, regression, tags, answers, choices.

    bertjax finetune --data.train FILE --model.init DIR --run runs/mine

The same command continues a run that was stopped or killed, to the same bits.
"""

import dataclasses
import json
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bertjax.inference.task_outputs import Inference
from bertjax.loaded import Model, load
from bertjax.program.config_parser import make_config
from bertjax.program.errors import UserError
from bertjax.program.naming import names_arguments
from bertjax.tasks.data_config import TaskName
from bertjax.tasks.reading import TaskData, read_task_data
from bertjax.tasks.rows_in_memory import read_given
from bertjax.tasks.scoring import describe_task_scores, single_scores
from bertjax.tasks.selection import describe_selection
from bertjax.training.compilations import count_compilations
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.finetune_plan import identity_of, make_plan, origin_of, prepare
from bertjax.training.finetune_results import (
    describe_epochs,
    describe_finished,
    examples_per_second,
    leave_results,
    summarize_seeds,
)
from bertjax.training.finetune_validation import Validation
from bertjax.training.loop import Stretch
from bertjax.training.metrics import count_matmul_flops, measure_matmul_rate
from bertjax.training.precision import WIDE, ImpreciseError, prove_agreement, settle_dtype
from bertjax.training.progress import Reporter
from bertjax.training.result import Result
from bertjax.training.session import Session
from bertjax.training.sharding import make_mesh, read_mesh
from bertjax.training.state import TrainState, count_parameters


@names_arguments
def finetune(
    model: Model | Path | str,
    task: TaskName,
    train: Any,
    validation: Any = None,
    test: Any = None,
    *,
    run: Path | str | None = None,
    mesh: Any = None,
    progress: Callable[[str], None] | None = None,
    **fields: Any,
) -> Result:
    """Fits a pretrained model to a labelled task.

        result = finetune("bert_tiny_mlm", "classification", [{"text": "ok", "label": "good"}, ...])

    A KeyboardInterrupt between two steps (Ctrl-C in a notebook) saves the run and returns what
    there is; the same call with the same `run` continues from there, to the same bits.

    Args:
        model: the pretrained model: a `Model`, a folder, or a name on the hub.
        task: what is learned.
        train: the examples: the paths of files, or rows (see `tasks.rows_in_memory`).
        validation: those that choose the best checkpoint; a share of `train`, when left out.
        test: those for the scores at the end; a share of `train`, when left out.
        run: the run directory; a temporary one, which lives as long as the result, when left out.
        mesh: the devices: a `jax.sharding.Mesh`, or the fields of `MeshConfig`.
        progress: is called with every line that the run reports.
        fields: any field of `FinetuneConfig`: in its section (`budget={"epochs": 3}`), or by its
            last part alone (`epochs=3`).

    Returns:
        The run: scores (losses in nats, rates as shares of 1), history, and the best model.

    Raises:
        UserError: an unknown field, and whatever `run_finetuning` raises.
    """
    if train is None:
        raise UserError("train=None: give the examples to learn from, rows or the path of a file")
    with ExitStack() as stack, ExitStack() as unless_over:
        folder = None
        if run is None:
            folder = tempfile.TemporaryDirectory(prefix="bertjax-run-")
            unless_over.enter_context(folder)
            run = Path(folder.name) / "run"
        mesh, axes = read_mesh(mesh)
        given = {"task": task, "run": run, "model.init": _find_start(model, stack), **axes}
        for name in given.keys() & fields.keys():
            raise UserError(f"{name} is given twice")
        config = make_config(FinetuneConfig, given | fields)
        splits = {"train": train, "validation": validation, "test": test}
        data = read_given(task, config.data, splits)
        paths = {split: getattr(data.config, split) for split in splits}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **paths))
        result = run_finetuning(config, data, mesh=mesh, reporter=Reporter(progress))
        unless_over.pop_all()
    return dataclasses.replace(result, kept_alive=folder)


def _find_start(model: Any, stack: ExitStack) -> str:
    """Returns the folder or the name of a model, or the folder of one in memory, which is saved."""
    if isinstance(model, str | os.PathLike):
        return os.fspath(model)
    if model.directory is not None and _is_as_read(model):
        return os.fspath(model.directory)
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bertjax-model-"))
    model.save(folder)
    return folder


def _is_as_read(model: Model) -> bool:
    """Returns whether a model's parameters are still those of its directory."""
    read = load(model.directory, model.architecture)
    same = jax.tree.map(np.array_equal, (read.params, read.spare), (model.params, model.spare))
    return model.config == read.config and all(jax.tree.leaves(same))


def run_finetuning(
    config: FinetuneConfig,
    data: TaskData | None = None,
    *,
    mesh: Mesh | None = None,
    reporter: Reporter | None = None,
) -> Result:
    """Makes one run from labelled examples to model directory, or several with seeds of their own.

    Args:
        config: of the run.
        data: the examples; what `config.data` names is read when they are left out.
        mesh: the devices; as `config.mesh` says, when left out.
        reporter: reports the run.

    Raises:
        UserError: the examples, the model and the options do not go together, or the directory
            holds another run.
    """
    reporter = reporter or Reporter()
    data = read_task_data(config.task, config.data) if data is None else data
    if config.seeds == 1:
        return _run_once(config, data, mesh, reporter)
    run, seeds = Path(config.run), range(config.seed, config.seed + config.seeds)
    history: list[dict[str, Any]] = []
    for seed in seeds:
        folder = run / f"seed-{seed}"
        single = dataclasses.replace(config, seed=seed, seeds=1, run=str(folder), json=False)
        result = _run_once(single, data, mesh, reporter)
        history += [{"seed": seed, **line} for line in result.history]
        if result.stopped:
            break
    over = not (result.stopped or config.dry_run)
    scores = summarize_seeds(run, seeds, reporter.say) if over else {}
    return dataclasses.replace(result, scores=scores, history=history, run=run)


def _run_once(
    config: FinetuneConfig, data: TaskData, mesh: Mesh | None, reporter: Reporter
) -> Result:
    try:
        return _train(config, data, mesh, reporter)
    except ImpreciseError as error:
        reporter.say(str(error))
        return _train(dataclasses.replace(config, dtype=WIDE), data, mesh, reporter)


def _train(config: FinetuneConfig, data: TaskData, mesh: Mesh | None, reporter: Reporter) -> Result:
    start = prepare(config, data)
    config = config.settle(len(start.encoded.units))
    mesh = make_mesh(config.mesh) if mesh is None else mesh
    config, chosen = settle_dtype(config, start.model.config, mesh)
    plan = make_plan(config, start, mesh)
    clock, layout = plan.clock, plan.batches.layout
    identity = identity_of(config, start, data)
    with Session(config, identity, clock, mesh, reporter) as session:
        run = session.run
        results_file = run / "eval_results.json"
        if not config.dry_run and results_file.exists():
            results = json.loads(results_file.read_text(encoding="utf-8"))
            session.say(describe_finished(run, config, results["steps"]))
            return session.result(results)
        state = session.restore(plan.first_state(config.seed, start.model.params, mesh))

        # ------------------------------------------------------------ first lines of the run
        session.note(*data.notes, *start.model.notes, *start.encoded.notes)
        if chosen:
            session.note(chosen)
        flops = count_matmul_flops(
            start.model.config, layout.rows, layout.length, 0, layout.slots, plan.model.attention
        )
        rate = measure_matmul_rate(mesh, plan.model.dtype)
        session.say(
            f"{data.task.name}: {len(data.train):,} training examples,"
            f" {len(data.validation):,} for"
            f" validation, {len(data.test):,} for the test; {count_parameters(state.params):,}"
            f" parameters, {clock.describe()} of {config.batch_size} examples"
            f"{describe_epochs(clock, plan.steps_per_epoch)} in {layout.rows} rows of"
            f" {layout.length} tokens ({plan.batches.efficiency:.0%} full) on"
            f" {mesh.devices.size}"
            f" {jax.default_backend()} device(s), {flops:.3g} FLOP a step; matrix products run at"
            f" {rate / 1e9:,.0f} GFLOP/s here; attention is {plan.model.attention}"
        )
        if not clock.in_seconds and (shortage := config.describe_shortage(clock.most_steps)):
            session.note(f"warning: {shortage}")
        (take_step,) = session.compile([(plan.train_step, plan.batches[0], flops / rate)], state)
        if chosen:
            wide = make_plan(dataclasses.replace(config, dtype=WIDE), start, mesh).train_step
            with session.during("comparing bfloat16 with float32"):
                session.say(prove_agreement(take_step, wide, state, plan.batches, mesh))
        if config.dry_run:
            return session.result({})

        # ------------------------------------------------------------ the loop (training/loop.py)
        inference = Inference(plan.model, data.task, start.model.tokenizer.pad_id, mesh)
        validation = Validation(config, data, start, inference, session)
        every = max(1, round(config.scoring.every_epochs * plan.steps_per_epoch))
        origin = origin_of(config, data) | {"score": validation.score_name}
        with session.training(origin), count_compilations() as compilations:

            def validate(state: TrainState) -> bool:
                ends = validation(state)
                if int(state.step) >= plan.steps_per_epoch:
                    compilations.mark()
                return ends

            state, over = session.train(
                state,
                [Stretch(take_step, lambda starts: plan.batches, flops / rate)],
                lambda step, *seconds: step % every == 0,
                validate if data.validation else None,
                ended=validation.ends,
            )
            if over and not data.validation:
                validation.save(state)
        if not over:
            return session.result({}, session.stop.name)

        # ------------------------------------------------------------ the test split, once
        facts = {
            "task": data.task.name,
            "seed": config.seed,
            "score": validation.score_name,
            "steps": int(state.step),
            "compilations_after_first_epoch": compilations.between_marks(),
            "examples_per_second": examples_per_second(
                run,
                len(start.encoded.units) / plan.steps_per_epoch,
                int(state.step),
                session.remembered["seconds"],
            ),
            "packing_efficiency": plan.batches.efficiency,
        }
        del state
        if selection := validation.selection:
            said, facts["kept"] = describe_selection(
                selection,
                validation.score_name,
                len(validation.evaluations),
                len(data.validation),
            )
            session.say(said)
        results, notes = leave_results(run, config, data, inference, facts, session.metrics)
        session.note(*notes)
        if clock.in_seconds and (shortage := config.describe_shortage(facts["steps"])):
            session.note(f"warning: {shortage}")
        count = facts["compilations_after_first_epoch"]
        compiled = "" if count is None else f"{count} compilations after the first epoch, "
        test = single_scores(results.get("test", {}))
        said = describe_task_scores(test) if test else "none: no examples were held out for it"
        session.say(
            f"test {said}\n"
            f"{compiled}{facts['examples_per_second']:,.0f} examples/s\n"
            f"model      {run / 'model'}\nscores     {results_file}\n"
            f"try it     bertjax predict --model {run / 'model'} --input FILE"
        )
        return session.result(results)
