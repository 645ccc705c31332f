"""The page at `/`: a form that fits a model's head, its answer, explanations, attention."""

import functools
import importlib.resources
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from bertjax.analysis.report.assembly import HEAD_SCRIPTS, assemble
from bertjax.architectures import ARCHITECTURES
from bertjax.serving.served import Served
from bertjax.serving.server import Server
from bertjax.serving.wire.answers import answer

# Outputs that have a form, the model's own first; that of vectors is what every encoder has.
FORMS = ("class", "tag", "span", "token", "next-sentence", "choice", "vector")
HEADERS = {
    # The page is one file, and calls the server that it came from.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; script-src"
    " 'unsafe-inline'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "vary": "accept",
}


@functools.cache
def assemble_page() -> str:
    """Assembles the page, which holds nothing of the models: who sees them may need a key."""
    folder = importlib.resources.files("bertjax.serving") / "page"
    own = ("calls.js", "forms.js", "explanation.js", "page.js")
    scripts = [*HEAD_SCRIPTS, *(folder / name for name in own)]
    data = {"shape": [0, 0], "sentences": [], "headFigures": []}
    styles = ["report.css", folder / "page.css"]
    return assemble(folder / "page.html", "bertjax", styles, scripts, data)


def asks_for_page(request: Request) -> bool:
    """Returns whether a browser asks for the page, not a probe for the server's health."""
    return "text/html" in request.headers.get("accept", "")


def page() -> Response:
    """Returns the page."""
    return Response(assemble_page(), media_type="text/html", headers=HEADERS)


def routes(server: Server) -> APIRouter:
    """Returns the route that tells the page what is served."""
    router = APIRouter()

    @router.get("/page/models", include_in_schema=False)
    async def models() -> Response:
        server.model()  # where it is not ready, that is the answer
        return answer([describe(served) for served in server.models.values()])

    return router


def describe(served: Served) -> dict[str, Any]:
    """Returns the forms that fit a model, and what can be seen of its inside."""
    outputs = ARCHITECTURES[served.model.architecture].outputs
    forms = [name for name in FORMS if name in served.programs]
    explainer = served.explainer
    # A masked LM explains words, whatever else it answers: see `choose_targets`.
    explained = "token" if "token" in outputs else forms[0] if forms else None
    return {
        "name": served.name,
        "architecture": served.model.architecture,
        "engine": served.model.engine,
        "dtype": served.model.dtype,
        "forms": forms,
        "explained": explained if explained != "vector" else None,
        "explains": explainer is not None and explainer.explains,
        "attention": explainer is not None,
    }
