"""Work spread over processes: results in the order of the tasks, a bounded number in progress."""

import collections
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from bertjax.program.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")

_steps: Any = None  # this worker's object, made once


def count_cores() -> int:
    """Returns how many processor cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not every system has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@contextlib.contextmanager
def start_workers(
    make_steps: Callable[..., Any], arguments: tuple, count: int, preload: Sequence[str] = ()
) -> Iterator["Workers"]:
    """Yields `count` processes that each hold `make_steps(*arguments)`; one means this process.

    Processes are forked from a small server that has imported the module of `make_steps`: no
    thread of this program is copied, and the imports are done once.

    Args:
        make_steps: a class or function at the top of a module.
        arguments: picklable.
        count: processes, at least 1.
        preload: modules that the steps import when they need them.

    Raises:
        UserError: (from `Workers.run`) a process died; also whatever a step raises.
    """
    if count == 1:
        yield Workers(make_steps(*arguments), None, count)
        return
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([make_steps.__module__, *preload])
        _start_server()  # its imports run in parallel with what we do next
    executor = ProcessPoolExecutor(
        count, context, initializer=_start, initargs=(make_steps, arguments)
    )
    try:
        yield Workers(None, executor, count)
    except BrokenProcessPool:
        raise UserError(
            f"one of the {count} worker processes died, most likely because the memory was full;"
            " run again with fewer --workers (the result is the same)"
        ) from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _start_server() -> None:
    """Starts the server that workers are forked from, which is silent when Ctrl-C ends us.

    Ctrl-C reaches every process of the terminal: the server, in the middle of its imports, would
    print a traceback. And Python's tracker of semaphores would warn that they were left behind, as
    they are where a process ends at once (`program.ending`); it removes them.
    """
    from multiprocessing import forkserver, resource_tracker

    sys.warnoptions.append("ignore:resource_tracker")
    resource_tracker.ensure_running()  # first, because it unblocks signals
    sys.warnoptions.remove("ignore:resource_tracker")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    forkserver.ensure_running()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Workers:
    """Worker processes, made by `start_workers`."""

    def __init__(self, steps: Any, executor: ProcessPoolExecutor | None, count: int) -> None:
        self._steps = steps
        self._executor = executor
        # Enough that no worker waits for the next task, few enough that memory is bounded.
        self._most_under_way = 2 * count + 1

    def run(self, step: Callable[[Any, Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yields the result of `step` for each task, in order. Tasks are taken as needed.

        Args:
            step: a method of the class that `start_workers` was given.
            tasks: picklable.
        """
        if self._executor is None:
            yield from (step(self._steps, task) for task in tasks)
            return
        under_way: collections.deque[Future] = collections.deque()
        for task in tasks:
            under_way.append(self._executor.submit(_run, step, task))
            if len(under_way) == self._most_under_way:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()


def _run(step: Callable[[Any, Task], Result], task: Task) -> Result:
    return step(_steps, task)


def _start(make_steps: Callable[..., Any], arguments: tuple) -> None:
    global _steps
    # Ctrl-C reaches every process of the terminal; the main one decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _steps = make_steps(*arguments)


def _end_with_parent() -> None:
    """Ends a worker whose main process was killed: it would wait for tasks for ever."""
    multiprocessing.parent_process().join()
    os._exit(1)
