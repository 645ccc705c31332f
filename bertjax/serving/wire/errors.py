"""A refusal in the form that the client of a route reads."""

from starlette.responses import Response

from bertjax.serving.problems import RefusedError
from bertjax.serving.wire.answers import answer

# Of a message.
MOST_CHARACTERS = 2000
# Routes of OpenAI's form, and vLLM's, which takes it over.
OPENAI_ROUTES = ("/v1/", "/v2/", "/classify", "/score", "/embeddings")


def error_response(path: str, problem: RefusedError) -> Response:
    """Returns the answer that refuses a call.

    Source: text-embeddings-inference, `ErrorResponse` and `OpenAICompatErrorResponse`.
    """
    kind, message = problem.kind, problem.message
    if len(message) > MOST_CHARACTERS:  # it repeats what was sent; the way out is at its end
        half = MOST_CHARACTERS // 2
        message = f"{message[:half]} ... {message[-half:]}"
    if path.startswith(OPENAI_ROUTES):
        body = {"message": message, "code": kind.status, "type": kind.name}
    else:
        body = {"error": message, "error_type": kind.name}
    return answer(body, kind.status, problem.headers)
