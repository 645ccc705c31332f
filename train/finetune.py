"""Fits a pretrained BERT to a labelled task: classification, regression, tags, answers, choices.

    python -m train.finetune --data.train FILE --model.init DIR --run runs/mine

The same command continues a run that was stopped or killed, to the same bits.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from bertjax.errors import UserError, program
from bertjax.interop.huggingface import save_model_directory
from bertjax.model import bert
from bertjax.model.heads import fold_batch_norm
from bertjax.objectives.supervised import SupervisedObjective
from bertjax.tasks.batches import TaskBatches
from bertjax.tasks.inference import Inference
from bertjax.tasks.reading import DataConfig, TaskData, TaskName, read_task_data
from bertjax.tasks.scoring import describe_task_scores, goodness, single_scores
from bertjax.training.batches import check_seed, read_ahead
from bertjax.training.budget import BudgetConfig, Clock
from bertjax.training.checkpoint import CheckpointConfig, abstract
from bertjax.training.compilations import count_compilations
from bertjax.training.demand import describe_demand
from bertjax.training.loop import Intervals, Loop
from bertjax.training.metrics import (
    MetricsWriter,
    count_matmul_flops,
    measure_matmul_rate,
    read_metrics,
)
from bertjax.training.optimizer import (
    OptimizerConfig,
    ScheduleConfig,
    make_optimizer,
    make_schedule,
)
from bertjax.training.progress import RunProgress
from bertjax.training.run_directory import check_run, open_run, write_provenance
from bertjax.training.sharding import MeshConfig, make_mesh, place_rows
from bertjax.training.signals import STOPPED_EXIT_CODE, StopRequest, stopping_at_once
from bertjax.training.state import TrainState, count_parameters, new_state
from bertjax.training.steps import make_train_step
from bertjax.training.transfer import TransferConfig, freeze, learning_rate_scales, scale_updates
from train.command_line import parse, to_yaml
from train.finetune_results import examples_per_second, leave_results, summarize_seeds
from train.huge_pages import restart_with_huge_pages
from train.starting_model import (
    FinetunedModelConfig,
    compute_dtype,
    remat_policy,
    resolve_finetuned_model,
)

# Source: Devlin et al. 2019, section A.3: 2, 3 or 4.
DEFAULT_EPOCHS = 3.0


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """When the validation split is scored, and when that ends the run.

    Attributes:
        every_epochs: epochs between two evaluations (a fraction is possible); one more comes at the
            end
        score: the score that decides which checkpoint is best, loss included; none = the task's
            main one
        patience: stop after so many evaluations in a row without a better score; 0 = never
    """

    every_epochs: float = 1.0
    score: str | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        if not self.every_epochs > 0:
            raise UserError(f"scoring.every_epochs={self.every_epochs} must be above 0")
        if self.patience < 0:
            raise UserError(f"scoring.patience={self.patience} must not be negative")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning run; without a budget it lasts 3 epochs.

    Attributes:
        task: what is learned
        run: run directory; when it holds a checkpoint, the run is continued from there
        seed: of the new head, the order of the examples, dropout
        seeds: number of runs with the seeds seed, seed + 1, ...; mean and deviation are reported
        max_length: longest sequence in tokens; longer texts are cut (contexts of questions: read in
            windows; tagged sentences: in parts)
        batch_size: examples a step, over all devices (contexts of questions: windows)
        accumulation: microbatches that a step's batch is worked through in
        packing: put several examples into one row, so that short ones cost no padding
        label_smoothing: share of the target that is spread evenly over the labels, in [0, 1)
        class_weights: balanced = each class weighs the same in the loss, however many its examples
        dtype: of the matrix products; auto = bfloat16 on GPU and TPU, float32 on CPU
        remat: what the backward pass computes again to save memory: none, dots (all but matrix
            products) or full; auto = dots on CPU, which it makes faster, none on GPU and TPU
        log_every: steps between two lines of the log
        most_skipped: so many steps in a row without a finite loss and gradient stop the run
        resume: false = refuse to continue a run directory that has a checkpoint
        dry_run: do everything but train: read, build, compile, write nothing
        json: print the final scores as JSON on standard output
    """

    task: TaskName = "classification"
    run: str = ""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: FinetunedModelConfig = dataclasses.field(default_factory=FinetunedModelConfig)
    transfer: TransferConfig = dataclasses.field(default_factory=TransferConfig)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=5e-5)
    )
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    seed: int = 0
    seeds: int = 1
    max_length: int = 128
    batch_size: int = 32
    accumulation: int = 1
    packing: bool = True
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    log_every: int = 20
    most_skipped: int = 10
    resume: bool = True
    dry_run: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if self.budget == BudgetConfig():
            object.__setattr__(self, "budget", BudgetConfig(epochs=DEFAULT_EPOCHS))
        self.budget.require_one()
        check_seed(self.seed)
        if not self.run:
            raise UserError("--run DIR is missing: the run directory")
        for name, least in (
            ("seeds", 1),
            ("max_length", 8),
            ("batch_size", 1),
            ("accumulation", 1),
            ("log_every", 1),
            ("most_skipped", 1),
        ):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)} must be at least {least}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing={self.label_smoothing} must lie in [0, 1)")


