"""What the bodies of calls have in common, and how a part of a call is read by itself."""

import json
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bertjax.serving.problems import EMPTY, VALIDATION, RefusedError
from bertjax.serving.served import Cut
from bertjax.serving.server import Server
from bertjax.serving.wire.examples import Refusal, refusals

TokenIds = list[Annotated[int, Field(ge=0, strict=True)]]
# A text, or the ids of its tokens, special tokens included.
TextOrIds = str | TokenIds
Inputs = TextOrIds | list[TextOrIds]
Texts = str | list[str]

ModelName = Annotated[
    str | None, Field(description="the model that answers; the server's first when left out")
]
Direction = Annotated[
    Literal["Left", "Right"],
    BeforeValidator(lambda value: value.title() if value in ("left", "right") else value),
    Field(description="the end that is cut; in small letters too"),
]
Truncate = Annotated[
    bool | None,
    Field(description="cut texts that are too long; the server's --auto-truncate when left out"),
]
PromptName = Annotated[
    str | None,
    Field(description="what is put before every text: a name in config_sentence_transformers.json"),
]
Label = Annotated[
    str | None,
    Field(description="of a model with several outputs, the one whose score is the relevance"),
]


class _JsonRequest(Request):
    """A request whose body is JSON in UTF-8, without halves of characters."""

    async def json(self) -> Any:
        """Returns the body's value.

        Raises:
            JSONDecodeError: it is not JSON, or an object has a name twice, one of which would have
                no effect.
        """
        body = await self.body()
        value = orjson.loads(body)
        try:  # orjson, which checks the rest, keeps the last one silently
            json.loads(body, object_pairs_hook=_check_names)
        except RecursionError:
            raise json.JSONDecodeError("depth limit exceeded", "", 0) from None
        return value


def _check_names(pairs: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise json.JSONDecodeError(f"an object has the name {twice!r} twice", "", 0)


class _JsonRoute(APIRoute):
    """A route whose calls are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Returns what answers a request."""
        handle = super().get_route_handler()

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json


def make_router(tag: str, refusal: type[BaseModel] = Refusal) -> APIRouter:
    """Returns a router for the routes of one kind of client, which reads refusals of a form."""
    return APIRouter(tags=[tag], route_class=_JsonRoute, responses=refusals(refusal))


class Strict(BaseModel):
    """An object whose fields are all known."""

    model_config = ConfigDict(extra="forbid")


class Call(Strict):
    """A call that names its model."""

    model: ModelName = None


class CutCall(Call):
    """A call that says how its texts are cut."""

    truncate: Truncate = None
    truncation_direction: Direction = "Right"

    def cut(self, field: str = "inputs") -> Cut:
        """Returns how texts that are too long are cut."""
        return Cut(self.truncate, self.truncation_direction, field=field)


Kind = TypeVar("Kind", bound=BaseModel)


def read(kind: type[Kind], value: Mapping[str, Any], where: str = "") -> Kind:
    """Reads a part of a call.

    Args:
        kind: of the part.
        value: as it was sent.
        where: the field that has it, for messages; "" for the call itself.

    Raises:
        RefusedError: it is not of the kind.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise problem_of(error.errors(), where) from None


def problem_of(errors: Sequence[Mapping[str, Any]], where: str = "") -> RefusedError:
    """Returns the problem that pydantic's errors are; the message names the first field."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return RefusedError(VALIDATION, f"the body is not JSON: {first['ctx']['error']}")
    places = [where] if where else []
    # Of a union pydantic names the member that it tried, which is no field.
    places += [str(place) for place in first["loc"] if not _MEMBER.match(str(place))]
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "model_attributes_type":
        message = "must be a JSON object"
    return RefusedError(VALIDATION, f"{'.'.join(places) or 'the body'}: {message}")


_MEMBER = re.compile(
    r"(list|tuple|dict)\[|constrained-|function-|(str|int|nullable)$|[A-Z]\w*Call$"
)


def as_list(texts: Any) -> list[Any]:
    """Returns the texts of a call that may have sent one by itself."""
    is_one = isinstance(texts, str) or (bool(texts) and isinstance(texts[0], int))
    return [texts] if is_one else texts


def check_inputs(server: Server, inputs: Sequence[Any], field: str = "inputs") -> None:
    """Checks how many texts a call has, and that none is empty.

    Raises:
        RefusedError: none, too many, or an empty one.
    """
    if not inputs:
        raise RefusedError(EMPTY, f"`{field}` cannot be empty")
    server.check_count(len(inputs), field)
    for number, one in enumerate(inputs):
        if not one:
            raise RefusedError(EMPTY, f"`{field}[{number}]` cannot be empty")


def read_texts(server: Server, inputs: Any) -> list[str]:
    """Returns the texts of a call, a list of one where it has one.

    Raises:
        RefusedError: something else, none, too many, or an empty one.
    """
    texts = as_list(inputs or [])
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RefusedError(VALIDATION, "inputs must be a text, or a list of texts")
    check_inputs(server, texts)
    return texts
