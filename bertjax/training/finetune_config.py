"""What can be said of a fine-tuning run."""

import dataclasses
from typing import Literal

from bertjax.program.errors import UserError
from bertjax.program.wording import counted
from bertjax.tasks.data_config import DataConfig, TaskName
from bertjax.training.batches import check_seed
from bertjax.training.budget import BudgetConfig, Clock
from bertjax.training.checkpoint import CheckpointConfig
from bertjax.training.execution import AttentionName
from bertjax.training.optimizer import OptimizerConfig, ScheduleConfig
from bertjax.training.sharding import MeshConfig
from bertjax.training.starting_model import FinetunedModelConfig
from bertjax.training.transfer import TransferConfig

# How long a run lasts without a budget: so many epochs (Devlin et al. 2019, A.3: 2, 3 or 4),
# and where that is less, so many steps. Few examples need many epochs: Mosbach et al. 2021, section
# 6; Zhang et al. 2021, section 5; measured here: docs/finetuning.md.
DEFAULT_EPOCHS, LEAST_STEPS = 3.0, 150

# Fewer steps leave most models about where they began: after 9, MiniLM said "ham" to every message
# (docs/finetuning.md).
FEW_STEPS = 20

# Examples a step, for as many training examples (units) or more.
_BATCH_SIZES = {1000: 32, 64: 16, 0: 8}

# Evaluations, and lines of the log, of a run with no such option: no more than about so
# many evaluations, which each cost a checkpoint, and no fewer than about so many lines.
_EVALUATIONS, _LOG_LINES = 10, 20
# Steps between two of them at least, and at most.
_LEAST_BETWEEN_EVALUATIONS, _MOST_BETWEEN_LINES = 20, 20


@dataclasses.dataclass(frozen=True)
class ScoringConfig:
    """When the validation split is scored, and when that ends the run.

    Attributes:
        every_epochs: epochs between two evaluations (a fraction is possible); one more comes at the
            end; none = 1, or as many as make ten evaluations of a run of more epochs
        score: the score that decides which checkpoint is best, loss included; among those that
            are equal or within chance of the best the loss decides; none = the task's main one
        patience: stop after so many evaluations in a row of which none was kept as the best; 0 =
            never
    """

    every_epochs: float | None = None
    score: str | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        if self.every_epochs is not None and not self.every_epochs > 0:
            raise UserError(f"scoring.every_epochs={self.every_epochs} must be above 0")
        if self.patience < 0:
            raise UserError(f"scoring.patience={self.patience} must not be negative")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
    """A fine-tuning run; without a budget it lasts 3 epochs, and 150 steps at least.

    Attributes:
        task: what is learned
        run: run directory; when it holds a checkpoint, the run is continued from there
        seed: of the new head, the order of the examples, dropout
        seeds: number of runs with the seeds seed, seed + 1, ...; mean and deviation are reported
        max_length: longest sequence in tokens; longer texts are cut (contexts of questions: read in
            windows; tagged sentences: in parts)
        batch_size: examples a step, over all devices (contexts of questions: windows); none = 32,
            from fewer than 1,000 examples 16, from fewer than 64 8
        accumulation: microbatches that a step's batch is worked through in
        packing: put several examples into one row, so that short ones cost no padding
        label_smoothing: share of the target that is spread evenly over the labels, in [0, 1)
        class_weights: of classification: balanced = each class weighs the same in the loss, however
            many its examples
        dtype: of the matrix products; auto = bfloat16 on GPU and TPU, and on a CPU whose products
            are found to be much faster in it; float32 on others
        remat: what the backward pass computes again to save memory: none, dots (all but
            products with parameters) or full; auto = dots on CPU, which it makes faster, none on
            GPU and TPU
        attention: its backend; auto = dense, in rows of more than 4096 tokens one of linear memory
            where no probabilities are dropped; explicit is the formula as one reads it; all but
            these two need model.attention_probs_dropout_prob=0, cudnn an NVIDIA GPU and bfloat16,
            splash a TPU (`bertjax bench attention` measures them)
        log_every: steps between two lines of the log; none = 20, in a run of fewer than 400 steps
            a twentieth of them
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
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    seed: int = 0
    seeds: int = 1
    max_length: int = 128
    batch_size: int | None = None
    accumulation: int = 1
    packing: bool = True
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    attention: AttentionName = "auto"
    log_every: int | None = None
    most_skipped: int = 10
    resume: bool = True
    dry_run: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        if self.budget != BudgetConfig():
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
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name}={value} must be at least {least}")
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f"label_smoothing={self.label_smoothing} must be in [0, 1)")

    def settle(self, units: int) -> "FinetuneConfig":
        """Returns the config with everything that depends on how much there is to learn from.

        What was given stays as it is.

        Args:
            units: of the training examples.
        """
        batch_size = self.batch_size
        if batch_size is None:
            batch_size = next(size for least, size in _BATCH_SIZES.items() if units >= least)
            batch_size = -(-batch_size // self.accumulation) * self.accumulation
        steps_per_epoch = -(-units // batch_size)
        budget = self.budget
        if budget == BudgetConfig():
            enough = DEFAULT_EPOCHS * steps_per_epoch >= LEAST_STEPS
            budget = (
                BudgetConfig(epochs=DEFAULT_EPOCHS) if enough else BudgetConfig(steps=LEAST_STEPS)
            )
        clock = Clock(budget, steps_per_epoch * batch_size, batch_size)
        steps = None if clock.in_seconds else clock.most_steps
        every_epochs = self.scoring.every_epochs
        if every_epochs is None:
            between = _LEAST_BETWEEN_EVALUATIONS if steps is None else steps / _EVALUATIONS
            every_epochs = max(1.0, between / steps_per_epoch)
        log_every = self.log_every
        if log_every is None:
            log_every = _MOST_BETWEEN_LINES
            if steps is not None:
                log_every = min(log_every, max(1, steps // _LOG_LINES))
        return dataclasses.replace(
            self,
            batch_size=batch_size,
            budget=budget,
            log_every=log_every,
            scoring=dataclasses.replace(self.scoring, every_epochs=every_epochs),
        )

    def describe_shortage(self, steps: int) -> str | None:
        """Warns of a run too short to learn anything; None of another."""
        if steps >= FEW_STEPS:
            return None
        return (
            f"{counted(steps, 'step')} are too few to learn from, whatever the examples: most"
            f" models stay about where they began. Leave the budget out ({LEAST_STEPS} steps or"
            f" {DEFAULT_EPOCHS:g} epochs, whichever is more), give --budget.steps {LEAST_STEPS}, or"
            " a smaller --batch-size, which makes more steps of an epoch"
        )
