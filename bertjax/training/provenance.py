"""Where a run comes from: versions, git commit, devices. It stands in every run directory."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax

import bertjax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers")


def describe_environment() -> dict[str, Any]:
    """Returns versions of Python and the packages that count, the code's commit, the devices."""
    devices = jax.devices()
    return {
        "bertjax": bertjax.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
    }


def _git_commit() -> str | None:
    """Returns the code's commit, with `+changes` when files differ; None outside a checkout."""
    folder = Path(bertjax.__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + "+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
