"""The routes of text-embeddings-inference.

Source: text-embeddings-inference 1.9, docs/openapi.json and router/src/http.
"""

from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bertjax.serving.problems import EMPTY, VALIDATION, RefusedError
from bertjax.serving.server import Server
from bertjax.serving.wire.answers import answer

Inputs = str | list[str]


class Call(BaseModel):
    """What calls have in common."""

    model_config = ConfigDict(extra="forbid")
    truncate: bool | None = None
    truncation_direction: Literal["Left", "Right"] = "Right"


class EmbedCall(Call):
    """A call of /embed."""

    inputs: Annotated[Inputs, Field(examples=[["a cat sat", "a dog ran"]])]
    normalize: bool = True
    prompt_name: str | None = None
    dimensions: int | None = None


class PredictCall(Call):
    """A call of /predict: a text, a pair, or a list of lists of one text or two."""

    inputs: Annotated[
        str | list[str] | list[list[str]], Field(examples=[[["a good film"], ["a bad film"]]])
    ]
    raw_scores: bool = False


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = APIRouter(tags=["text-embeddings-inference"])

    @router.post("/embed")
    async def embed(call: EmbedCall) -> Response:
        texts = [call.inputs] if isinstance(call.inputs, str) else call.inputs
        if not texts:
            raise RefusedError(EMPTY, "`inputs` cannot be empty")
        server.check_count(len(texts))
        vectors = await server.model().embed(
            texts,
            normalize=call.normalize,
            truncate=call.truncate,
            direction=call.truncation_direction,
        )
        return answer(vectors)

    @router.post("/predict")
    async def predict(call: PredictCall) -> Response:
        inputs = call.inputs
        is_one = isinstance(inputs, str) or all(isinstance(one, str) for one in inputs)
        listed = [[inputs] if isinstance(inputs, str) else inputs] if is_one else inputs
        if not listed or not all(listed):
            raise RefusedError(EMPTY, "`inputs` cannot be empty")
        if any(len(one) > 2 for one in listed):
            raise RefusedError(VALIDATION, "`inputs` must be one text, or a pair of texts")
        server.check_count(len(listed))
        pairs = [(one[0], one[1] if len(one) > 1 else None) for one in listed]
        served = server.model()
        logits = await served.run_texts("class", pairs, call.truncate, call.truncation_direction)
        ranked = [rank(one if call.raw_scores else scores(one), served.labels) for one in logits]
        return answer(ranked[0] if is_one else ranked)

    return router


def scores(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities: softmax of several logits, sigmoid of one."""
    logits = logits.astype(np.float64)
    if len(logits) == 1:
        return 1 / (1 + np.exp(-logits))
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def rank(values: np.ndarray, labels: tuple[str, ...]) -> list[dict[str, object]]:
    """Returns the classes, the likeliest first."""
    order = np.argsort(-values, kind="stable")
    return [{"score": float(values[place]), "label": labels[place]} for place in order]
