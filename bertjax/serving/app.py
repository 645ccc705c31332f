"""The application that answers calls, in ASGI."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bertjax import __version__
from bertjax.program.errors import UserError
from bertjax.serving import web_page
from bertjax.serving.edge import Edge, as_problem
from bertjax.serving.engine import ClosingError, OverloadedError
from bertjax.serving.keys import Keys
from bertjax.serving.problems import INTERNAL, VALIDATION, Kind, RefusedError
from bertjax.serving.reference import make_reference
from bertjax.serving.server import Server
from bertjax.serving.wire import explanations, hub, openai, own, tei, vllm
from bertjax.serving.wire.answers import answer
from bertjax.serving.wire.calls import problem_of
from bertjax.serving.wire.errors import error_response


def route_names(server: Server) -> list[str]:
    """Returns the routes of a server, each with its method."""
    return [
        f"{method.upper()} {path}"
        for path, methods in _make_routes(server, None).openapi()["paths"].items()
        for method in methods
    ]


def make_app(
    server: Server, keys: Keys | None = None, warm_up: Callable[[], None] | None = None
) -> Any:
    """Returns the application of a server, in ASGI.

    Args:
        server: what answers.
        keys: of those who may call; everybody may when left out.
        warm_up: is called in a thread at startup in place of the server's own, which it calls.
    """

    def compile_all() -> None:
        with contextlib.suppress(ClosingError):
            (warm_up or server.warm_up)()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        compiling = threading.Thread(target=compile_all, name="warm-up", daemon=True)
        compiling.start()
        yield
        server.is_ending = True
        # A process that ends while XLA compiles is aborted.
        await asyncio.to_thread(compiling.join)
        server.close()

    app = _make_routes(server, lifespan)
    edge = Edge(app, server, keys or Keys())
    if not server.config.cors_allow_origin:
        return edge
    # Outermost: a browser asks for leave without a key, and reads refusals, too.
    return CORSMiddleware(
        edge,
        allow_origins=server.config.cors_allow_origin,
        allow_methods=("GET", "POST"),
        allow_headers=("authorization", "content-type", "x-request-id"),
        expose_headers=("x-request-id", "retry-after"),
    )


def _make_routes(server: Server, lifespan: Any) -> FastAPI:
    """Returns the application with its routes, and what makes an answer of an error."""
    # FastAPI's own pages load their scripts from elsewhere.
    app = FastAPI(
        title="bertjax", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )
    for wire in (tei, openai, vllm, own, explanations, web_page):
        app.include_router(wire.routes(server))

    @app.get("/health", tags=["server"], summary="Whether the server is ready")
    async def health() -> Response:
        server.model()
        return Response()

    async def root(request: Request) -> Response:
        return web_page.page() if web_page.asks_for_page(request) else await health()

    for path, route in {"/health": health, "/ping": health, "/": root}.items():
        app.add_api_route(path, route, methods=["GET", "HEAD"], include_in_schema=False)

    @app.get("/docs", include_in_schema=False)
    async def reference() -> Response:
        return HTMLResponse(make_reference(app.openapi()))

    @app.get("/metrics", tags=["server"], summary="Counters and histograms, for Prometheus")
    async def metrics() -> Response:
        server.metrics.queue_size.set(server.engine.waiting)
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    if server.config.allow_reload:

        @app.post(
            "/models/{name:path}/reload", tags=["server"], summary="Read a model's directory again"
        )
        async def reload(name: str) -> Response:
            served = await asyncio.get_running_loop().run_in_executor(None, server.reload, name)
            model = served.model
            told = {"model": name, "architecture": model.architecture, "notes": model.notes}
            return answer(told)

    app.include_router(hub.routes(server))  # whose /models/NAME takes whatever is left

    async def refuse(request: Request, error: Exception) -> Response:
        problem = error if isinstance(error, RefusedError) else as_problem(error)
        return error_response(request.url.path, problem)

    async def refuse_invalid(request: Request, error: RequestValidationError) -> Response:
        errors = [{**one, "loc": one["loc"][1:]} for one in error.errors()]  # without "body"
        if not errors[0]["loc"] and isinstance(error.body, bytes):
            told = "send JSON, with the header content-type: application/json"
            return error_response(request.url.path, RefusedError(VALIDATION, f"the body: {told}"))
        return error_response(request.url.path, problem_of(errors))

    async def fail(request: Request, error: Exception) -> Response:
        problem = RefusedError(INTERNAL, "an error of the server's own; its log has it")
        return error_response(request.url.path, problem)

    app.add_exception_handler(Exception, fail)

    async def refuse_route(request: Request, error: HTTPException) -> Response:
        method, path = request.method, request.url.path
        problem = RefusedError(
            Kind("Validation", error.status_code),
            f"{method} {path}: {error.detail}; GET /docs lists all routes",
            dict(error.headers or {}),
        )
        return error_response(path, problem)

    app.add_exception_handler(HTTPException, refuse_route)
    for kind in (RefusedError, OverloadedError, ClosingError, UserError):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(RequestValidationError, refuse_invalid)
    return app
