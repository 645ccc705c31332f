"""Answers as JSON."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import orjson
from starlette.responses import Response

from bertjax.serving.served import Served
from bertjax.serving.threads import LARGE

# Objects of a list that are written at a time.
_TOGETHER = 256


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Returns an answer; arrays of numpy become lists, float32 in the digits that it has."""
    own = dict(headers or {})
    return Response(_dump(value), status, headers=own, media_type="application/json")


async def answer_many(served: Served, value: Any, numbers: int) -> Response:
    """Returns an answer of so many numbers or tokens; if they are many, made in another thread."""
    if numbers < LARGE:
        return answer(value)
    return await served.offload(_answer_in_pieces, value, size=numbers)


def _answer_in_pieces(value: Any) -> Response:
    return Response(b"".join(_pieces(value)), media_type="application/json")


def _pieces(value: Any) -> Iterator[bytes]:
    """Yields the bytes of JSON a little at a time: orjson lets no other thread run meanwhile."""
    if isinstance(value, Mapping):
        for number, (key, part) in enumerate(value.items()):
            yield (b"," if number else b"{") + orjson.dumps(key) + b":"
            yield from _pieces(part)
        yield b"}" if value else b"{}"
    elif _is_nested(value):
        yield from _list_of(map(_pieces, value))
    elif isinstance(value, list) and len(value) > _TOGETHER:
        parts = range(0, len(value), _TOGETHER)
        yield from _list_of([_dump(value[at : at + _TOGETHER])[1:-1]] for at in parts)
    else:
        yield _dump(value)


def _is_nested(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 1 and value.size > LARGE
    return isinstance(value, list) and bool(value) and isinstance(value[0], list | np.ndarray)


def _list_of(parts: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    for number, part in enumerate(parts):
        yield b"," if number else b"["
        yield from part
    yield b"]"


def _dump(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
