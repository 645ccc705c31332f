"""What if another word stood there: how predictions and attention move."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bertjax.analysis.capture.encoding import EncodedText, merge_subwords
from bertjax.analysis.capture.maps import capture, randomize
from bertjax.analysis.layers.lens import ask_words, spell
from bertjax.architectures import BODY
from bertjax.loaded import Model
from bertjax.program.errors import UserError


class WhatIf(NamedTuple):
    """A text, and the same with one word replaced; words keep their numbers.

    Attributes:
        before, after: the texts.
        word: the number of the word that was replaced.
        asked: the numbers of the other words, special ones left out.
        log_probability_before, log_probability_after: of each word asked, masked, by the rest of
            the text: the mean natural logarithm over its tokens.
        candidates: the likeliest tokens in the place of each token of the word before, masked.
        candidate_probability: theirs.
        attention_before, attention_after: between words.
        moved: how far each head's attention moved: the total variation distance (0 = not at all,
            1 = to quite other words), mean over the words from which it goes.
        control_moved: the same of a model of this shape with random weights.
    """

    before: EncodedText
    after: EncodedText
    word: int
    asked: Int[np.ndarray, " words"]
    log_probability_before: Float[np.ndarray, " words"]
    log_probability_after: Float[np.ndarray, " words"]
    candidates: tuple[tuple[str, ...], ...]
    candidate_probability: Float[np.ndarray, "places top_k"]
    attention_before: Float[np.ndarray, "L N W W"]
    attention_after: Float[np.ndarray, "L N W W"]
    moved: Float[np.ndarray, "L N"]
    control_moved: Float[np.ndarray, "L N"]

    def __repr__(self) -> str:
        change = f"{self.before.words[self.word]} -> {self.after.words[self.word]}"
        likelier = self.log_probability_after - self.log_probability_before
        words = ", ".join(
            f"{self.before.words[number]} {value:+.3f}"
            for number, value in zip(self.asked, likelier, strict=True)
        )
        layer, head = np.unravel_index(self.moved.argmax(), self.moved.shape)
        return (
            f"WhatIf({change}; log probability: {words}; attention moved most in head"
            f" {layer}-{head}, {self.moved.max():.3f})"
        )


def replace_word(
    model: Model, encoded: EncodedText, word: int, replacement: str | None
) -> EncodedText:
    """Replaces the tokens of a word by others, which count as one word.

    Args:
        model: whose tokenizer it is.
        encoded: the text.
        word: its number among `encoded.words`; no special one.
        replacement: any text; None is the mask in the place of every token of the word.

    Returns:
        The text with the offsets of the old word at each new token.

    Raises:
        UserError: no such word, nothing left of the replacement, or a text that gets too long.
    """
    if not 0 <= word < len(encoded.words) or encoded.special_words[word]:
        raise UserError(
            f"word {word} cannot be replaced; words are numbered from 1 to"
            f" {len(encoded.words) - 2}, and {encoded.words[0]} and {encoded.words[-1]} stay"
        )
    place = np.flatnonzero(encoded.word_ids == word)
    start, end = int(place[0]), int(place[-1]) + 1
    if replacement is None:
        ids, name = [model.tokenizer.mask_id] * len(place), model.tokenizer.mask_token
    else:
        tokenizer = model.tokenizer
        has_space = not tokenizer.continues_word[encoded.token_ids[start]]
        spaced = tokenizer.word_space * has_space + replacement
        [encoding] = tokenizer.encode([spaced], masks=True)
        ids, name = encoding.ids, replacement
        if not ids:
            raise UserError(f"nothing is left of {replacement!r} as tokens; give another word")
    most = model.config.max_length
    if len(encoded.token_ids) - len(place) + len(ids) > most:
        raise UserError(
            f"with {replacement!r} the text has more than the {most} tokens that the model has"
            " positions for; shorten it"
        )
    tokens = tuple(
        model.tokenizer.spell(id, begins_word=number == 0) for number, id in enumerate(ids)
    )

    def swap(values: np.ndarray, new: np.ndarray) -> np.ndarray:
        return np.concatenate([values[:start], new.astype(values.dtype), values[end:]])

    size = len(ids)
    whole = np.array([encoded.offsets[start, 0], encoded.offsets[end - 1, 1]])
    return encoded._replace(
        token_ids=swap(encoded.token_ids, np.array(ids)),
        token_type_ids=swap(encoded.token_type_ids, np.full(size, encoded.token_type_ids[start])),
        offsets=swap(encoded.offsets, np.tile(whole, (size, 1))),
        special=swap(encoded.special, np.zeros(size, bool)),
        word_ids=swap(encoded.word_ids, np.full(size, word)),
        tokens=(*encoded.tokens[:start], *tokens, *encoded.tokens[end:]),
        words=(*encoded.words[:word], name, *encoded.words[word + 1 :]),
    )


def what_if(
    model: Model,
    encoded: EncodedText,
    word: int,
    replacement: str | None = None,
    seed: int = 0,
) -> WhatIf:
    """Compares the model's output before and after a word is replaced by another or by a mask.

    Args:
        model: with a masked-LM head.
        encoded: the text, of two words at least.
        word: its number among `encoded.words`; no special one.
        replacement: as of `replace_word`.
        seed: of the random control.

    Raises:
        UserError: what `replace_word` raises, or a text of one word.
    """
    after = replace_word(model, encoded, word, replacement)
    asked = np.setdiff1d(np.flatnonzero(~encoded.special_words), [word])
    if not len(asked):
        raise UserError("the text is one word; a what-if needs others that may change")
    before_logs, _ = ask_words(model, encoded, asked)
    after_logs, _ = ask_words(model, after, asked)
    _, at_word = ask_words(model, encoded, [word])
    body = model.as_architecture(BODY)
    maps, random_maps = (
        [
            merge_subwords(captured.probs, captured.encoded)
            for captured in capture(compared, [encoded, after])
        ]
        for compared in (body, randomize(body, seed))
    )
    return WhatIf(
        encoded, after, word, asked, before_logs, after_logs,
        spell(model.tokenizer, at_word.top_ids[-1:])[0], at_word.top_probability[-1], *maps,
        _how_far(*maps), _how_far(*random_maps),
    )  # fmt: skip


def _how_far(
    before: Float[np.ndarray, "L N W W"], after: Float[np.ndarray, "L N W W"]
) -> Float[np.ndarray, "L N"]:
    return 0.5 * np.abs(before - after).sum(axis=-1).mean(axis=-1)
