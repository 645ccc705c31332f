"""Outputs are whole or absent: written into a temporary folder, renamed at the end.

This is the only place that decides where something is written, and whether it can be.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bertjax.program.ending import on_sudden_end
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json

# What is being written is in a folder with such a name, beside its final place.
_ASIDE = ".partial-"
# Bytes that are written before the work, to see whether writing is possible.
_PROBE = 4096
# Seconds in which an unlocked temporary folder may be new and not locked yet.
_JUST_MADE = 60


# -------------------------------------------------------------------- before the work


def check_output(
    name: Path | str,
    folder: bool = False,
    inputs: Sequence[Path | str] = (),
    option: str = "--output",
) -> None:
    """Checks, before the work, that what an option names can be written, by writing next to it.

    Args:
        name: as the user gave it.
        folder: whether it is a folder, which is made if missing.
        inputs: what is read; it is never overwritten.
        option: the option that names it, for messages.

    Raises:
        UserError: a folder where a file belongs, or the reverse; a file in a folder that does not
            exist; an input; a device; no permission or no room to write.
    """
    try:
        path = follow_links(name) if os.path.islink(name) else Path(name)
        for source in inputs:
            if path.exists() and os.path.exists(source) and path.samefile(source):
                raise UserError(f"{option} {name}: is the input; name another place")
        first = _folder_of(path) if folder else path.parent
        if folder and not first.is_dir():
            raise UserError(f"{option} {name}: {first} is a file; name a folder")
        if not folder and path.is_dir():
            raise UserError(f"{option} {name}: is a folder; name a file")
        if not first.is_dir():
            raise UserError(f"{option} {name}: there is no folder {first}; make it first")
        if not folder and path.exists() and not path.is_file():
            raise UserError(f"{option} {name}: is a device or a pipe; name a file")
        if not folder and path.exists() and not os.access(path, os.W_OK):
            raise UserError(f"{option} {name}: may not be written to; name another place")
        with _aside(first) as aside:
            file = aside / ("probe" if folder else path.name)
            file.write_bytes(bytes(_PROBE))
            flush_to_disk(file)
    except OSError as error:
        raise UserError(
            f"{option} {name}: nothing can be written there ({error.strerror}); name another place"
        ) from None


def _folder_of(path: Path) -> Path:
    """Returns the nearest existing folder, of this one and its parents."""
    return next(part for part in (path, *path.absolute().parents) if part.exists())


def follow_links(path: Path | str) -> Path:
    """Returns the place that a path names after all its links, whether anything exists there.

    Raises:
        UserError: a link leads to itself.
    """
    place = Path(os.path.realpath(path))
    if place.is_symlink():
        raise UserError(f"{path}: is a link that leads to itself; remove it")
    return place


# -------------------------------------------------------------------- whole files


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yields a file of the same name to write; it replaces `path` if the block ends well.

    A link at `path` stays, and its target is replaced; the new file keeps the permissions of the
    one it replaces.
    """
    place = follow_links(path)
    with _naming(path), _aside(place.parent) as aside:
        file = aside / place.name
        yield file
        if place.exists():
            shutil.copymode(place, file)
        flush_to_disk(file)
        os.replace(file, place)


@contextlib.contextmanager
def whole_files(folder: Path | str, last: str = "") -> Iterator[Path]:
    """Yields a folder to write files into; they go to `folder` if the block ends well.

    A new `folder` appears whole. In an existing one, files are replaced one by one, and everything
    else stays.

    Args:
        folder: where the files go.
        last: the name of the file to replace last.

    Raises:
        UserError: `folder` is a file.
    """
    place = follow_links(folder)
    if place.exists() and not place.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    with _naming(folder):
        place.parent.mkdir(parents=True, exist_ok=True)
        with _aside(place if place.exists() else place.parent) as aside:
            new = aside / "new"
            new.mkdir()
            yield new
            flush_to_disk(new)
            if not place.exists():
                new.rename(place)
                return
            for file in sorted(new.iterdir(), key=lambda file: file.name == last):
                os.replace(file, place / file.name)


def write_whole(path: Path | str, content: str | bytes) -> None:
    """Writes a file whole or not at all, text as UTF-8.

    What UTF-8 cannot encode, such as a file name that is not UTF-8, is written as its escape.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    with whole_file(path) as file:
        file.write_bytes(content)


def write_json(path: Path | str, content: Any) -> None:
    """Writes a value as JSON, whole or not at all."""
    write_whole(path, to_json(content, indent=2) + "\n")


def make_folder(path: Path | str) -> None:
    """Makes a folder and its parents where they are missing; links are followed."""
    follow_links(path).mkdir(parents=True, exist_ok=True)


# -------------------------------------------------------------------- aside


@contextlib.contextmanager
def _aside(parent: Path) -> Iterator[Path]:
    """Yields a new folder in `parent`, which is removed at the end, even a sudden one.

    It is locked while in use: a folder that a killed process left behind is not, and is removed
    by the next writer there.
    """
    for left in parent.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _JUST_MADE:
                with _locked(left):
                    shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=parent))

    def remove() -> None:
        shutil.rmtree(aside, ignore_errors=True)

    with contextlib.ExitStack() as stack:
        stack.callback(remove)
        stack.enter_context(on_sudden_end(remove))
        with contextlib.suppress(OSError):  # a file system without locks
            stack.enter_context(_locked(aside))
        yield aside


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock on the folder; raises an OSError where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _naming(path: Path | str) -> Iterator[None]:
    """Turns an error about a temporary file, or about none, into one about `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None or _ASIDE in str(error.filename):
            error.filename, error.filename2 = str(path), None
        raise


def flush_to_disk(place: Path) -> None:
    """Waits for the disk, so that a power cut after the rename cannot leave an empty file.

    Args:
        place: a file, or a folder whose files are all flushed.
    """
    files = (file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
