"""The routes of heads that no client has a route for."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, RootModel
from starlette.responses import Response

from bertjax.serving.heads import answers, choices, classes, masks, tags
from bertjax.serving.problems import VALIDATION, RefusedError
from bertjax.serving.served import Served
from bertjax.serving.server import Server
from bertjax.serving.wire.answers import answer
from bertjax.serving.wire.calls import (
    Call,
    CutCall,
    Strict,
    Texts,
    check_inputs,
    make_router,
    read_texts,
)
from bertjax.serving.wire.examples import documented
from bertjax.serving.wire.tei import Score
from bertjax.tasks.question_answering import LONGEST_ANSWER, LONGEST_QUESTION, STRIDE

Natural = Annotated[int, Field(ge=1)]


class TagOptions(Strict):
    """How tags are joined."""

    aggregation_strategy: Annotated[
        tags.Strategy | None,
        Field(
            description="none: every token; simple: tokens of one tag; first, average, max: words,"
            " by that rule, of one tag. Left out: simple where tags mark entities, else none"
        ),
    ] = None
    ignore_labels: Annotated[tuple[str, ...], Field(description="tags that are left out")] = ("O",)
    stride: Annotated[
        int | None,
        Field(ge=0, description="tokens that the windows of a long text share"),
    ] = None

    def options(self) -> dict[str, Any]:
        """Returns the arguments of `heads.tags.tag`."""
        return {
            "strategy": self.aggregation_strategy,
            "ignore_labels": self.ignore_labels,
            "stride": self.stride,
        }


class TagCall(TagOptions, Call):
    """Texts to tag."""

    inputs: Texts


class AnswerOptions(Strict):
    """Which answers are looked for."""

    top_k: Annotated[Natural, Field(description="how many answers, at most 20")] = 1
    handle_impossible_answer: Annotated[
        bool | None, Field(description="whether '' is an answer; as fitted when left out")
    ] = None
    max_answer_len: Annotated[Natural, Field(description="in tokens")] = LONGEST_ANSWER
    max_question_len: Annotated[Natural, Field(description="in tokens")] = LONGEST_QUESTION
    max_seq_len: Annotated[
        Natural | None,
        Field(description="tokens of question and window; the model's when left out"),
    ] = None
    doc_stride: Annotated[
        Natural, Field(description="tokens from the start of a window to the next")
    ] = STRIDE
    align_to_words: Annotated[
        bool, Field(description="widen answers that begin or end within a word")
    ] = False


class Question(Strict):
    """A question, and the text that has the answer."""

    question: str
    context: str


class AnswerCall(AnswerOptions, Question, Call):
    """A question, and the text that has the answer."""


class MaskOptions(Strict):
    """Which words are considered."""

    top_k: Annotated[Natural, Field(description="words for each mask")] = 5
    targets: Annotated[
        list[str] | str | None,
        Field(description="the words that are considered; all when left out"),
    ] = None

    def options(self) -> dict[str, Any]:
        """Returns the arguments of `heads.masks.fill_masks`."""
        targets = [self.targets] if isinstance(self.targets, str) else self.targets
        return {"top_k": self.top_k, "targets": targets}


class MaskCall(MaskOptions, Call):
    """Texts with the model's mask, [MASK] or <mask>."""

    inputs: Texts


class ZeroShotOptions(Strict):
    """The labels, and how they are put."""

    candidate_labels: Annotated[
        list[str] | str, Field(description="a list, or one string with commas")
    ]
    hypothesis_template: Annotated[str, Field(description="has {}")] = classes.TEMPLATE
    multi_label: Annotated[bool, Field(description="judge each label by itself")] = False

    def options(self) -> dict[str, Any]:
        """Returns the arguments of `heads.classes.classify_zero_shot`."""
        labels = self.candidate_labels
        if isinstance(labels, str):
            labels = [label.strip() for label in labels.split(",") if label.strip()]
        if not labels or not all(labels):
            raise RefusedError(VALIDATION, "candidate_labels must have at least one label, none ''")
        return {
            "labels": labels,
            "template": self.hypothesis_template,
            "multi_label": self.multi_label,
        }


class ZeroShotCall(ZeroShotOptions, Call):
    """Texts, and labels that the model was not fitted to."""

    inputs: Texts


class FollowsCall(CutCall):
    """A pair of texts, or a list of pairs."""

    inputs: (
        Annotated[list[str], Field(min_length=2, max_length=2)]
        | list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    )


class ChoiceCall(CutCall):
    """A context, and what may continue or answer it."""

    context: str
    choices: Annotated[list[str], Field(min_length=2)]


