"""A soak of `bertjax serve`: calls of every kind for minutes, some malformed, some hung up on.

    python -m benchmarks.soak_serve --model DIR [--calls 60000] [--minutes 20] [--json FILE]

Calls arrive at random (Poisson), in bursts of three times the server's capacity for up to two
seconds of every twenty. 1 % are malformed and 1 % hang up. Every call must be accounted for:
answered as the same text alone was answered before, refused with 429, refused as malformed with
4xx, or dropped. At the end SIGTERM comes in the middle of a burst: what was taken must be answered,
and the exit code be 0. Exit code 1: a call is not accounted for, an answer is wrong, memory grew by
more than 5 % after the first tenth, or something was compiled.
"""

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

if not __package__:  # python benchmarks/soak_serve.py
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import httptools

from benchmarks.bench_peers import describe_machine, say
from benchmarks.bench_serve import read_texts
from bertjax.program.strict_json import to_json

MALFORMED = [
    b'{"inputs": 3}', b"{", b"", b'{"inputs": []}', b'{"inputs": "a", "x": 1}', b"\xff\xfe",
    b'{"inputs": [["a", "b", "c"]]}', b'{"inputs": null}', b"[]", b'"text"',
]  # fmt: skip
# Of every twenty seconds so many are a burst.
PERIOD, BURST = 20.0, 2.0
CLOSE = 1e-5
# What may become of a call, and what may stand beside the calls of the end.
FINE = {
    "answered", "refused, 429", "malformed, refused", "hung up", "200", "429", "503", "not taken",
    "exit code",
}  # fmt: skip


class Answer(asyncio.Protocol):
    """One call on a connection of its own."""

    def __init__(self, done):
        self.parser, self.done, self.parts = httptools.HttpResponseParser(self), done, []

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.parts.append(body)

    def on_message_complete(self):
        if not self.done.done():
            self.done.set_result((self.parser.get_status_code(), b"".join(self.parts)))

    def connection_lost(self, error):
        if not self.done.done():
            self.done.set_exception(ConnectionError(str(error)))


