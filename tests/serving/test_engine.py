"""The queue of a device: what runs together, in which order, and what never runs."""

import asyncio
import subprocess
import sys
import threading

import jax
import numpy as np
import pytest

from bertjax.serving.engine import ClosingError, Engine, OverloadedError
from bertjax.serving.programs import Asked, Batch
from bertjax.text.framing import TokenSequence
from bertjax.text.packing import Places

DEVICE = jax.devices()[0]


def asked(length, number=0):
    return Asked(TokenSequence(np.full(length, number, np.int32), length))


class Recorded:
    """A program that notes what it runs, one sequence a batch, and waits where it is told to."""

    name, batch_tokens = "recorded", 100

    def __init__(self):
        self.ran, self.goes_on = [], threading.Event()
        self.is_running = threading.Event()
        self.goes_on.set()

    def choose(self, offered):
        nothing = np.zeros(1, np.int64)
        return Batch([0], Places(nothing, nothing, nothing), type("", (), {"rows": 1, "length": 1}))

    def make(self, sequences, places, shape):
        return sequences

    def run(self, sequences, device):
        self.is_running.set()
        assert self.goes_on.wait(20)
        number = int(sequences[0].sequence.token_ids[0])
        if number < 0:
            raise ValueError("broken")
        self.ran.append(number)
        return np.array([number])

    def take(self, output, sequences, places):
        return list(output)

    def count_places(self, sequences, shape):
        return 1


@pytest.fixture
def engine():
    engine = Engine([DEVICE], most_waiting=40)
    yield engine
    engine.close()


async def while_running(engine, program, *calls, then=lambda tasks: None):
    """Starts a first call, and the others while it runs; then does something to these."""
    program.goes_on.clear()
    first = asyncio.create_task(engine.run(program, [asked(1, 99)]))
    assert await asyncio.to_thread(program.is_running.wait, 20)
    tasks = []
    for call in calls:
        tasks.append(asyncio.create_task(call()))
        await asyncio.sleep(0)
    then(tasks)
    await asyncio.sleep(0)
    program.goes_on.set()
    return first, tasks


def test_outputs_come_back_in_the_order_of_the_sequences(engine):
    program = Recorded()
    ran = asyncio.run(engine.run(program, [asked(2, number) for number in range(7)]))
    assert ran.outputs == [0, 1, 2, 3, 4, 5, 6]
    assert ran.queued >= 0
    assert ran.computed > 0


def test_short_request_passes_the_rest_of_a_long_one(engine):
    program = Recorded()

    async def go():
        first, tasks = await while_running(
            engine,
            program,
            lambda: engine.run(program, [asked(50, number) for number in range(9)]),
            lambda: engine.run(program, [asked(2, 77)]),
        )
        await asyncio.gather(first, *tasks)

    asyncio.run(go())
    # The first of the long request was due when it came, before the short one.
    assert program.ran.index(77) == 2


def test_cancelled_call_never_runs(engine):
    program = Recorded()

    async def go():
        first, tasks = await while_running(
            engine,
            program,
            lambda: engine.run(program, [asked(2, 5), asked(2, 6)]),
            lambda: engine.run(program, [asked(2, 7)]),
            then=lambda tasks: tasks[0].cancel(),
        )
        await asyncio.gather(first, *tasks, return_exceptions=True)

    asyncio.run(go())
    assert program.ran == [99, 7]
    assert engine.waiting == 0


def test_more_than_may_wait_is_refused_with_the_seconds_until_there_is_room(engine):
    program = Recorded()

    async def go():
        first, tasks = await while_running(
            engine,
            program,
            lambda: engine.run(program, [asked(2)] * 40),
            lambda: engine.run(program, [asked(2)]),
        )
        return await asyncio.gather(first, *tasks, return_exceptions=True)

    _, accepted, refused = asyncio.run(go())
    assert len(accepted.outputs) == 40
    assert isinstance(refused, OverloadedError)
    assert refused.seconds > 0
    assert engine.waiting == 0


def test_error_of_a_batch_is_that_of_its_calls_alone(engine):
    program = Recorded()

    async def go():
        return await asyncio.gather(
            engine.run(program, [asked(2, -1)]),
            engine.run(program, [asked(0)]),
            engine.run(program, [asked(2, 3)]),
            return_exceptions=True,
        )

    # One without a token has no number either; whatever becomes of it, the device goes on.
    broken, _, fine = asyncio.run(go())
    assert isinstance(broken, ValueError)
    assert fine.outputs == [3]


def test_function_has_the_device_to_itself(engine):
    async def go():
        return await engine.call(lambda: threading.current_thread().name)

    assert asyncio.run(go()) == f"device {DEVICE.id}"


def test_batch_that_is_not_full_waits_for_more():
    engine, program = Engine([DEVICE], most_waiting=40, wait=60.0), Recorded()

    async def go():
        first = asyncio.create_task(engine.run(program, [asked(2, 1)]))
        await asyncio.sleep(0.1)
        assert program.ran == []
        await asyncio.gather(first, engine.run(program, [asked(program.batch_tokens, 2)]))

    try:
        asyncio.run(go())
    finally:
        engine.close()
    assert program.ran == [1, 2]


def test_closing_finishes_what_waits_and_takes_nothing_more():
    engine, program = Engine([DEVICE], most_waiting=40), Recorded()

    async def go():
        first, tasks = await while_running(
            engine, program, lambda: engine.run(program, [asked(2, 1), asked(2, 2)])
        )
        program.goes_on.clear()
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        while not engine._is_closing:
            await asyncio.sleep(0.001)
        with pytest.raises(ClosingError):
            await engine.run(program, [asked(2)])
        program.goes_on.set()
        await asyncio.gather(first, *tasks, closing)
        return tasks[0].result().outputs

    assert asyncio.run(go()) == [1, 2]


def test_devices_run_side_by_side():
    """Each batch waits until another one runs beside it."""
    engine, program = Engine(jax.devices()[:2], most_waiting=40), Recorded()
    both, used = threading.Barrier(2, timeout=20), []

    def run(sequences, device):
        both.wait()
        used.append(device)
        return np.array([0])

    program.run = run

    async def go():
        await asyncio.gather(*(engine.run(program, [asked(2)]) for _ in range(4)))

    asyncio.run(go())
    engine.close()
    assert set(used) == set(jax.devices()[:2])


def test_engine_that_nobody_closes_does_not_keep_the_process():
    code = """
import jax
from bertjax.serving.engine import Engine
Engine(jax.devices()[:1], most_waiting=1)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
