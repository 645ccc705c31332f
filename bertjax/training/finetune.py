"""Fits a pretrained BERT to a labelled task: classification, regression, tags, answers, choices.

    bertjax finetune --data.train FILE --model.init DIR --run runs/mine

The same command continues a run that was stopped or killed, to the same bits.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bertjax.architectures import ARCHITECTURES, architecture_of
from bertjax.inference.task_outputs import Inference
from bertjax.interop.checkpoint_files import fingerprint_weights
from bertjax.interop.huggingface import save_model_directory
from bertjax.model.heads import fold_batch_norm
from bertjax.numerics.placement import count_sharers
from bertjax.objectives.supervised import SupervisedObjective
from bertjax.program.config_parser import to_yaml
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.tasks import data_format
from bertjax.tasks.batches import TaskBatches
from bertjax.tasks.reading import TaskData, read_task_data
from bertjax.tasks.scoring import check_score, describe_task_scores, single_scores
from bertjax.tasks.selection import Evaluation, describe_selection, evaluate_checkpoint, select
from bertjax.training.batches import read_ahead
from bertjax.training.budget import Clock
from bertjax.training.checkpoint import abstract
from bertjax.training.compilations import count_compilations
from bertjax.training.demand import describe_demand
from bertjax.training.execution import attention_backend, compute_dtype, remat_policy
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.finetune_results import (
    describe_epochs,
    describe_finished,
    examples_per_second,
    leave_results,
    summarize_seeds,
)
from bertjax.training.loop import Intervals, Loop
from bertjax.training.metrics import (
    MetricsWriter,
    count_matmul_flops,
    measure_matmul_rate,
    read_metrics,
)
from bertjax.training.optimizer import make_optimizer, make_schedule
from bertjax.training.progress import RunProgress
from bertjax.training.run_directory import check_run, open_run, write_provenance
from bertjax.training.sharding import make_mesh, place_rows
from bertjax.training.signals import StopRequest
from bertjax.training.starting_model import resolve_finetuned_model
from bertjax.training.state import TrainState, count_parameters, new_state
from bertjax.training.steps import lower_step, make_train_step
from bertjax.training.transfer import freeze, learning_rate_scales, scale_updates


def finetune_with_seeds(config: FinetuneConfig) -> int:
    """One run, or several with the seeds seed, seed + 1, ...; returns the exit code."""
    data = read_task_data(config.task, config.data)
    if config.seeds == 1:
        return finetune(config, data)
    seeds = range(config.seed, config.seed + config.seeds)
    for seed in seeds:
        one = dataclasses.replace(
            config, seed=seed, seeds=1, run=str(Path(config.run) / f"seed-{seed}"), json=False
        )
        code = finetune(one, data)
        if code:
            return code
    if config.dry_run:
        return 0
    summary = summarize_seeds(Path(config.run), seeds)
    if config.json:
        print(to_json(summary))
    return 0


def finetune(config: FinetuneConfig, data: TaskData) -> int:
    """One run from labelled examples to model directory. Returns the exit code."""
    # ---------------------------------------------------------------- model and examples
    task = data.task
    if not data.validation and (config.scoring.score or config.scoring.patience):
        raise UserError(
            "scoring.score and scoring.patience look at the validation split, and there is none:"
            " give data.validation, or a data.validation_share above 0"
        )
    check_score(config.scoring.score, task)
    trained_task = data.task_to_train(config.label_smoothing, config.class_weights)
    start = resolve_finetuned_model(config.model, task, config.seed)
    bert_config, tokenizer = start.config, start.tokenizer
    if config.max_length > bert_config.max_position_embeddings:
        raise UserError(
            f"max_length={config.max_length} is more than the positions of {config.model.init},"
            f" max_position_embeddings={bert_config.max_position_embeddings}; lower it"
        )
    encoded = trained_task.encode(data.train, tokenizer, config.max_length, training=True)
    validation = task.encode(data.validation, tokenizer, config.max_length, training=False)
    if not encoded.units:
        raise UserError("data.train: none of its examples can be learned from")

    # ---------------------------------------------------------------- how it is trained
    config = config.settle(len(encoded.units))
    mesh = make_mesh(config.mesh)
    sharers = count_sharers(mesh)
    dtype = compute_dtype(config.dtype)
    architecture = architecture_of(task.name)
    model = ARCHITECTURES[architecture].module(
        bert_config,
        dtype,
        remat_policy(config.remat),
        attention=attention_backend(config.attention, bert_config),
    )
    steps_per_epoch = -(-len(encoded.units) // config.batch_size)
    clock = Clock(config.budget, steps_per_epoch * config.batch_size, config.batch_size)
    batches = TaskBatches(
        encoded.units,
        config.batch_size,
        config.seed,
        clock.most_steps,
        config=bert_config,
        pad_id=tokenizer.pad_id,
        packing=config.packing,
        multiple=sharers * config.accumulation,
    )
    layout = batches.layout
    scales = learning_rate_scales(start.params, config.transfer)
    optimizer = optax.chain(make_optimizer(config.optimizer), scale_updates(scales))
    schedule = make_schedule(config.schedule, clock.total, in_steps=not clock.in_seconds)
    objective = SupervisedObjective(
        model,
        lambda logits, batch: trained_task.loss(logits, batch, layout),
        lambda params: freeze(params, scales),
    )
    train_step = make_train_step(
        objective,
        optimizer,
        lambda now: config.optimizer.learning_rate * schedule(now),
        config.seed,
        microbatches=config.accumulation,
        clip_norm=config.optimizer.clip_norm,
        log_every=config.log_every,
        most_skipped=config.most_skipped,
    )
    identity = _identity(config, bert_config.to_dict(), data, tokenizer.fingerprint)
    run = Path(config.run)
    if config.dry_run:
        check_run(run, config.checkpoint, identity, config.resume)
    else:
        checkpoints = open_run(run, config.checkpoint, identity, config.resume)
    progress = RunProgress(clock.total)
    results_file = run / "eval_results.json"
    if not config.dry_run and results_file.exists():
        results = json.loads(results_file.read_text(encoding="utf-8"))
        progress.say(describe_finished(run, config, results["steps"]))
        if config.json:
            print(to_json(results))
        return 0
    key = jax.random.key(config.seed)
    state = new_state(model, optimizer, mesh, key, objective.terms, start.params)

    # ---------------------------------------------------------------- first line of the run
    flops = count_matmul_flops(bert_config, layout.rows, layout.length, 0, layout.slots)
    rate = measure_matmul_rate(mesh, dtype)
    for note in [*data.notes, *start.notes, *encoded.notes]:
        progress.say(note)
    progress.say(
        f"{task.name}: {len(data.train):,} training examples, {len(data.validation):,} for"
        f" validation, {len(data.test):,} for the test; {count_parameters(state.params):,}"
        f" parameters, {clock.describe()} of {config.batch_size} examples"
        f"{describe_epochs(clock, steps_per_epoch)} in {layout.rows} rows of"
        f" {layout.length} tokens ({batches.efficiency:.0%} full) on {mesh.devices.size}"
        f" {jax.default_backend()} device(s), {flops:.3g} FLOP a step; matrix products run at"
        f" {rate / 1e9:,.0f} GFLOP/s here"
    )

    if not clock.in_seconds and (shortage := config.describe_shortage(clock.most_steps)):
        progress.say(f"warning: {shortage}")

    # ---------------------------------------------------------------- compile
    inference = Inference(model, task, tokenizer.pad_id, mesh)
    started = time.perf_counter()
    with progress.during("compiling"):
        take_step = lower_step(train_step, state, place_rows(batches[0], mesh), mesh).compile()
    progress.say(f"compiled in {time.perf_counter() - started:.1f} s")
    if config.dry_run:
        progress.say(describe_demand(take_step, flops / rate, clock))
        progress.say("dry run: everything is in place; nothing was trained or written")
        return 0

    # ---------------------------------------------------------------- run directory, resume
    restored = checkpoints.restore(abstract(state), progress.say)
    evaluations: list[Evaluation] = []
    if restored:
        state = restored.state
        evaluations = [Evaluation(*one) for one in restored.notes["evaluations"]]
    step = int(state.step)
    done = {line["split"] for line in read_metrics(run / "metrics.jsonl") if line["step"] == step}
    if restored:
        progress.say(f"continuing {run} from step {step}")
    with progress, StopRequest() as stop, count_compilations() as compilations:
        score_name = config.scoring.score or task.main_score
        write_provenance(run, to_yaml(config), _origin(config, data) | {"score": score_name})
        metrics = MetricsWriter(run, step)

        def keep(state: TrainState, cost: float | None = None) -> None:
            notes = {
                "identity": identity,
                "evaluations": evaluations,
                "seconds": clock.seconds,
            }
            checkpoints.save(state, notes, cost)

        def save(state: TrainState) -> None:
            saved = fold_batch_norm(bert_config, jax.device_get(state.params), state.statistics)
            save_model_directory(run / "model", *saved, config.model.init, architecture)
            data_format.remember(run / "model", data.config)

        def validate(state: TrainState) -> bool:
            step, started = int(state.step), time.perf_counter()
            variables = {"params": state.params, **state.statistics}
            outputs = inference.run(variables, validation.units)
            predictions = task.decode(data.validation, validation.units, outputs.logits)
            loss, scores = float(outputs.loss.mean()), task.score(data.validation, predictions)
            evaluations.append(
                evaluate_checkpoint(
                    step, score_name, loss, scores, task, data.validation, predictions
                )
            )
            selection = select(evaluations)
            is_kept = selection.kept.step == step
            single = single_scores({"loss": loss, **scores})
            timing = {"seconds": time.perf_counter() - started}
            told = {"kept": float(is_kept)}
            if score_name != "loss" and evaluations[-1].error < sys.float_info.max:
                told["standard_error"] = evaluations[-1].error
            metrics.write(step, "validation", {**single, **told}, timing)
            said = describe_task_scores(single)
            progress.say(f"step {step}: validation {said}{'; kept as the best' * is_kept}")
            if is_kept:
                save(state)
                keep(state, float(-selection.changes))
            if step >= steps_per_epoch:
                compilations.mark()
            return 0 < config.scoring.patience <= selection.unimproved

        # ------------------------------------------------------------ the loop (training/loop.py)
        clock.start(restored.notes["seconds"] if restored else 0.0)
        every = max(1, round(config.scoring.every_epochs * steps_per_epoch))
        over = clock.is_over(step)
        loop = Loop(
            take_step,
            (place_rows(batch, mesh) for batch in read_ahead(batches, step)),
            clock,
            Intervals(
                config.log_every,
                lambda step, *seconds: step % every == 0,
                config.checkpoint.every,
                config.most_skipped,
            ),
            flops / rate,
            validate if data.validation else lambda state: False,
            keep,
            progress,
            metrics,
        )
        if over and data.validation and "validation" not in done:
            validate(state)
        selection = select(evaluations)
        if selection and 0 < config.scoring.patience <= selection.unimproved:
            over = True
        else:
            state, over = loop.run(state, stop)
        seconds = clock.seconds
        keep(state)
        checkpoints.close()
        if over and not data.validation:
            save(state)
    if not over:
        metrics.close()
        progress.say(
            f"{stop.name}: saved step {int(state.step)} in {run}; the same command goes on there"
        )
        return STOPPED_EXIT_CODE

    # ---------------------------------------------------------------- the test split, once
    facts = {
        "task": task.name,
        "seed": config.seed,
        "score": score_name,
        "steps": int(state.step),
        "compilations_after_first_epoch": compilations.between_marks(),
        "examples_per_second": examples_per_second(
            run, len(encoded.units) / steps_per_epoch, int(state.step), seconds
        ),
        "packing_efficiency": batches.efficiency,
    }
    del state
    if selection := select(evaluations):
        said, facts["kept"] = describe_selection(
            selection, score_name, len(evaluations), len(data.validation)
        )
        progress.say(said)
    results, notes = leave_results(run, config, data, inference, facts, metrics)
    metrics.close()
    for note in notes:
        progress.say(note)
    test = single_scores(results.get("test", {}))
    if clock.in_seconds and (shortage := config.describe_shortage(facts["steps"])):
        progress.say(f"warning: {shortage}")
    count = facts["compilations_after_first_epoch"]
    compiled = "" if count is None else f"{count} compilations after the first epoch, "
    said = describe_task_scores(test) if test else "none: no examples were held out for it"
    progress.say(
        f"test {said}\n"
        f"{compiled}{facts['examples_per_second']:,.0f} examples/s\n"
        f"model      {run / 'model'}\nscores     {results_file}\n"
        f"try it     bertjax predict --model {run / 'model'} --input FILE"
    )
    if config.json:
        print(to_json(results))
    return 0


# -------------------------------------------------------------------- what the run is made of


def _identity(
    config: FinetuneConfig, bert_config: dict[str, Any], data: TaskData, tokenizer: str
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    optimizer = dataclasses.asdict(config.optimizer)
    del optimizer["learning_rate"]
    return {
        "task": config.task,
        "data": data.fingerprint(),
        "model": bert_config,
        "init": fingerprint_weights(config.model.init),
        "tokenizer": tokenizer,
        "paths": {
            "data": ", ".join(config.data.absolute_paths("train")),
            "init": str(Path(config.model.init).absolute()),
        },
        "seed": config.seed,
        "batch_size": config.batch_size,
        "max_length": config.max_length,
        "packing": config.packing,
        "label_smoothing": config.label_smoothing,
        "class_weights": config.class_weights,
        "score": config.scoring.score,
        "choice": "the lowest loss within a standard error of the best score",
        "transfer": dataclasses.asdict(config.transfer),
        "optimizer": optimizer,
        "dtype": jnp.dtype(compute_dtype(config.dtype)).name,
    }


def _origin(config: FinetuneConfig, data: TaskData) -> dict[str, Any]:
    """What stands in run.json beside the versions."""
    return {
        "program": "bertjax finetune",
        "task": config.task,
        "seed": config.seed,
        "data": {
            name: config.data.absolute_paths(name) for name in ("train", "validation", "test")
        },
        "data_fingerprint": data.fingerprint(),
        "data_format": data_format.to_fields(data.config),
    }