async def call(port, path, body, hang_up=None):
    """The status and the body of the answer; None where the caller hung up."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    transport, _ = await loop.create_connection(lambda: Answer(done), "127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    transport.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    try:
        if hang_up is not None:
            await asyncio.sleep(hang_up)
            done.cancel()
            return None
        return await asyncio.wait_for(done, 90)
    finally:
        transport.close()


class Soak:
    """A server's process, and what came of the calls."""

    def __init__(self, options):
        self.options, self.counts, self.memory = options, Counter(), []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "bertjax", "serve", "--model", str(options.model), "--port",
                str(self.port), "--max-concurrent-requests", "64", "--no-access-log",
            ],
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.path = options.route
        texts = read_texts(options.data)[:500]
        self.bodies = [json.dumps({"inputs": text}).encode() for text in texts]
        self.expected = []

    def wait(self):
        """Waits until the server is ready."""
        while self.process.poll() is None:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").read()
            except OSError:
                time.sleep(0.5)
        raise RuntimeError("the server ended")

    def metric(self, name):
        """The sum of a counter over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = answer.read().decode()
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def resident(self):
        """Megabytes of the server's resident memory."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    async def one(self, number, drawn):
        """A call, counted by what came of it."""
        kind = drawn.random()
        place = number % len(self.bodies)
        try:
            if kind < 0.01:
                status, _ = await call(self.port, self.path, drawn.choice(MALFORMED))
                self.counts["malformed, refused" if 400 <= status < 500 else "WRONG STATUS"] += 1
            elif kind < 0.02:
                await call(self.port, self.path, self.bodies[place], drawn.uniform(0, 0.05))
                self.counts["hung up"] += 1
            else:
                status, body = await call(self.port, self.path, self.bodies[place])
                if status == 200:
                    right = agrees(json.loads(body), self.expected[place])
                    self.counts["answered" if right else "WRONG ANSWER"] += 1
                else:
                    self.counts["refused, 429" if status == 429 else f"STATUS {status}"] += 1
        except (OSError, TimeoutError) as error:
            self.counts[f"LOST {type(error).__name__}"] += 1

    async def capacity(self):
        """Calls a second of sixteen callers."""
        began, finished = time.perf_counter(), 0

        async def caller(first):
            nonlocal finished
            for number in range(first, 10**9, 16):
                if time.perf_counter() > began + 8:
                    return
                await call(self.port, self.path, self.bodies[number % len(self.bodies)])
                finished += 1

        await asyncio.gather(*map(caller, range(16)))
        return finished / 8

    async def run(self):
        """All calls, and the end."""
        options, drawn = self.options, random.Random(0)
        for body in self.bodies:
            status, answer = await call(self.port, self.path, body)
            assert status == 200, answer
            self.expected.append(json.loads(answer))
        burst = 3 * await self.capacity()
        seconds = options.minutes * 60
        # At most half of all calls come in bursts.
        self.burst = min(BURST, 0.5 * options.calls * PERIOD / (burst * seconds))
        in_bursts = burst * seconds * self.burst / PERIOD
        calm = (options.calls - in_bursts) / (seconds * (1 - self.burst / PERIOD))
        say(f"capacity {burst / 3:.0f} calls/s; bursts of {burst:.0f}, between them {calm:.0f}")
        compiled = self.metric("bertjax_compilations_total")
        began = due = time.perf_counter()
        tasks, number = set(), 0
        while number < options.calls:
            is_burst = (due - began) % PERIOD > PERIOD - self.burst
            due += drawn.expovariate(burst if is_burst else calm)
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self.one(number, drawn))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
            if number % (options.calls // 20) == 0:
                self.memory.append(self.resident())
                say(f"{number:,} calls, {self.memory[-1]:.0f} MB, {dict(self.counts)}")
        await asyncio.gather(*tasks)
        minutes = (time.perf_counter() - began) / 60
        after = self.metric("bertjax_compilations_total")
        dropped = self.metric("te_request_failure_total")
        ended = await self.end_in_a_burst(burst)
        return {
            "calls": number,
            "minutes": minutes,
            "counts": dict(self.counts),
            "failures that the server counted": dropped,
            "memory, MB": self.memory,
            "growth after the first tenth": max(self.memory[2:]) / self.memory[1] - 1,
            "compilations": after - compiled,
            "end": ended,
        }

    async def end_in_a_burst(self, rate):
        """SIGTERM among calls: how many were answered, refused or never taken; the exit code."""
        counts = Counter()

        async def last(number):
            place = number % len(self.bodies)
            try:
                status, body = await call(self.port, self.path, self.bodies[place])
                right = status != 200 or agrees(json.loads(body), self.expected[place])
                counts[str(status) if right else "WRONG ANSWER"] += 1
            except ConnectionRefusedError:
                counts["not taken"] += 1
            except ConnectionError:
                counts["CUT OFF"] += 1

        tasks = []
        for number in range(int(rate)):
            tasks.append(asyncio.create_task(last(number)))
            await asyncio.sleep(1 / rate)
            if number == int(rate) // 2:
                self.process.send_signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
        return {**counts, "exit code": await asyncio.to_thread(self.process.wait, 120)}


def agrees(answer, expected):
    """Whether two answers are the same, numbers to 1e-5."""
    if isinstance(expected, dict):
        return answer.keys() == expected.keys() and all(
            agrees(answer[key], expected[key]) for key in expected
        )
    if isinstance(expected, list):
        return len(answer) == len(expected) and all(map(agrees, answer, expected))
    if isinstance(expected, float):
        return abs(answer - expected) <= CLOSE
    return answer == expected


def main():
    """Soaks and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", metavar="DIR", type=Path, required=True)
    parser.add_argument("--route", default="/embed", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--calls", type=int, default=60_000)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--json", metavar="FILE", type=Path)
    options = parser.parse_args()
    soak = Soak(options)
    try:
        soak.wait()
        figures = {"machine": describe_machine(), **asyncio.run(soak.run())}
    finally:
        soak.process.kill()
    print(to_json(figures, indent=1))
    if options.json:
        options.json.write_text(to_json(figures, indent=1) + "\n", encoding="utf-8")
    lost = {*figures["counts"], *figures["end"]} - FINE
    accounted = sum(figures["counts"].values()) == options.calls
    fine = accounted and not lost and figures["end"]["exit code"] == 0
    fine = fine and figures["compilations"] == 0 and figures["growth after the first tenth"] <= 0.05
    return int(not fine)


if __name__ == "__main__":
    sys.exit(main())