@stopping_at_once()
def main() -> int:
    """Reads the command line and fine-tunes, once or with several seeds."""
    config = parse(FinetuneConfig, __doc__)
    data = read_task_data(
        config.task,
        config.data,
        smoothing=config.label_smoothing,
        class_weights=config.class_weights,
    )
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
        print(json.dumps(summary, ensure_ascii=False))
    return 0


def finetune(config: FinetuneConfig, data: TaskData) -> int:
    """One run from labelled examples to model directory. Returns the exit code."""
    # ---------------------------------------------------------------- model and examples
    task = data.task
    start = resolve_finetuned_model(config.model, task, config.seed)
    bert_config, tokenizer = start.config, start.tokenizer
    if config.max_length > bert_config.max_position_embeddings:
        raise UserError(
            f"max_length={config.max_length} is more than the positions of {config.model.init},"
            f" max_position_embeddings={bert_config.max_position_embeddings}; lower it"
        )
    encoded = task.encode(data.train, tokenizer, config.max_length, training=True)
    validation = task.encode(data.validation, tokenizer, config.max_length, training=False)
    if not encoded.units:
        raise UserError("data.train: none of its examples can be learned from")

    # ---------------------------------------------------------------- how it is trained
    mesh = make_mesh(config.mesh)
    places = mesh.shape["data"] * mesh.shape["fsdp"]
    dtype = compute_dtype(config.dtype)
    model = getattr(bert, task.architecture)(bert_config, dtype, remat_policy(config.remat))
    steps_per_epoch = -(-len(encoded.units) // config.batch_size)
    clock = Clock(config.budget, steps_per_epoch * config.batch_size, config.batch_size)
    batches = TaskBatches(
        encoded.units,
        config.batch_size,
        config.seed,
        clock.most_steps,
        hidden_size=bert_config.hidden_size,
        pad_id=tokenizer.pad_id,
        packing=config.packing,
        multiple=places * config.accumulation,
    )
    layout = batches.layout
    scales = learning_rate_scales(start.params, config.transfer)
    optimizer = optax.chain(make_optimizer(config.optimizer), scale_updates(scales))
    schedule = make_schedule(config.schedule, clock.total)
    objective = SupervisedObjective(
        model,
        lambda logits, batch: task.loss(logits, batch, layout),
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
    identity = _identity(config, bert_config.to_dict(), data)
    run = Path(config.run)
    if config.dry_run:
        check_run(run, config.checkpoint, identity, config.resume)
    else:
        checkpoints = open_run(run, config.checkpoint, identity, config.resume)
    progress = RunProgress(clock.total)
    results_file = run / "eval_results.json"
    if not config.dry_run and results_file.exists():
        progress.say(f"{run} is finished; its model is in {run / 'model'}")
        if config.json:
            results = json.loads(results_file.read_text(encoding="utf-8"))
            print(json.dumps(results, ensure_ascii=False))
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
        f" parameters, {clock.describe()} of {config.batch_size} examples in {layout.rows} rows of"
        f" {layout.length} tokens ({batches.efficiency:.0%} full) on {mesh.devices.size}"
        f" {jax.default_backend()} device(s), {flops:.3g} FLOP a step; matrix products run at"
        f" {rate / 1e9:,.0f} GFLOP/s here"
    )

    # ---------------------------------------------------------------- compile
    inference = Inference(
        model, task, tokenizer.pad_id, place=lambda batch: place_rows(batch, mesh), multiple=places
    )
    started = time.perf_counter()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    take_step = (
        jax.jit(train_step, donate_argnums=0, out_shardings=(shardings, None))
        .lower(state, place_rows(batches[0], mesh), jnp.float32(0))
        .compile()
    )
    progress.say(f"compiled in {time.perf_counter() - started:.1f} s")
    if config.dry_run:
        progress.say(describe_demand(take_step, flops / rate, clock))
        progress.say("dry run: everything is in place; nothing was trained or written")
        return 0

    # ---------------------------------------------------------------- run directory, resume
    restored = checkpoints.restore(abstract(state), progress.say)
    best, unimproved = float("-inf"), 0
    if restored:
        state = restored.state
        best, unimproved = restored.notes["best"], restored.notes["unimproved"]
    step = int(state.step)
    done = {line["split"] for line in read_metrics(run / "metrics.jsonl") if line["step"] == step}
    if restored:
        progress.say(f"continuing {run} from step {step}")
    with progress, StopRequest() as stop, count_compilations() as compilations:
        write_provenance(run, to_yaml(config), _origin(config, data))
        metrics = MetricsWriter(run, step)
        score_name = config.scoring.score or task.main_score

        def keep(state: TrainState, cost: float | None = None) -> None:
            notes = {
                "identity": identity,
                "best": best,
                "unimproved": unimproved,
                "seconds": clock.seconds,
            }
            checkpoints.save(state, notes, cost)

        def save(state: TrainState) -> None:
            saved = fold_batch_norm(bert_config, jax.device_get(state.params), state.statistics)
            save_model_directory(run / "model", *saved, config.model.init, task.architecture)

        def validate(state: TrainState) -> bool:
            nonlocal best, unimproved
            step, started = int(state.step), time.perf_counter()
            variables = {"params": state.params, **state.statistics}
            outputs = inference.run(variables, validation.units)
            predictions = task.decode(data.validation, validation.units, outputs.logits)
            loss = float(outputs.loss.mean())
            scores = {"loss": loss, **task.score(data.validation, predictions)}
            score = goodness(score_name, scores)
            single = single_scores(scores)
            metrics.write(step, "validation", single, {"seconds": time.perf_counter() - started})
            progress.say(f"step {step}: validation {describe_task_scores(single)}")
            better = score > best
            best, unimproved = (score, 0) if better else (best, unimproved + 1)
            if better:
                save(state)
                keep(state, -best)
            if step >= steps_per_epoch:
                compilations.mark()
            return 0 < config.scoring.patience <= unimproved

        # ------------------------------------------------------------ the loop (training/loop.py)
        clock.start(restored.notes["seconds"] if restored else 0.0)
        every = max(1, round(config.scoring.every_epochs * steps_per_epoch))
        over = clock.is_over(step)
        loop = Loop(
            take_step,
            (place_rows(batch, mesh) for batch in read_ahead(batches, step)),
            clock,
            Intervals(config.log_every, every, config.checkpoint.every, config.most_skipped),
            flops / rate,
            validate if data.validation else lambda state: False,
            keep,
            progress,
            metrics,
        )
        if over and data.validation and "validation" not in done:
            validate(state)
        if restored and 0 < config.scoring.patience <= unimproved:
            over = True
        else:
            state, over = loop.run(state, stop)
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
        "examples_per_second": examples_per_second(run, len(encoded.units) / steps_per_epoch),
        "packing_efficiency": batches.efficiency,
    }
    del state
    results = leave_results(run, config, data, inference, facts, metrics)
    metrics.close()
    test = single_scores(results.get("test", {}))
    count = facts["compilations_after_first_epoch"]
    compiled = "" if count is None else f"{count} compilations after the first epoch, "
    progress.say(
        f"test {describe_task_scores(test)}\n"
        f"{compiled}{facts['examples_per_second']:,.0f} examples/s\n"
        f"model      {run / 'model'}\nscores     {results_file}\n"
        f"try it     bertjax predict --model {run / 'model'} --input FILE"
    )
    if config.json:
        print(json.dumps(results, ensure_ascii=False))
    return 0


