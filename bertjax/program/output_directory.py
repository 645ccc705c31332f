"""An output directory is whole or absent: written under another name, renamed at the end."""

import contextlib
import fnmatch
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bertjax.program.ending import on_sudden_end
from bertjax.program.errors import UserError
from bertjax.program.outputs import flush_to_disk, follow_links

_PARTIAL, _REPLACED, _REMOVED = ".partial", ".replaced", ".removed"

# How often removing a directory that is being written to is tried.
_MOST_TRIES = 100


@contextlib.contextmanager
def whole_directory(
    path: Path | str,
    overwrite: bool = False,
    holds: Sequence[str] = (),
    inputs: Sequence[Path | str] = (),
) -> Iterator[Path]:
    """Yields `PATH.partial` to write into; it becomes `path` if the block ends well, or is removed.

    An existing directory at `path` stays there until the new one is whole. What a killed program
    left behind (`PATH.partial`, `PATH.partial.removed` where it was just being removed, and
    `PATH.replaced` from between the two renames) is cleaned up at the next start. `PATH.lock` is
    held meanwhile: a second program with the same output is refused before it touches anything.

    Args:
        path: the directory to make.
        overwrite: replace an existing directory of the same kind.
        holds: patterns of the files that a directory of this kind holds, the first of them always.
            A directory that holds any other file is not of this kind, and is never replaced.
        inputs: what the directory is made from, as the user named it.

    Raises:
        UserError: `path` exists and may not be replaced, no directory can be made there, it and the
            input contain one another, or another process is making it.
    """
    path = Path(path)
    if path.name in ("", ".."):
        raise UserError(
            f"--output {path} names no directory to make; name one, {path / 'made'} say"
        )
    if path.name.endswith(_PARTIAL):
        raise UserError(
            f"--output {path}: what ends in {_PARTIAL} is taken for a directory that was never"
            " finished; name another"
        )
    path = follow_links(path)
    _check_apart(path, inputs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(path, error) from None
    with _lock(path):
        yield from _make_whole(path, overwrite, holds)


def refuse_partial(path: Path) -> None:
    """Refuses a directory that `whole_directory` had not finished when its process was killed.

    Raises:
        UserError: it is one.
    """
    if path.name.endswith(_PARTIAL) and path.is_dir():
        raise UserError(
            f"{path}: is not whole, as what was making it was killed; make {path.stem} again"
        )


def _make_whole(path: Path, overwrite: bool, holds: Sequence[str]) -> Iterator[Path]:
    partial, replaced = (path.with_name(path.name + end) for end in (_PARTIAL, _REPLACED))
    if replaced.exists():
        if path.exists():
            _remove(replaced)
        else:
            replaced.rename(path)
    if path.exists():
        _check_replaceable(path, overwrite, holds)
    with on_sudden_end(lambda: _remove_from_under(partial)):
        try:
            _remove(partial.with_name(partial.name + _REMOVED))
            _remove(partial)
            partial.mkdir()
        except OSError as error:
            raise _no_place(path, error) from None
        try:
            yield partial
            flush_to_disk(partial)
            if path.exists():
                path.rename(replaced)
            partial.rename(path)
            _remove(replaced)
        finally:
            _remove(partial)


def _no_place(path: Path, error: OSError) -> UserError:
    return UserError(f"--output {path}: no directory can be made there: {error.strerror}")


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Locks an output for this process; the system frees the lock of a killed process."""
    import filelock

    file = path.with_name(f"{path.name}.lock")
    lock = filelock.FileLock(file, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise UserError(
            f"--output {path}: another process is making it now; wait until it ends or stop it, or"
            " name another --output"
        ) from None
    except OSError as error:
        raise _no_place(path, error) from None

    def remove() -> None:
        # While the lock is held: a waiting process sees that the file is gone, and makes a new one.
        file.unlink(missing_ok=True)

    with on_sudden_end(remove):
        try:
            yield
        finally:
            remove()
            lock.release()


def _check_apart(path: Path, inputs: Sequence[Path | str]) -> None:
    """Refuses an output that is the input, contains it, or would be read as part of it."""
    output = path.resolve()
    for name in inputs:
        source = Path(name).expanduser()
        if not source.exists():  # a glob, a data set, or a mistake that the reader reports
            continue
        source = source.resolve()
        if output == source or output in source.parents:
            raise UserError(f"--output {path} contains the input {name}; name another directory")
        if source in output.parents:
            raise UserError(
                f"--output {path} is inside the input {name}, and would be read as a part of it"
                " the next time; name a directory outside"
            )


def _check_replaceable(path: Path, overwrite: bool, holds: Sequence[str]) -> None:
    """Refuses to replace what is not known to be of the same kind."""
    if not path.is_dir():
        raise UserError(f"--output {path} is a file; name a directory")
    if not overwrite:
        raise UserError(
            f"{path} exists; pass --overwrite true to replace it, or choose another --output"
        )
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())
    if not files:
        return
    others = [file for file in files if not any(fnmatch.fnmatch(file, name) for name in holds)]
    if others or not fnmatch.filter(files, holds[0] if holds else ""):
        what = f"holds {others[0]}" if others else f"has no {holds[0]}"
        raise UserError(
            f"--output {path} is not replaced: it {what}, so this program did not make it. Remove"
            " it yourself, or choose another --output"
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove_from_under(path: Path) -> None:
    """Removes a directory that other threads and processes write to until the last moment.

    It gets another name first, so that what they write by its own has no place any more.
    """
    aside = path.with_name(path.name + _REMOVED)
    for _ in range(_MOST_TRIES):
        try:
            _remove(aside)
            if not path.exists():
                return
            path.rename(aside)
        except OSError:  # a new file in a folder just emptied, or already gone
            time.sleep(0.01)
