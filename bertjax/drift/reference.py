"""Texts of a file or in memory, described as a server describes those that it is asked."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

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
from bertjax.serving.problems import VALIDATION, RefusedError
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

# What a program takes: the fewest texts of a request, the most, and what messages call them.
_TAKES: dict[str, tuple[int, float, str]] = {
    "class": (1, 2, "a text or a pair of texts"),
    "tag": (1, 1, "a text"),
    "span": (2, 2, "a question and its context"),
    "choice": (3, float("inf"), "a context and its choices"),
    "vector": (1, 1, "a text"),
    "next-sentence": (1, 2, "a pair of texts"),
}

# What is asked of a model, by the first of these programs that it has.
_ASK: dict[str, Callable[[Served, tuple[str, ...]], Awaitable[Any]]] = {
    "class": lambda served, texts: classes.classify(served, [(texts[0], (*texts, None)[1])]),
    "tag": lambda served, texts: tags.tag(served, texts[:1]),
    "span": lambda served, texts: answers.answer_question(served, *texts),
    "choice": lambda served, texts: choices.choose(served, texts[0], texts[1:]),
    "vector": lambda served, texts: vectors.embed(served, texts[:1]),
    "next-sentence": lambda served, texts: choices.follows(served, [_as_pair(texts)]),
}


def _as_pair(texts: tuple[str, ...]) -> tuple[str, str]:
    if len(texts) == 1:
        raise RefusedError(
            VALIDATION,
            "a text alone, and whether one text follows another is asked of pairs; give it its"
            " second text",
        )
    first, second = texts
    return first, second


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
        programs = [program for program in _ASK if program in served.programs]
        if not programs:
            raise UserError(
                f"{model.directory}: {with_article(model.architecture)} answers nothing that a"
                " file could ask; compare two logs"
            )
        ask = _ASK[programs[0]]
        fewest, most, called = _TAKES[programs[0]]
        for source, own in requests.items():
            if not own:
                raise UserError(f"{source}: has no texts; give some")
        for place, texts in itertools.chain.from_iterable(requests.values()):
            if not fewest <= len(texts) <= most:
                raise UserError(
                    f"{place}: has {counted(len(texts), 'text')}, and"
                    f" {with_article(model.architecture)} takes {called}"
                )

        async def describe_one(request: Request, turn: asyncio.Semaphore) -> dict[str, Any]:
            place, texts = request
            call = SampledCall(place)
            async with turn:
                SAMPLED.set(call)
                try:
                    await ask(served, texts)
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