# -------------------------------------------------------------------- what the run is made of


def _identity(
    config: FinetuneConfig, bert_config: dict[str, Any], data: TaskData
) -> dict[str, Any]:
    """What must be the same for a checkpoint to be continued."""
    optimizer = dataclasses.asdict(config.optimizer)
    del optimizer["learning_rate"]
    return {
        "task": config.task,
        "data": data.fingerprint(),
        "model": bert_config,
        "init": config.model.init,
        "seed": config.seed,
        "batch_size": config.batch_size,
        "max_length": config.max_length,
        "packing": config.packing,
        "label_smoothing": config.label_smoothing,
        "class_weights": config.class_weights,
        "score": config.scoring.score,
        "transfer": dataclasses.asdict(config.transfer),
        "optimizer": optimizer,
        "dtype": jnp.dtype(compute_dtype(config.dtype)).name,
    }


def _origin(config: FinetuneConfig, data: TaskData) -> dict[str, Any]:
    """What stands in run.json beside the versions."""
    return {
        "program": "train.finetune",
        "task": config.task,
        "seed": config.seed,
        "data": {name: getattr(config.data, name) for name in ("train", "validation", "test")},
        "data_fingerprint": data.fingerprint(),
    }


if __name__ == "__main__":
    restart_with_huge_pages()
    program(main)()
