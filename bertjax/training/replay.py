"""Replay: rows of other text among those of training, so that what a model knew is not forgotten.

Which rows of a batch are replay is a pure function of (seed, step), as all else of a run is.
"""

import dataclasses
import fractions

import numpy as np

from bertjax.program.errors import UserError
from bertjax.text.rows import PreparedDirectory, open_prepared
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.training.batches import EpochOrder, Order, RowSource

# Shares are exact as fractions of at most this denominator: products with places fit into int64.
_MOST_PARTS = 10_000
_LEAST, _MOST = 0.001, 0.99
# Makes the seed of the order of the replay's rows, which is another one than that of training.
_SEED = 21


@dataclasses.dataclass(frozen=True)
class ReplayConfig:
    """Rows of other text that are mixed in, against forgetting.

    Attributes:
        data: prepared directory of the other text, with the same tokenizer and rows of the same
            length; its held-out rows are scored beside those of `data` at every evaluation
        share: of the training rows that come from there, at most 0.99; 0 = they are scored only
    """

    data: str | None = None
    share: float = 0.0

    def __post_init__(self) -> None:
        if self.share and not _LEAST <= self.share <= _MOST:
            raise UserError(f"replay.share={self.share} must be 0, or {_LEAST} to {_MOST}")
        if self.share and self.data is None:
            raise UserError(
                f"replay.share={self.share} needs text to replay: name it with --replay.data, or"
                " leave the share out"
            )

    @property
    def exact_share(self) -> fractions.Fraction:
        """The share as it was written: 0.3 is three tenths."""
        return fractions.Fraction(self.share).limit_denominator(_MOST_PARTS)

    def rows_of_epoch(self, rows: int) -> int:
        """Returns how many rows, with the replayed ones, take all `rows` of training once."""
        return -(-rows // (1 - self.exact_share))


class MixedRows:
    """The rows of two sources as one; those of the second are numbered after those of the first."""

    def __init__(self, first: RowSource, second: RowSource) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def __getitem__(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        of_second = indices >= len(self._first)
        first = self._first[indices[~of_second]]
        second = self._second[indices[of_second] - len(self._first)]
        columns = {}
        for name, values in first.items():
            columns[name] = np.empty((len(indices), *values.shape[1:]), values.dtype)
            columns[name][~of_second] = values
            columns[name][of_second] = second[name]
        return columns


class MixedOrder:
    """An order of `MixedRows` in which a fixed share is of the second source.

    Replayed rows are spread evenly: of the first n places floor(n * share) are theirs. Each source
    is gone through in epochs of its own, so that no row comes twice in one of them.

    Args:
        first, second: how many rows there are of each.
        share: of the second.
        seed: of both orders.
    """

    def __init__(self, first: int, second: int, share: fractions.Fraction, seed: int) -> None:
        self._share, self._shift = share, first
        self._first = EpochOrder(first, seed)
        self._second = EpochOrder(second, _other_seed(seed))

    def __call__(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the numbers of the rows at `count` places from `first` on, and their epochs."""
        places = first + np.arange(count + 1, dtype=np.int64)
        replayed = places * self._share.numerator // self._share.denominator
        is_replay = np.diff(replayed) > 0
        numbers, epochs = np.empty(count, np.int64), np.empty(count, np.uint32)
        before, many = int(replayed[0]), int(is_replay.sum())
        numbers[is_replay], epochs[is_replay] = self._second(before, many)
        numbers[is_replay] += self._shift
        numbers[~is_replay], epochs[~is_replay] = self._first(first - before, count - many)
        return numbers, epochs


def _other_seed(seed: int) -> int:
    return int(np.random.SeedSequence((seed, _SEED)).generate_state(1)[0])


def open_replay(
    config: ReplayConfig, prepared: PreparedDirectory, tokenizer: Tokenizer
) -> PreparedDirectory | None:
    """Opens the rows to replay; None where there are none.

    Args:
        config: which.
        prepared: the rows of training.
        tokenizer: theirs.

    Raises:
        UserError: they are the rows of training, have another tokenizer or shape, or a split that
            is needed has no rows.
    """
    if config.data is None:
        return None
    replay = open_prepared(config.data)
    if replay.fingerprint == prepared.fingerprint:
        raise UserError(
            f"replay.data={config.data} holds the same rows as data={prepared.path}; name rows of"
            " other text, or leave it out"
        )
    if load_tokenizer(replay.tokenizer_path).fingerprint != tokenizer.fingerprint:
        raise UserError(
            f"replay.data={config.data} was made with another tokenizer than data={prepared.path};"
            f" prepare it again with --tokenizer {prepared.tokenizer_path}"
        )
    for name in ("max_length", "examples_per_row"):
        theirs, ours = replay.card[name], prepared.card[name]
        if theirs != ours:
            raise UserError(
                f"replay.data={config.data} has {name}={theirs}, and data={prepared.path}"
                f" {name}={ours}; prepare it again with --{name.replace('_', '-')} {ours}"
            )
    for split in ("train", "validation", "test"):
        if not len(getattr(replay, split)) and (split != "train" or config.share):
            raise UserError(
                f"replay.data={config.data}: its {split} split has no rows; prepare it again from"
                " more text"
            )
    return replay


def mix_rows(
    config: ReplayConfig, prepared: PreparedDirectory, replay: PreparedDirectory | None, seed: int
) -> tuple[RowSource, Order]:
    """Returns the rows of training with those that are replayed, and their order."""
    if not config.share:
        return prepared.train, EpochOrder(len(prepared.train), seed)
    sizes = len(prepared.train), len(replay.train)
    order = MixedOrder(*sizes, config.exact_share, seed)
    return MixedRows(prepared.train, replay.train), order


def describe_replay(config: ReplayConfig, replay: PreparedDirectory | None) -> str:
    """Describes the replay within the line that a run begins with; "" where there is none."""
    if not config.share:
        return "" if replay is None else "none replayed of other text, "
    return f"{config.share:.0%} of the rows replayed from {len(replay.train):,} others, "
