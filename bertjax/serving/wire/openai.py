"""The routes of OpenAI's API that have to do with vectors.

Source: OpenAI's API reference, "Embeddings" and "Models"; text-embeddings-inference 1.9.
"""

import base64
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field
from starlette.responses import Response

from bertjax.serving.heads import vectors
from bertjax.serving.served import Cut, tokens_spent
from bertjax.serving.server import Server
from bertjax.serving.wire.answers import answer, answer_many
from bertjax.serving.wire.calls import Call, Inputs, as_list, check_inputs, make_router
from bertjax.serving.wire.examples import OpenAIRefusal, documented


class EmbeddingsCall(Call):
    """Texts, or token ids as /tokenize returns them."""

    input: Inputs
    encoding_format: Annotated[
        Literal["float", "base64"],
        Field(description="base64: of the vector's float32 numbers, little-endian"),
    ] = "float"
    dimensions: Annotated[
        int | None, Field(description="keep so many numbers of each vector, the first ones")
    ] = None
    user: Annotated[str | None, Field(description="is not used")] = None


class Usage(BaseModel):
    """Tokens of the call, special tokens included."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """A vector, scaled to length 1."""

    object: Literal["embedding"]
    embedding: list[float] | str
    index: int


class Embeddings(BaseModel):
    """The vectors of all texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class ServedModel(BaseModel):
    """A model that is served, and what it answers with."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    architecture: str
    outputs: list[str]


class ServedModels(BaseModel):
    """All models that are served."""

    object: Literal["list"]
    data: list[ServedModel]


def usage() -> dict[str, int]:
    """Returns the tokens of the call that is being answered."""
    tokens = tokens_spent()
    return {"prompt_tokens": tokens, "total_tokens": tokens}


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = make_router("OpenAI", OpenAIRefusal)
    created = int(time.time())

    @router.post(
        "/v1/embeddings",
        summary="A vector for each text",
        **documented(Embeddings, {"input": ["a cat sat", "a dog ran"]}),
    )
    @router.post("/embeddings", include_in_schema=False)
    async def embeddings(call: EmbeddingsCall) -> Response:
        inputs = as_list(call.input)
        check_inputs(server, inputs, "input")
        served = server.model(call.model)
        cut = Cut(field="input")
        embedded = await vectors.embed(
            served, inputs, cut, normalize=True, dimensions=call.dimensions
        )
        rows = [*embedded]
        if call.encoding_format == "base64":
            rows = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
        data = [
            {"object": "embedding", "embedding": row, "index": index}
            for index, row in enumerate(rows)
        ]
        found = {"object": "list", "data": data, "model": served.name, "usage": usage()}
        return await answer_many(served, found, embedded.size)

    def describe(name: str) -> dict[str, Any]:
        served = server.model(name)
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "bertjax",
            "architecture": served.model.architecture,
            "outputs": list(served.programs),
        }

    @router.get("/v1/models", summary="The models that are served", **documented(ServedModels))
    @router.get("/models", include_in_schema=False)
    async def models() -> Response:
        return answer({"object": "list", "data": [describe(name) for name in server.models]})

    @router.get(
        "/v1/models/{name:path}", summary="A model that is served", **documented(ServedModel)
    )
    async def model(name: str) -> Response:
        return answer(describe(name))

    return router
