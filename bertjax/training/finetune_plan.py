"""What a fine-tuning run is made of: model and examples, the step, and what must stay the same."""

import dataclasses
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from bertjax.architectures import find_architecture, kind_of
from bertjax.interop.checkpoint_files import fingerprint_weights
from bertjax.numerics.placement import count_sharers
from bertjax.objectives.supervised import SupervisedObjective
from bertjax.program.errors import UserError
from bertjax.tasks import data_format
from bertjax.tasks.batches import TaskBatches
from bertjax.tasks.reading import TaskData
from bertjax.tasks.scoring import check_score
from bertjax.tasks.task import Encoded, Task
from bertjax.training.budget import Clock
from bertjax.training.execution import attention_backend, compute_dtype, remat_policy
from bertjax.training.finetune_config import FinetuneConfig
from bertjax.training.optimizer import make_optimizer, make_schedule
from bertjax.training.run_step import identity_of_step, make_run_step
from bertjax.training.starting_model import FinetunedStart, resolve_finetuned_model
from bertjax.training.state import TrainState, new_state
from bertjax.training.steps import Step
from bertjax.training.transfer import freeze, learning_rate_scales, scale_updates

# -------------------------------------------------------------------- model and examples


class Start(NamedTuple):
    """The model at step 0, the task as it is trained, and the examples as units."""

    model: FinetunedStart
    trained_task: Task
    encoded: Encoded
    validation: Encoded


def prepare(config: FinetuneConfig, data: TaskData) -> Start:
    """Reads the model and encodes the examples for it."""
    task = data.task
    if not data.validation and (config.scoring.score or config.scoring.patience):
        raise UserError(
            "scoring.score and scoring.patience look at the validation split, and there is none:"
            " give data.validation, or a data.validation_share above 0"
        )
    check_score(config.scoring.score, task)
    trained_task = data.task_to_train(config.label_smoothing, config.class_weights)
    start = resolve_finetuned_model(config.model, task, config.seed)
    most = start.config.max_length
    if config.max_length > most:
        raise UserError(
            f"max_length={config.max_length} is more than the positions of {config.model.init},"
            f" {start.config.length_limit}; lower it"
        )
    tokenizer, length = start.tokenizer, config.max_length
    encoded = trained_task.encode(data.train, tokenizer, length, training=True)
    if not encoded.units:
        raise UserError("data.train: none of its examples can be learned from")
    validation = task.encode(data.validation, tokenizer, length, training=False)
    return Start(start, trained_task, encoded, validation)


# -------------------------------------------------------------------- the step


class Plan(NamedTuple):
    """How a run trains: the batches, the step, and the clock that ends it."""

    model: Any
    batches: TaskBatches
    clock: Clock
    optimizer: optax.GradientTransformation
    objective: SupervisedObjective
    train_step: Step
    steps_per_epoch: int

    def first_state(self, seed: int, params: Any, mesh: Mesh) -> TrainState:
        """Returns the state at step 0."""
        key = jax.random.key(seed)
        return new_state(self.model, self.optimizer, mesh, key, self.objective.terms, params)


def make_plan(config: FinetuneConfig, start: Start, mesh: Mesh) -> Plan:
    bert_config, units = start.model.config, start.encoded.units
    dtype = compute_dtype(config.dtype)
    model = find_architecture(kind_of(start.trained_task.name), bert_config).module(
        bert_config,
        dtype,
        remat_policy(config.remat),
        attention=attention_backend(config.attention, bert_config, dtype, config.max_length),
    )
    steps_per_epoch = -(-len(units) // config.batch_size)
    clock = Clock(config.budget, steps_per_epoch * config.batch_size, config.batch_size)
    batches = TaskBatches(
        units,
        config.batch_size,
        config.seed,
        clock.most_steps,
        config=bert_config,
        pad_id=start.model.tokenizer.pad_id,
        packing=config.packing,
        multiple=count_sharers(mesh) * config.accumulation,
    )
    scales = learning_rate_scales(start.model.params, config.transfer)
    optimizer = optax.chain(make_optimizer(config.optimizer, dtype), scale_updates(scales))
    schedule = make_schedule(config.schedule, clock.total, in_steps=not clock.in_seconds)
    objective = SupervisedObjective(
        model,
        lambda logits, batch: start.trained_task.loss(logits, batch, batches.layout),
        lambda params: freeze(params, scales),
    )
    train_step = make_run_step(config, objective, optimizer, schedule, clock.total)
    return Plan(model, batches, clock, optimizer, objective, train_step, steps_per_epoch)


# -------------------------------------------------------------------- what the run is made of


def identity_of(config: FinetuneConfig, start: Start, data: TaskData) -> dict[str, Any]:
    """Returns what must be the same for a checkpoint to be continued."""
    return {
        "task": config.task,
        "data": data.fingerprint(),
        "model": start.model.config.to_dict(),
        "init": fingerprint_weights(start.model.directory),
        "tokenizer": start.model.tokenizer.fingerprint,
        "paths": {
            "data": ", ".join(config.data.absolute_paths("train")),
            "init": str(start.model.directory.absolute()),
        },
        "max_length": config.max_length,
        "packing": config.packing,
        "label_smoothing": config.label_smoothing,
        "class_weights": config.class_weights,
        "score": config.scoring.score,
        "choice": "the lowest loss within a standard error of the best score",
        "transfer": dataclasses.asdict(config.transfer),
        **identity_of_step(config),
    }


def origin_of(config: FinetuneConfig, data: TaskData) -> dict[str, Any]:
    """Returns what stands in run.json beside the versions."""
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
