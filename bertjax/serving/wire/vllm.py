"""The routes of vLLM for classifiers and cross-encoders, and Jina's and Cohere's /rerank.

Source: vLLM, vllm/entrypoints/pooling (classify and scoring, protocol.py).
"""

import time
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field, RootModel, model_validator
from starlette.responses import Response

from bertjax.serving.heads import classes
from bertjax.serving.problems import VALIDATION, RefusedError
from bertjax.serving.served import Cut, Served
from bertjax.serving.server import Server
from bertjax.serving.wire import tei
from bertjax.serving.wire.answers import answer
from bertjax.serving.wire.calls import (
    Call,
    Label,
    Strict,
    Texts,
    as_list,
    check_inputs,
    make_router,
)
from bertjax.serving.wire.examples import OpenAIRefusal, documented
from bertjax.serving.wire.openai import Usage, usage


class PoolingCall(Call):
    """What these calls have in common."""

    use_activation: Annotated[bool, Field(description="probabilities, not logits")] = True
    truncate_prompt_tokens: Annotated[
        int | None, Field(ge=-1, description="cut texts to so many tokens; -1 = the model's most")
    ] = None
    user: Annotated[str | None, Field(description="is not used")] = None

    @property
    def activation(self) -> classes.Activation | None:
        """Returns what makes scores of logits; None for what the model says."""
        return None if self.use_activation else "none"

    def cut(self, field: str) -> Cut:
        """Returns how texts that are too long are cut."""
        most = self.truncate_prompt_tokens
        if most is None:
            return Cut(field=field)
        if most in (0, 1, 2, 3):
            raise RefusedError(
                VALIDATION, f"truncate_prompt_tokens={most} must be -1, or 4 at least"
            )
        return Cut(True, max_length=None if most == -1 else most, field=field)


class ClassifyCall(PoolingCall):
    """Texts to classify."""

    input: Texts


class ScoreCall(PoolingCall):
    """Pairs of texts: one and many, or as many on both sides, under any of four names."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    data_1: Texts | None = None
    data_2: Texts | None = None
    label: Label = None

    @model_validator(mode="after")
    def _check_names(self) -> "ScoreCall":
        if {*self.model_fields_set} & SIDES not in ({*names} for names in NAMES):
            raise ValueError(f"give two lists of texts, {', or '.join(map(' and '.join, NAMES))}")
        return self

    @property
    def sides(self) -> dict[str, list[str]]:
        """Returns the texts of both sides by the names of their fields."""
        names = next(names for names in NAMES if names[0] in self.model_fields_set
                     and names[1] in self.model_fields_set)  # fmt: skip
        return {name: as_list(getattr(self, name)) for name in names}


NAMES = (
    ("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")
)  # fmt: skip
SIDES = {name for names in NAMES for name in names}


class Document(Strict):
    """A document."""

    text: str


class RankCall(PoolingCall):
    """A query, and the documents that are ordered by their relevance to it."""

    query: str
    documents: list[str | Document]
    top_n: Annotated[int, Field(ge=0, description="the best so many; 0 = all")] = 0
    return_documents: bool = True
    label: Label = None


class Classified(BaseModel):
    """The likeliest class of a text, and the scores of all in their order."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Scored(BaseModel):
    """The score of a pair."""

    index: int
    object: Literal["score"]
    score: float


class _Listed(BaseModel):
    id: str
    object: Literal["list"]
    created: int
    model: str
    usage: Usage


class ClassifyAnswer(_Listed):
    """The classes of all texts."""

    data: list[Classified]


class ScoreAnswer(_Listed):
    """The scores of all pairs."""

    data: list[Scored]


class Relevance(BaseModel):
    """A document by its number, and its relevance."""

    index: int
    document: Document | None = None
    relevance_score: float


class RerankAnswer(BaseModel):
    """The documents, the most relevant first."""

    id: str
    model: str
    results: list[Relevance]
    usage: Usage


def _listed(kind: str, served: Served, data: list[dict[str, Any]]) -> Response:
    return answer(
        {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": served.name,
            "data": data,
            "usage": usage(),
        }
    )


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = make_router("vLLM", OpenAIRefusal)
    both = make_router("text-embeddings-inference")

    @router.post(
        "/classify",
        summary="The classes of texts",
        **documented(ClassifyAnswer, {"input": ["a good film", "a bad film"]}),
    )
    async def classify(call: ClassifyCall) -> Response:
        texts = as_list(call.input)
        check_inputs(server, texts, "input")
        served = server.model(call.model)
        pairs = [(text, None) for text in texts]
        scores = await classes.classify(served, pairs, call.cut("input"), call.activation)
        data = [
            {
                "index": index,
                "label": served.labels[int(one.argmax())],
                "probs": one,
                "num_classes": len(one),
            }
            for index, one in enumerate(scores)
        ]
        return _listed("classify", served, data)

    @router.post(
        "/v1/score",
        summary="The scores of pairs of texts",
        **documented(ScoreAnswer, {"text_1": "a cat", "text_2": ["cats sit", "dogs run"]}),
    )
    @router.post("/score", include_in_schema=False)
    async def score(call: ScoreCall) -> Response:
        (name, firsts), (other, seconds) = call.sides.items()
        check_inputs(server, firsts, name)
        check_inputs(server, seconds, other)
        if len(firsts) == 1:
            firsts = firsts * len(seconds)
        if len(firsts) != len(seconds):
            raise RefusedError(
                VALIDATION,
                f"{name} has {len(firsts)} texts and {other} {len(seconds)}; give one in {name}, or"
                " as many in both",
            )
        served = server.model(call.model)
        pairs = list(zip(firsts, seconds, strict=True))
        scores = await classes.judge_relevance(
            served, pairs, call.cut(other), label=call.label, activation=call.activation
        )
        data = [
            {"index": index, "object": "score", "score": one} for index, one in enumerate(scores)
        ]
        return _listed("score", served, data)

    async def rerank_documents(call: RankCall) -> Response:
        check_inputs(server, [call.query], "query")
        documents = [one if isinstance(one, str) else one.text for one in call.documents]
        check_inputs(server, documents, "documents")
        served = server.model(call.model)
        scores = await classes.judge_relevance(
            served,
            [(call.query, document) for document in documents],
            call.cut("documents"),
            label=call.label,
            activation=call.activation,
        )
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        results = []
        for index in order[: call.top_n or None]:
            document = {"document": {"text": documents[index]}} if call.return_documents else {}
            results.append({"index": index, **document, "relevance_score": scores[index]})
        return answer(
            {
                "id": f"rerank-{uuid.uuid4().hex}",
                "model": served.name,
                "results": results,
                "usage": usage(),
            }
        )

    @router.post(
        "/v1/rerank",
        summary="Documents by their relevance to a query",
        **documented(RerankAnswer, {"query": "a cat", "documents": ["cats sit", "dogs run"]}),
    )
    @router.post("/v2/rerank", include_in_schema=False)
    async def rerank(call: RankCall) -> Response:
        return await rerank_documents(call)

    @both.post(
        "/rerank",
        summary="Texts by their relevance to a query; with `documents` as vLLM, Jina and Cohere do",
        **documented(
            RootModel[list[tei.Rank] | RerankAnswer],
            {"query": "a cat", "texts": ["cats sit", "dogs run"]},
            documents={"query": "a cat", "documents": ["cats sit", "dogs run"]},
        ),
    )
    async def rerank_either(call: tei.RerankCall | RankCall) -> Response:
        if isinstance(call, RankCall):
            return await rerank_documents(call)
        return answer(await tei.rerank_texts(server, server.model(call.model), call))

    router.include_router(both)
    return router
