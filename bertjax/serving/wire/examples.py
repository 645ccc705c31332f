"""What the OpenAPI document says of a route: its answers, and examples of a call."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


class Refusal(BaseModel):
    """Why a call is refused, as text-embeddings-inference says it."""

    error: str
    error_type: str


class OpenAIRefusal(BaseModel):
    """Why a call is refused, in the form of OpenAI's routes."""

    message: str
    code: int
    type: str


def refusals(kind: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """Returns how FastAPI documents refusals of this form."""
    return {
        "4XX": {"model": kind, "description": "The call is refused; it says why"},
        "5XX": {"model": kind, "description": "The server is starting or ending, or was late"},
    }


def documented(
    answer: type[BaseModel], call: Mapping[str, Any] | None = None, **others: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the arguments by which FastAPI documents a route.

    Args:
        answer: of what kind the answer is.
        call: the body of an example.
        others: of further ones, by their names.
    """
    examples = others if call is None else {"example": call, **others}
    named = {name: {"value": dict(value)} for name, value in examples.items()}
    described: dict[str, Any] = {"responses": {200: {"model": answer, "description": "The answer"}}}
    if named:
        content = {"application/json": {"examples": named}}
        described["openapi_extra"] = {"requestBody": {"content": content}}
    return described
