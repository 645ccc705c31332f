"""What every call goes through: limits, deadline, headers, counting, the log."""

import asyncio
import contextlib
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.serving.engine import ClosingError, OverloadedError
from bertjax.serving.keys import Keys
from bertjax.serving.problems import (
    BACKEND,
    LATE,
    OVERLOADED,
    SLOW,
    TOO_LARGE,
    UNAUTHORIZED,
    UNHEALTHY,
    UNSUPPORTED,
    RefusedError,
)
from bertjax.serving.sampling import SAMPLED
from bertjax.serving.served import SPENT, Spent
from bertjax.serving.server import Server
from bertjax.serving.wire.errors import error_response

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOG = logging.getLogger("bertjax.serving.access")
ERRORS = logging.getLogger("bertjax.serving.errors")


class Edge:
    """The outermost layer of the application, in ASGI.

    Args:
        app: what it wraps.
        server: what answers.
        keys: of those who may call.
    """

    def __init__(self, app: Any, server: Server, keys: Keys) -> None:
        self._app, self._server, self._keys = app, server, keys
        self._config, self._metrics = server.config, server.metrics

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a call; a client that went away cancels it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        spent = [Spent()]
        SPENT.set(spent)
        call = _Call(scope, send, began, spent, self._server.devices[0].platform)
        log = self._server.log
        sampled = log.sample(call.id) if log else None
        SAMPLED.set(sampled)
        try:
            self._check_key(scope)
            _check_encoding(scope)
            async with asyncio.timeout(self._config.request_timeout):
                body = await self._read_body(receive)
            if self._server.is_ending:
                headers = {"retry-after": "5", "connection": "close"}
                raise RefusedError(UNHEALTHY, "the server is ending", headers)
            failure = await self._answer(scope, receive, call, body)
        except _GoneError:
            failure = "dropped"
        except TimeoutError:
            failure = await call.refuse(
                RefusedError(SLOW, "the body did not arrive in time", {"connection": "close"})
            )
        except RefusedError as problem:
            failure = await call.refuse(problem)
        self._metrics.count_call(call.method, spent[0], time.perf_counter() - began, failure)
        call.log(failure)
        if sampled and failure is None:
            log.put(sampled, call.method)

    def _check_key(self, scope: Message) -> None:
        authorization = dict(scope["headers"]).get(b"authorization", b"")
        if not self._keys.allow(scope["method"], scope["path"], authorization):
            raise RefusedError(
                UNAUTHORIZED,
                "this server needs an API key that it knows, as header `Authorization: Bearer KEY`",
                {"www-authenticate": "Bearer", "connection": "close"},
            )

    async def _read_body(self, receive: Receive) -> bytes:
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            size += len(message.get("body", b""))
            if size > self._config.payload_limit:
                raise RefusedError(
                    TOO_LARGE,
                    f"the body has more than {self._config.payload_limit:,} bytes; send fewer texts"
                    " at once",
                    {"connection": "close"},
                )
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def _answer(
        self, scope: Message, receive: Receive, call: "_Call", body: bytes
    ) -> str | None:
        """Runs the application until it has answered, its client is gone, or it is late."""
        given = False

        async def replay() -> Message:
            nonlocal given
            if given:
                await asyncio.Event().wait()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        # A reload compiles for as long as a start does.
        seconds = None if scope["path"].endswith("/reload") else self._config.request_timeout
        answering = asyncio.create_task(self._app(scope, replay, call.send))
        watching = asyncio.create_task(watch())
        try:
            await asyncio.wait(
                {answering, watching},
                timeout=seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answering.done():
                if isinstance(error := answering.exception(), _GoneError):
                    raise error
                if error:
                    # The client has its answer: the application sends one, then raises.
                    ERRORS.error("%s: %s", call.id, call.method, exc_info=error)
                return call.failure
            if watching.done():
                raise _GoneError
            raise RefusedError(
                LATE,
                f"no answer within {self._config.request_timeout:g} seconds (--request-timeout)",
            )
        finally:
            for task in (answering, watching):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task


class _GoneError(Exception):
    """The client went away."""


class _Call:
    """A call that is being answered."""

    def __init__(
        self, scope: Message, send: Send, began: float, spent: list[Spent], platform: str
    ) -> None:
        self._scope, self._send, self._began, self._spent = scope, send, began, spent
        headers = dict(scope["headers"])
        self.id = headers.get(b"x-request-id", b"").decode("latin-1")[:200] or uuid.uuid4().hex
        self.status, self._platform = 0, platform
        self.failure: str | None = None

    @property
    def method(self) -> str:
        """Returns its route; a path of no route is whatever callers write."""
        return getattr(self._scope.get("route"), "path", "unknown")

    async def send(self, message: Message) -> None:
        """Sends a part of the answer; the first one with the headers of every answer."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = _headers(
                self.id, self._platform, self._spent[0], time.perf_counter() - self._began
            )
            message["headers"] = [*message.get("headers", []), *own]
            if self.status >= 400 and not self.failure:
                self.failure = _REASONS.get(self.status, "validation")
        try:
            await self._send(message)
        except RuntimeError as error:
            if not _IS_CLOSED.search(str(error)):
                raise
            raise _GoneError from None

    async def refuse(self, problem: RefusedError) -> str:
        """Answers with a problem, where nothing has been sent yet."""
        if not self.status:
            response = error_response(self._scope["path"], problem)
            await response(self._scope, _nothing, self.send)
        return self.failure or "inference"

    def log(self, failure: str | None) -> None:
        """Writes the line of the access log, without any text of the call."""
        spent = self._spent[0]
        LOG.info(
            to_json(
                {
                    "time": time.time(),
                    "id": self.id,
                    "method": self._scope["method"],
                    "path": self._scope["path"],
                    "status": self.status or None,
                    "failure": failure,
                    "seconds": round(time.perf_counter() - self._began, 6),
                    **spent._asdict(),
                }
            )
        )


def _check_encoding(scope: Message) -> None:
    encoding = dict(scope["headers"]).get(b"content-encoding", b"identity").decode("latin-1")
    if encoding.lower() != "identity":
        raise RefusedError(
            UNSUPPORTED,
            f"content-encoding: {encoding[:50]}: send the body as it is, without the header",
            {"connection": "close"},
        )


# What uvloop says of a connection that was closed since the answer began.
_IS_CLOSED = re.compile("handler is closed")


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


_REASONS = {
    408: "slow",
    401: "unauthorized",
    413: "batch_size",
    422: "validation",
    424: "model_type",
    429: "overloaded",
    500: "inference",
    503: "unhealthy",
    504: "late",
}


def _headers(id: str, platform: str, spent: Spent, total: float) -> list[tuple[bytes, bytes]]:
    """Returns the headers of an answer; times are in milliseconds.

    Source: text-embeddings-inference, `router/src/http/server.rs`.
    """
    values = {
        "x-request-id": id,
        "x-compute-type": platform,
        "x-compute-time": round(1e3 * total),
        "x-compute-characters": spent.characters,
        "x-compute-tokens": spent.tokens,
        "x-truncated-texts": spent.truncated,
        "x-total-time": round(1e3 * total),
        "x-tokenization-time": round(1e3 * spent.tokenization),
        "x-queue-time": round(1e3 * spent.queue),
        "x-inference-time": round(1e3 * spent.inference),
    }
    return [(name.encode(), str(value).encode("latin-1")) for name, value in values.items()]


def as_problem(error: Exception) -> RefusedError:
    """Returns the problem that an error of the engine, or of the model's files, is."""
    if isinstance(error, UserError):
        return RefusedError(BACKEND, str(error))
    if isinstance(error, OverloadedError):
        seconds = max(1, round(error.seconds))
        return RefusedError(
            OVERLOADED, "the queue is full; try again", {"retry-after": str(seconds)}
        )
    if isinstance(error, ClosingError):
        return RefusedError(UNHEALTHY, "the server is ending", {"retry-after": "5"})
    raise error
