"""Fill-mask: the most likely tokens at every mask of a text."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Integer

from bertjax.config import BertConfig
from bertjax.inference.batches import Batching, Place, run
from bertjax.inference.shapes import Shape, Shapes, few_or_all
from bertjax.inference.task_outputs import check_finite
from bertjax.program.errors import UserError
from bertjax.text.packing import Places
from bertjax.text.special_tokens import find_other_masks
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import HeadOutput

# Tokens of a batch, padding included: with a mask at every place, the logits of 1,024 tokens over
# 30,522 words are 125 MB.
BATCH_TOKENS = 1024
# Candidates that are computed for a mask at least, so that few numbers of them are compiled.
_FEWEST_CANDIDATES = 8


class Candidate(NamedTuple):
    """A token for a mask.

    Attributes:
        token: as a reader is shown it, `##ing` where it goes on a word (`Tokenizer.spell`).
        token_id: its id.
        probability: over the whole vocabulary, in [0, 1].
    """

    token: str
    token_id: int
    probability: float


class FilledMask(NamedTuple):
    """One mask of a text.

    Attributes:
        position: index of the token among the text's, the first of its frame being 0.
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
    progress: Callable[[int], None] = lambda done: None,
    mesh: Mesh | None = None,
) -> list[FilledText]:
    """Finds the most likely tokens at every mask of every text.

    Texts of similar length are worked through together; padding changes no result.

    Args:
        model: a `BertForMaskedLM`.
        params: its parameters.
        tokenizer: the model's.
        texts: each with at least one `tokenizer.mask_token` (`[MASK]`, `<mask>`).
        top_k: candidates a mask, 1 to V.
        progress: is called with the number of texts done since the call before.
        mesh: the devices that share the rows; without it jax's first device has them all.

    Returns:
        One result a text, in the order of the texts.

    Raises:
        UserError: a text without a mask or longer than the model's positions, `top_k` out of range,
            a tokenizer that is not the model's, or an output that is NaN.

    Source: Devlin et al. 2019, section 3.1, task 1.
    """
    config = model.config
    if not 1 <= top_k <= config.vocab_size:
        raise UserError(
            f"top_k={top_k} must be between 1 and the model's vocab_size={config.vocab_size}"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{tokenizer.name}: the tokenizer has {tokenizer.vocab_size} ids, more than the model's"
            f" vocab_size={config.vocab_size}; it is not the tokenizer of this model"
        )
    encoded = encode_masked(tokenizer, texts, config.max_length)
    batching = make_batching(config, tokenizer, mesh)
    outputs = run(
        make_forward(model, top_k), params, encoded, batching, mesh=mesh, progress=progress
    )
    filled = []
    for text, ids, output in zip(texts, encoded, outputs, strict=True):
        check_finite(output)
        filled.append(name_candidates(tokenizer, text, ids, output, top_k))
    return filled


def make_forward(
    model: nn.Module, top_k: int
) -> Callable[[Any, Any], tuple[Float[Array, "B P candidates"], Int[Array, "B P candidates"]]]:
    """Returns the compiled forward pass, the same one for all `top_k` up to the next power of two:
    for batches of `make_batching` the largest probabilities of each slot, and their tokens.
    """
    candidates = max(_FEWEST_CANDIDATES, 1 << (top_k - 1).bit_length())
    return functools.partial(_predict, model, min(candidates, model.config.vocab_size))


def name_candidates(
    tokenizer: Tokenizer,
    text: str,
    ids: Int[np.ndarray, " T"],
    output: Sequence[Float[np.ndarray, "masks candidates"]],
    top_k: int,
) -> FilledText:
    """Makes the result for a text.

    Args:
        tokenizer: the model's.
        text: as it was given.
        ids: of `encode_masked`.
        output: of the forward pass for it.
        top_k: candidates a mask.
    """
    positions = np.flatnonzero(ids == tokenizer.mask_id)
    masks = tuple(
        FilledMask(
            int(position),
            tuple(
                Candidate(tokenizer.spell(id), int(id), float(probability))
                for id, probability in zip(chosen[:top_k], probabilities[:top_k], strict=True)
            ),
        )
        for position, probabilities, chosen in zip(positions, *output, strict=True)
    )
    return FilledText(text, masks, _fill_in(tokenizer, text, masks))


