"""The routes of text-embeddings-inference.

Source: text-embeddings-inference 1.9, docs/openapi.json and router/src/http.
"""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter
from jaxtyping import Float
from pydantic import BaseModel, Field, RootModel
from starlette.responses import Response

from bertjax import __version__
from bertjax.serving.heads import classes, vectors
from bertjax.serving.problems import BACKEND, EMPTY, VALIDATION, RefusedError
from bertjax.serving.served import Input, Served
from bertjax.serving.server import Server
from bertjax.serving.wire.answers import answer, answer_many
from bertjax.serving.wire.calls import (
    Call,
    CutCall,
    Inputs,
    Label,
    PromptName,
    Strict,
    Texts,
    TokenIds,
    as_list,
    check_inputs,
    make_router,
)
from bertjax.serving.wire.examples import documented
from bertjax.text.tokenizer import Tokenizer

Vector = list[float]


class EmbedAllCall(CutCall):
    """Texts, or token ids as /tokenize returns them."""

    inputs: Inputs
    prompt_name: PromptName = None


class EmbedCall(EmbedAllCall):
    """Texts, or token ids as /tokenize returns them, and what is made of their vectors."""

    normalize: Annotated[bool, Field(description="scale vectors to length 1")] = True
    dimensions: Annotated[
        int | None, Field(description="keep so many numbers of each vector, the first ones")
    ] = None


class PredictCall(CutCall):
    """A text, a pair of texts, or a batch: a list of lists of one text or two."""

    inputs: str | list[str] | list[list[str]]
    raw_scores: Annotated[bool, Field(description="logits, not probabilities")] = False


class RerankCall(CutCall):
    """A query, and the texts that are ordered by their relevance to it."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False
    label: Label = None


class SimilarTexts(Strict):
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityParameters(CutCall):
    """How texts are read."""

    prompt_name: PromptName = None


class SimilarityCall(Call):
    """A text, and those that it is compared with."""

    inputs: SimilarTexts
    parameters: SimilarityParameters | None = None


class TokenizeCall(Call):
    """Texts to cut into tokens."""

    inputs: Texts
    add_special_tokens: bool = True
    prompt_name: PromptName = None


class DecodeCall(Call):
    """Token ids to make texts of."""

    ids: TokenIds | list[TokenIds]
    skip_special_tokens: bool = True


class Score(BaseModel):
    """A class and its score."""

    label: str
    score: float


class Rank(BaseModel):
    """A text by its number, and its relevance."""

    index: int
    score: float
    text: str | None = None


class Token(BaseModel):
    """A token; `start` and `stop` are bytes of the text in UTF-8, null for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class Info(BaseModel):
    """What is served, and its limits."""

    model_id: str
    model_sha: str | None
    model_dtype: str
    engine: Literal["jax", "onnxruntime"]
    served_model_name: str
    model_type: dict[Literal["embedding", "classifier", "reranker", "other"], dict[str, Any]]
    architecture: str
    outputs: list[str]
    models: list[str]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = make_router("text-embeddings-inference")

    @router.post(
        "/embed",
        summary="A vector for each text",
        **documented(RootModel[list[Vector]], {"inputs": ["a cat sat", "a dog ran"]}),
    )
    async def embed(call: EmbedCall) -> Response:
        served = server.model(call.model)
        found = await embed_inputs(server, served, call)
        return await answer_many(served, found, found.size)

    @router.post(
        "/embed_all",
        summary="A vector for each token of each text",
        **documented(RootModel[list[list[Vector]]], {"inputs": "a cat sat"}),
    )
    async def embed_all(call: EmbedAllCall) -> Response:
        inputs = as_list(call.inputs)
        check_inputs(server, inputs)
        served = server.model(call.model)
        tokens = await vectors.embed_tokens(served, inputs, call.cut(), call.prompt_name)
        return await answer_many(served, tokens, sum(one.size for one in tokens))

    @router.post("/embed_sparse", summary="Not done: no model here has SPLADE pooling")
    async def embed_sparse(call: EmbedAllCall) -> Response:
        server.model(call.model)
        raise RefusedError(
            BACKEND, "Model is not an embedding model with SPLADE pooling; /embed has its vectors"
        )

    @router.post(
        "/predict",
        summary="The classes of texts or pairs of texts",
        **documented(
            RootModel[list[Score] | list[list[Score]]],
            {"inputs": [["a good film"], ["a bad film"]]},
        ),
    )
    async def predict(call: PredictCall) -> Response:
        return answer(await predict_inputs(server, server.model(call.model), call))

    @router.post(
        "/similarity",
        summary="How similar texts are to another: the cosines of their vectors",
        **documented(
            RootModel[list[float]],
            {"inputs": {"source_sentence": "a cat", "sentences": ["cats sit", "dogs run"]}},
        ),
    )
    async def similarity(call: SimilarityCall) -> Response:
        return answer(await compare_texts(server, server.model(call.model), call))

    @router.post(
        "/tokenize",
        summary="The tokens of texts",
        **documented(RootModel[list[list[Token]]], {"inputs": ["a cat sat"]}),
    )
    async def tokenize(call: TokenizeCall) -> Response:
        texts = as_list(call.inputs)
        check_inputs(server, texts)
        served = server.model(call.model)
        prompted = [text for text, _ in vectors.with_prompt(served, texts, call.prompt_name)]
        special = call.add_special_tokens
        listed = await served.encode(
            list_tokens, served.tokenizer, prompted, special, size=sum(map(len, prompted))
        )
        return await answer_many(served, listed, sum(map(len, listed)))

    @router.post(
        "/decode",
        summary="The texts of token ids",
        **documented(RootModel[list[str]], {"ids": [[2, 11, 12, 3]]}),
    )
    async def decode(call: DecodeCall) -> Response:
        ids = as_list(call.ids)
        check_inputs(server, ids, "ids")
        served = server.model(call.model)

        def decode_all() -> list[str]:
            for one in ids:
                served.check_ids(one)
            skip = call.skip_special_tokens
            return served.tokenizer.library.decode_batch(ids, skip_special_tokens=skip)

        return answer(await served.encode(decode_all, size=sum(map(len, ids))))

    @router.get("/info", summary="What is served", **documented(Info))
    async def info(model: str | None = None) -> Response:
        return answer(describe(server, server.model(model)))

    return router


