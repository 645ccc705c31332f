"""Words for the masks of a text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from bertjax.inference.fill_mask import encode_masked
from bertjax.program.errors import UserError
from bertjax.serving.problems import TOO_LARGE, VALIDATION, RefusedError
from bertjax.serving.programs import Asked
from bertjax.serving.served import Served, Spent, spend
from bertjax.text.framing import TokenSequence
from bertjax.text.tokenizer import Tokenizer

Filled = dict[str, Any]

# Of a call: each mask has a probability for every word of the vocabulary, each word a text.
MOST_MASKS, MOST_WORDS = 512, 10_000


async def fill_masks(
    served: Served, texts: Sequence[str], top_k: int = 5, targets: Sequence[str] | None = None
) -> list[list[Filled] | list[list[Filled]]]:
    """Returns the likeliest words at the masks of each text.

    Args:
        served: a masked language model.
        texts: each with at least one mask (`tokenizer.mask_token`).
        top_k: how many words for each mask.
        targets: the words that are considered, each a token of the vocabulary; all when left out.

    Returns:
        For a text of one mask its words; for a text of several a list for each mask.

    Raises:
        RefusedError: a text without a mask, or one that is too long; `top_k` or a target that the
            vocabulary has not; too many masks or words.

    Source: `transformers.FillMaskPipeline`. Differs: a target that is no token is refused, where
    transformers takes its first token in its stead; `word` is there, too, which shows apart what
    `token_str` may write alike (a word, and a part of one).
    """
    served.check_has("token")
    size = served.model.config.vocab_size
    if not 1 <= top_k <= size:
        raise RefusedError(VALIDATION, f"top_k={top_k} must be from 1 to vocab_size={size}")
    characters = sum(map(len, texts))
    spend(Spent(characters=characters))
    chosen = None if targets is None else find_targets(served.tokenizer, targets)
    try:
        encoded = await served.encode(
            encode_masked, served.tokenizer, texts, served.max_length, size=characters
        )
    except UserError as error:
        raise RefusedError(VALIDATION, f"inputs: {error}") from None
    mask_id = served.tokenizer.mask_id
    asked = [
        Asked(TokenSequence(ids, len(ids)), np.flatnonzero(ids == mask_id), (text,))
        for ids, text in zip(encoded, texts, strict=True)
    ]
    count = sum(len(one.positions) for one in asked)
    words = min(top_k, size if chosen is None else len(chosen))
    if count > MOST_MASKS or count * words > MOST_WORDS:
        raise RefusedError(
            TOO_LARGE,
            f"inputs have {count:,} masks with {words:,} words each; a call may have {MOST_MASKS:,}"
            f" masks and {MOST_WORDS:,} words in all",
        )
    outputs = await served.run("token", asked)

    def fill() -> list[list[Filled] | list[list[Filled]]]:
        return [
            _fill(served.tokenizer, one, probabilities, top_k, chosen)
            for one, probabilities in zip(asked, outputs, strict=True)
        ]

    # Every word is shown in its text.
    tokens = words * sum(one.length * len(one.positions) for one in asked)
    return await served.offload(fill, size=tokens)


def find_targets(tokenizer: Tokenizer, targets: Sequence[str]) -> np.ndarray:
    """Returns the ids of targets, each once.

    Raises:
        RefusedError: one is not exactly one token.
    """
    vocabulary, ids = tokenizer.library.get_vocab(with_added_tokens=True), []
    for target in targets:
        own = [vocabulary[target]] if target in vocabulary else tokenizer.encode([target])[0].ids
        if len(own) != 1 or own == [tokenizer.unk_id] != [vocabulary.get(target)]:
            tokens = ", ".join(map(tokenizer.spell, own)) or "no token"
            raise RefusedError(
                VALIDATION,
                f"targets: {target!r} is not a token of the vocabulary (it is {tokens}), and a mask"
                " stands for one token",
            )
        ids += own
    if not ids:
        raise RefusedError(VALIDATION, "targets must have at least one word")
    return np.array(list(dict.fromkeys(ids)))


def _highest(values: Float[np.ndarray, " n"], count: int) -> Int[np.ndarray, " k"]:
    """Returns the places of the highest values, the highest first, without sorting all."""
    count = min(count, len(values))
    places = np.argpartition(-values, count - 1)[:count]
    return places[np.lexsort((places, -values[places]))]


def _fill(
    tokenizer: Tokenizer,
    asked: Asked,
    probabilities: Float[np.ndarray, "p V"],
    top_k: int,
    targets: np.ndarray | None,
) -> list[Filled] | list[list[Filled]]:
    ids = asked.sequence.token_ids
    has_one, rows = len(asked.positions) == 1, []
    for position, own in zip(asked.positions, probabilities, strict=True):
        candidates = np.arange(len(own)) if targets is None else targets
        order = _highest(own[candidates], top_k)
        row = []
        for id in candidates[order].tolist():
            filled = ids.tolist()
            filled[position : position + 1] = [id] * (id != tokenizer.pad_id)
            row.append(
                {
                    "score": float(own[id]),
                    "token": id,
                    "token_str": tokenizer.library.decode([id], skip_special_tokens=False),
                    "word": tokenizer.spell(id),
                    # Special tokens but padding are shown where there are masks left.
                    "sequence": tokenizer.library.decode(filled, skip_special_tokens=has_one),
                }
            )
        rows.append(row)
    return rows[0] if has_one else rows
