"""What a model answers to a text, by name: the numbers that an explanation is wanted of."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from bertjax.analysis.capture.encoding import EncodedText, find_word_number
from bertjax.analysis.explain.answers import Inputs, Target, pad_inputs
from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.inference.batches import in_turn, whole_params
from bertjax.loaded import Model
from bertjax.program.errors import UserError
from bertjax.program.wording import nearest, with_article

# The two answers of next-sentence prediction, and the one of replaced-token detection.
_NEXT = ("is next", "is random")
_REPLACED = "replaced"
_NO_TAG = "O"
# Masks whose words are asked for together.
_MASKS = 8


class NamedTarget(NamedTuple):
    """One number of a model's answer.

    Attributes:
        place: what of the text it is an answer to: a word, or "" for the whole text.
        answer: the word, label, tag or span, or "replaced"; "" where the answer is nothing but a
            number.
        target: the number itself, a logit.
        has_probability: whether there is a probability beside the logit.
    """

    place: str
    answer: str
    target: Target
    has_probability: bool = True


def choose_targets(
    whole: Model, encoded: EncodedText, answer: str | None = None, word: str | int | None = None
) -> list[NamedTarget]:
    """Returns what the model answers to the text, or the answer that is asked for.

    Args:
        whole: the model.
        encoded: the text. A masked LM is asked for every [MASK], a classifier once, a tagger for
            every word whose tag is not O, a discriminator for every word that it takes for
            replaced, a reader of answers for the start and the end of one in
            the second text, next-sentence prediction and multiple choice for the pair.
        answer: the word, label, tag or span to explain; what the model answers when left out.
        word: of a tagger or a discriminator, the word whose answer is wanted (see
            `find_word_number`), or its number.

    Raises:
        UserError: a model without a head, a text that does not ask it anything, an answer that it
            does not know.
    """
    architecture, config = whole.architecture, whole.config
    outputs = ARCHITECTURES[architecture].outputs
    if word is not None and not {"tag", "replaced"} & {*outputs}:
        raise UserError(
            f"--word is for taggers; {with_article(architecture)} answers for the whole text"
        )
    if whole.kind == BODY:
        raise UserError(
            "the model has no head, so that it answers nothing; take one that is fitted to a task"
            " (bertjax finetune), or one with a masked-LM head"
        )
    if whole.restores_words:
        return _words(whole, encoded, answer)
    if "tag" in outputs:
        return _tags(whole, encoded, answer, word)
    if "replaced" in outputs:
        return _replaced(whole, encoded, answer, word)
    if "class" in outputs:
        if config.label_meaning == "regression":
            _refuse(answer, "a regression answers with a number")
            return [NamedTarget("", "", Target("class"), has_probability=False)]
        return [_class(whole, encoded, "class", config.id2label, answer)]
    if not encoded.token_type_ids.any():
        raise UserError(
            f"{with_article(architecture)} answers to two texts; part them by a tab, in bash as"
            " $'first\\tsecond'"
        )
    if "next-sentence" in outputs:
        return [_class(whole, encoded, "next-sentence", _NEXT, answer)]
    if "choice" in outputs:
        _refuse(answer, "a multiple choice answers with a number for the pair")
        return [NamedTarget("", "", Target("choice"), has_probability=False)]
    return _span(whole, encoded, answer)


def _refuse(answer: str | None, why: str) -> None:
    if answer is not None:
        raise UserError(f"--answer {answer}: {why}; leave it out")


def _words(whole: Model, encoded: EncodedText, answer: str | None) -> list[NamedTarget]:
    """Returns for every [MASK] the likeliest word, or the word that is asked for."""
    positions = np.flatnonzero(encoded.token_ids == whole.tokenizer.mask_id)
    if not len(positions):
        raise UserError(
            f"{with_article(whole.architecture)} restores words, and the text has no"
            f" {whole.tokenizer.mask_token}; put one in the place of the word to explain"
        )
    if answer is None:
        ids = []
        # As many at a time as have a shape of their own, whatever their number.
        for first in range(0, len(positions), _MASKS):
            asked = positions[first : first + _MASKS]
            padded = np.zeros((1, _MASKS), np.int32)
            padded[0, : len(asked)] = asked
            logits = _logits(whole, encoded, masked_positions=padded)[: len(asked)]
            ids += logits.argmax(axis=-1).tolist()
    else:
        # A part of a word, as it is told in answers (##ing), is itself, not its characters.
        own, space = whole.tokenizer.find_token(answer), whole.tokenizer.word_space
        tokens = whole.tokenizer.encode([space + answer])[0].ids if own is None else [own]
        if len(tokens) != 1:
            raise UserError(
                f"--answer {answer}: is {len(tokens)} tokens of the model's vocabulary; a"
                f" {whole.tokenizer.mask_token} is one of them"
            )
        ids = tokens * len(positions)
    return [
        NamedTarget(
            encoded.words[encoded.word_ids[position]],
            whole.tokenizer.spell(token),
            Target("token", token, int(position)),
        )
        for position, token in zip(positions, ids, strict=True)
    ]


def _class(
    whole: Model, encoded: EncodedText, output: Any, names: Sequence[str], answer: str | None
) -> NamedTarget:
    """Returns the likeliest class, or the class that is asked for."""
    index = int(_logits(whole, encoded)[0].argmax()) if answer is None else _index(answer, names)
    return NamedTarget("", names[index], Target(output, index))


def _tags(
    whole: Model, encoded: EncodedText, answer: str | None, word: str | int | None
) -> list[NamedTarget]:
    """Returns the likeliest tag of every tagged word, or what is asked for of either."""
    names, firsts = whole.config.id2label, encoded.first_tokens
    tags = _logits(whole, encoded)[firsts].argmax(axis=-1)
    if word is not None:
        numbers = [word if isinstance(word, int) else find_word_number(encoded, word)]
    elif answer is not None:
        raise UserError(f"--answer {answer}: name the word, too, with --word")
    else:
        numbers = [
            number
            for number in np.flatnonzero(~encoded.special_words).tolist()
            if names[tags[number]] != _NO_TAG
        ]
        if not numbers:
            raise UserError(
                f"the model gives every word of the text the tag {_NO_TAG}; name one with --word"
            )
    targets = []
    for number in numbers:
        index = int(tags[number]) if answer is None else _index(answer, names)
        target = Target("tag", index, int(firsts[number]))
        targets.append(NamedTarget(encoded.words[number], names[index], target))
    return targets


def _replaced(
    whole: Model, encoded: EncodedText, answer: str | None, word: str | int | None
) -> list[NamedTarget]:
    """Returns the answer to every word with a token that is taken for replaced, or to one word.

    Of several tokens of a word it is the one that is likeliest replaced.
    """
    if answer is not None:
        _index(answer, (_REPLACED,))
    logits = _logits(whole, encoded)
    if word is not None:
        numbers = [word if isinstance(word, int) else find_word_number(encoded, word)]
    else:
        suspects = (logits > 0) & ~encoded.special
        numbers = np.unique(encoded.word_ids[suspects]).tolist()
        if not numbers:
            raise UserError(
                "the model takes no word of the text for replaced; name one with --word"
            )
    targets = []
    for number in numbers:
        tokens = np.flatnonzero(encoded.word_ids == number)
        position = int(tokens[logits[tokens].argmax()])
        targets.append(
            NamedTarget(encoded.words[number], _REPLACED, Target("replaced", 0, position))
        )
    return targets


def _span(whole: Model, encoded: EncodedText, answer: str | None) -> list[NamedTarget]:
    """Returns start and end of the likeliest answer in the second text, or of the one asked for."""
    inside = np.flatnonzero((encoded.token_type_ids == 1) & ~encoded.special)
    if answer is None:
        starts, ends = _logits(whole, encoded)[inside].T
        sums = np.where(np.tri(len(inside), dtype=bool).T, starts[:, None] + ends, -np.inf)
        first, last = (inside[int(at)] for at in np.unravel_index(sums.argmax(), sums.shape))
    else:
        first, last = _find_span(encoded, inside, answer)
    words = encoded.words[encoded.word_ids[first] : encoded.word_ids[last] + 1]
    name = " ".join(words) if answer is None else answer
    return [
        NamedTarget("start", name, Target("start", 0, int(first))),
        NamedTarget("end", name, Target("end", 0, int(last))),
    ]


def _find_span(encoded: EncodedText, inside: np.ndarray, answer: str) -> tuple[int, int]:
    """Finds the tokens of the second text that overlap the answer, ignoring white space and case.

    Where it occurs several times it is the first place at which it is whole words, if there is one.
    """
    wanted = "".join(answer.split()).casefold()
    spelt, owners, starts = "", [], [0]
    for word in np.unique(encoded.word_ids[inside]):
        tokens = inside[encoded.word_ids[inside] == word]
        offsets, text = encoded.offsets[tokens], encoded.words[word]
        # Some tokenizers count the space before a word as part of it.
        begin = offsets[-1, 1] - len(text)
        for place, letter in enumerate(text, start=begin):
            of = tokens[(offsets[:, 0] <= place) & (place < offsets[:, 1])]
            spelt += letter.casefold()
            owners += [of] * len(letter.casefold())
        starts.append(len(spelt))
    places = [at for at in range(len(spelt)) if wanted and spelt.startswith(wanted, at)]
    whole = [at for at in places if at in starts and at + len(wanted) in starts]
    for at in [*whole, *places]:
        overlapping = np.concatenate(owners[at : at + len(wanted)])
        if len(overlapping):
            return int(overlapping.min()), int(overlapping.max())
    raise UserError(f"--answer {answer}: these words do not stand in the second text")


def _index(answer: str, names: Sequence[str]) -> int:
    if answer not in names:
        raise UserError(
            f"--answer {answer}: the model knows {', '.join(names)}{nearest(answer, list(names))}"
        )
    return names.index(answer)


def _logits(
    whole: Model, encoded: EncodedText, **options: np.ndarray
) -> Float[np.ndarray, "places answers"]:
    """Computes the head's output for the text, without padding."""
    params, inputs = whole_params(whole.params, whole.mesh), pad_inputs(whole, encoded)
    logits = in_turn(lambda: np.asarray(_apply(whole.module, params, inputs, options)))
    return logits[0, : len(encoded.token_ids)]


@functools.partial(jax.jit, static_argnums=0)
def _apply(
    model: nn.Module,
    params: Mapping[str, Any],
    inputs: Inputs,
    options: Mapping[str, Integer[Array, "1 P"]],
) -> Float[Array, "1 places answers"]:
    # As `answers` does, on whose numbers the choice is explained.
    result = model.apply({"params": params}, *inputs, **options)
    return jnp.asarray(result.mlm_logits if hasattr(result, "mlm_logits") else result.logits)
