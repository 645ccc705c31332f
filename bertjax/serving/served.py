"""A model that is served: texts in, arrays out, whatever the wire format of the call."""

import contextvars
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np

from bertjax.architectures import ARCHITECTURES, BODY, classes_of
from bertjax.inference.embedding import choose_steps
from bertjax.inference.task_outputs import BATCH_TOKENS, CPU_BATCH_TOKENS, NOT_FINITE
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.serving.engine import Engine
from bertjax.serving.explaining import Explainer
from bertjax.serving.problems import BACKEND, TOO_LARGE, VALIDATION, RefusedError
from bertjax.serving.programs import Asked, Program, Running, make_program, put_on
from bertjax.serving.sampling import SAMPLED, fingerprint_model, make_projection
from bertjax.serving.settings import ServeConfig
from bertjax.serving.threads import Threads
from bertjax.text.framing import TokenSequence, frame

Result = TypeVar("Result")
Direction = Literal["Right", "Left"]

# What a class of model is served as, besides vectors.
OUTPUTS = ("class", "tag", "span", "choice", "token", "next-sentence")


class Cut(NamedTuple):
    """How texts that are too long are cut.

    Attributes:
        truncate: whether they are, not refused; as the server's setting says where it is None.
        direction: the end that is cut.
        max_length: tokens of a text at most, if fewer than the model takes.
        only_first: of a pair the first text alone is cut.
        field: of the call that has the texts, for messages.
    """

    truncate: bool | None = None
    direction: Direction = "Right"
    max_length: int | None = None
    only_first: bool = False
    field: str = "inputs"


AS_CONFIGURED = Cut()

# A text and its second one, None where it has none; or token ids, framed.
Input = tuple[str, str | None] | list[int]