def make_batching(
    config: BertConfig, tokenizer: Tokenizer, mesh: Mesh | None = None
) -> Batching[Int[np.ndarray, " T"]]:
    """Returns how framed texts with masks become batches: a text a row, a slot a mask."""

    def count(ids: Int[np.ndarray, " T"]) -> int:
        return int((ids == tokenizer.mask_id).sum())

    def make(
        texts: Sequence[Int[np.ndarray, " T"]], places: Places, shape: Shape
    ) -> tuple[np.ndarray, ...]:
        token_ids = np.full((shape.rows, shape.length), tokenizer.pad_id, np.int32)
        sequence_ids = np.zeros((shape.rows, shape.length), np.int32)
        masked_positions = np.zeros((shape.rows, shape.slots), np.int32)
        for row, ids in zip(places.row, texts, strict=True):
            token_ids[row, : len(ids)], sequence_ids[row, : len(ids)] = ids, 1
            masked_positions[row, : count(ids)] = np.flatnonzero(ids == tokenizer.mask_id)
        return token_ids, sequence_ids, masked_positions

    def take(
        output: Sequence[np.ndarray], ids: Int[np.ndarray, " T"], place: Place
    ) -> list[np.ndarray]:
        return [values[place.row, : count(ids)] for values in output]

    shapes = Shapes(
        config.max_length,
        lambda length: BATCH_TOKENS // length,
        slots=few_or_all,
        mesh=mesh,
    )
    return Batching(shapes, len, make, take, count)


def encode_masked(
    tokenizer: Tokenizer, texts: Sequence[str], max_length: int
) -> list[Int[np.ndarray, " T"]]:
    """Returns the frame of every text, `tokenizer.mask_token` read as the mask.

    Raises:
        UserError: a text without a mask, or of more than `max_length` tokens.
    """
    encodings, mask = tokenizer.encode(texts, masks=True), tokenizer.mask_token
    encoded = []
    for number, (text, encoding) in enumerate(zip(texts, encodings, strict=True), start=1):
        ids = np.array(encoding.ids, np.int32)
        ids = np.concatenate(tokenizer.frame.parts(ids))
        if mask not in text:
            others = find_other_masks(text, mask)
            how = "in capitals, with its brackets" if mask.isupper() else "with its brackets"
            raise UserError(
                f"text {number}, {_shorten(text)}: there is no {mask} in it; write {mask} ({how})"
                " where the model is to find a word"
                + "".join(f", not {other}, which is the mask of other models" for other in others)
            )
        if text.count(mask) != (ids == tokenizer.mask_id).sum():
            raise UserError(
                f"text {number}, {_shorten(text)}: a {mask} in it is part of another token of"
                f" {tokenizer.name}; set it apart with spaces"
            )
        if len(ids) > max_length:
            raise UserError(
                f"text {number}, {_shorten(text)}: {len(ids)} tokens, the model has positions for"
                f" {max_length}; shorten it, or give it in parts that"
                f" each have a {mask}"
            )
        encoded.append(ids)
    return encoded


@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(
    model: nn.Module,
    candidates: int,
    params: Mapping[str, Any],
    batch: tuple[Integer[Array, "B T"], Integer[Array, "B T"], Integer[Array, "B P"]],
) -> tuple[Float[Array, "B P candidates"], Int[Array, "B P candidates"]]:
    token_ids, sequence_ids, masked_positions = batch
    output: HeadOutput = model.apply(
        {"params": params}, token_ids, None, sequence_ids, masked_positions=masked_positions
    )
    return jax.lax.top_k(jax.nn.softmax(output.logits, axis=-1), candidates)


def _fill_in(tokenizer: Tokenizer, text: str, masks: Sequence[FilledMask]) -> str:
    """Returns the text with the best candidates; one that continues a word is joined to it."""
    first, *rest = text.split(tokenizer.mask_token)
    filled = first
    for mask, after in zip(masks, rest, strict=True):
        best = mask.candidates[0]
        word = tokenizer.decode([best.token_id]).strip() or best.token
        # An id beyond the tokenizer's is padding of the vocabulary.
        if best.token_id < tokenizer.vocab_size and tokenizer.continues_word[best.token_id]:
            filled, word = filled.rstrip(), word.removeprefix("##")
        filled += word + after
    return filled


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
