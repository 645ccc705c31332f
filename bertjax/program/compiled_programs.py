"""Compiled programs on disk: what XLA has compiled once for a user is not compiled again."""

import contextlib
import hashlib
import os
import platform
import sys
import time
from pathlib import Path

from bertjax.program.errors import UserError

# jax's own variables: where the cache is, and whether to use it.
PLACE, SWITCH = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
# The values jax accepts for the second; anything else makes its import fail.
_TRUTHS = ("y", "yes", "t", "true", "on", "1", "n", "no", "f", "false", "off", "0")
# Bytes; beyond this, the least recently used entries go. A step of the base size takes 1 MB.
MOST_BYTES = 500_000_000
# Beyond this number, too: jax looks at each whenever it saves another, for 50 microseconds or so.
MOST_PROGRAMS = 1000
# Seconds; what compiles faster is not worth a file.
LEAST_SECONDS = 0.1
# Seconds after which nobody is writing to a file any more.
_LONG_DONE = 60


def keep_compiled_programs() -> None:
    """Makes jax save what it compiles in `~/.cache/bertjax/compiled`, and load it from there.

    Called by programs before they compute, not by the library. Does nothing where one of jax's
    variables `JAX_COMPILATION_CACHE_DIR` and `JAX_ENABLE_COMPILATION_CACHE` is set (jax obeys
    them, and those for the size and the minimum time), or where the folder cannot be made, written
    or trusted: it holds machine code, so it must be the user's own. jax's keys include its version,
    XLA's flags and the program; each kind of processor has a folder of its own, because machines
    share home directories.

    Source: `jax.experimental.compilation_cache`.

    Raises:
        UserError: see `check_switch`.
    """
    check_switch()
    if PLACE in os.environ or SWITCH in os.environ:
        return
    try:
        folder = _base() / "bertjax" / "compiled" / _processor()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(folder):
            return
        _remove_broken(folder)
        _remove_oldest(folder)
    except (OSError, RuntimeError):  # no permission, a full disk, no home
        return
    settings = {
        PLACE: str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": MOST_BYTES,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": LEAST_SECONDS,
    }
    for name, value in settings.items():
        if name in os.environ:
            continue
        os.environ[name] = str(value)  # for child processes, too
        if "jax" in sys.modules:
            import jax

            jax.config.update(name.lower(), value)


def check_switch() -> None:
    """Raises a `UserError` where jax cannot parse `JAX_ENABLE_COMPILATION_CACHE`."""
    text = os.environ.get(SWITCH)
    if text is not None and text.lower() not in _TRUTHS:
        raise UserError(f"{SWITCH}={text} must be true or false; unset it for true")


def _base() -> Path:
    """Returns the user's cache folder (XDG Base Directory Specification)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def _processor() -> str:
    """Returns a name for this kind of processor, made from its features."""
    machine = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        kinds = ("model name", "flags", "CPU part", "Features")  # x86, x86, Arm, Arm
        machine += "".join(line for line in lines if line.startswith(kinds))
    return hashlib.sha256(machine.encode()).hexdigest()[:16]


def _is_ours(folder: Path) -> bool:
    """Returns whether the folder is the user's, and nobody else may write to it."""
    status = folder.stat()
    own = status.st_uid == os.getuid() and not status.st_mode & 0o022
    return own and os.access(folder, os.W_OK | os.X_OK)


def _remove_broken(folder: Path) -> None:
    """Removes what a killed process or a full disk left half-written.

    jax writes KEY-cache, then KEY-atime. For an entry without the second it would neither write the
    first again nor remove another.
    """
    for file in folder.glob("*-cache"):
        whole = file.with_name(file.name.removesuffix("-cache") + "-atime").exists()
        if not whole and time.time() - file.stat().st_mtime > _LONG_DONE:
            file.unlink(missing_ok=True)


def _remove_oldest(folder: Path) -> None:
    """Removes the least recently used programs beyond `MOST_PROGRAMS`, as jax does by size."""
    if len([*folder.glob("*-atime")]) <= MOST_PROGRAMS:
        return
    from filelock import FileLock, Timeout

    # jax's own lock; who holds it saves or removes programs, and the next start does this.
    with contextlib.suppress(Timeout), FileLock(folder / ".lockfile", timeout=0):
        used = sorted(folder.glob("*-atime"), key=lambda file: file.stat().st_mtime)
        for file in used[:-MOST_PROGRAMS]:
            file.with_name(file.name.removesuffix("-atime") + "-cache").unlink(missing_ok=True)
            file.unlink()
