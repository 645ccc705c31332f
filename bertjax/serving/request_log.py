"""The log of requests: a sample of requests and answers in a folder, as files of JSON lines.

Lines are written by a thread of their own after the answers were sent; what it cannot keep up with,
or cannot write, is dropped and counted.
"""

import contextlib
import errno
import fnmatch
import hashlib
import json
import logging
import os
import queue
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from bertjax.program.errors import UserError, describe_os_error
from bertjax.program.strict_json import to_json
from bertjax.serving.observation import describe
from bertjax.serving.programs import Asked
from bertjax.serving.sampling import SampledCall, sample_call
from bertjax.serving.settings import ServeConfig

ERRORS = logging.getLogger("bertjax.serving.errors")

FILES, SALT_NAME, LOCK_NAME = "requests-*.jsonl", "salt", "lock"
# Calls that may wait for their lines, and files among which the bytes of a log are divided.
MOST_WAITING, MOST_FILES = 256, 8
# Fields that every line has.
FIELDS = (
    "time", "id", "route", "model", "fingerprint", "program", "texts", "max_length", "tokens",
    "unknown", "pieces", "characters", "digits", "capitals", "punctuation", "beyond_ascii",
    "labels", "confidence", "number", "sketch",
)  # fmt: skip


class _Waiting(NamedTuple):
    """A call whose line is to be written: when it was answered, and by which route."""

    time: float
    route: str
    call: SampledCall


class RequestLog:
    """A log that is being written.

    Files have at most an eighth of the bytes; before a new one would exceed the whole, the oldest
    is deleted.

    Args:
        folder: is made, for this user alone; no other server may write to it.
        share: of the requests that are logged, by a hash of their ids.
        texts: whether lines have the texts, not hashes of them only.
        max_bytes: of all files together.

    Raises:
        UserError: the folder cannot be written to, others may read it, or another server writes to
            it.
    """

    def __init__(
        self, folder: Path | str, share: float, *, texts: bool = False, max_bytes: int
    ) -> None:
        self._folder, self._share, self._has_texts = Path(folder), share, texts
        self._max_bytes, self._file_bytes = max_bytes, max_bytes // MOST_FILES
        self._file, self._size, self._files = -1, 0, 0
        self._queue: queue.Queue[_Waiting | None] = queue.Queue(MOST_WAITING)
        self._count: Callable[[Mapping[str, Any] | None], None] = lambda line: None
        self._thread: threading.Thread | None = None
        self._is_failing = False
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = stat.S_IMODE(self._folder.stat().st_mode)
            if mode & 0o077:
                raise UserError(
                    f"--log {folder}: others may read it (its mode is {mode:04o}); `chmod 700` it,"
                    " or name a folder that is not there yet"
                )
            self._lock = filelock.FileLock(self._folder / LOCK_NAME, timeout=0, mode=0o600)
            self._lock.acquire()
            self._salt = self._read_salt()
            self._begin_file()
        except filelock.Timeout:
            raise UserError(
                f"--log {folder}: another server writes to it; name another folder"
            ) from None
        except OSError as error:
            raise UserError(
                f"--log {folder}: {error.strerror or error}; name another folder"
            ) from None

    def start(self, count: Callable[[Mapping[str, Any] | None], None]) -> None:
        """Begins to write.

        Args:
            count: is called with every line that was written, and with None for one that was
                dropped.
        """
        self._count = count
        self._thread = threading.Thread(target=self._work, name="request log", daemon=True)
        self._thread.start()

    def sample(self, id: str) -> SampledCall | None:
        """Returns the call of this id where it is logged."""
        return sample_call(id, self._share)

    def put(self, call: SampledCall, route: str) -> None:
        """Has the line of a call written that was answered; never waits."""
        if call.observed is None:  # no model has run
            return
        try:
            self._queue.put_nowait(_Waiting(time.time(), route, call))
        except queue.Full:
            self._count(None)

    def close(self) -> None:
        """Writes what waits, and ends."""
        if self._thread and self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not self._size:
                self._path.unlink()
            self._lock.release()

    def _work(self) -> None:
        while waiting := self._queue.get():
            try:
                line = self._make_line(waiting)
                self._write(f"{to_json(line, compact=True)}\n".encode())
            except Exception as error:
                if not self._is_failing:  # of many in a row the first one is told
                    told = describe_os_error(error) if isinstance(error, OSError) else error
                    trace = None if isinstance(error, OSError) else error
                    ERRORS.error("--log %s: %s", self._folder, told, exc_info=trace)
                self._is_failing = True
                self._count(None)
            else:
                self._is_failing = False
                self._count(line)

    def _make_line(self, waiting: _Waiting) -> dict[str, Any]:
        asked = waiting.call.observed.asked
        line = {
            "time": round(waiting.time, 3),
            "id": waiting.call.id,
            "route": waiting.route,
            **describe(waiting.call.observed),
            "text_hash": self._hash(asked),
        }
        return {**line, "text": asked.text} if self._has_texts else line

    def _hash(self, asked: Asked) -> str:
        """Returns the salted hash of a text, the same for the same one; of token ids, theirs."""
        if asked.text is None:
            content = asked.sequence.token_ids.astype("<i4").tobytes()
        else:
            content = "\0".join(asked.text).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, key=self._salt, digest_size=16).hexdigest()

    def _write(self, line: bytes) -> None:
        """Writes a line whole or not at all."""
        if len(line) > self._file_bytes:
            told = f"a line of {len(line):,} bytes is more than an eighth of --log-max-bytes"
            raise OSError(errno.EFBIG, told, str(self._folder))
        if self._size + len(line) > self._file_bytes:
            self._begin_file()
        try:
            written = os.write(self._file, line)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        if written < len(line):
            os.ftruncate(self._file, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))
        self._size += written

    def _begin_file(self) -> None:
        """Begins a new file, and deletes the oldest ones that there is no room for."""
        sizes = {file: file.stat().st_size for file in _files_of(self._folder)}
        room = self._max_bytes - self._file_bytes
        for file in [*sizes]:
            # An empty one is of a server that did not start.
            if not sizes[file] or sum(sizes.values()) > room:
                file.unlink()
                del sizes[file]
        self._files += 1
        name = f"requests-{time.time_ns() // 1000:017d}-{self._files:06d}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._path = self._folder / name
        file = os.open(self._path, flags, 0o600)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size = file, 0

    def _read_salt(self) -> bytes:
        """Returns the folder's salt, which is made once."""
        path = self._folder / SALT_NAME
        with contextlib.suppress(FileExistsError):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(file, "wb") as new:
                new.write(secrets.token_bytes(32))
        return path.read_bytes()[:64]


