"""Huge pages for the large buffers that XLA asks of glibc at every step on a CPU."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

TUNABLE = "glibc.malloc.hugetlb=1"
# Linux' say on huge pages: [madvise] = those who ask get them, as glibc then does.
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages(before: Callable[[], None] | None = None) -> None:
    """Starts this program anew, once, with glibc told to ask for huge pages.

    Without them, a third of a small model's training step on a CPU goes into page faults
    (docs/performance.md). glibc reads what it is told when the process starts, hence the restart;
    the process keeps its number, and what it starts inherits the setting. Nothing happens where the
    variable GLIBC_TUNABLES is set already, or where there is no glibc or nothing to ask for.

    Args:
        before: is called just before the restart.

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
