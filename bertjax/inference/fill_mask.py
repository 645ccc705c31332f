"""Fill-mask: the most likely tokens at every [MASK] of a text."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Integer

from bertjax.program.errors import UserError
from bertjax.text.framing import frame
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import HeadOutput

MASK = "[MASK]"

# Rows are padded to the next of these lengths, so that a model is compiled a few times and no more.
SHORTEST_BUCKET = 16
# Tokens of a batch, padding included: with a mask at every place, the logits of 1,024 tokens over
# 30,522 words are 125 MB.
BATCH_TOKENS = 1024


class Candidate(NamedTuple):
    """A token for a mask.

    Attributes:
        token: as the vocabulary spells it, for instance `##ing`.
        token_id: its id.
        probability: over the whole vocabulary, in [0, 1].
    """

    token: str
    token_id: int
    probability: float


class FilledMask(NamedTuple):
    """One mask of a text.

    Attributes:
        position: index of the token among the text's, [CLS] being 0.
        candidates: the most likely first.
    """

    position: int
    candidates: tuple[Candidate, ...]


class FilledText(NamedTuple):
    """One text.

    Attributes:
        text: as it was given.
        masks: from left to right, each filled as if the others were still masks.
        filled: the text with the best candidate at every mask.
    """

    text: str
    masks: tuple[FilledMask, ...]
    filled: str


def fill_mask(
    model: nn.Module,
    params: Mapping[str, Any],
    tokenizer: Tokenizer,
    texts: Sequence[str],
    top_k: int = 5,
    progress: Callable[[int], None] | None = None,
) -> list[FilledText]:
    """The most likely tokens at every [MASK] of every text.

    Texts of similar length are worked through together, padded to a power of two; padding changes
    no result. One compilation serves each padded length.

    Args:
        model: a `BertForMaskedLM`.
        params: its parameters.
        tokenizer: the model's.
        texts: each with at least one `[MASK]`.
        top_k: candidates a mask, 1 to V.
        progress: is called with the number of texts done since the call before.

    Returns:
        One result a text, in the order of the texts.

    Raises:
        UserError: a text without a mask or longer than the model's positions, `top_k` out of range,
            or a tokenizer that is not the model's.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """
    config = model.config
    if not 1 <= top_k <= config.vocab_size:
        raise UserError(
            f"top_k={top_k} must lie between 1 and the model's vocab_size={config.vocab_size}"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{tokenizer.name}: the tokenizer has {tokenizer.vocab_size} ids, more than the model's"
            f" vocab_size={config.vocab_size}; it is not the tokenizer of this model"
        )
    encoded = encode_masked(tokenizer, texts, config.max_position_embeddings)
    buckets: dict[int, list[int]] = {}
    for number, ids in enumerate(encoded):
        buckets.setdefault(_padded_length(len(ids), config.max_position_embeddings), []).append(
            number
        )
    results: list[FilledText | None] = [None] * len(texts)
    for length, numbers in sorted(buckets.items()):
        rows = min(max(1, BATCH_TOKENS // length), _power_of_two(len(numbers)))
        positions = {
            number: np.flatnonzero(encoded[number] == tokenizer.mask_id) for number in numbers
        }
        slots = _power_of_two(max(len(places) for places in positions.values()))
        for start in range(0, len(numbers), rows):
            batch = numbers[start : start + rows]
            token_ids = np.full((rows, length), tokenizer.pad_id, np.int32)
            sequence_ids = np.zeros((rows, length), np.int32)
            masked_positions = np.zeros((rows, slots), np.int32)
            for row, number in enumerate(batch):
                token_ids[row, : len(encoded[number])] = encoded[number]
                sequence_ids[row, : len(encoded[number])] = 1
                masked_positions[row, : len(positions[number])] = positions[number]
            probabilities, ids = jax.device_get(
                _predict(model, top_k, params, token_ids, sequence_ids, masked_positions)
            )
            for row, number in enumerate(batch):
                masks = tuple(
                    FilledMask(
                        int(position), _name(tokenizer, ids[row, slot], probabilities[row, slot])
                    )
                    for slot, position in enumerate(positions[number])
                )
                filled = _fill_in(tokenizer, texts[number], masks)
                results[number] = FilledText(texts[number], masks, filled)
            if progress is not None:
                progress(len(batch))
    return results


def encode_masked(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int
) -> list[Int[np.ndarray, " T"]]:
    """The frame of every text, `[MASK]` read as the mask.

    Raises:
        UserError: a text without a mask, or of more than `max_length` tokens.
    """
    encodings = tokenizer.encode(texts, masks=True)
    encoded = []
    for number, (text, encoding) in enumerate(zip(texts, encodings, strict=True), start=1):
        ids = np.array(encoding.ids, np.int32)
        ids = frame(tokenizer, ids, None, len(ids) + 2)[0].token_ids
        if MASK not in text:
            raise UserError(
                f"text {number}, {_shorten(text)}: there is no {MASK} in it; write {MASK} (in"
                " capitals, with its brackets) where the model is to find a word"
            )
        if text.count(MASK) != (ids == tokenizer.mask_id).sum():
            raise UserError(
                f"text {number}, {_shorten(text)}: a {MASK} in it is part of another token of"
                f" {tokenizer.name}; set it apart with spaces"
            )
        if len(ids) > max_length:
            raise UserError(
                f"text {number}, {_shorten(text)}: {len(ids)} tokens, the model has positions for"
                f" {max_length} (max_position_embeddings); shorten it, or give it in parts that"
                f" each have a {MASK}"
            )
        encoded.append(ids)
    return encoded


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(
    model: nn.Module,
    top_k: int,
    params: Mapping[str, Any],
    token_ids: Integer[Array, "B T"],
    sequence_ids: Integer[Array, "B T"],
    masked_positions: Integer[Array, "B P"],
) -> tuple[Float[Array, "B P top_k"], Int[Array, "B P top_k"]]:
    output: HeadOutput = model.apply(
        {"params": params}, token_ids, None, sequence_ids, masked_positions=masked_positions
    )
    return jax.lax.top_k(jax.nn.softmax(output.logits, axis=-1), top_k)


def _name(
    tokenizer: Tokenizer, ids: Int[np.ndarray, " top_k"], probabilities: Float[np.ndarray, " top_k"]
) -> tuple[Candidate, ...]:
    return tuple(
        Candidate(tokenizer.spell(id), int(id), float(probability))
        for id, probability in zip(ids, probabilities, strict=True)
    )


def _fill_in(tokenizer: Tokenizer, text: str, masks: Sequence[FilledMask]) -> str:
    """The text with the best candidates; one that continues a word is joined to it."""
    first, *rest = text.split(MASK)
    filled = first
    for mask, after in zip(masks, rest, strict=True):
        best = mask.candidates[0]
        word = tokenizer.decode([best.token_id]).strip() or best.token
        if best.token.startswith("##"):
            filled, word = filled.rstrip(), best.token.removeprefix("##")
        filled += word + after
    return filled


def _padded_length(length: int, max_length: int) -> int:
    return min(max(SHORTEST_BUCKET, _power_of_two(length)), max_length)


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least the number."""
    return 1 << (number - 1).bit_length()


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
