"""What can be said of a fine-tuning run."""

import dataclasses
from typing import Literal

from bertjax.errors import UserError
from bertjax.tasks.reading import DataConfig, TaskName
from bertjax.training.batches import check_seed
from bertjax.training.budget import BudgetConfig
from bertjax.training.checkpoint import CheckpointConfig
from bertjax.training.optimizer import OptimizerConfig, ScheduleConfig
from bertjax.training.sharding import MeshConfig
from bertjax.training.transfer import TransferConfig
from train.starting_model import FinetunedModelConfig

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
        class_weights: of classification: balanced = each class weighs the same in the loss, however
            many its examples
        dtype: of the matrix products; auto = bfloat16 on GPU and TPU, float32 on CPU
        remat: what the backward pass computes again to save memory: none, dots (all but
            products with parameters) or full; auto = dots on CPU, which it makes faster, none on
            GPU and TPU
        attention: its backend; all but explicit need model.attention_probs_dropout_prob=0, cudnn an
            NVIDIA GPU and bfloat16, splash a TPU (`bertjax bench attention` measures them)
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
    attention: Literal["explicit", "xla", "cudnn", "blockwise", "splash"] = "explicit"
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
