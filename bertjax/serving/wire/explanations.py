"""The routes that show why a model answers as it does: /explain and /attention."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from bertjax.analysis.capture.encoding import EncodedText
from bertjax.analysis.capture.maps import Captured
from bertjax.analysis.explain.attribution import METHODS, Method
from bertjax.analysis.explain.explanation import Explanation
from bertjax.analysis.report.maps import store_maps
from bertjax.serving.explaining import Explainer, Text, spans
from bertjax.serving.problems import BACKEND, EMPTY, VALIDATION, RefusedError
from bertjax.serving.served import Served, Spent, spend
from bertjax.serving.server import Server
from bertjax.serving.wire.answers import answer, answer_many
from bertjax.serving.wire.calls import Call, make_router
from bertjax.serving.wire.examples import documented

# Numbers of an answer's maps as JSON: about ten megabytes.
MOST_NUMBERS = 1 << 20

OneText = Annotated[
    str | list[str],
    Field(description="a text, or a list of two: a pair"),
]
Numbers = Annotated[list[int] | None, Field(description="numbers from 0; all when left out")]


class ExplainCall(Call):
    """A text whose answer is explained."""

    inputs: OneText
    answer: Annotated[
        str | None,
        Field(description="a label, tag, word or span; what the model answers when left out"),
    ] = None
    word: Annotated[
        str | None,
        Field(description="of a tagger: the word whose tag is explained, or its number from 1"),
    ] = None
    start: Annotated[
        int | None, Field(description="in place of `word`: a character of it, as tags have it")
    ] = None
    methods: list[Method] = Field(
        min_length=1, max_length=len(METHODS), default_factory=lambda: [METHODS[0]]
    )


class AttentionCall(Call):
    """A text whose attention is wanted."""

    inputs: OneText
    layers: Numbers = None
    heads: Numbers = None
    units: Annotated[
        Literal["words", "tokens"],
        Field(description="to a word: the sum over its tokens; from a word: their mean"),
    ] = "words"
    encoding: Annotated[
        Literal["float", "base64"],
        Field(
            description="base64: of every layer the bytes round(255 sqrt(weight)), [heads, from,"
            " to], a twentieth of the room"
        ),
    ] = "float"


class Word(BaseModel):
    """A word, and its characters in text 0 or 1; the special tokens of its frame are, too."""

    word: str
    text: int
    start: int
    end: int
    special: bool


class ExplainedAnswer(BaseModel):
    """An answer, and what each word adds to it by each method."""

    answer: str
    place: str
    output: str
    value: float
    probability: float | None
    scores: dict[str, list[float]]
    gaps: dict[str, float]


class ExplainAnswer(BaseModel):
    """What was explained; `left_out` further answers were not."""

    model: str
    words: list[Word]
    explanations: list[ExplainedAnswer]
    left_out: int


class AttentionAnswer(BaseModel):
    """Maps [layers][heads][from][to], whose rows sum to 1, or their bytes."""

    model: str
    units: str
    layers: list[int]
    heads: list[int]
    words: list[Word]
    tokens: list[str]
    word_ids: list[int]
    attention: list[list[list[list[float]]]] | dict[str, Any]


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = make_router("bertjax")

    def explainer(name: str | None) -> tuple[Served, Explainer]:
        served = server.model(name)
        if served.model.is_exported:
            raise RefusedError(
                BACKEND,
                f"the model {served.name} is run by {served.model.engine}, which shows nothing of"
                " its inside; serve the model that it was exported from",
            )
        if served.explainer is None:
            raise RefusedError(
                BACKEND, "this server explains nothing; it was started with --no-explain"
            )
        return served, served.explainer

    @router.post(
        "/explain",
        summary="What each word adds to the answer",
        **documented(
            ExplainAnswer,
            {"inputs": "a good film"},
            methods={"inputs": "a good film", "methods": ["rollout", "relevance"]},
        ),
    )
    async def explain(call: ExplainCall) -> Response:
        served, own = explainer(call.model)
        if call.word is not None and call.start is not None:
            raise RefusedError(VALIDATION, "`word` and `start` name the same; send one of them")
        methods = tuple(dict.fromkeys(call.methods))
        text, began = _text(call.inputs), time.perf_counter()
        found = await own.explain(text, call.answer, call.word, methods, call.start)
        _spend(text, found.encoded, began)
        return answer(
            {
                "model": served.name,
                "words": spans(found.encoded),
                "explanations": [_explained(one) for one in found.explanations],
                "left_out": found.left_out,
            }
        )

    @router.post(
        "/attention",
        summary="The attention of layers and heads",
        **documented(
            AttentionAnswer,
            {"inputs": "a cat sat", "layers": [0], "heads": [0]},
            bytes={"inputs": "a cat sat", "units": "tokens", "encoding": "base64"},
        ),
    )
    async def attention(call: AttentionCall) -> Response:
        served, own = explainer(call.model)
        is_packed = call.encoding == "base64"
        text, began = _text(call.inputs), time.perf_counter()
        captured, selection = await own.attention(
            text,
            call.layers,
            call.heads,
            words=call.units == "words",
            most_numbers=None if is_packed else MOST_NUMBERS,
        )
        encoded = captured.encoded
        _spend(text, encoded, began)
        size, maps = captured.probs.size, captured.probs
        if is_packed:
            maps = await served.offload(_packed, captured, size=size)
        return await answer_many(
            served,
            {
                "model": served.name,
                "units": call.units,
                "layers": selection.layers,
                "heads": selection.heads,
                "words": spans(encoded),
                "tokens": encoded.tokens,
                "word_ids": encoded.word_ids,
                "attention": maps,
            },
            size,
        )

    return router


def _text(inputs: str | list[str]) -> Text:
    """Returns a text or a pair, as the library takes them."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not texts or not all(text.strip() for text in texts):
        raise RefusedError(EMPTY, "`inputs` cannot be empty")
    if len(texts) > 2:
        raise RefusedError(
            VALIDATION, f"`inputs` must be one text, or a pair; it is {len(texts)} texts"
        )
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _spend(text: Text, encoded: EncodedText, began: float) -> None:
    """Adds to what the call has cost; the time of its pieces in the queue counts as the model's."""
    characters = sum(map(len, [text] if isinstance(text, str) else text))
    seconds = time.perf_counter() - began
    spend(Spent(characters=characters, tokens=len(encoded.tokens), inference=seconds))


def _packed(captured: Captured) -> dict[str, Any]:
    [stored] = store_maps([captured.probs], 1 << 40)  # all weights, whatever their number
    return stored.to_json()


def _explained(found: Explanation) -> dict[str, Any]:
    first = next(iter(found.attributions.values()))
    return {
        "answer": found.named.answer,
        "place": found.named.place,
        "output": found.named.target.output,
        "value": first.value,
        "probability": found.probability,
        "scores": {name: one.word_scores for name, one in found.attributions.items()},
        "gaps": {name: one.gap for name, one in found.attributions.items() if one.gap is not None},
    }
