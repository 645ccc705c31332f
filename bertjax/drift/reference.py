"""The texts of a file, described as a server describes those that it is asked."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jax
import numpy as np

from bertjax.drift.samples import Sample
from bertjax.drift.settings import MOST_REQUESTS
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from bertjax.serving.engine import Engine
from bertjax.serving.heads import answers, choices, classes, tags, vectors
from bertjax.serving.observation import describe
from bertjax.serving.problems import VALIDATION, RefusedError
from bertjax.serving.sampling import SAMPLED, SampledCall
from bertjax.serving.served import Served
from bertjax.serving.settings import ServeConfig
from bertjax.serving.threads import Threads

# Texts that are asked at a time.
TOGETHER = 64

# A place for messages, and the texts of a request: one, a pair, a question and its context, a
# context and its choices.
Request = tuple[str, tuple[str, ...]]

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
    requests: Sequence[Request],
    source: str,
    *,
    name: str,
    max_length: int,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Sample:
    """Asks a model the texts of a file, as a server would.

    Args:
        model: that is served.
        requests: any number; of many a random sample is asked.
        source: what they are, for messages.
        name: of the model on the server.
        max_length: tokens of a text, at most, as on the server.
        seed: of the sample.
        progress: is called with the number of texts done since the call before, of
            `count_asked(requests)`.

    Raises:
        UserError: the model refuses a text.
    """
    drawn = np.random.default_rng(seed).permutation(len(requests))[:MOST_REQUESTS]
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

        async def describe_all() -> list[dict[str, Any]]:
            turn = asyncio.Semaphore(TOGETHER)
            return await asyncio.gather(*(describe_one(requests[number], turn) for number in drawn))

        lines = asyncio.run(describe_all())
        fingerprint = served.fingerprint
    return Sample(source, name, fingerprint, len(requests), None, None, lines)


def count_asked(requests: Sequence[Request]) -> int:
    """Returns how many of the requests are asked."""
    return min(len(requests), MOST_REQUESTS)
