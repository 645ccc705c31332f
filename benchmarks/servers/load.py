"""Load on a server: as many calls at a time as are told (closed), or Poisson arrivals (open).

    python load.py URL BODIES (--at-a-time N | --rate CALLS_A_SECOND) --seconds S [--seed N]

BODIES has the body of a call in every line, sent in this order, again and again. Prints JSON: calls
by status, seconds each took from the moment when it was due, so that a server that falls behind
does not slow its own load down.
"""

import argparse
import asyncio
import json
import random
import time

import aiohttp
import uvloop


async def main() -> None:
    """Sends, and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("bodies")
    parser.add_argument("--at-a-time", type=int)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with open(options.bodies, "rb") as lines:
        bodies = lines.read().splitlines()
    statuses: dict[str, int] = {}
    latencies: list[float] = []
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=timeout
    ) as session:

        async def call(number: int, due: float) -> None:
            try:
                async with session.post(options.url, data=bodies[number % len(bodies)]) as response:
                    await response.read()
                    status = str(response.status)
            except (aiohttp.ClientError, TimeoutError) as error:
                status = type(error).__name__
            if status == "200":
                latencies.append(time.perf_counter() - due)
            statuses[status] = statuses.get(status, 0) + 1

        began = time.perf_counter()
        if options.rate:
            drawn, due, number, tasks = random.Random(options.seed), began, 0, []
            while (due := due + drawn.expovariate(options.rate)) < began + options.seconds:
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                tasks.append(asyncio.create_task(call(number, due)))
                number += 1
            await asyncio.gather(*tasks)
        else:
            numbers = iter(range(10**9))

            async def one_after_the_other() -> None:
                while (now := time.perf_counter()) < began + options.seconds:
                    await call(next(numbers), now)

            await asyncio.gather(*(one_after_the_other() for _ in range(options.at_a_time)))
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "statuses": statuses, "latencies": latencies}))


uvloop.run(main())
