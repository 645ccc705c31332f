"""Compiled programs on disk: what XLA compiled once for a user, it does not compile again."""

import contextlib
import hashlib
import os
import platform
import sys
import time
from pathlib import Path

from bertjax.program.errors import UserError

# jax's own variables: where the cache is, and whether there is one.
PLACE, SWITCH = "JAX_COMPILATION_CACHE_DIR", "JAX_ENABLE_COMPILATION_CACHE"
# What jax reads in the second of them; at anything else its import ends.
_TRUTHS = ("y", "yes", "t", "true", "on", "1", "n", "no", "f", "false", "off", "0")
# Bytes, above which what was used least recently goes: a step of the base size takes 1 MB.
MOST_BYTES = 500_000_000
# Seconds: what compiles faster is not worth a file.
LEAST_SECONDS = 0.1
# Seconds after which nobody is writing at a file any more.
_LONG_DONE = 60


def keep_compiled_programs() -> None:
    """Makes jax keep what it compiles in `~/.cache/bertjax/compiled`, and take it from there.

    Called by programs before they compute, not by the library. Nothing happens where one of jax's
    variables `JAX_COMPILATION_CACHE_DIR` and `JAX_ENABLE_COMPILATION_CACHE` is set (jax heeds
    them, and those for the size and the least seconds), or where the folder cannot be made, written
    or trusted: it holds machine code, so it must be the user's own. jax's keys hold its version,
    XLA's flags and the program; every kind of processor has a folder of its own, as homes are
    shared between machines.

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
    except (OSError, RuntimeError):  # no such right, a full disk, no home
        return
    settings = {
        PLACE: str(folder),
        "JAX_COMPILATION_CACHE_MAX_SIZE": MOST_BYTES,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": LEAST_SECONDS,
    }
    for name, value in settings.items():
        if name in os.environ:
            continue
        os.environ[name] = str(value)  # for the processes that this one starts, too
        if "jax" in sys.modules:
            import jax

            jax.config.update(name.lower(), value)


def check_switch() -> None:
    """Raises a `UserError` where jax cannot make sense of `JAX_ENABLE_COMPILATION_CACHE`."""
    text = os.environ.get(SWITCH)
    if text is not None and text.lower() not in _TRUTHS:
        raise UserError(f"{SWITCH}={text} must be true or false; unset it for true")


def _base() -> Path:
    """The user's folder for what can be made again (XDG Base Directory Specification)."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return named if named.is_absolute() else Path.home() / ".cache"


def _processor() -> str:
    """A name for this kind of processor, of what it can do."""
    told = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        kinds = ("model name", "flags", "CPU part", "Features")  # x86, x86, Arm, Arm
        told += "".join(line for line in lines if line.startswith(kinds))
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _is_ours(folder: Path) -> bool:
    """Whether the folder is the user's, and nobody else may write in it."""
    status = folder.stat()
    own = status.st_uid == os.getuid() and not status.st_mode & 0o022
    return own and os.access(folder, os.W_OK | os.X_OK)


def _remove_broken(folder: Path) -> None:
    """Removes what a killed process or a full disk left half written.

    jax writes KEY-cache, then KEY-atime; of an entry without the second it would neither write the
    first again nor remove another.
    """
    for file in folder.glob("*-cache"):
        whole = file.with_name(file.name.removesuffix("-cache") + "-atime").exists()
        if not whole and time.time() - file.stat().st_mtime > _LONG_DONE:
            file.unlink(missing_ok=True)