class Spent(NamedTuple):
    """What a call has cost so far: characters, tokens, texts that were cut, and seconds."""

    characters: int = 0
    tokens: int = 0
    truncated: int = 0
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
        threads: that tokenize and write answers.
        config: of the server.
        devices: that run it.
        before: a model that this one takes the place of; what it has compiled is used again where
            the two are alike.
        observed: whether calls may be logged (`SAMPLED`).

    Attributes:
        fingerprint: of the model, where calls may be logged.

    Raises:
        UserError: an exported model answers nothing that is served.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        engine: Engine,
        threads: Threads,
        config: ServeConfig,
        devices: tuple[jax.Device, ...],
        before: "Served | None" = None,
        observed: bool = False,
    ) -> None:
        self.name, self.model, self.config = name, model, config
        self.fingerprint = fingerprint_model(model) if observed else None
        self._engine, self._threads = engine, threads
        self.steps = choose_steps(model)
        self.tokenizer = model.tokenizer.lowercased() if self.steps.lowercase else model.tokenizer
        if self.tokenizer.vocab_size > model.config.vocab_size:
            told = self.tokenizer.describe_other_size(model.config.vocab_size)
            raise UserError(f"{model.directory or name}: {told}")
        positions = self.steps.max_length or model.config.max_length
        self.max_length = min(config.max_input_length or positions, positions)
        usual = CPU_BATCH_TOKENS if devices[0].platform == "cpu" else BATCH_TOKENS
        batch_tokens = max(config.max_batch_tokens or usual, self.max_length)
        self.running = Running(batch_tokens, self.max_length)
        # The parameters are on each device once, whatever is computed of them.
        models = put_on(devices, model.replace(tokenizer=self.tokenizer))
        outputs = ARCHITECTURES[model.architecture].outputs
        names = ["span" if name == "start" else name for name in outputs if name != "end"]
        names = [name for name in names if name in OUTPUTS]
        gives_hidden = "hidden" in outputs or not model.is_exported
        if "hidden" in outputs or ("token" in outputs and gives_hidden):
            names += ["vector", "hidden"]
        if model.is_exported and not names:
            raise UserError(
                f"{model.directory}: an exported {model.architecture} answers nothing that a server"
                " is asked; for its vectors export the model with --architecture"
                f" {classes_of(model.config)[BODY].name}"
            )
        # An exported model with a head gives no hidden states to sketch.
        self._sketches = self.fingerprint is not None and gives_hidden
        projection = None
        if self._sketches:
            projection = make_projection(self.fingerprint, model.config.hidden_size)
        self.programs: dict[str, Program] = {
            name: make_program(
                name,
                models,
                self.running,
                self.steps.pooling,
                before and before.programs.get(name),
                projection,
            )
            for name in names
        }
        self.explainer: Explainer | None = None
        if config.explain and not model.is_exported:
            longest = min(config.explain_max_tokens, self.max_length)
            self.explainer = Explainer(models[devices[0]], engine, devices[0], longest)

    @property
    def shapes(self) -> int:
        """Returns what `warm_up` counts to."""
        lengths = self.explainer.lengths if self.explainer else ()
        return sum(len(program.shapes) for program in self.programs.values()) + len(lengths)

    def warm_up(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Compiles whatever a call can need of it.

        Args:
            progress: is called with the number of shapes done since the call before.
        """
        for program in self.programs.values():
            program.warm_up(progress)
        if self.explainer:
            self.explainer.warm_up(progress)

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns the names of its classes."""
        return tuple(self.model.config.id2label or ())

    def check_has(self, *programs: str) -> None:
        """Raises a `RefusedError` where the model has none of these outputs."""
        if not any(program in self.programs for program in programs):
            of_body = classes_of(self.model.config)[BODY].name
            raise RefusedError(
                BACKEND,
                f"the model {self.name} ({self.model.architecture}) has no output"
                f" {' or '.join(programs)}; it has {', '.join(self.programs)}"
                + f"; vectors are exported with --architecture {of_body}"
                * (self.model.is_exported and "vector" in programs),
            )

    async def offload(self, function: Callable[..., Result], *arguments: Any, size: int) -> Result:
        """Runs what takes a processor's time outside the event loop; see `Threads.run`."""
        return await self._threads.run(function, *arguments, size=size)

    async def encode(self, function: Callable[..., Result], *arguments: Any, size: int) -> Result:
        """Runs what tokenizes so many characters, or tokens, outside the event loop."""
        began = time.perf_counter()
        result = await self.offload(function, *arguments, size=size)
        spend(Spent(tokenization=time.perf_counter() - began))
        return result

    def check_room(self, sequences: int) -> None:
        """Raises a `RefusedError` where a call has more sequences than may ever wait."""
        if sequences > self.config.max_concurrent_requests:
            raise RefusedError(
                TOO_LARGE,
                f"the texts are {sequences:,} sequences for the model, and"
                f" {self.config.max_concurrent_requests:,} may wait (--max-concurrent-requests):"
                " shorten them, or send fewer",
            )

    async def run(self, program: str, asked: Sequence[Asked]) -> list[np.ndarray]:
        """Runs one of its programs on sequences.

        Raises:
            RefusedError: the model has no such output.
        """
        self.check_has(program)
        self.check_room(len(asked))
        ran = await self._engine.run(self.programs[program], asked)
        tokens = sum(one.length for one in asked)
        spend(Spent(tokens=tokens, queue=ran.queued, inference=ran.computed))
        outputs, sketches = ran.outputs, [None] * len(asked)
        if self._sketches:
            outputs = [one.output for one in ran.outputs]
            sketches = [one.sketch for one in ran.outputs]
        if not all(np.isfinite(output).all() for output in outputs):
            raise RefusedError(BACKEND, NOT_FINITE)
        if self.fingerprint and (sampled := SAMPLED.get()):
            sampled.observe(self, program, asked, outputs, sketches)
        return outputs

    async def run_texts(
        self, program: str, inputs: Sequence[Input], cut: Cut = AS_CONFIGURED
    ) -> list[np.ndarray]:
        """Runs one of its programs on texts, pairs of texts, or token ids.

        Raises:
            RefusedError: see `run` and `frame_inputs`.
        """
        self.check_has(program)
        self.check_room(len(inputs))
        sequences = await self.encode(self.frame_inputs, inputs, cut, size=count_symbols(inputs))
        asked = [
            Asked(sequence, text=as_texts(one) if isinstance(one, tuple) else None)
            for one, sequence in zip(inputs, sequences, strict=True)
        ]
        return await self.run(program, asked)

    def frame_inputs(self, inputs: Sequence[Input], cut: Cut) -> list[TokenSequence]:
        """Frames texts and pairs of texts, cut where they are too long and may be.

        Token ids are framed already, as /tokenize returns them.

        Raises:
            RefusedError: one is too long and may not be cut, or an id is none of the model's.
        """
        texts = [one for one in inputs if isinstance(one, tuple)]
        spend(Spent(characters=sum(len(part) for pair in texts for part in pair if part)))
        firsts = iter(self.tokenizer.encode_batch([first for first, _ in texts]))
        seconds = iter(self.tokenizer.encode_batch([second or "" for _, second in texts]))
        most = min(cut.max_length or self.max_length, self.max_length)
        sequences, shortened = [], 0
        for number, one in enumerate(inputs):
            if isinstance(one, tuple):
                first, second = next(firsts), next(seconds)
                if one[1] is not None and not self.model.config.takes_pairs:
                    raise RefusedError(
                        BACKEND,
                        f"the model {self.name} has one token type and takes no pairs of texts",
                    )
                special = self.tokenizer.frame.size(pair=one[1] is not None)
                length = len(first) + special + (0 if one[1] is None else len(second))
            else:
                self.check_ids(one)
                length = len(one)
            place = cut.field if len(inputs) == 1 else f"{cut.field}[{number}]"
            is_pair = isinstance(one, tuple) and one[1] is not None
            least = self.tokenizer.frame.size(is_pair)
            if most < least:
                raise RefusedError(
                    VALIDATION,
                    f"{place} may have {most} tokens, and its special tokens are {least}; allow"
                    " more",
                )
            if cut.only_first and length - len(first) >= most:
                raise RefusedError(
                    TOO_LARGE,
                    f"{place}: {one[1]!r} has {len(second)} tokens, and leaves the text beside it"
                    f" no room in {most}; shorten it",
                )
            if length > most and not self.cuts(cut):
                raise RefusedError(
                    TOO_LARGE,
                    f"{place} must have at most {most} tokens, special tokens included; it has"
                    f' {length}: shorten it, or send "truncate": true',
                )
            shortened += length > most
            if isinstance(one, tuple):
                sequence = self._frame(first, None if one[1] is None else second, most, cut)
            else:
                ids = np.array(one[-most:] if cut.direction == "Left" else one[:most], np.int32)
                sequence = TokenSequence(ids, len(ids))
            sequences.append(sequence)
        spend(Spent(truncated=shortened))
        return sequences

    def cuts(self, cut: Cut) -> bool:
        """Returns whether texts that are too long are cut."""
        return self.config.auto_truncate if cut.truncate is None else cut.truncate

    def check_ids(self, ids: Sequence[int]) -> None:
        """Raises a `RefusedError` where an id is none of the vocabulary's."""
        size = self.model.config.vocab_size
        if wrong := [id for id in ids if not 0 <= id < size]:
            raise RefusedError(VALIDATION, f"token id {wrong[0]} is not one of 0 to {size - 1}")

    def _frame(
        self, first: np.ndarray, second: np.ndarray | None, most: int, cut: Cut
    ) -> TokenSequence:
        of = self.tokenizer.frame
        if cut.only_first and second is not None:
            first = first[: most - of.size(pair=True) - len(second)]
        if cut.direction == "Left":  # the ends are what is cut
            first, second = first[::-1], None if second is None else second[::-1]
        (ids, start), _ = frame(self.tokenizer, first, second, most)
        if cut.direction == "Left":
            ends = [len(ids) - len(of.after)]
            if second is not None:
                ends = [start - len(of.between), *ends]
            for begin, end in zip((len(of.before), start), ends, strict=False):
                ids[begin:end] = ids[begin:end][::-1]
        return TokenSequence(ids, start)


def count_symbols(inputs: Sequence[Input]) -> int:
    """Returns the characters of texts and pairs, and the tokens of those that are token ids."""
    return sum(
        sum(len(part or "") for part in one) if isinstance(one, tuple) else len(one)
        for one in inputs
    )


def as_texts(pair: tuple[str, str | None]) -> tuple[str, ...]:
    """Returns the texts that there are of a text and its second one."""
    return tuple(part for part in pair if part is not None)


def spend(more: Spent) -> None:
    """Adds to what the call costs."""
    spent = SPENT.get(None)
    if spent is not None:
        spent[0] = spent[0].add(more)


def tokens_spent() -> int:
    """Returns the tokens of the call that is being answered."""
    spent = SPENT.get(None)
    return spent[0].tokens if spent else 0
