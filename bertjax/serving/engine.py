"""The queue of a server: sequences of many requests, run together in packed batches.

Every device has a thread of its own, which takes what is due first, runs it, and takes again; so a
sequence waits for the batch that runs and for what is due before it, and for nothing else. A
request's first sequence is due when it arrives, its later ones the later the more the earlier ones
cost: a long request lets short ones that come after it pass.
"""

import asyncio
import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from bertjax.inference.shapes import Shape
from bertjax.serving.programs import Asked, Program

# How much later than its cost a request's next sequence is due, and how many of those that wait are
# looked at for a batch.
PATIENCE, MOST_LOOKED_AT = 2.0, 256
# Seconds a token, before any has been measured.
FIRST_GUESS = 1e-5


class OverloadedError(Exception):
    """The queue is full; `seconds` until it may have room."""

    def __init__(self, seconds: float) -> None:
        super().__init__("the queue is full")
        self.seconds = seconds


class ClosingError(Exception):
    """The server ends and takes nothing more."""


class Ran(NamedTuple):
    """What came out for the sequences of a request, and how long it took.

    Attributes:
        outputs: one for each.
        queued: seconds from the request's arrival until its first batch began.
        computed: seconds from then until its last batch was finished.
    """

    outputs: list[Any]
    queued: float
    computed: float


class BatchRan(NamedTuple):
    """A batch that ran, for the metrics.

    Attributes:
        program: its name.
        sequences: in it.
        tokens: in it, without padding.
        places: that were computed, padding included.
        seconds: it took, from the rows to the outputs on the host.
    """

    program: str
    sequences: int
    tokens: int
    places: int
    seconds: float


class _Job:
    """The sequences of a request, or a call that has the device to itself."""

    def __init__(self, work: Any, count: int, finish: Callable[["_Job"], None]) -> None:
        self.work, self.finish = work, finish
        self.outputs: list[Any] = [None] * count
        self.waiting = self.left = count
        self.arrived, self.began, self.ended = time.monotonic(), 0.0, 0.0
        self.error: BaseException | None = None
        self.is_over = False


class _Entry(NamedTuple):
    """A sequence that waits; entries are ordered by when they are due."""

    due: float
    number: int
    job: _Job
    place: int
    asked: Asked | None


