"""Tags of tokens, joined to entities with their characters in the text."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.serving.problems import VALIDATION, RefusedError
from bertjax.serving.programs import Asked
from bertjax.serving.served import Served, Spent, spend
from bertjax.tasks.label_names import read_label_names
from bertjax.tasks.question_answering import cut_windows, own_tokens
from bertjax.tasks.task import softmax
from bertjax.text.framing import frame

Strategy = Literal["none", "simple", "first", "average", "max"]
Entity = dict[str, Any]
Window = tuple[int, int]


def usual_strategy(served: Served) -> Strategy:
    """Returns "simple" where tags mark entities, and "none" where every token has its own."""
    return "none" if read_label_names(served.labels).scheme == "none" else "simple"


async def tag(
    served: Served,
    texts: Sequence[str],
    strategy: Strategy | None = None,
    ignore_labels: Sequence[str] = ("O",),
    stride: int | None = None,
) -> list[list[Entity]]:
    """Returns the tokens or entities of each text, from left to right.

    A text that is longer than the model takes is read in overlapping windows, and each token has
    the scores that it has in the window with most context around it.

    Args:
        served: a model of tags.
        texts: any number.
        strategy: what is joined, as in transformers: "none", every token; "simple", tokens of one
            tag; "first", "average" and "max", words, by that rule, of one tag.
        ignore_labels: tags that are left out.
        stride: tokens that windows share. With it, windows are joined as transformers joins them:
            of entities that overlap the longest stays, then the likeliest.

    Raises:
        RefusedError: a stride that leaves a window nothing new, or one with the strategy "none".

    Source: `transformers.TokenClassificationPipeline`. Differs: longer texts are read whole where
    no stride is given; transformers cuts them.
    """
    strategy = strategy or usual_strategy(served)
    room = served.max_length - served.tokenizer.frame.size(pair=False)
    if stride is not None and not 0 <= stride < room:
        raise RefusedError(VALIDATION, f"stride={stride} must be from 0 to {room - 1}")
    if stride is not None and strategy == "none":
        raise RefusedError(
            VALIDATION, 'stride needs an aggregation_strategy other than "none", or is left out'
        )
    served.check_has("tag")
    characters = sum(map(len, texts))
    spend(Spent(characters=characters))
    encoded = await served.encode(served.tokenizer.encode_with_offsets, texts, size=characters)
    windows = [_windows(len(ids), room, stride) for ids, _ in encoded]
    served.check_room(sum(map(len, windows)))
    asked = [
        Asked(frame(served.tokenizer, ids[start:end], None, served.max_length)[0], text=(text,))
        for (ids, _), bounds, text in zip(encoded, windows, texts, strict=True)
        for start, end in bounds
    ]
    outputs = iter(await served.run("tag", asked))

    def join() -> list[list[Entity]]:
        return [
            _tag_text(served, text, *one, bounds, [next(outputs) for _ in bounds], joining)
            for text, one, bounds in zip(texts, encoded, windows, strict=True)
        ]

    joining = _Joining(strategy, frozenset(ignore_labels), stride is not None)
    return await served.offload(join, size=characters)


class _Joining(NamedTuple):
    """How tokens are joined.

    Attributes:
        strategy: see `tag`.
        ignored: tags that are left out.
        by_window: whether each window is joined by itself, and then their entities.
    """

    strategy: Strategy
    ignored: frozenset[str]
    by_window: bool


def _tag_text(
    served: Served,
    text: str,
    ids: Int[np.ndarray, " t"],
    offsets: Int[np.ndarray, "t 2"],
    bounds: Sequence[Window],
    outputs: Sequence[Float[np.ndarray, "w C"]],
    joining: _Joining,
) -> list[Entity]:
    [first], last = served.tokenizer.frame.starts((0,)), -len(served.tokenizer.frame.after)
    scores = [softmax(output[first : last or None]) for output in outputs]
    if not joining.by_window:
        scores = [_join_scores(len(ids), bounds, scores)]
        bounds = [(0, len(ids))]
    entities = []
    for (start, end), own in zip(bounds, scores, strict=True):
        tokens = _tokens(served, text, ids[start:end], offsets[start:end], own)
        entities += _aggregate(served, tokens, joining.strategy)
    entities = [one for one in entities if _label(one) not in joining.ignored]
    return _longest(entities) if len(bounds) > 1 else entities


def _windows(tokens: int, room: int, stride: int | None) -> list[Window]:
    if stride is None:
        return cut_windows(tokens, room, max(1, room // 2))
    bounds, start = [(0, min(room, tokens))], 0
    while bounds[-1][1] < tokens:
        start += room - stride
        bounds.append((start, min(start + room, tokens)))
    return bounds


def _join_scores(
    tokens: int, bounds: Sequence[Window], scores: Sequence[Float[np.ndarray, "w C"]]
) -> Float[np.ndarray, "t C"]:
    owners = own_tokens(tokens, bounds)
    joined = np.zeros((tokens, scores[0].shape[1]))
    for number, ((start, end), own) in enumerate(zip(bounds, scores, strict=True)):
        mine = owners[start:end] == number
        joined[start:end][mine] = own[mine]
    return joined


def _tokens(
    served: Served,
    text: str,
    ids: Int[np.ndarray, " t"],
    offsets: Int[np.ndarray, "t 2"],
    scores: Float[np.ndarray, "t C"],
) -> list[Entity]:
    tokenizer = served.tokenizer
    [place] = tokenizer.frame.starts((len(ids),))
    tokens = []
    for number, (id, (start, end), own) in enumerate(
        zip(ids.tolist(), offsets.tolist(), scores, strict=True)
    ):
        is_unknown = id == tokenizer.unk_id
        tokens.append(
            {
                "scores": own,
                "index": number + place,
                "word": text[start:end] if is_unknown else tokenizer.token(id),
                "start": start,
                "end": end,
                "continues": bool(tokenizer.continues_word[id]) and not is_unknown,
            }
        )
    return tokens


def _aggregate(served: Served, tokens: Sequence[Entity], strategy: Strategy) -> list[Entity]:
    words = [[token] for token in tokens]
    if strategy in ("first", "average", "max"):
        words = []
        for token in tokens:
            if token["continues"] and words:
                words[-1].append(token)
            else:
                words.append([token])
    entities = [_of_word(served, word, strategy) for word in words]
    if strategy == "none":
        return entities
    groups: list[list[Entity]] = []
    for entity in entities:
        begins, kind = _read_tag(entity["entity"])
        if groups and not begins and kind == _read_tag(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [
        {
            "entity_group": group[0]["entity"].split("-", 1)[-1],
            "score": float(np.mean([one["score"] for one in group])),
            "word": _spell(served, group),
            "start": group[0]["start"],
            "end": group[-1]["end"],
        }
        for group in groups
    ]


def _of_word(served: Served, word: Sequence[Entity], strategy: Strategy) -> Entity:
    scores = word[0]["scores"]
    if strategy == "average":
        scores = np.mean([token["scores"] for token in word], axis=0)
    elif strategy == "max":
        scores = max((token["scores"] for token in word), key=lambda one: one.max())
    best = int(scores.argmax())
    is_token = strategy in ("none", "simple")
    return {
        "entity": served.labels[best],
        "score": float(scores[best]),
        "index": word[0]["index"],
        "word": word[0]["word"] if is_token else _spell(served, word),
        "start": word[0]["start"],
        "end": word[-1]["end"],
    }


def _spell(served: Served, parts: Sequence[Entity]) -> str:
    words = [part["word"] for part in parts]
    decoder = served.tokenizer.library.decoder
    return " ".join(words) if decoder is None else decoder.decode(words)


def _read_tag(name: str) -> tuple[bool, str]:
    """Returns whether a tag begins an entity, and the entity's type."""
    return name.startswith("B-"), name[2:] if name.startswith(("B-", "I-")) else name


def _label(entity: Entity) -> str:
    return entity.get("entity", entity.get("entity_group"))


def _longest(entities: Sequence[Entity]) -> list[Entity]:
    """Returns the longest of entities that overlap, then the likeliest."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda one: one["start"]):
        if kept and kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept[-1] = max(
                kept[-1], entity, key=lambda one: (one["end"] - one["start"], one["score"])
            )
        else:
            kept.append(entity)
    return kept
