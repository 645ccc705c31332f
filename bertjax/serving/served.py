"""A model that is served: texts in, arrays out, whatever the wire format of the call."""

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Float

from bertjax.architectures import ARCHITECTURES
from bertjax.inference.embedding import choose_steps
from bertjax.inference.task_outputs import BATCH_TOKENS, CPU_BATCH_TOKENS
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.serving.engine import Engine
from bertjax.serving.problems import BACKEND, TOO_LARGE, RefusedError
from bertjax.serving.programs import Asked, Program, Running, make_program
from bertjax.serving.settings import ServeConfig
from bertjax.text.framing import TokenSequence, frame

Result = TypeVar("Result")
Direction = Literal["Right", "Left"]

# What a class of model is served as, besides vectors.
OUTPUTS = ("class", "tag", "span", "choice", "token", "next-sentence")


class Spent(NamedTuple):
    """What a call has cost so far: characters, tokens, and seconds by what they were spent on."""

    characters: int = 0
    tokens: int = 0
    tokenization: float = 0.0
    queue: float = 0.0
    inference: float = 0.0

    def add(self, other: "Spent") -> "Spent":
        """Returns the sum of both."""
        return Spent(*(mine + its for mine, its in zip(self, other, strict=True)))


# Of the call that is being answered.
SPENT: contextvars.ContextVar[list[Spent]] = contextvars.ContextVar("spent")


class Served:
    """A model, its compiled programs, and what they run on.

    Args:
        name: by which calls name it.
        model: on any device.
        engine: that runs its programs.
        threads: that tokenize.
        config: of the server.
        devices: that run it.
        before: a model that this one takes the place of; what it has compiled is used again where
            the two are alike.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        engine: Engine,
        threads: Executor,
        config: ServeConfig,
        devices: tuple[jax.Device, ...],
        before: "Served | None" = None,
    ) -> None:
        self.name, self.model, self.config = name, model, config
        self._engine, self._threads = engine, threads
        self.steps = choose_steps(model)
        self.tokenizer = model.tokenizer.lowercased() if self.steps.lowercase else model.tokenizer
        positions = self.steps.max_length or model.config.max_position_embeddings
        self.max_length = min(config.max_input_length or positions, positions)
        usual = CPU_BATCH_TOKENS if devices[0].platform == "cpu" else BATCH_TOKENS
        batch_tokens = max(config.max_batch_tokens or usual, self.max_length)
        self.running = Running(devices, batch_tokens, self.max_length)
        outputs = ARCHITECTURES[model.architecture].outputs
        names = ["span" if name == "start" else name for name in outputs if name != "end"]
        names = [name for name in names if name in OUTPUTS]
        if "hidden" in outputs or "token" in outputs:
            names += ["vector", "hidden"]
        self.programs: dict[str, Program] = {
            name: make_program(
                name,
                model,
                self.running,
                self.steps.pooling,
                before and before.programs.get(name),
            )
            for name in names
        }

    def warm_up(self) -> None:
        """Compiles whatever a call can need of it."""
        for program in self.programs.values():
            program.warm_up()

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns the names of its classes."""
        return tuple(self.model.config.id2label or ())

    async def encode(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Runs what tokenizes outside the event loop."""
        began = time.perf_counter()
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._threads, functools.partial(function, *arguments))
        spend(Spent(tokenization=time.perf_counter() - began))
        return result

    async def run(self, program: str, asked: Sequence[Asked]) -> list[np.ndarray]:
        """Runs one of its programs on sequences.

        Raises:
            RefusedError: the model has no such output.
        """
        if program not in self.programs:
            raise RefusedError(
                BACKEND,
                f"the model {self.name} ({self.model.architecture}) has no output {program!r}; it"
                f" has {', '.join(self.programs)}",
            )
        ran = await self._engine.run(self.programs[program], asked)
        tokens = sum(one.length for one in asked)
        spend(Spent(tokens=tokens, queue=ran.queued, inference=ran.computed))
        if not all(np.isfinite(output).all() for output in ran.outputs):
            raise RefusedError(BACKEND, "the model's output is not finite; `bertjax verify` it")
        return ran.outputs

    async def run_texts(
        self,
        program: str,
        texts: Sequence[tuple[str, str | None]],
        truncate: bool | None = None,
        direction: Direction = "Right",
    ) -> list[np.ndarray]:
        """Runs one of its programs on texts or pairs of texts.

        Raises:
            RefusedError: see `run` and `frame_texts`.
        """
        spend(Spent(characters=sum(len(one) for pair in texts for one in pair if one)))
        sequences = await self.encode(self.frame_texts, texts, truncate, direction)
        return await self.run(program, [Asked(sequence) for sequence in sequences])

    async def embed(
        self,
        texts: Sequence[str],
        *,
        normalize: bool | None = None,
        truncate: bool | None = None,
        direction: Direction = "Right",
        prompt: str | None = None,
    ) -> Float[np.ndarray, "texts D"]:
        """Returns a vector for each text, float32.

        Args:
            texts: at least one.
            normalize: whether vectors are scaled to length 1; as the directory says when left out.
            truncate: whether texts that are too long are cut; as the server's setting says when
                left out.
            direction: the end that is cut.
            prompt: what is put before every text; what the directory says when left out.
        """
        prompt = self.steps.prompt if prompt is None else prompt
        pairs = [(prompt + text, None) for text in texts]
        vectors = np.stack(await self.run_texts("vector", pairs, truncate, direction))
        steps = self.steps if normalize is None else choose_steps(self.model, None, normalize)
        for step in steps.after:
            vectors = step(vectors)
        return vectors.astype(np.float32)

    def frame_texts(
        self,
        texts: Sequence[tuple[str, str | None]],
        truncate: bool | None = None,
        direction: Direction = "Right",
    ) -> list[TokenSequence]:
        """Frames texts or pairs of texts, cut where they are too long and may be.

        Raises:
            RefusedError: one is too long and may not be cut.
        """
        cuts = self.config.auto_truncate if truncate is None else truncate
        firsts = self.tokenizer.encode_batch([first for first, _ in texts])
        seconds = self.tokenizer.encode_batch([second or "" for _, second in texts])
        framed = []
        for number, ((_, second), a, b) in enumerate(zip(texts, firsts, seconds, strict=True)):
            room = self.max_length - (2 if second is None else 3)
            length = len(a) + (0 if second is None else len(b))
            if length > room and not cuts:
                raise RefusedError(
                    TOO_LARGE,
                    f"inputs[{number}] must have at most {self.max_length} tokens, special tokens"
                    f" included; it has {length + self.max_length - room}: shorten it, or send"
                    ' "truncate": true',
                )
            if direction == "Left" and second is None:
                a = a[-room:]
            framed.append(frame(self.tokenizer, a, None if second is None else b, self.max_length))
        return [sequence for sequence, _ in framed]


def spend(more: Spent) -> None:
    """Adds to what the call costs."""
    spent = SPENT.get(None)
    if spent is not None:
        spent[0] = spent[0].add(more)


def check_is_served(model: Model) -> None:
    """Raises a `UserError` where the class of the model has no output that is served."""
    if not ARCHITECTURES[model.architecture].outputs:
        raise UserError(f"{model.directory}: {model.architecture} has no output to serve")
