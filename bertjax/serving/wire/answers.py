"""Answers as JSON."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an answer; arrays of numpy become lists, float32 in the digits that it has."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")
