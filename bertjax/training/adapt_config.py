"""An adaptation of a pretrained model to the texts of a domain: its config."""

import dataclasses
from typing import Any

from bertjax.program.errors import UserError
from bertjax.training.budget import BudgetConfig
from bertjax.training.evaluation import EvaluationConfig
from bertjax.training.optimizer import OptimizerConfig, ScheduleConfig
from bertjax.training.pretrain_config import PretrainingFields
from bertjax.training.replay import ReplayConfig

# Passes over the new text where no budget is given.
EPOCHS = 3
# Share of the rows that are replayed where it is not given.
REPLAY_SHARE = 0.2
# Evaluations of a run in steps, where it is not given how many steps are between two.
EVALUATIONS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class DomainFields:
    """What is adapted, to what.

    Attributes:
        model: the pretrained model: a directory, ours or Hugging Face's, or a name on the Hugging
            Face hub
        input: texts of the new domain: files (.txt .jsonl .json .csv .tsv .parquet, each also
            .gz), folders, globs in quotes, dataset:ORG/NAME
        output: run directory, which is made; when it holds the run of the same command, that is
            continued
        replay: general texts, as `input`: the model is scored on some of them, and goes on to see
            the others, so that less is forgotten
        replay_share: share of the training rows that are replayed, at most 0.99; 0 = the general
            texts are for scoring only. 0.2 when not given
        new_tokens: tokens to add to the vocabulary: those that save the most in the new texts
        preparation: fields of `bertjax prepare` for the texts, as {language: es, max_length: 256,
            document_separator: file}. pairing is nsp if the model tells next sentences, else none;
            max_length is 128, or what the model has positions for
        replay_preparation: the same for the general texts; as `preparation` when not given
    """

    model: str
    input: list[str]
    output: str
    replay: list[str] = dataclasses.field(default_factory=list)
    replay_share: float | None = None
    new_tokens: int = 0
    preparation: dict[str, Any] = dataclasses.field(default_factory=dict)
    replay_preparation: dict[str, Any] | None = None


def _evaluation() -> EvaluationConfig:
    return EvaluationConfig(at_start=True, patience=3)


def _optimizer() -> OptimizerConfig:
    return OptimizerConfig(learning_rate=1e-4, beta2=0.98)


def _schedule() -> ScheduleConfig:
    return ScheduleConfig("warmup-stable-decay", warmup=0.06)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptConfig(PretrainingFields, DomainFields):
    """An adaptation; without a budget it lasts at most 3 epochs of the new texts."""

    optimizer: OptimizerConfig = dataclasses.field(default_factory=_optimizer)
    schedule: ScheduleConfig = dataclasses.field(default_factory=_schedule)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=_evaluation)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget != BudgetConfig():
            self.budget.require_one()
        if self.new_tokens < 0:
            raise UserError(f"new_tokens={self.new_tokens} must be at least 0")
        if not self.input:
            raise UserError("input is empty; name the texts of the new domain with --input")
        for name in ("replay_share", "replay_preparation"):
            if getattr(self, name) is not None and not self.replay:
                raise UserError(
                    f"{name}={getattr(self, name)} needs text to replay: name it with --replay, or"
                    f" leave {name} out"
                )
        ReplayConfig("replay", self.share)  # checks it
        for given in (self.preparation, self.replay_preparation or {}):
            if "input" in given:
                raise UserError(
                    f"preparation.input={given['input']}: texts are named by --input and --replay"
                )

    @property
    def share(self) -> float:
        """The share of the rows that are replayed."""
        if not self.replay:
            return 0.0
        return REPLAY_SHARE if self.replay_share is None else self.replay_share

    @property
    def settled_budget(self) -> BudgetConfig:
        """The budget that is given, or the usual one."""
        return BudgetConfig(epochs=EPOCHS) if self.budget == BudgetConfig() else self.budget
