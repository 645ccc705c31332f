"""A pretraining run: its config, the shape of a new model, and the step.

`bertjax pretrain` takes the step, `bertjax plan` compiles it for devices that are not there.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import optax
from jax.sharding import Mesh

from bertjax.architectures import (
    MASKED_LM,
    PRETRAINING,
    REPLACED_TOKENS,
    find_architecture,
)
from bertjax.config import HIDDEN_ACTIVATIONS, BertConfig, Kind
from bertjax.families.registry import FAMILIES
from bertjax.objectives.masking import MaskingConfig, Vocabulary
from bertjax.objectives.pretraining import PretrainingObjective
from bertjax.objectives.replaced_tokens import (
    GeneratorAndDiscriminator,
    ReplacedTokenObjective,
    ReplacedTokensConfig,
)
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.training.batches import check_seed
from bertjax.training.budget import BudgetConfig
from bertjax.training.checkpoint import CheckpointConfig
from bertjax.training.development_config import DevelopmentConfig
from bertjax.training.evaluation import EvaluationConfig
from bertjax.training.execution import AttentionName, attention_backend, compute_dtype, remat_policy
from bertjax.training.metrics import count_matmul_flops
from bertjax.training.optimizer import (
    OptimizerConfig,
    ScheduleConfig,
    make_optimizer,
    make_schedule,
)
from bertjax.training.phases import Phase, PhasesConfig
from bertjax.training.replay import ReplayConfig
from bertjax.training.run_step import make_run_step
from bertjax.training.sharding import MeshConfig
from bertjax.training.steps import Step

_SIZES = dict.fromkeys(size for family in FAMILIES.values() for size in family.config.SIZES)
# Of a new generator. Source: Clark et al. 2020, table 6 (small, large).
GENERATOR_SIZE = 0.25
_OF_NEW_MODELS = ("family", "size", "init", "start")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model: a published size, or a model directory to continue from, and what differs from it.

    Attributes:
        family: of a new model, by its `model_type`; bert when neither family nor init is given
        size: tiny, mini, small, medium, base or large (Turc et al. 2019, Devlin et al. 2019), or
            another published one of the family (`BertConfig.SIZES`); mini when neither size nor
            init is given
        init: a model directory, ours or Hugging Face's, or a name on the Hugging Face hub,
            whose weights and shape are taken
        start: of a new model: random (Devlin et al. 2019), or patterns, for runs of minutes: the
            first layer's heads begin by looking at the neighbours and at the same word
        num_hidden_layers: layers, when not the size's
        hidden_size: width, when not the size's
        num_attention_heads: heads, when not the size's
        intermediate_size: inner width of the feed-forward part, when not the size's
        hidden_act: activation of the feed-forward part, when not the size's
        hidden_dropout_prob: dropout of hidden states, in [0, 1)
        attention_probs_dropout_prob: dropout of attention probabilities, in [0, 1)
        initializer_range: standard deviation of new weights; 0.02 when not given
        max_position_embeddings: longest example in tokens; the rows' length when not given
        attention_window: a token sees so many to either side; all of its example when not given
        local_attention: of a family with local layers, a token of theirs sees half as many to
            either side; 128 when not given
        global_attn_every_n_layers: of a family with local layers, every so many-th layer is global,
            from the first on; 3 when not given
    """

    family: Literal[*FAMILIES] | None = None
    size: Literal[*_SIZES] | None = None
    init: str | None = None
    start: Literal["random", "patterns"] = "random"
    num_hidden_layers: int | None = None
    hidden_size: int | None = None
    num_attention_heads: int | None = None
    intermediate_size: int | None = None
    hidden_act: Literal[*HIDDEN_ACTIVATIONS] | None = None
    hidden_dropout_prob: float | None = None
    attention_probs_dropout_prob: float | None = None
    initializer_range: float | None = None
    max_position_embeddings: int | None = None
    attention_window: int | None = None
    local_attention: int | None = None
    global_attn_every_n_layers: int | None = None

    def differing_fields(self, family: type[BertConfig]) -> dict[str, Any]:
        """Returns the fields of the model's shape that are given here.

        Raises:
            UserError: one that the family has not.
        """
        given = {
            name: value
            for name, value in vars(self).items()
            if value is not None and name not in _OF_NEW_MODELS
        }
        for name in given.keys() - {field.name for field in dataclasses.fields(family)}:
            its = [its.name for its in FAMILIES.values() if hasattr(its.config, name)]
            raise UserError(
                f"model.{name}={given[name]} has no effect: {with_article(family.MODEL_TYPE)} has"
                f" no such field; leave it out, or take a model of the family {' or '.join(its)}"
            )
        return given


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowsAndRun:
    """Where a pretraining run reads and writes, and what it trains.

    Attributes:
        data: prepared directory (`bertjax prepare`)
        run: run directory; when it holds a checkpoint, the run is continued from there
        distributed: this process is one of several that train together, as train/launch/ starts
            them (docs/distributed.md)
        objective: masked-lm: masked words are restored, and where the family has the head, next
            sentences told from random ones; replaced-tokens: a generator fills the masks, and the
            model finds what it wrote (ELECTRA), which needs a family with a discriminator
    """

    data: str
    run: str
    distributed: bool = False
    objective: Literal["masked-lm", "replaced-tokens"] = "masked-lm"
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    replaced_tokens: ReplacedTokensConfig = dataclasses.field(default_factory=ReplacedTokensConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainingFields:
    """How a model is pretrained, whatever on.

    Attributes:
        average: decay of a moving average of the weights, which is evaluated and saved in their
            place, as 0.999; 0 = none
        z_loss: weight of the mean square of the log of the softmax's denominator (Chowdhery et al.
            2022), as 1e-4; 0 = none
        seed: of initialisation, order of the rows, masks and dropout
        batch_size: rows a step, over all devices
        accumulation: microbatches that a step's batch is worked through in
        dtype: of the matrix products; auto = bfloat16 on GPU and TPU, and on a CPU whose products
            are found to be much faster in it; float32 on others
        remat: what the backward pass computes again to save memory: none, dots (all but
            products with parameters) or full; auto = dots on CPU, which it makes faster, and on
            GPU, none on TPU
        attention: its backend; auto = dense, in rows of more than 4096 tokens one of linear memory
            where no probabilities are dropped; explicit is the formula as one reads it; all but
            these two need model.attention_probs_dropout_prob=0, cudnn an NVIDIA GPU and bfloat16,
            splash a TPU (`bertjax bench attention` measures them)
        log_every: steps between two lines of the log, each the mean since the line before
        most_skipped: so many steps in a row without a finite loss and gradient stop the run, at
            the next line of the log
        resume: false = refuse to continue a run directory that has a checkpoint
        dry_run: do everything but train: read, build, compile, evaluate a batch, report memory
            and time, write nothing
        json: print the final scores as JSON on standard output
    """

    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    budget: BudgetConfig = dataclasses.field(default_factory=BudgetConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = dataclasses.field(default_factory=ScheduleConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    development: DevelopmentConfig = dataclasses.field(default_factory=DevelopmentConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    phases: PhasesConfig = dataclasses.field(default_factory=PhasesConfig)
    average: float = 0.0
    z_loss: float = 0.0
    seed: int = 0
    batch_size: int = 32
    accumulation: int = 1
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    attention: AttentionName = "auto"
    log_every: int = 20
    most_skipped: int = 10
    resume: bool = True
    dry_run: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not 0 <= self.average < 1:
            raise UserError(f"average={self.average} must be in [0, 1)")
        if not 0 <= self.z_loss < math.inf:
            raise UserError(f"z_loss={self.z_loss} must not be negative")
        if self.phases.shares and self.budget.epochs is not None:
            raise UserError(
                f"phases.shares={self.phases.shares} are of a budget in steps or minutes: with"
                f" phases an epoch has no fixed number of steps; give budget.steps, not"
                f" budget.epochs={self.budget.epochs:g}"
            )
        for name in ("batch_size", "accumulation", "log_every", "most_skipped"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}={getattr(self, name)} must be at least 1")
        for size in self.phases.batch_sizes or [self.batch_size]:
            if size % self.accumulation:
                name = "phases.batch_sizes" if self.phases.batch_sizes else "batch_size"
                raise UserError(
                    f"{name}={size} must be a multiple of accumulation={self.accumulation}"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainConfig(PretrainingFields, RowsAndRun):
    """A pretraining run."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.budget.require_one()
        if self.objective != REPLACED_TOKENS and self.replaced_tokens != ReplacedTokensConfig():
            raise UserError(
                "fields of replaced_tokens have no effect with"
                f" objective={self.objective}; pass objective=replaced-tokens, or leave them out"
            )
        if self.objective == REPLACED_TOKENS and any(self.phases.causal):
            raise UserError(
                f"phases.causal={self.phases.causal} is of objective=masked-lm: a discriminator"
                " looks ahead; leave it out"
            )


def shape_new_model(
    config: ModelConfig, vocab_size: int, special_ids: Mapping[str, int], length: int
) -> BertConfig:
    """Makes the config of a new model for rows of `length` tokens.

    Args:
        config: what was asked for.
        vocab_size: V.
        special_ids: by the names of config.json (`pad_token_id`, ...); those that the family's
            has are taken.
        length: of the rows.

    Raises:
        UserError: a field is out of its range, or the attention window hides nothing, in texts as
            long as the model takes (which may be longer than the rows).
    """
    make = FAMILIES[config.family or BertConfig.MODEL_TYPE].config
    if config.size not in (None, *make.SIZES):
        its = [name for name, family in FAMILIES.items() if config.size in family.config.SIZES]
        raise UserError(
            f"model.size={config.size} is a size of {' and '.join(its)}, and the model is"
            f" {with_article(make.MODEL_TYPE)}: pass model.family={its[0]}, or one of its sizes,"
            f" {', '.join(make.SIZES)}"
        )
    given = config.differing_fields(make)
    known = {field.name for field in dataclasses.fields(make)}
    fields = {name: id for name, id in special_ids.items() if name in known}
    fields["vocab_size"] = vocab_size
    fields["max_position_embeddings"] = length + make(**fields).first_position
    shape = make.of_size(config.size or "mini", **(fields | given))
    widest = shape.max_length - 2
    for name, tokens in (("attention_window", 1), ("local_attention", 2)):
        most = widest * tokens + tokens - 1
        if name in given and given[name] > most:
            less = f", or give at most {most}" if widest > 0 else ""
            raise UserError(
                f"model.{name}={given[name]} hides nothing in examples of at most"
                f" {shape.max_length} tokens ({shape.length_limit}); leave it out{less}"
            )
    return shape


def kind_of_objective(objective: str, bert_config: BertConfig) -> Kind:
    """Returns the kind of class that learns by an objective of `PretrainConfig`.

    Raises:
        UserError: the family has none.
    """
    if objective == MASKED_LM:
        return bert_config.pretraining
    if REPLACED_TOKENS not in bert_config.PARTS:
        able = [name for name, one in FAMILIES.items() if REPLACED_TOKENS in one.config.PARTS]
        raise UserError(
            f"objective={objective} needs a family with a discriminator, and"
            f" {with_article(bert_config.MODEL_TYPE)} has none: pass"
            f" model.family={' or '.join(able)}, or leave the objective out"
        )
    return REPLACED_TOKENS


def shape_new_generator(config: ReplacedTokensConfig, bert_config: BertConfig) -> BertConfig:
    """Returns the config of a new generator beside a discriminator."""
    return bert_config.shape_generator(config.generator_size or GENERATOR_SIZE)


class PretrainingStep(NamedTuple):
    """A step of a run, and what it is made of."""

    model: nn.Module | GeneratorAndDiscriminator
    optimizer: optax.GradientTransformation
    objective: PretrainingObjective | ReplacedTokenObjective
    take: Step

    def count_flops(self, rows: int, length: int, examples: int) -> int:
        """Counts the operations of its matrix products.

        Args:
            rows: B.
            length: T.
            examples: K, of the rows.
        """
        of_words = rows, length, self.objective.slots(length)
        attention = self.model.attention
        if isinstance(self.model, GeneratorAndDiscriminator):
            generator = self.model.generator.config
            return count_matmul_flops(generator, *of_words, 0, attention) + count_matmul_flops(
                self.model.config, rows, length, 0, 0, attention, judged=rows * length
            )
        examples *= "nsp" in self.objective.terms and not self.model.causal
        return count_matmul_flops(self.model.config, *of_words, examples, attention)


def make_step(
    config: PretrainConfig,
    bert_config: BertConfig,
    vocabulary: Vocabulary,
    total: float,
    mesh: Mesh,
    phase: Phase | None = None,
    generator_config: BertConfig | None = None,
    kind: Kind | None = None,
) -> PretrainingStep:
    """Returns the step of a run for the devices of a mesh, which `bertjax plan` compiles, too.

    Args:
        config: of the run.
        bert_config: of the model.
        vocabulary: of the rows.
        total: the clock's value at the end of the run.
        mesh: whose devices may be absent.
        phase: of the run; None = it has one alone.
        generator_config: with replaced tokens, of the generator; a new one's when left out.
        kind: of class that is trained; that of the objective when left out.
    """
    platform = mesh.devices.flat[0].platform
    dtype = compute_dtype(config.dtype, platform)

    def make_model(kind: Kind, shape: BertConfig) -> nn.Module:
        return find_architecture(kind, shape).module(
            shape,
            dtype,
            remat_policy(config.remat, platform),
            attention=attention_backend(config.attention, shape, dtype, shape.max_length, platform),
            causal=phase is not None and phase.causal,
        )

    optimizer = make_optimizer(config.optimizer, dtype)
    schedule = make_schedule(config.schedule, total)
    kind = kind or kind_of_objective(config.objective, bert_config)
    model = make_model(kind, bert_config)
    masking = config.masking, vocabulary, config.seed
    options = {"span": phase.span if phase else (0.0, 1.0), "z_loss": config.z_loss}
    if kind == REPLACED_TOKENS:
        shape = generator_config or shape_new_generator(config.replaced_tokens, bert_config)
        model = GeneratorAndDiscriminator(make_model(MASKED_LM, shape), model)
        objective = ReplacedTokenObjective(model, config.replaced_tokens, *masking, **options)
    else:
        objective = PretrainingObjective(model, *masking, **options, pairs=kind == PRETRAINING)
    take = make_run_step(
        config, objective, optimizer, schedule, total, average_decay=config.average
    )
    return PretrainingStep(model, optimizer, objective, take)