def open_log(config: ServeConfig) -> RequestLog | None:
    """Returns the log that a server's settings ask for; None for none."""
    if not config.log:
        return None
    return RequestLog(
        config.log, config.log_sample, texts=config.log_texts, max_bytes=config.log_max_bytes
    )


def _files_of(folder: Path) -> list[Path]:
    """Returns the files of a log, the oldest first; `glob` finds none where it may not look."""
    return [folder / name for name in sorted(fnmatch.filter(os.listdir(folder), FILES))]


def is_log(folder: Path) -> bool:
    """Returns whether a folder is one that a server has logged to.

    Args:
        folder: any path.
    """
    return folder.is_dir() and bool(_files_of(folder))


def count_bytes(folder: Path) -> int:
    """Returns the bytes of a log's lines.

    Raises:
        UserError: no log is there.
    """
    return sum(file.stat().st_size for file in _files_there(folder))


def _files_there(folder: Path) -> list[Path]:
    if not is_log(folder):
        raise UserError(f"{folder}: no log; `bertjax serve --log {folder}` writes one")
    return _files_of(folder)


def read_log(
    folder: Path, progress: Callable[[int], None] = lambda done: None
) -> Iterator[dict[str, Any]]:
    """Yields the lines of a log, the oldest first.

    A last line without an end, which a power cut may leave, is none. A log may be written
    meanwhile: of a file that was deleted nothing is read.

    Args:
        folder: of the log.
        progress: is called with the number of bytes done since the call before.

    Raises:
        UserError: no log is there, or a line is none of it.
    """
    for path in _files_there(folder):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        for number, text in enumerate(content.split(b"\n")[:-1], 1):
            yield _read_line(text, f"{path}:{number}")
        progress(len(content))


def _read_line(text: bytes, place: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error}); delete the line") from None
    missing = [name for name in FIELDS if not isinstance(line, dict) or name not in line]
    if missing:
        raise UserError(
            f"{place}: no field {missing[0]}, so `bertjax serve --log` did not write it; delete the"
            " line"
        )
    return line
