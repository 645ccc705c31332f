"""`POST /`, as `huggingface_hub.InferenceClient(model=URL)` and text-embeddings-inference call it.

A call says neither its task nor its model: the head of the model and the form of `inputs` tell what
is asked. `/models/NAME` is the same for one of several models.

Source: huggingface_hub 2.4, inference/_providers/hf_inference.py; text-embeddings-inference 1.9.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from bertjax.serving.heads import classes, masks, tags
from bertjax.serving.problems import BACKEND, RefusedError
from bertjax.serving.served import Cut, Served
from bertjax.serving.server import Server
from bertjax.serving.wire import own, tei
from bertjax.serving.wire.answers import answer
from bertjax.serving.wire.calls import Strict, as_list, check_inputs, make_router, read, read_texts
from bertjax.serving.wire.examples import documented

EXAMPLES = {
    "feature_extraction": {"inputs": "a cat sat"},
    "sentence_similarity": {
        "inputs": {"source_sentence": "a cat", "sentences": ["cats sit", "dogs run"]},
        "parameters": {},
    },
    "text_classification": {"inputs": "a good film", "parameters": {"top_k": 2}},
    "zero_shot_classification": {
        "inputs": "a cat sat",
        "parameters": {"candidate_labels": ["animals", "war"]},
    },
    "token_classification": {
        "inputs": "Ann is in Oslo",
        "parameters": {"aggregation_strategy": "simple"},
    },
    "question_answering": {
        "inputs": {"question": "who sat?", "context": "a cat sat"},
        "parameters": {},
    },
    "fill_mask": {"inputs": "a [MASK] sat", "parameters": {"top_k": 3}},
    "rerank": {"query": "a cat", "texts": ["cats sit", "dogs run"]},
}


class HubCall(BaseModel):
    """A text, several, or an object of texts; and what the task takes."""

    model_config = ConfigDict(extra="allow")
    inputs: Any = None
    parameters: Annotated[
        dict[str, Any] | None,
        Field(description="of the task; present, if empty, in calls of InferenceClient"),
    ] = None
    model: str | None = None


class ClassOptions(Strict):
    """Which classes are told, and how logits become scores."""

    top_k: Annotated[int | None, Field(ge=1)] = None
    function_to_apply: Literal["sigmoid", "softmax", "none"] | None = None


class TextPair(Strict):
    """A text, or a pair of texts."""

    text: str
    text_pair: str | None = None


class VectorsCall(tei.EmbedCall):
    """What `feature_extraction` sends."""

    encoding_format: Literal["float"] = "float"


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = make_router("InferenceClient")

    @router.post(
        "/", summary="Whatever the model's head answers", **documented(own.Anything, **EXAMPLES)
    )
    async def post(call: HubCall) -> Response:
        return answer(await respond(server, server.model(call.model), call))

    # `InferenceClient(model=URL)` asks below its URL for both.
    @router.get("/models/{name:path}/health", summary="Whether a model is ready")
    async def health(name: str) -> Response:
        server.model(name)
        return Response()

    @router.get("/models/{name:path}/info", summary="What a model is", **documented(tei.Info))
    async def info(name: str) -> Response:
        return answer(tei.describe(server, server.model(name)))

    @router.post(
        "/models/{name:path}",
        summary="Whatever the head of one of several models answers",
        **documented(own.Anything, **EXAMPLES),
    )
    async def post_to_model(name: str, call: HubCall) -> Response:
        return answer(await respond(server, server.model(name), call))

    return router


async def respond(server: Server, served: Served, call: HubCall) -> Any:
    """Answers a call by the form of its inputs, then by the head of the model."""
    inputs, parameters = call.inputs, call.parameters or {}
    body = call.model_dump(exclude={"model"}, exclude_unset=True)
    if "query" in body:
        return await tei.rerank_texts(server, served, read(tei.RerankCall, body))
    if isinstance(inputs, Mapping):
        if "source_sentence" in inputs:
            return await tei.compare_texts(server, served, read(tei.SimilarityCall, body))
        if "text" in inputs:
            pair = read(TextPair, inputs, "inputs")
            return await _classify(server, served, [(pair.text, pair.text_pair)], parameters)
        asked = read(own.Question, inputs, "inputs")
        options = read(own.AnswerOptions, parameters, "parameters")
        found = await own.answer_call(server, served, asked, options)
        return found if options.top_k > 1 else found[0]
    if "candidate_labels" in parameters:
        how = read(own.ZeroShotOptions, parameters, "parameters")
        return await own.answer_texts(server, served, inputs, classes.classify_zero_shot, how)
    if "tag" in served.programs:
        how = read(own.TagOptions, parameters, "parameters")
        return await own.answer_texts(server, served, inputs, tags.tag, how)
    if "token" in served.programs and (call.parameters is not None or _has_mask(served, inputs)):
        how = read(own.MaskOptions, parameters, "parameters")
        return await own.answer_texts(server, served, inputs, masks.fill_masks, how)
    if "class" in served.programs:
        if call.parameters is None:
            return await tei.predict_inputs(server, served, read(tei.PredictCall, body))
        texts = read_texts(server, inputs)
        return await _classify(server, served, [(text, None) for text in texts], parameters)
    if "vector" in served.programs:
        return await tei.embed_inputs(server, served, read(VectorsCall, body))
    raise RefusedError(BACKEND, f"the model {served.name} {_WAYS_OUT[next(iter(served.programs))]}")


# What heads are asked for otherwise.
_WAYS_OUT = {
    "span": 'answers questions; send "inputs": {"question": ..., "context": ...}',
    "choice": "chooses among texts; POST /multiple-choice",
    "next-sentence": "judges whether a text follows another; POST /next-sentence",
}


def _has_mask(served: Served, inputs: Any) -> bool:
    mask = served.tokenizer.mask_token
    return any(isinstance(one, str) and mask in one for one in as_list(inputs or ""))


async def _classify(
    server: Server, served: Served, pairs: list[Any], parameters: Mapping[str, Any]
) -> list[Any]:
    """Returns a list for each text: `InferenceClient` takes the first of them."""
    how = read(ClassOptions, parameters, "parameters")
    check_inputs(server, [text for text, _ in pairs])
    scores = await classes.classify(served, pairs, Cut(), how.function_to_apply)
    return [classes.rank(one, served.labels, how.top_k) for one in scores]