class Engine:
    """Runs programs for requests, from any event loop.

    Args:
        devices: each is given a thread.
        most_waiting: sequences that may wait; more are refused.
        wait: seconds that a batch that is not full waits for more, at most.
        watch: is called with every batch that ran, from the threads of the devices.
    """

    def __init__(
        self,
        devices: Sequence[jax.Device],
        *,
        most_waiting: int,
        wait: float = 0.0,
        watch: Callable[[BatchRan], None] = lambda ran: None,
    ) -> None:
        self._most_waiting, self._wait, self._watch = most_waiting, wait, watch
        self._changed = threading.Condition()
        self._queues: dict[Program | None, list[_Entry]] = {}
        self._numbers = itertools.count()
        self._waiting = 0
        self._is_closing = False
        self._seconds_per_token = FIRST_GUESS
        self._threads = [
            threading.Thread(
                target=self._work, args=(device,), name=f"device {device.id}", daemon=True
            )
            for device in devices
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Returns how many sequences wait."""
        return self._waiting

    async def run(self, program: Program, sequences: Sequence[Asked]) -> Ran:
        """Runs a program on sequences, in whatever batches.

        Cancelling the call drops what has not run.

        Raises:
            OverloadedError: more would wait than may.
            ClosingError: the server ends.
        """
        if not sequences:
            return Ran([], 0.0, 0.0)
        return await self._run(program, list(sequences))

    async def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function in the thread of a device, which it has to itself; returns its result.

        Raises:
            ClosingError: the server ends.
        """
        return (await self._run(None, [function])).outputs[0]

    async def _run(self, program: Program | None, work: list[Any]) -> Ran:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def set_result() -> None:
            if not future.done():
                future.set_result(None)

        def finish(job: _Job) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(set_result)

        job = _Job(work, len(work), finish)
        self._add(program, job)
        try:
            await future
        finally:
            self._drop(job)
        if job.error:
            raise job.error
        return Ran(job.outputs, job.began - job.arrived, job.ended - job.began)

    def _add(self, program: Program | None, job: _Job) -> None:
        with self._changed:
            if self._is_closing:
                raise ClosingError
            # Those who ask for the device itself limit their own calls.
            if program is not None and self._waiting + len(job.work) > self._most_waiting:
                raise OverloadedError(self._estimate())
            self._waiting += len(job.work)
            due, queue = job.arrived, self._queues.setdefault(program, [])
            for place, asked in enumerate(job.work):
                heapq.heappush(queue, _Entry(due, next(self._numbers), job, place, asked))
                if program is not None:
                    due += PATIENCE * asked.length * self._seconds_per_token
            self._changed.notify()

    def _estimate(self) -> float:
        """Returns the seconds until what waits will have run."""
        tokens = sum(
            entry.asked.length
            for program, queue in self._queues.items()
            if program is not None
            for entry in queue
        )
        return tokens * self._seconds_per_token / len(self._threads)

    def _drop(self, job: _Job) -> None:
        with self._changed:
            if not job.is_over:
                job.is_over = True
                self._waiting -= job.waiting
                job.waiting = 0

    def close(self) -> None:
        """Finishes what waits, and ends the threads."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _work(self, device: jax.Device) -> None:
        while taken := self._take():
            program, entries, batch = taken
            began = time.monotonic()
            try:
                if program is None:
                    with jax.default_device(device):
                        outputs = [entries[0].asked()]
                else:
                    sequences = [entry.asked for entry in entries]
                    rows = program.make(sequences, batch.places, batch.shape)
                    whole = jax.device_get(program.run(rows, device))
                    outputs = program.take(whole, sequences, batch.places)
                    self._note(program, sequences, batch.shape, time.monotonic() - began)
            except Exception as error:
                self._give(entries, began, error=error)
            else:
                self._give(entries, began, outputs)

    def _note(
        self, program: Program, sequences: Sequence[Asked], shape: Shape, seconds: float
    ) -> None:
        tokens = sum(asked.length for asked in sequences)
        self._seconds_per_token += 0.1 * (seconds / max(1, tokens) - self._seconds_per_token)
        places = program.count_places(sequences, shape)
        self._watch(BatchRan(program.name, len(sequences), tokens, places, seconds))

    def _give(
        self,
        entries: Sequence[_Entry],
        began: float,
        outputs: Sequence[Any] = (),
        error: BaseException | None = None,
    ) -> None:
        """Hands outputs to their jobs, and finishes those that have all of theirs."""
        ended = time.monotonic()
        finished = []
        with self._changed:
            for number, entry in enumerate(entries):
                job = entry.job
                job.began = job.began or began
                if error:
                    job.error = error
                else:
                    job.outputs[entry.place] = outputs[number]
                job.left -= 1
                if not job.is_over and (error or not job.left):
                    job.is_over, job.ended = True, ended
                    self._waiting -= job.waiting
                    job.waiting = 0
                    finished.append(job)
        for job in finished:
            job.finish(job)

    def _take(self) -> tuple[Program | None, list[_Entry], Any] | None:
        """Waits for what is due first and takes a batch of it; None when the engine ends."""
        with self._changed:
            while True:
                self._forget_dropped()
                program = self._first()
                if program is not _NOTHING:
                    break
                if self._is_closing:
                    return None
                self._changed.wait()
            queue = self._queues[program]
            if program is None:
                entry = heapq.heappop(queue)
                self._count(entry)
                return None, [entry], None
            self._wait_for_more(program, queue)
            looked_at = list(self._pop(queue))
            if not looked_at:  # all were dropped while this thread waited
                return self._take()
            try:
                batch = program.choose([entry.asked for entry in looked_at])
            except Exception as error:
                for entry in looked_at:
                    self._count(entry)
                self._give(looked_at, time.monotonic(), error=error)
                return self._take()
            chosen = set(batch.numbers)
            for number, entry in enumerate(looked_at):
                if number not in chosen:
                    heapq.heappush(queue, entry)
            entries = [looked_at[number] for number in batch.numbers]
            for entry in entries:
                self._count(entry)
            return program, entries, batch

    def _first(self) -> Any:
        """Returns the program whose first entry is due first; `_NOTHING` where none waits."""
        waiting = [(queue[0], program) for program, queue in self._queues.items() if queue]
        return min(waiting, key=lambda pair: pair[0][:2])[1] if waiting else _NOTHING

    def _forget_dropped(self) -> None:
        for queue in self._queues.values():
            while queue and queue[0].job.is_over:
                heapq.heappop(queue)
        # A model that was replaced leaves nothing behind.
        self._queues = {program: queue for program, queue in self._queues.items() if queue}

    def _pop(self, queue: list[_Entry]) -> Iterator[_Entry]:
        number = 0
        while queue and number < MOST_LOOKED_AT:
            entry = heapq.heappop(queue)
            if not entry.job.is_over:
                number += 1
                yield entry

    def _wait_for_more(self, program: Program, queue: list[_Entry]) -> None:
        """Waits until a batch could be full, or until its first entry has waited long enough."""
        while not self._is_closing and queue:
            left = queue[0].job.arrived + self._wait - time.monotonic()
            if left <= 0 or sum(entry.asked.length for entry in queue) >= program.batch_tokens:
                return
            self._changed.wait(left)

    def _count(self, entry: _Entry) -> None:
        entry.job.waiting -= 1
        self._waiting -= 1


_NOTHING = object()
