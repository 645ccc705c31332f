"""Why a served model answers as it does: explanations of answers, and attention maps.

Both are computed in a thread of their own, a text at a time; every piece of device work waits for
its turn in the queue, and takes no longer than a batch, so that requests pass in between.
"""

import asyncio
import concurrent.futures
import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from bertjax.analysis.capture.encoding import EncodedText, encode_texts
from bertjax.analysis.capture.maps import Captured, capture
from bertjax.analysis.capture.selection import Selection, select
from bertjax.analysis.explain.attribution import METHODS, Method
from bertjax.analysis.explain.explanation import Explanation, explain
from bertjax.analysis.explain.named_targets import choose_targets
from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.inference.batches import taking_turns
from bertjax.inference.shapes import Shapes
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.naming import name_arguments
from bertjax.program.wording import with_article
from bertjax.serving.engine import Engine, OverloadedError
from bertjax.serving.problems import BACKEND, TOO_LARGE, VALIDATION, RefusedError
from bertjax.text.given_texts import Text

Result = TypeVar("Result")

# Calls that may wait for the one that is computed: each costs as much as some hundred texts.
MOST_WAITING = 8
# Answers to one text that are explained: a tagger gives one for every word that has a tag.
MOST_ANSWERS = 8
# Characters of a text for each token that it may have; more are not even tokenized.
MOST_CHARACTERS = 100
# What a call that waits costs, before any has been measured, in seconds.
FIRST_GUESS = 1.0


class Explained(NamedTuple):
    """A text whose answers are explained.

    Attributes:
        encoded: the text.
        explanations: of its answers.
        left_out: answers beyond `MOST_ANSWERS`.
    """

    encoded: EncodedText
    explanations: list[Explanation]
    left_out: int


class Explainer:
    """Explains the answers of a model, and gives its attention.

    Args:
        model: that is served, on the device, with the tokenizer that its calls use.
        engine: whose device it shares.
        device: that computes.
        max_tokens: of a text, special tokens included.
    """

    def __init__(self, model: Model, engine: Engine, device: jax.Device, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._model = model
        self._body = self._model.as_architecture(BODY)
        self._engine, self._device = engine, device
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "explaining")
        self._waiting, self._seconds = 0, FIRST_GUESS

    @property
    def explains(self) -> bool:
        """Returns whether the model answers anything that can be explained."""
        return self._model.kind != BODY

    async def explain(
        self,
        text: Text,
        answer: str | None = None,
        word: str | None = None,
        methods: Sequence[Method] = METHODS[:1],
        start: int | None = None,
    ) -> Explained:
        """Explains what the model answers to a text, or the answer that is named.

        Args:
            text: or a pair of texts.
            answer, word: see `choose_targets`.
            methods: any of `METHODS`.
            start: in place of `word` a character of it, as tags have it.

        Raises:
            RefusedError: a text that is too long or asks the model nothing, or no such answer.
            OverloadedError: too many calls wait.
        """
        if not self.explains:
            raise RefusedError(
                BACKEND,
                f"{with_article(self._model.architecture)} has no head, so that it answers"
                " nothing that could be explained; /attention takes any model",
            )

        def compute() -> Explained:
            encoded = self._encode(text)
            place = word if start is None else _word_at(encoded, start)
            targets = choose_targets(self._model, encoded, answer, place)
            chosen = targets[:MOST_ANSWERS]
            explanations = [explain(self._model, encoded, one, methods) for one in chosen]
            return Explained(encoded, explanations, len(targets) - len(chosen))

        return await self._run(compute)

    async def attention(
        self,
        text: Text,
        layers: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        *,
        words: bool = True,
        most_numbers: int | None = None,
    ) -> tuple[Captured, Selection]:
        """Returns the attention of the layers and heads that are named, or of all.

        Args:
            text: or a pair of texts.
            layers, heads: their numbers.
            words: whether maps are between words, not tokens.
            most_numbers: of all maps together; any when left out.

        Raises:
            RefusedError: a text that is too long, no such layer or head, or too many numbers.
            OverloadedError: too many calls wait.
        """

        def compute() -> tuple[Captured, Selection]:
            chosen = select(self._model.config, layers, heads, words=words)
            encoded = self._encode(text)
            units = len(encoded.words if words else encoded.tokens)
            numbers = len(chosen.layers) * len(chosen.heads) * units**2
            if most_numbers is not None and numbers > most_numbers:
                raise RefusedError(
                    TOO_LARGE,
                    f"{len(chosen.layers)} layers of {len(chosen.heads)} heads between {units}"
                    f" {'words' if words else 'tokens'} are {numbers:,} numbers, and a call may"
                    f" have {most_numbers:,}: name fewer `layers` or `heads`, or ask for"
                    ' "encoding": "base64"',
                )
            [captured] = capture(self._body, [encoded])
            return chosen.apply(captured), chosen

        return await self._run(compute)

    def _encode(self, text: Text) -> EncodedText:
        model, most = self._model, self.max_tokens
        characters = sum(map(len, [text] if isinstance(text, str) else text))
        if characters > MOST_CHARACTERS * most:
            raise self._too_long(f"{characters:,} characters")
        [encoded] = encode_texts(
            model.tokenizer, [text], 1 << 30, places=["`inputs`"], masks=model.restores_words
        )
        if len(encoded.tokens) > most:
            raise self._too_long(f"{len(encoded.tokens):,} tokens, special tokens included")
        if isinstance(text, tuple) and not self._model.config.takes_pairs:
            raise RefusedError(VALIDATION, "`inputs` is a pair, and the model takes one text")
        return encoded

    def _too_long(self, what: str) -> RefusedError:
        return RefusedError(
            TOO_LARGE,
            f"`inputs` has {what}, and what is explained may have {self.max_tokens} tokens"
            " (--explain-max-tokens); shorten it",
        )

    async def _run(self, compute: Callable[[], Result]) -> Result:
        """Runs it in the thread, its device work in turns; a call that is cancelled ends soon."""
        if self._waiting > MOST_WAITING:
            raise OverloadedError(self._waiting * self._seconds)
        loop = asyncio.get_running_loop()
        is_gone, under_way = threading.Event(), set()

        def turn(work: Callable[[], Any]) -> Any:
            future = asyncio.run_coroutine_threadsafe(self._engine.call(work), loop)
            under_way.add(future)
            if is_gone.is_set():
                future.cancel()
            try:
                return future.result()
            finally:
                under_way.discard(future)

        def work() -> Result:
            try:
                with taking_turns(turn):
                    return compute()
            except UserError as error:
                raise RefusedError(VALIDATION, name_arguments(str(error))) from None

        self._waiting += 1
        began = loop.time()
        try:
            result = await loop.run_in_executor(self._thread, work)
            self._seconds += 0.2 * (loop.time() - began - self._seconds)
            return result
        finally:
            self._waiting -= 1
            is_gone.set()
            for future in tuple(under_way):
                future.cancel()

    @property
    def lengths(self) -> tuple[int, ...]:
        """Returns the tokens of the rows that any call can need."""
        shapes = Shapes(self._model.config.max_length, lambda length: 1, between=False)
        used = itertools.takewhile(
            lambda length: length < self.max_tokens, sorted({shape.length for shape in shapes})
        )
        return tuple(sorted({*used, shapes.length_for(self.max_tokens)}))

    def warm_up(self, progress: Callable[[int], None] = lambda done: None) -> None:
        """Compiles whatever a call can need: it explains a text of every length."""
        with jax.default_device(self._device):
            for length in self.lengths:
                encoded = _text_of_masks(self._model, length)
                list(capture(self._body, [encoded]))
                if self.explains:
                    word = 1 if "tag" in ARCHITECTURES[self._model.architecture].outputs else None
                    for named in choose_targets(self._model, encoded, word=word)[:2]:
                        # The other methods have nothing to compile beside these.
                        explain(self._model, encoded, named, [METHODS[0], "relevance"])
                progress(1)


