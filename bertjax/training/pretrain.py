"""Pretrains a BERT on prepared rows with the masked language model and next-sentence prediction.

    bertjax pretrain --config configs/pretrain/minutes.yaml --data DIR --run runs/mine

The same command continues a run that was stopped or killed, to the same bits.
"""

import dataclasses
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from bertjax.config import BertConfig
from bertjax.interop.checkpoint_files import fingerprint_weights
from bertjax.interop.huggingface import load_model_directory, save_model_directory
from bertjax.objectives.masking import Vocabulary
from bertjax.program.config_parser import to_yaml
from bertjax.program.ending import STOPPED_EXIT_CODE
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.text.rows import PreparedDirectory, open_prepared
from bertjax.text.tokenizer import load_tokenizer
from bertjax.training.batches import FittingRows, TrainingBatches, read_ahead
from bertjax.training.budget import Clock
from bertjax.training.checkpoint import abstract
from bertjax.training.curves import CurvesDrawer
from bertjax.training.demand import describe_demand
from bertjax.training.evaluation import is_due, make_evaluation
from bertjax.training.execution import compute_dtype
from bertjax.training.loop import Intervals, Loop
from bertjax.training.metrics import (
    MetricsWriter,
    count_matmul_flops,
    measure_matmul_rate,
    read_metrics,
)
from bertjax.training.pretrain_config import PretrainConfig, make_step
from bertjax.training.processes import Agreement, gather, is_first, wait_for_all
from bertjax.training.progress import RunProgress, describe_scores
from bertjax.training.run_directory import check_run, open_run, write_provenance
from bertjax.training.sharding import check_batch, make_mesh, place_params, place_rows, rows_here
from bertjax.training.signals import StopRequest
from bertjax.training.starting_model import resolve_model
from bertjax.training.state import TrainState, count_parameters, new_state
from bertjax.training.steps import lower_step


