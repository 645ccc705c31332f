"""The study of a sweep: an optuna study in a directory, worked on by any number of processes.

File locks show which trials are being worked on. The system frees the locks of a process when it
ends, however it ends: so what a killed sweep was doing is known at once, without a heartbeat.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from bertjax.program.errors import UserError
from bertjax.sweeps.space import Space, random_trials, sample

_STUDY = "sweep"


class Lock:
    """An exclusive lock on a file: `take` it, `release` it; it ends with its last holder.

    Attributes:
        descriptor: the open file's while the lock is held; a process that inherits it also holds
            the lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor: int | None = None

    def take(self, wait: bool = False) -> bool:
        """Returns whether the lock is ours now."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        """Releases the lock; processes that inherited it keep it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def __enter__(self) -> "Lock":
        self.take(wait=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class _JournalLock:
    """A replacement for optuna's own locks, which outlive a killed process by half a minute."""

    def __init__(self, path: Path) -> None:
        self._lock = Lock(path)

    def acquire(self) -> bool:
        return self._lock.take(wait=True)

    def release(self) -> None:
        self._lock.release()


class Claim(NamedTuple):
    """A trial that this process is to run.

    Attributes:
        trial: optuna's.
        values: those of the fields that vary.
        owner: the lock held while we work on it.
        continued: whether it was worked on before.
        reported: how many of its validations the study knows.
    """

    trial: Trial
    values: dict[str, Any]
    owner: Lock
    continued: bool
    reported: int


class Study:
    """The study in `directory`.

    Attributes:
        directory: the sweep's; `locks/` in it holds the locks, `study.journal` or `study.sqlite`
            the trials.
        optuna: the study itself.
    """

    def __init__(
        self,
        directory: Path,
        storage: str,
        direction: str,
        pruner: optuna.pruners.BasePruner,
        identity: Mapping[str, Any],
    ) -> None:
        """Opens the study, or begins it.

        Raises:
            UserError: the study was begun with other settings.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.directory = directory
        (directory / "locks").mkdir(exist_ok=True)
        self._lock = Lock(directory / "locks" / "study")
        with self._lock:
            self.optuna = optuna.create_study(
                storage=_open_storage(directory, storage),
                # Values are drawn by `sample`, before the trial exists.
                sampler=optuna.samplers.RandomSampler(seed=0),
                pruner=pruner,
                direction=direction,
                study_name=_STUDY,
                load_if_exists=True,
            )
            then = self.optuna.user_attrs.get("identity")
            if then is None:
                self.optuna.set_user_attr("identity", dict(identity))
        then = dict(identity) if then is None else then
        changed = [name for name in {**identity, **then} if then.get(name) != identity.get(name)]
        if changed:
            details = "; ".join(
                f"{name}: {then.get(name)} then, {identity.get(name)} now" for name in changed
            )
            raise UserError(
                f"--output {directory}: was begun with other settings ({details}). Restore them,"
                " or name a new --output directory; only trials, pruner, workers and environments"
                " may change"
            )

    def writing(self) -> Lock:
        """Keeps other sweeps from writing the directory's common files, while entered."""
        return Lock(self.directory / "locks" / "writing")

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials by number."""
        return self.optuna.get_trials(deepcopy=False)

    def claim(self, space: Space, sampler: str, seed: int, limit: int) -> Claim | None:
        """Claims a trial that nobody works on, begun earlier or new; None if there is none.

        One process at a time claims, so there are never more than `limit` trials, and never two
        workers on one. A new trial enters the study with all its values at once: a kill leaves
        either none of it or all.
        """
        with self._lock:
            trials = self.trials()
            for known in trials:
                if known.state == TrialState.RUNNING and (owner := self._own(known.number)):
                    trial = Trial(self.optuna, known._trial_id)
                    return _take_up(trial, space, owner, len(known.intermediate_values), True)
            waiting = [known for known in trials if known.state == TrialState.WAITING]
            if not waiting:
                if len(trials) >= limit:
                    return None
                direction = self.optuna.direction.name.lower()
                values = sample(space, sampler, seed, trials, direction, limit)
                self.optuna.enqueue_trial(values)
            trial = self.optuna.ask()
            owner = self._own(trial.number)
            assert owner is not None  # the trial is new, and claims are made one at a time
            return _take_up(trial, space, owner, 0, False)

    def is_worked_on(self) -> bool:
        """Returns whether any trial has not ended yet."""
        return any(not trial.state.is_finished() for trial in self.trials())

    def _own(self, number: int) -> Lock | None:
        owner = Lock(self.directory / "locks" / f"{number:04}.sweep")
        return owner if owner.take() else None


def _take_up(trial: Trial, space: Space, owner: Lock, reported: int, continued: bool) -> Claim:
    # Notes the value that the trial was entered with, unless it is already noted.
    values = {name: trial._suggest(name, distribution) for name, distribution in space.items()}
    return Claim(trial, values, owner, continued, reported)


def make_pruner(name: str, trials: int) -> optuna.pruners.BasePruner:
    """Makes the rule that prunes trials; it counts the validations of a run, from 1."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=random_trials(trials))
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, reduction_factor=3)
    return optuna.pruners.NopPruner()


def _open_storage(directory: Path, kind: str) -> BaseStorage:
    path = directory / f"study.{kind}"
    other = directory / f"study.{'journal' if kind == 'sqlite' else 'sqlite'}"
    if other.exists():
        raise UserError(
            f"--output {directory}: its study is in {other.name}; give --storage"
            f" {other.suffix[1:]}, or name a new --output directory"
        )
    if kind == "sqlite":
        wait = {"connect_args": {"timeout": 60}}
        return RDBStorage(f"sqlite:///{path}", engine_kwargs=wait)
    lock = _JournalLock(directory / "locks" / "journal")
    lock.acquire()
    try:
        _cut_torn_line(path)
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))


def _cut_torn_line(path: Path) -> None:
    """Removes a last line that a full disk or a power cut left incomplete."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