def _text_of_masks(model: Model, length: int) -> EncodedText:
    """Returns a text of so many tokens, a pair where the model takes one, all words masked."""
    tokenizer = model.tokenizer
    words = np.full(length - tokenizer.frame.size(pair=True), tokenizer.mask_id)
    first, second = np.array_split(words, 2)
    ids = np.concatenate(tokenizer.frame.parts(first, second))
    special = ids != tokenizer.mask_id
    types = (np.arange(length) >= tokenizer.frame.starts((len(first), 0))[1]).astype(np.int64)
    names = tuple(map(tokenizer.spell, ids))
    is_pair = model.config.takes_pairs
    return EncodedText(
        ids, types if is_pair else np.zeros_like(types), np.zeros((length, 2), np.int64), special,
        np.arange(length), names, names, 0, 0,
    )  # fmt: skip


def _word_at(encoded: EncodedText, start: int) -> int:
    """Returns the number of the word that has a character of the first text."""
    for number, word in enumerate(spans(encoded)):
        if word["text"] == 0 and not word["special"] and word["start"] <= start < word["end"]:
            return number
    raise RefusedError(VALIDATION, f"`start` {start}: no word of the text has this character")


def spans(encoded: EncodedText) -> list[dict[str, Any]]:
    """Returns the words of a text and where they stand: the characters of text 0 or 1."""
    firsts = encoded.first_tokens
    lasts = [*(firsts[1:] - 1), len(encoded.tokens) - 1]
    found = []
    for word, first, last, special in zip(
        encoded.words, firsts, lasts, encoded.special_words, strict=True
    ):
        found.append(
            {
                "word": word,
                "text": int(encoded.token_type_ids[first]),
                "start": int(encoded.offsets[first, 0]),
                "end": int(encoded.offsets[last, 1]),
                "special": bool(special),
            }
        )
    return found
