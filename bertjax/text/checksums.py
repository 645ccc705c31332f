"""Checks files against the sha256 in a data card: read once, afterwards recognised by a stamp."""

import concurrent.futures
import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertjax.program.errors import UserError
from bertjax.program.outputs import write_whole
from bertjax.program.strict_json import to_json

STAMP_NAME = ".verified.json"
# From this many bytes on, reading takes long enough to be announced.
_LONG = 4 << 30


def describe_file(file: Path) -> dict[str, Any]:
    """Returns `bytes` and `sha256` of a file."""
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def check_files(
    directory: Path, files: Mapping[str, Mapping[str, Any]], way_out: str, again: bool = False
) -> None:
    """Checks that every file has the bytes it was described with.

    A file is read the first time it is met. If it was good, its size, time and inode are noted in
    the directory, where that is writable: a file that was written to or copied since is read
    again.

    Args:
        directory: where they are.
        files: what `describe_file` returned for each, by its name in the directory.
        way_out: what to do about a damaged file.
        again: read all of them, whatever is noted.

    Raises:
        UserError: a file is missing, or has other bytes.
    """
    noted = {} if again else _read_stamps(directory)
    stamps = {}
    for name, described in files.items():
        file = directory / name
        if not file.is_file():
            raise UserError(f"{file}: missing, though the data card lists it; {way_out}")
        status = file.stat()
        if status.st_size != described["bytes"]:
            raise UserError(
                f"{file}: damaged: {status.st_size} bytes, the data card says"
                f" {described['bytes']}; {way_out}"
            )
        stamps[name] = [described["sha256"], status.st_mtime_ns, status.st_ino]
    unread = [name for name in files if noted.get(name) != stamps[name]]
    if not unread:
        return
    size = sum(files[name]["bytes"] for name in unread)
    if size > _LONG:
        print(f"{directory}: checking {size / 1e9:,.0f} GB of files, once", file=sys.stderr)
    with concurrent.futures.ThreadPoolExecutor() as pool:  # hashlib lets other threads run
        sums = pool.map(lambda name: _sha256(directory / name), unread)
        for name, sha256 in zip(unread, sums, strict=True):
            if sha256 != files[name]["sha256"]:
                pool.shutdown(cancel_futures=True)
                raise UserError(
                    f"{directory / name}: damaged: its sha256 is not the one in the data card;"
                    f" {way_out}"
                )
    _write_stamps(directory, stamps)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_stamps(directory: Path) -> dict[str, list[Any]]:
    try:
        stamps = json.loads((directory / STAMP_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamps if isinstance(stamps, dict) else {}


def _write_stamps(directory: Path, stamps: Mapping[str, list[Any]]) -> None:
    with contextlib.suppress(OSError):  # a read-only directory is checked every time
        write_whole(directory / STAMP_NAME, to_json(stamps))
