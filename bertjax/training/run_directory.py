"""A run directory: config, provenance, checkpoints, metrics and the model that came of it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from bertjax.kernels.backends import DENSE, EXPLICIT
from bertjax.program.errors import UserError
from bertjax.program.outputs import make_folder, write_json, write_whole
from bertjax.training.checkpoint import CheckpointConfig, Checkpoints
from bertjax.training.processes import is_first, on_first
from bertjax.training.provenance import describe_environment

LOCK_NAME = ".lock"
# Where the rows are that a run made of texts.
PREPARED_NAME = "prepared"
# What an adaptation made of its texts before it trained.
ADAPTATION_NAME = "adaptation"
# Beginnings of the names of all that may be there before a run is.
_BEFORE_TRAINING = (LOCK_NAME, PREPARED_NAME, ADAPTATION_NAME)
# Differing settings that a message names; the rest is counted.
_MOST_NAMED = 5

# The lock files of the run directories that this process trains in, as descriptors: they are open
# until the process ends, and nobody warns of that.
_held: dict[Path, int] = {}


def open_run(
    run: Path,
    config: CheckpointConfig,
    identity: Mapping[str, Any],
    resume: bool,
    report: Callable[[str], None] = lambda message: None,
) -> Checkpoints:
    """Opens or begins a run directory and returns its checkpoints.

    The directory belongs to this process (of several, to the first) until `leave_run` or its end,
    however that comes: the operating system frees the lock of a process that is killed.

    Args:
        run: the directory.
        config: which checkpoints are kept.
        identity: what must be as it was when the run was begun. Its `paths` (name -> where what the
            name stands for was read from) need not be: they are shown where contents differ. Its
            `attention` need not be either, as all backends compute the same but for rounding.
        resume: whether a run that has checkpoints may be continued.
        report: called with a sentence where the file system has no locks.

    Raises:
        UserError: the directory holds something else, a run that these settings do not continue,
            or one that another process trains.
    """
    locked_now = False

    def claim() -> None:
        nonlocal locked_now
        check_kind(run)
        make_folder(run)
        locked_now = _lock(run, report)

    on_first(claim)
    try:
        checkpoints = Checkpoints(run / "checkpoints", config)
        _check_identity(run, checkpoints.newest_notes(), identity, resume)
    except BaseException:
        if locked_now:
            _unlock(run)
        raise
    return checkpoints


def leave_run(run: Path) -> None:
    """Lets other processes train in the directory."""
    if run.resolve() in _held:
        _unlock(run)


def check_run(
    run: Path, config: CheckpointConfig, identity: Mapping[str, Any], resume: bool
) -> None:
    """Raises what `open_run` would raise, and writes nothing."""
    on_first(lambda: check_kind(run))
    on_first(lambda: _check_free(run))
    if (run / "checkpoints").is_dir():
        notes = Checkpoints(run / "checkpoints", config, read_only=True).newest_notes()
        _check_identity(run, notes, identity, resume)


def read_identity(run: Path, config: CheckpointConfig) -> Mapping[str, Any]:
    """Returns the identity of a run that was begun (see `open_run`); nothing where none was."""
    if not (run / "checkpoints").is_dir():
        return {}
    notes = Checkpoints(run / "checkpoints", config, read_only=True).newest_notes()
    return notes["identity"] if notes else {}


def write_provenance(run: Path, config_yaml: str, origin: Mapping[str, Any]) -> None:
    """Writes the resolved config, and where a run comes from: versions, devices, `origin`.

    Of several processes the first alone does.
    """
    if not is_first():
        return
    about = {**origin, **describe_environment()}
    write_whole(run / "config.yaml", config_yaml)
    write_json(run / "run.json", about)


def check_kind(run: Path) -> None:
    """Raises a `UserError` where there is something that is not a run."""
    if not run.exists():
        return
    if not run.is_dir():
        raise UserError(f"--run {run}: is a file; name a directory")
    names = [path.name for path in run.iterdir() if not path.name.startswith(_BEFORE_TRAINING)]
    if names and not (run / "checkpoints").is_dir():
        raise UserError(f"--run {run}: holds something that is not a run; name a new directory")


def _check_identity(
    run: Path, notes: Mapping[str, Any] | None, identity: Mapping[str, Any], resume: bool
) -> None:
    """Refuses a run that these settings do not continue; None = it has no checkpoint."""
    if notes is None:
        return
    if not resume:
        raise UserError(
            f"--run {run}: has checkpoints and --resume is false; name a new directory or remove it"
        )
    if identity.get("attention") == EXPLICIT and "attention" not in notes["identity"]:
        raise UserError(
            f"--run {run}: was begun when attention=explicit was the name of what is attention="
            f"{DENSE} now; pass --attention {DENSE} to continue it"
        )
    compared = [name for name in identity if name not in ("paths", "attention")]
    then = dict(_flatten({name: notes["identity"].get(name) for name in compared}))
    now = dict(_flatten({name: identity[name] for name in compared}))
    changed = [name for name in {**now, **then} if now.get(name) != then.get(name)]
    if changed:
        paths = [known.get("paths", {}) for known in (notes["identity"], identity)]
        details = "; ".join(
            f"{name}: {paths[0].get(name)} then, {paths[1][name]} now, and what is there differs"
            if paths[1].get(name)
            else f"{name}: {then.get(name)} then, {now.get(name)} now"
            for name in changed[:_MOST_NAMED]
        )
        more = len(changed) - _MOST_NAMED
        raise UserError(
            f"--run {run}: was begun with other settings and cannot be continued with these "
            f"({details}{f'; and {more} more' if more > 0 else ''}). Put them back, or name a new"
            " --run directory"
        )


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the settings by their dotted names."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _lock(run: Path, report: Callable[[str], None]) -> bool:
    """Claims the directory for this process; False = it had it already."""
    if run.resolve() in _held:
        return False
    with (run / LOCK_NAME).open("a+", encoding="utf-8") as file:
        try:
            _claim(run, file)
        except OSError as error:
            report(
                f"{run}: this file system has no locks ({error.strerror}); see to it that no other"
                " process trains in this directory"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        _held[run.resolve()] = os.dup(file.fileno())
    return True


def _unlock(run: Path) -> None:
    os.close(_held.pop(run.resolve()))


def _check_free(run: Path) -> None:
    """Raises if another process trains in the directory; writes nothing."""
    path = run / LOCK_NAME
    if run.resolve() not in _held and path.exists():
        with path.open("r+", encoding="utf-8") as file, contextlib.suppress(OSError):
            _claim(run, file)


def _claim(run: Path, file: TextIO) -> None:
    """Locks the file, which says who holds it; as long as it is open, no other process can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise UserError(
            f"--run {run}: {holder} is training in it; wait for its end or stop it, or name another"
            " --run directory"
        ) from None
