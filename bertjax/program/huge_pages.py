"""Huge pages for the large buffers that XLA allocates at every step on a CPU."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb=1"
# Linux's policy on huge pages: [madvise] = for whoever asks, as glibc then does.
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages(before: Callable[[], None] | None = None) -> None:
    """Restarts this program, once, with glibc set to ask for huge pages.

    Without them, a third of a small model's training step on a CPU goes into page faults
    (docs/performance.md). glibc reads its settings when the process starts, hence the restart;
    the process keeps its number, and its children inherit the setting. Nothing happens where the
    variable GLIBC_TUNABLES is already set, or there is no glibc or nothing to ask for.

    Args:
        before: called just before the restart.

    Source: the GNU C Library manual, "Memory Allocation Tunables".
    """
    if "GLIBC_TUNABLES" in os.environ or not _can_ask():
        return
    os.environ["GLIBC_TUNABLES"] = TUNABLE
    if before:
        before()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _can_ask() -> bool:
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION")
        return bool(name) and "[madvise]" in _SETTING.read_text(encoding="ascii")
    except (OSError, ValueError, AttributeError):
        return False
