"""Which examples a step sees: a pure function of (seed, step), every batch of nearly one size."""

import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from bertjax.config import BertConfig
from bertjax.tasks.units import Layout, Unit, check_units, choose_layout, make_task_batch, places_of
from bertjax.types import TaskBatch

# So many epochs have an order of their own; then they come again. All are known before the run
# begins, so that a layout can be chosen that holds every batch.
DISTINCT_EPOCHS = 16
# Fewer where there are so many units that planning would take more than a few seconds.
PLANNED_UNITS = 3_000_000


class TaskBatches:
    """The batch of every step, by random access: `batches[step]`.

    Every epoch sees every unit once. Batches are random, but of nearly one number of tokens (see
    `deal_out`), so that all of them fit a single layout with little room left, and one compilation
    serves the run.

    Args:
        units: of the training examples.
        batch_size: units a step, at most.
        seed: of the order.
        steps: of the run, or more.
        config: of the model, which must have embeddings for all of them.
        pad_id: of [PAD].
        packing: False gives every unit a row of its own.
        multiple: the number of rows is a multiple of it (devices x microbatches).

    Attributes:
        layout: of every batch.
        steps_per_epoch: batches an epoch; some have a unit less than the others.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        batch_size: int,
        seed: int,
        steps: int,
        *,
        config: BertConfig,
        pad_id: int,
        packing: bool = True,
        multiple: int = 1,
    ) -> None:
        check_units(units, config)
        self._units, self._batch_size, self._seed = units, batch_size, seed
        self._steps, self._pad_id, self._packing = steps, pad_id, packing
        self._lengths = np.array([unit.length for unit in units])
        self._distinct = max(2, min(DISTINCT_EPOCHS, PLANNED_UNITS // len(units)))
        self.steps_per_epoch = -(-len(units) // batch_size)
        self.layout: Layout = choose_layout(
            [self._units_of(step) for step in range(min(steps, self._distinct_steps))],
            config.hidden_size,
            packing=packing,
            multiple=multiple,
        )

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> TaskBatch:
        units = self._units_of(step)
        places = places_of(units, self.layout, packing=self._packing)
        return make_task_batch(units, places, self.layout, self._pad_id)

    @property
    def efficiency(self) -> float:
        """Real tokens of an epoch / places of its rows."""
        places = self.steps_per_epoch * self.layout.rows * self.layout.length
        return float(self._lengths.sum() / places)

    @property
    def _distinct_steps(self) -> int:
        return self._distinct * self.steps_per_epoch

    def _units_of(self, step: int) -> list[Unit]:
        epoch, place = divmod(step % self._distinct_steps, self.steps_per_epoch)
        return [self._units[number] for number in self._epoch(epoch)[place]]

    @functools.lru_cache(maxsize=2)  # noqa: B019 - one object a run
    def _epoch(self, epoch: int) -> list[Int[np.ndarray, " units"]]:
        random = np.random.default_rng((self._seed, epoch))
        return deal_out(self._lengths, self._batch_size, random)


def deal_out(
    lengths: Int[np.ndarray, " units"], batch_size: int, random: np.random.Generator
) -> list[Int[np.ndarray, " units"]]:
    """Returns all units in random batches of nearly the same number of tokens.

    The units are sorted by length and cut into strata of one unit a batch; the longest stratum is
    dealt out at random, and each one after it so that batches with few tokens so far get the longer
    ones. Noise that falls to 0 with the strata keeps the same units from always meeting.

    Args:
        lengths: tokens of each unit.
        batch_size: units a batch, at most.
        random: where the order comes from.

    Returns:
        The numbers of the units of every batch, in random order of batches and within each.
    """
    batches = -(-len(lengths) // batch_size)
    order = random.permutation(len(lengths))
    order = order[np.argsort(-lengths[order], kind="stable")]
    strata = [order[start : start + batches] for start in range(0, len(order), batches)]
    dealt: list[list[int]] = [[] for _ in range(batches)]
    tokens = np.zeros(batches)
    spread = lengths[strata[0]].std()
    for number, stratum in enumerate(strata):
        noise = spread * (1 - number / len(strata)) * random.normal(size=batches)
        emptiest = np.argsort(tokens + noise, kind="stable")[: len(stratum)]
        for batch, unit in zip(emptiest.tolist(), stratum.tolist(), strict=True):
            dealt[batch].append(unit)
        tokens[emptiest] += lengths[stratum]
    return [random.permutation(dealt[batch]) for batch in random.permutation(batches)]
