"""What the OpenAPI document says of a route: its answer, and examples of a call."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


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
    described = {"responses": {200: {"model": answer, "description": "The answer"}}}
    if named:
        content = {"application/json": {"examples": named}}
        described["openapi_extra"] = {"requestBody": {"content": content}}
    return described
