"""The phases of a run on real rows: what each takes its batches from, and its step."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from bertjax.config import BertConfig, Kind
from bertjax.objectives.masking import Vocabulary
from bertjax.program.errors import UserError
from bertjax.text.rows import PreparedDirectory, open_prepared
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.training.batches import EpochOrder, FittingRows, Order, RowSource, TrainingBatches
from bertjax.training.budget import Clock
from bertjax.training.cut_rows import CutRows
from bertjax.training.loop import Stretch
from bertjax.training.phases import Phase, count_rows_before, make_phases
from bertjax.training.pretrain_config import PretrainConfig, PretrainingStep, make_step
from bertjax.training.replay import mix_rows
from bertjax.training.sharding import check_batch, rows_here
from bertjax.types import RowBatch


class RunPhase(NamedTuple):
    """A phase of a run.

    Attributes:
        phase: what was asked for.
        all_phases: of the run.
        rows: `Rows` or `CutRows` of its training split.
        source: what is taken from: `rows`, or `MixedRows` with those that are replayed.
        order: in which they come.
        step: see `make_step`.
        config, bert_config, clock, mesh: of the run.
    """

    phase: Phase
    all_phases: list[Phase]
    rows: Any
    source: RowSource
    order: Order
    step: PretrainingStep
    config: PretrainConfig
    bert_config: BertConfig
    clock: Clock
    mesh: Mesh

    @property
    def flops(self) -> int:
        """The operations of the matrix products of a step."""
        return self.step.count_flops(
            self.phase.batch_size, self.rows.max_length, self.rows.examples_per_row
        )

    @property
    def some_batch(self) -> RowBatch:
        """One of its batches."""
        return self.batches([0] * (self.phase.number + 1))[0]

    def batches(self, starts: list[int]) -> TrainingBatches:
        """Returns its batches, by the number of the step in the run.

        Args:
            starts: the first step of every phase up to this one.
        """
        return TrainingBatches(
            FittingRows(self.source, self.bert_config),
            self.phase.batch_size,
            self.config.seed,
            self.clock.most_steps,
            rows_here(self.mesh, self.phase.batch_size),
            self.order,
            starts[-1],
            count_rows_before(self.all_phases, starts, self.phase.number),
        )

    def stretch(self, take_step: jax.stages.Compiled, rate: float) -> Stretch:
        """Returns it as the loop takes it.

        Args:
            take_step: its step, compiled.
            rate: of matrix products on the devices, in FLOP/s.
        """
        said = self.phase.describe(self.rows, self.clock) if len(self.all_phases) > 1 else ""
        return Stretch(take_step, self.batches, self.flops / rate, self.phase.end, said)


def open_phases(
    config: PretrainConfig,
    prepared: PreparedDirectory,
    replay: PreparedDirectory | None,
    tokenizer: Tokenizer,
    bert_config: BertConfig,
    generator_config: BertConfig | None,
    kind: Kind,
    clock: Clock,
    mesh: Mesh,
) -> list[RunPhase]:
    """Returns the phases of a run, with their rows and steps.

    Raises:
        UserError: their rows do not fit the model, its tokenizer or the batch; a batch cannot be
            divided among the devices.
    """
    vocabulary = Vocabulary.of(tokenizer)
    phases = make_phases(config.phases, config.batch_size, clock)
    return [
        RunPhase(
            phase,
            phases,
            *_read_rows(config, phase, prepared, replay, tokenizer, bert_config, mesh),
            make_step(
                config, bert_config, vocabulary, clock.total, mesh, phase, generator_config, kind
            ),
            config,
            bert_config,
            clock,
            mesh,
        )
        for phase in phases
    ]


def _read_rows(
    config: PretrainConfig,
    phase: Phase,
    prepared: PreparedDirectory,
    replay: PreparedDirectory | None,
    tokenizer: Tokenizer,
    bert_config: BertConfig,
    mesh: Mesh,
) -> tuple[Any, RowSource, Order]:
    """Returns the rows of a phase, those with the replayed ones, and their order."""
    rows, where = prepared.train, prepared.path
    own = [name for name in ("data", "lengths") if getattr(config.phases, name)]
    if config.replay.share and own:
        raise UserError(
            f"replay.share={config.replay.share} mixes into the rows of the run, and phases."
            f"{own[0]} gives phases others; leave out one of the two"
        )
    if phase.data is not None:
        others = open_prepared(phase.data)
        if load_tokenizer(others.tokenizer_path).fingerprint != tokenizer.fingerprint:
            raise UserError(
                f"the rows in {phase.data} were made with another tokenizer than those in"
                f" {prepared.path}; prepare them with --tokenizer {prepared.path}/tokenizer"
            )
        rows, where = others.train, others.path
    if phase.length is not None:
        rows = CutRows(rows, phase.length)
    if rows.max_length > bert_config.max_length:
        raise UserError(
            f"the rows in {where} are {rows.max_length} tokens long, the model has"
            f" {bert_config.length_limit}; give phases.lengths, or raise"
            " model.max_position_embeddings"
        )
    if len(rows) < phase.batch_size:
        raise UserError(
            f"{where} has {len(rows)} training rows, less than one batch of"
            f" batch_size={phase.batch_size}; lower it, or prepare more text"
        )
    check_batch("batch_size / accumulation", phase.batch_size // config.accumulation, mesh)
    if own:
        return rows, rows, EpochOrder(len(rows), config.seed)
    return rows, *mix_rows(config.replay, prepared, replay, config.seed)