async def embed_inputs(
    server: Server, served: Served, call: EmbedCall
) -> Float[np.ndarray, "texts D"]:
    """Answers /embed."""
    inputs = as_list(call.inputs)
    check_inputs(server, inputs)
    return await vectors.embed(
        served,
        inputs,
        call.cut(),
        normalize=call.normalize,
        dimensions=call.dimensions,
        prompt_name=call.prompt_name,
    )


async def predict_inputs(server: Server, served: Served, call: PredictCall) -> list[Any]:
    """Answers /predict."""
    inputs = call.inputs
    is_one = isinstance(inputs, str) or (bool(inputs) and isinstance(inputs[0], str))
    batch = [as_list(inputs)] if is_one else inputs
    check_inputs(server, batch)
    pairs: list[Input] = []
    for number, one in enumerate(batch):
        if len(one) > 2:
            raise RefusedError(
                VALIDATION, f"inputs[{number}] has {len(one)} texts; it is one text or a pair"
            )
        if not any(one):
            raise RefusedError(EMPTY, f"`inputs[{number}]` cannot be empty")
        pairs.append((one[0], one[1] if len(one) > 1 else None))
    activation = "none" if call.raw_scores else None
    scores = await classes.classify(served, pairs, call.cut(), activation)
    ranked = [classes.rank(one, served.labels) for one in scores]
    return ranked[0] if is_one else ranked


async def rerank_texts(server: Server, served: Served, call: RerankCall) -> list[dict[str, Any]]:
    """Answers /rerank."""
    check_inputs(server, call.texts, "texts")
    scores = await classes.judge_relevance(
        served,
        [(call.query, text) for text in call.texts],
        call.cut("texts"),
        label=call.label,
        activation="none" if call.raw_scores else None,
    )
    ranks = [{"index": index, "score": score} for index, score in enumerate(scores)]
    if call.return_text:
        ranks = [{**one, "text": call.texts[one["index"]]} for one in ranks]
    return sorted(ranks, key=lambda one: -one["score"])


async def compare_texts(server: Server, served: Served, call: SimilarityCall) -> list[float]:
    """Answers /similarity."""
    texts = call.inputs
    check_inputs(server, [texts.source_sentence], "inputs.source_sentence")
    check_inputs(server, texts.sentences, "inputs.sentences")
    how = call.parameters or SimilarityParameters()
    pairs = [(texts.source_sentence, other) for other in texts.sentences]
    return await vectors.compare(served, pairs, how.cut("inputs.sentences"), how.prompt_name)


def list_tokens(
    tokenizer: Tokenizer, texts: list[str], add_special_tokens: bool
) -> list[list[dict[str, Any]]]:
    """Returns the tokens of texts, with the bytes that each is of in UTF-8."""
    listed = []
    for text, (ids, offsets) in zip(texts, tokenizer.encode_with_offsets(texts), strict=True):
        letters = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        widths = 1 + sum((letters >= first).astype(np.int64) for first in (0x80, 0x800, 0x10000))
        places = np.concatenate([[0], np.cumsum(widths)]).tolist()
        tokens = [
            {
                "id": id,
                "text": text[start:end],
                "special": False,
                "start": places[start],
                "stop": places[end],
            }
            for id, (start, end) in zip(ids.tolist(), offsets.tolist(), strict=True)
        ]
        if add_special_tokens:
            before, after = (
                [
                    {
                        "id": id,
                        "text": tokenizer.spell(id),
                        "special": True,
                        "start": None,
                        "stop": None,
                    }
                    for id in special
                ]
                for special in (tokenizer.frame.before, tokenizer.frame.after)
            )
            tokens = [*before, *tokens, *after]
        listed.append(tokens)
    return listed


def describe(server: Server, served: Served) -> dict[str, Any]:
    """Answers /info."""
    labels = dict(enumerate(served.labels))
    named = {
        "id2label": {str(number): label for number, label in labels.items()},
        "label2id": {label: number for number, label in labels.items()},
    }
    if "class" in served.programs:
        model_type = {"reranker" if len(labels) == 1 else "classifier": named}
    elif "vector" in served.programs:
        model_type = {"embedding": {"pooling": "+".join(served.steps.pooling)}}
    else:
        model_type = {"other": named if "tag" in served.programs else {}}
    config = server.config
    return {
        "model_id": str(served.model.directory or served.name),
        "model_sha": None,
        "model_dtype": served.model.dtype,
        "engine": served.model.engine,
        "served_model_name": served.name,
        "model_type": model_type,
        "architecture": served.model.architecture,
        "outputs": list(served.programs),
        "models": list(server.models),
        "max_concurrent_requests": config.max_concurrent_requests,
        "max_input_length": served.max_length,
        "max_batch_tokens": served.running.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": config.max_client_batch_size,
        "auto_truncate": config.auto_truncate,
        "tokenization_workers": server.tokenization_workers,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