def pretrain(config: PretrainConfig, make_development: Callable[..., Any] | None = None) -> int:
    """Makes one run, from rows to model directory. Returns the exit code.

    Args:
        config: of the run.
        make_development: what measures the model while it trains, where `config.development` asks
            for it: `bertjax.analysis.report.development.Development`.
    """
    if config.development.examples and make_development is None:
        raise ValueError(f"development.examples={config.development.examples} needs Development")
    # ---------------------------------------------------------------- rows and tokenizer
    prepared = open_prepared(config.data)
    tokenizer = load_tokenizer(prepared.tokenizer_path)
    for note in tokenizer.notes:
        print(note, file=sys.stderr)
    vocabulary = Vocabulary.of(tokenizer)
    _check_rows(prepared, config)

    # ---------------------------------------------------------------- model and optimizer
    bert_config, start_params = resolve_model(
        config.model, config.seed, prepared, tokenizer, vocabulary
    )
    mesh = make_mesh(config.mesh)
    check_batch("batch_size / accumulation", config.batch_size // config.accumulation, mesh)
    check_batch("evaluation.batch_size", config.evaluation.batch_size, mesh)
    clock = Clock(config.budget, len(prepared.train), config.batch_size)
    model, optimizer, objective, train_step = make_step(
        config, bert_config, vocabulary, clock.total, mesh
    )
    identity = _identity(config, bert_config, prepared)
    run = Path(config.run)
    if config.dry_run:
        check_run(run, config.checkpoint, identity, config.resume)
    else:
        checkpoints = open_run(run, config.checkpoint, identity, config.resume)
    key = jax.random.key(config.seed)
    state = new_state(model, optimizer, mesh, key, objective.terms, start_params)
    del start_params
    progress = RunProgress(clock.total)

    # ---------------------------------------------------------------- resume
    restored = None if config.dry_run else checkpoints.restore(abstract(state), progress.say)
    best, seconds_before = float("inf"), 0.0
    if restored:
        state, best = restored.state, restored.notes["best"]
        seconds_before = restored.notes["seconds"]
    step = int(state.step)
    done = {line["split"] for line in read_metrics(run / "metrics.jsonl") if line["step"] == step}
    if clock.is_over(step, seconds_before) and restored and "test" in done:
        progress.say(f"{run} is finished: {counted(step, 'step')}; its model is in {run / 'model'}")
        return 0

    # ---------------------------------------------------------------- first line of the run
    length, examples = prepared.train.max_length, prepared.train.examples_per_row
    flops = count_matmul_flops(
        bert_config, config.batch_size, length, config.masking.slots(length), examples
    )
    rate = measure_matmul_rate(mesh, model.dtype)
    progress.say(
        f"{count_parameters(state.params):,} parameters, "
        f"{int(prepared.token_counts.sum()):,} tokens in {len(prepared.train):,} rows of {length}, "
        f"{clock.describe()} "
        f"of {config.batch_size} rows on {mesh.devices.size} {jax.default_backend()} device(s), "
        f"{flops:.3g} FLOP a step; matrix products run at {rate / 1e9:,.0f} GFLOP/s here"
    )

    development = None
    if config.development.examples and is_first():
        development = make_development(
            config.development, bert_config, prepared.tokenizer_path, prepared.validation, run
        )

    # ---------------------------------------------------------------- compile
    here = rows_here(mesh, config.batch_size)
    batches = TrainingBatches(
        FittingRows(prepared.train, bert_config),
        config.batch_size,
        config.seed,
        clock.most_steps,
        here,
    )
    evaluate = make_evaluation(config.evaluation, model, vocabulary, prepared.token_counts, mesh)
    started = time.perf_counter()
    with progress.during("compiling"):
        take_step = lower_step(train_step, state, place_rows(batches[0], mesh), mesh).compile()
        evaluate(state.params, prepared.validation, 1)
    progress.say(f"compiled in {time.perf_counter() - started:.1f} s")
    if config.dry_run:
        progress.say(describe_demand(take_step, flops / rate, clock))
        progress.say("dry run: everything is in place; nothing was trained or written")
        return 0
    if restored and not clock.is_over(step, seconds_before):
        progress.say(f"continuing {run} from step {step}")

    with progress, StopRequest() as stop:
        write_provenance(run, to_yaml(config), _origin(config, prepared))
        metrics = MetricsWriter(run, step)
        curves = CurvesDrawer(run)

        def keep(state: TrainState, scores: dict[str, float] | None = None) -> None:
            notes = {"identity": identity, "best": best, "seconds": clock.seconds}
            checkpoints.save(state, notes, scores and scores["loss"])

        def look_inside(state: TrainState) -> None:
            params = gather(state.params) if config.development.examples else None
            if development:
                started = time.perf_counter()
                figures = development.measure(params)
                seconds = time.perf_counter() - started
                metrics.write(int(state.step), "analysis", figures, {"seconds": seconds})

        def validate(state: TrainState) -> bool:
            nonlocal best
            step = int(state.step)
            scores, seconds = evaluate(state.params, prepared.validation, config.evaluation.rows)
            metrics.write(step, "validation", scores, {"seconds": seconds})
            progress.say(f"step {step}: validation {describe_scores(scores)}")
            if is_first():
                curves.draw(at_once=False)
            look_inside(state)
            if scores["loss"] < best:
                best = scores["loss"]
                params = gather(state.params)
                if is_first():
                    save_model_directory(
                        run / "model", bert_config, params, prepared.tokenizer_path
                    )
                keep(state, scores)
            return False

        # ------------------------------------------------------------ the loop (training/loop.py)
        if step == 0:
            look_inside(state)
        agree = Agreement(mesh, clock, stop)
        clock.start(seconds_before)
        if clock.is_over(step) and "validation" not in done:
            validate(state)
        loop = Loop(
            take_step,
            (place_rows(batch, mesh) for batch in read_ahead(batches, step)),
            clock,
            Intervals(
                config.log_every,
                functools.partial(is_due, config.evaluation, clock),
                config.checkpoint.every,
                config.most_skipped,
            ),
            flops / rate,
            validate,
            keep,
            progress,
            metrics,
            agree,
        )
        state, over = loop.run(state, stop)
        step = int(state.step)
        keep(state)
        checkpoints.close()
    if not over:
        metrics.close()
        progress.say(
            f"{stop.name}: saved step {step} in {run}; the same command goes on from there"
        )
        return STOPPED_EXIT_CODE

    # ---------------------------------------------------------------- the test split, once
    wait_for_all("the model is written")
    params = place_params(load_model_directory(run / "model").params, mesh)
    scores, seconds = evaluate(params, prepared.test, 0)
    metrics.write(step, "test", scores, {"seconds": seconds})
    metrics.close()
    progress.say(f"test {describe_scores(scores)}")
    if is_first():
        curves.draw()
        progress.say("\n".join(curves.notes) or f"curves     {run / 'curves.png'}")
    if development:
        lines = [one for one in read_metrics(run / "metrics.jsonl") if one["split"] == "analysis"]
        development.draw(lines, run / "development.png")
        progress.say(f"heads      {run / 'development.png'}")
    progress.say(
        f"model      {run / 'model'}\nmetrics    {run / 'metrics.jsonl'}\n"
        f'try it     bertjax fill-mask --model {run / "model"} "... [MASK] ..."'
    )
    if config.json and is_first():
        print(to_json({"step": step, "model": str(run / "model"), "test": scores}))
    return 0


def _check_rows(prepared: PreparedDirectory, config: PretrainConfig) -> None:
    for split in ("train", "validation", "test"):
        if not len(getattr(prepared, split)):
            fraction = "" if split == "train" else f" with --{split}-fraction above 0"
            raise UserError(
                f"{config.data}: its {split} split has no rows, and a run needs all three; prepare"
                f" it again{fraction or ', from more text'}"
            )
    if len(prepared.train) < config.batch_size:
        raise UserError(
            f"{config.data} has {len(prepared.train)} training rows, less than one batch of "
            f"batch_size={config.batch_size}; lower it, or prepare more text"
        )


def _identity(
    config: PretrainConfig, bert_config: BertConfig, prepared: PreparedDirectory
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    optimizer = dataclasses.asdict(config.optimizer)
    del optimizer["learning_rate"]
    return {
        "data": prepared.fingerprint,
        "model": bert_config.to_dict(),
        "init": fingerprint_weights(config.model.init) if config.model.init else None,
        "paths": {
            "data": str(Path(config.data).absolute()),
            "init": str(Path(config.model.init).absolute()) if config.model.init else None,
        },
        "start": config.model.start,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "masking": dataclasses.asdict(config.masking),
        "optimizer": optimizer,
        "dtype": jnp.dtype(compute_dtype(config.dtype)).name,
    }


def _origin(config: PretrainConfig, prepared: PreparedDirectory) -> dict[str, Any]:
    """What stands in run.json beside the versions."""
    return {
        "program": "bertjax pretrain",
        "seed": config.seed,
        "data": str(Path(config.data).absolute()),
        "data_fingerprint": prepared.fingerprint,
    }
