"""Checkpoints of a run: Orbax's, asynchronous, atomic, newest and best kept, verified when read."""

import dataclasses
import functools
import gc
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from bertjax.program.errors import UserError
from bertjax.training.processes import anywhere, on_first
from bertjax.training.state import TrainState, fingerprint


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When the state is saved, and which saves are kept.

    Attributes:
        every: steps between two checkpoints; one more is written at the end and at a signal
        keep_newest: how many of the newest are kept, at least 2 so that a damaged one has a
            substitute
        keep_best: how many of the best on the validation split are kept beside them
    """

    every: int = 500
    keep_newest: int = 2
    keep_best: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UserError(f"checkpoint.every={self.every} must be at least 1 step")
        if self.keep_newest < 2:
            raise UserError(f"checkpoint.keep_newest={self.keep_newest} must be at least 2")
        if self.keep_best < 0:
            raise UserError(f"checkpoint.keep_best={self.keep_best} must not be negative")


class Restored(NamedTuple):
    """A state read back, and what was saved beside it.

    Attributes:
        state: on the devices, as it was.
        notes: the JSON object given to `save`.
    """

    state: TrainState
    notes: Mapping[str, Any]


class Checkpoints:
    """The checkpoints in `directory`: `save` in the background, `restore` the newest that is whole.

    A checkpoint is written under a temporary name and renamed, so a kill leaves the ones before.
    Each holds a checksum of every array. A checkpoint that cannot be read, or reads differently,
    while one before it can, is damaged: it is moved to `damaged/` beside the directory.
    """

    def __init__(
        self, directory: Path, config: CheckpointConfig, *, read_only: bool = False
    ) -> None:
        """Opens the directory, or makes it.

        Args:
            directory: with a directory for each checkpoint.
            config: which checkpoints are kept.
            read_only: change nothing; what a kill left half-written stays.
        """
        policies = ocp.checkpoint_managers
        keep = [policies.LatestN(config.keep_newest)]

        def goodness(metrics: Mapping[str, float]) -> float:
            return -metrics["cost"]

        if config.keep_best:
            keep.append(
                policies.BestN(
                    get_metric_fn=goodness,
                    n=config.keep_best,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._directory = directory.absolute()
        # Orbax logs every file it touches, and every directory that it finds half-written.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        _ignore_late_readers()
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(keep),
                # Without it Orbax keeps the loss in memory alone, and a restart forgets the best.
                best_fn=goodness,
                cleanup_tmp_directories=not read_only,
                create=not read_only,
                read_only=read_only,
            ),
        )

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints there are, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, notes: Mapping[str, Any], cost: float | None = None) -> None:
        """Starts saving the state; returns as soon as the state may change again.

        Args:
            state: to save, under its own step number.
            notes: a JSON object kept beside it.
            cost: of this state where it was evaluated, lower is better (the validation loss):
                decides which checkpoints are best.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        notes = {"notes": notes, "checksums": fingerprint(state)}
        metrics = None if cost is None else {"cost": cost}
        arguments = ocp.args.Composite(
            state=ocp.args.StandardSave(_as_saved(state)), notes=ocp.args.JsonSave(notes)
        )
        self._write(lambda: self._manager.save(step, args=arguments, metrics=metrics))

    def finish(self) -> None:
        """Waits until everything that was begun is on the disk; raises what went wrong there."""
        self._write(self._manager.wait_until_finished)

    def close(self) -> None:
        """Finishes and frees the background threads."""
        self._write(self._manager.close)

    def _write(self, act: Callable[[], Any]) -> None:
        """Acts; reports a full disk, for which Orbax has many errors, as the user's to mend."""
        full = False
        try:
            act()
        except Exception as error:
            full = any("No space left on device" in str(cause) for cause in _causes(error))
            if not full:
                raise
        if (
            full
        ):  # reported after the frames of the failed writers are gone: they write at their end
            gc.collect()
            raise UserError(
                f"{self._directory}: the disk is full; what was saved before stays whole. Free some"
                " space, and give the same command again"
            )

    def newest_notes(self) -> Mapping[str, Any] | None:
        """Returns the notes of the newest checkpoint that has readable ones; None without any."""
        for step in reversed(self.steps()):
            try:
                content = self._manager.restore(
                    step, args=ocp.args.Composite(notes=ocp.args.JsonRestore())
                )
                return content["notes"]["notes"]
            except (OSError, ValueError, KeyError, TypeError, json.JSONDecodeError):
                continue  # `restore` judges this checkpoint and reports it
        return None

    def restore(
        self, like: TrainState, report: Callable[[str], None] = lambda message: None
    ) -> Restored | None:
        """Restores the newest whole checkpoint, placed on the devices as `like`; None without one.

        Args:
            like: shapes, dtypes and shardings (arrays or `jax.ShapeDtypeStruct`s).
            report: called with one sentence for every damaged checkpoint passed over.

        Raises:
            UserError: there are checkpoints, and none can be read. Nothing is moved then: what
                keeps all of them from being read (no memory, no permission, another model) may be
                elsewhere.
        """
        unread: dict[int, str] = {}
        for step in reversed(self.steps()):
            reason = ""
            try:
                restored = self._read(step, like)
            except Exception as error:  # whatever the reader of damaged bytes stumbles over
                reason = " ".join(str(error).split())[:200] or type(error).__name__
            if anywhere(bool(reason)):
                unread[step] = reason or "another process could not read its part"
                continue
            for damaged, reason in unread.items():
                aside = self._set_aside(damaged)
                report(
                    f"checkpoint {damaged} is damaged ({reason}); moved it to {aside} and took"
                    f" checkpoint {step}"
                )
            return restored
        if unread:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in unread.items())
            raise UserError(
                f"{self._directory}: none of the checkpoints can be read ({reasons}). They stay"
                " where they are; begin anew with another --run directory"
            )
        return None

    def _read(self, step: int, like: TrainState) -> Restored:
        content = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_as_saved(like)), notes=ocp.args.JsonRestore()
            ),
        )
        state, notes = like._replace(**content["state"]), content["notes"]
        checksums = fingerprint(state)
        for name, checksum in notes["checksums"].items():
            if checksums[name] != checksum:
                raise ValueError(f"the checksum of {name} does not agree")
        return Restored(state, notes["notes"])

    def _set_aside(self, step: int) -> Path:
        aside = self._directory.parent / "damaged" / str(step)

        def move() -> None:
            aside.parent.mkdir(exist_ok=True)
            if aside.exists():
                shutil.rmtree(aside)
            (self._directory / str(step)).rename(aside)

        on_first(move)
        self._manager.reload()
        return aside


def _as_saved(state: TrainState) -> dict[str, Any]:
    """Returns the fields as they are on the disk: none for an average that there is not.

    Runs of before there were averages have no such field.
    """
    fields = state._asdict()
    if not state.average:
        del fields["average"]
    return fields


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yields the error, what it came from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@functools.cache  # once a process
def _ignore_late_readers() -> None:
    """Passes over what Orbax's readers of other arrays still report when one has met damage.

    The event loop they report it to is closed by then, for each of which Python prints a traceback.
    """
    before = sys.unraisablehook

    def pass_on(unraisable: Any) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = pass_on


def abstract(state: TrainState) -> TrainState:
    """Returns the shapes, dtypes and shardings of a state, without its arrays."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )
