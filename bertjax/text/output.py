"""An output directory is whole or absent: written under another name, renamed at the end."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bertjax.errors import UserError


@contextlib.contextmanager
def whole_directory(path: Path | str, overwrite: bool = False) -> Iterator[Path]:
    """Gives `PATH.partial` to write into; it becomes `path` if the block ends well, or is removed.

    A directory that stood at `path` stays there until the new one is whole. What a killed program
    left behind (`PATH.partial`, and `PATH.replaced` from between the two renames) is put in order
    at the next start.

    Args:
        path: the directory to make.
        overwrite: replace a directory (or file) that stands there already.

    Raises:
        UserError: something stands at `path` and `overwrite` is False.
    """
    path = Path(path)
    partial, replaced = (path.with_name(f"{path.name}.{end}") for end in ("partial", "replaced"))
    if replaced.exists():
        if path.exists():
            _remove(replaced)
        else:
            replaced.rename(path)
    if path.exists() and not overwrite:
        raise UserError(
            f"{path} exists; pass --overwrite true to replace it, or choose another --output"
        )
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _flush_to_disk(partial)
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
        _remove(replaced)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush_to_disk(directory: Path) -> None:
    """Waits for the disk, so that a power cut after the rename cannot leave empty files."""
    for file in directory.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
