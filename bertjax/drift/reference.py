"""Texts of a file or in memory, described as a server describes those that it is asked."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from bertjax.drift.samples import Sample
from bertjax.drift.settings import MOST_REQUESTS
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import counted, with_article
from bertjax.serving.engine import Engine
from bertjax.serving.heads import answers, choices, classes, tags, vectors
from bertjax.serving.observation import describe
from bertjax.serving.problems import RefusedError
from bertjax.serving.sampling import SAMPLED, SampledCall
from bertjax.serving.served import Served
from bertjax.serving.settings import ServeConfig
from bertjax.serving.threads import Threads

Result = TypeVar("Result")

# Texts that are asked at a time.
TOGETHER = 64

# A place for messages, and the texts of a request: one, a pair, a question and its context, a
# context and its choices.
Request = tuple[str, tuple[str, ...]]


class _Program(NamedTuple):
    """What a program takes: its texts are so many, called so in messages; and how it is asked."""

    fewest: int
    most: float
    called: str
    ask: Callable[[Served, tuple[str, ...]], Awaitable[Any]]


# A model is asked by the first of these programs that it has.
_PROGRAMS = {
    "class": _Program(
        1, 2, "a text or a pair of texts",
        lambda served, texts: classes.classify(served, [(texts[0], (*texts, None)[1])]),
    ),
    "tag": _Program(1, 1, "a text", lambda served, texts: tags.tag(served, texts)),
    "span": _Program(
        2, 2, "a question and its context",
        lambda served, texts: answers.answer_question(served, *texts),
    ),
    "choice": _Program(
        3, float("inf"), "a context and its choices",
        lambda served, texts: choices.choose(served, texts[0], texts[1:]),
    ),
    "vector": _Program(1, 1, "a text", lambda served, texts: vectors.embed(served, texts)),
    "next-sentence": _Program(
        2, 2, "a pair of texts", lambda served, texts: choices.follows(served, [texts])
    ),
}  # fmt: skip


def ask_model(
    model: Model,
    requests: Mapping[str, Sequence[Request]],
    *,
    name: str,
    max_length: int = 0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Sample]:
    """Asks a model texts, as a server would.

    Args:
        model: that is served.
        requests: what they are, for messages, and the requests; of many a random sample is asked.
        name: of the model on the server.
        max_length: tokens of a text, at most, as on the server; 0 = as the model's directory says.
        seed: of the samples.
        progress: is called with the number of texts done since the call before, of
            `count_asked(requests)`.

    Returns:
        A sample for each source.

    Raises:
        UserError: the model refuses a text.
    """
    drawn = {
        source: np.random.default_rng(seed).permutation(len(own))[:MOST_REQUESTS]
        for source, own in requests.items()
    }
    devices = tuple(jax.local_devices()[:1])
    config = ServeConfig(explain=False, max_input_length=max_length)
    threads = Threads(1)
    with (
        contextlib.closing(threads),
        contextlib.closing(Engine(devices, most_waiting=config.max_concurrent_requests)) as engine,
    ):
        served = Served(name, model, engine, threads, config, devices, observed=True)
        program = next((one for name, one in _PROGRAMS.items() if name in served.programs), None)
        if program is None:
            raise UserError(
                f"{model.directory}: {with_article(model.architecture)} answers nothing that a"
                " file could ask; compare two logs"
            )
        for source, own in requests.items():
            if not own:
                raise UserError(f"{source}: has no texts; give some")
        for place, texts in itertools.chain.from_iterable(requests.values()):
            if not program.fewest <= len(texts) <= program.most:
                raise UserError(
                    f"{place}: has {counted(len(texts), 'text')}, and"
                    f" {with_article(model.architecture)} takes {program.called}"
                )

        async def describe_one(request: Request, turn: asyncio.Semaphore) -> dict[str, Any]:
            place, texts = request
            call = SampledCall(place)
            async with turn:
                SAMPLED.set(call)
                try:
                    await program.ask(served, texts)
                except RefusedError as error:
                    raise UserError(f"{place}: {error.message}") from None
            progress(1)
            return describe(call.observed)

        async def describe_all() -> list[list[dict[str, Any]]]:
            turn = asyncio.Semaphore(TOGETHER)
            return [
                await asyncio.gather(
                    *(describe_one(requests[source][number], turn) for number in numbers)
                )
                for source, numbers in drawn.items()
            ]

        described = _run(describe_all())
        fingerprint = served.fingerprint
    return [
        Sample(source, name, fingerprint, len(own), None, None, lines)
        for (source, own), lines in zip(requests.items(), described, strict=True)
    ]


def count_asked(requests: Mapping[str, Sequence[Request]]) -> int:
    """Returns how many of the requests are asked.

    Args:
        requests: as of `ask_model`.
    """
    return sum(min(len(own), MOST_REQUESTS) for own in requests.values())


def _run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs it to its end; in a thread of its own where this one has a loop, as a notebook's has."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
