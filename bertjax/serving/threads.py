"""Threads for what takes a processor's time: texts to tokens, arrays to JSON."""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")

# Characters, tokens or numbers from which on a piece of work is large: some ten milliseconds.
LARGE = 1 << 14


class Threads:
    """Two pools, so that small pieces of work never wait behind large ones.

    Args:
        count: threads of each.
    """

    def __init__(self, count: int) -> None:
        self._small = ThreadPoolExecutor(count, "small work")
        self._large = ThreadPoolExecutor(count, "large work")

    async def run(self, function: Callable[..., Result], *arguments: Any, size: int) -> Result:
        """Runs a function outside the event loop, in the context of the call.

        Args:
            function: called with the arguments.
            arguments: of it.
            size: characters, tokens or numbers that it works through.
        """
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        pool = self._large if size >= LARGE else self._small
        work = functools.partial(context.run, function, *arguments)
        return await loop.run_in_executor(pool, work)

    def close(self) -> None:
        """Finishes what was taken."""
        self._small.shutdown()
        self._large.shutdown()