class Entity(BaseModel):
    """A token (`entity`, `index`) or an entity (`entity_group`), and its characters."""

    entity: str | None = None
    index: int | None = None
    entity_group: str | None = None
    score: float
    word: str
    start: int
    end: int


class Answer(BaseModel):
    """An answer and its characters; "" and no characters where the text has none."""

    answer: str
    score: float
    start: int
    end: int


class Filled(BaseModel):
    """A word for a mask; as `word`, it has `##` before it where it goes on a word."""

    score: float
    token: int
    token_str: str
    word: str
    sequence: str


class Follows(BaseModel):
    """Whether the second text follows the first, and how probable it is."""

    follows: bool
    probability: float


class Choice(BaseModel):
    """The number of the best choice, from 0, and the probability of each."""

    choice: int
    probabilities: list[float]


Anything = RootModel[Any]


def routes(server: Server) -> APIRouter:
    """Returns the routes of a server."""
    router = make_router("bertjax")

    @router.post(
        "/tags",
        summary="Named entities, or other tags, with their characters",
        **documented(RootModel[list[Entity] | list[list[Entity]]], {"inputs": "Ann is in Oslo"}),
    )
    async def tag(call: TagCall) -> Response:
        served = server.model(call.model)
        return answer(await answer_texts(server, served, call.inputs, tags.tag, call))

    @router.post(
        "/answer",
        summary="Answers to a question, found in a text of any length",
        **documented(RootModel[list[Answer]], {"question": "who sat?", "context": "a cat sat"}),
    )
    async def find_answer(call: AnswerCall) -> Response:
        return answer(await answer_call(server, server.model(call.model), call, call))

    @router.post(
        "/fill-mask",
        summary="Words for the masks of texts",
        **documented(
            RootModel[list[Filled] | list[list[Filled]]], {"inputs": "a [MASK] sat", "top_k": 3}
        ),
    )
    async def fill_mask(call: MaskCall) -> Response:
        served = server.model(call.model)
        return answer(await answer_texts(server, served, call.inputs, masks.fill_masks, call))

    @router.post(
        "/zero-shot",
        summary="Classes that the model, one of entailment, was not fitted to",
        **documented(
            RootModel[list[Score] | list[list[Score]]],
            {"inputs": "a cat sat", "candidate_labels": ["animals", "war"]},
        ),
    )
    async def zero_shot(call: ZeroShotCall) -> Response:
        served = server.model(call.model)
        head = classes.classify_zero_shot
        return answer(await answer_texts(server, served, call.inputs, head, call))

    @router.post(
        "/next-sentence",
        summary="Whether a text follows another",
        **documented(RootModel[Follows | list[Follows]], {"inputs": ["a cat sat", "it ran"]}),
    )
    async def next_sentence(call: FollowsCall) -> Response:
        is_one = isinstance(call.inputs[0], str) if call.inputs else False
        pairs = [call.inputs] if is_one else call.inputs
        check_inputs(server, pairs)
        for number, pair in enumerate(pairs):
            check_inputs(server, pair, f"inputs[{number}]")
        shares = await choices.follows(
            server.model(call.model), [tuple(pair) for pair in pairs], call.cut()
        )
        told = [{"follows": share >= 0.5, "probability": share} for share in shares]
        return answer(told[0] if is_one else told)

    @router.post(
        "/multiple-choice",
        summary="The best of several continuations or answers",
        **documented(Choice, {"context": "a cat", "choices": ["sat", "was read"]}),
    )
    async def choose(call: ChoiceCall) -> Response:
        check_inputs(server, [call.context], "context")
        check_inputs(server, call.choices, "choices")
        served = server.model(call.model)
        chosen = await choices.choose(served, call.context, call.choices, call.cut("choices"))
        return answer(chosen._asdict())

    return router


async def answer_texts(
    server: Server,
    served: Served,
    inputs: Any,
    head: Callable[..., Awaitable[list[Any]]],
    options: TagOptions | MaskOptions | ZeroShotOptions,
) -> Any:
    """Answers /tags, /fill-mask and /zero-shot: a list for texts, one answer for one text.

    Args:
        server: of the route.
        served: the model.
        inputs: a text, or several.
        head: what answers, of (served, texts, **options).
        options: of the head.
    """
    answered = await head(served, read_texts(server, inputs), **options.options())
    return answered[0] if isinstance(inputs, str) else answered


async def answer_call(
    server: Server, served: Served, asked: Question, options: AnswerOptions
) -> list[dict[str, Any]]:
    """Answers /answer."""
    for field in ("question", "context"):
        if not getattr(asked, field):
            check_inputs(server, [], field)
    names = AnswerOptions.model_fields
    how = {name: getattr(options, name) for name in names}
    return await answers.answer_question(served, asked.question, asked.context, **how)
