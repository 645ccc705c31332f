"""The same texts with typing errors, in other letters, with other punctuation and spacing."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from bertjax.gating.terms import KINDS
from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.squad import Question, normalize_answer
from bertjax.tasks.tagged_sentences import TaggedSentence
from bertjax.tasks.task import Prediction

# Words of which one has a typing error, and the letters that such a word has at least.
WORDS_A_TYPO, LEAST_LETTERS = 10, 4
_MARKS = ".,;:!?"


def kinds_for(task: str) -> tuple[str, ...]:
    """Returns the kinds of change that a task's texts allow: none of regression, whose answers are
    numbers; those within words of tagged ones, which are separate already.

    Args:
        task: its name.
    """
    if task == "regression":
        return ()
    return KINDS[:2] if task == "tokens" else KINDS


def change_examples(examples: Sequence[Any], kind: str, seed: int) -> list[Any]:
    """Returns the examples with changed texts, and with the labels that they had.

    Of a question about a text only the question changes, lest the answer move; of one with choices
    only its context.

    Args:
        examples: as a task's reader gives them.
        kind: one of `KINDS`.
        seed: of what is drawn; an example's change depends on its number and this alone.
    """
    change = _CHANGES[kind]
    changed = []
    for number, example in enumerate(examples):
        draw = random.Random(f"{seed} {kind} {number}")
        changed.append(_change(example, lambda text, draw=draw: change(text, draw)))
    return changed


def _change(example: Any, change: Callable[[str], str]) -> Any:
    match example:
        case TaggedSentence():
            words = change("\n".join(example.tokens)).split("\n")
            return example._replace(tokens=tuple(words))
        case Question():
            return example._replace(question=change(example.question))
        case ChoiceQuestion():
            return example._replace(context=change(example.context))
    second = None if example.second is None else change(example.second)
    return example._replace(first=change(example.first), second=second)


def find_flips(
    before: Sequence[Prediction], after: Sequence[Prediction]
) -> Bool[np.ndarray, " examples"]:
    """Returns of which examples the answer is another.

    Args:
        before: to the texts as they were.
        after: to the changed texts.
    """
    return np.array([_answer(a) != _answer(b) for a, b in zip(before, after, strict=True)], bool)


def _answer(prediction: Prediction) -> Any:
    """Returns what is answered, whatever its probability."""
    if "answer" in prediction:
        return normalize_answer(prediction["answer"])
    for field in ("label", "choice", "tags", "labels"):
        if field in prediction:
            return prediction[field]
    raise AssertionError(prediction)


def _mistype(text: str, draw: random.Random) -> str:
    """Swaps, drops or doubles a letter within one word of ten, within one word at least."""
    words = _split(text)
    long = [n for n, word in enumerate(words) if len(word) >= LEAST_LETTERS and word.isalpha()]
    if not long:
        return text
    for number in draw.sample(long, max(1, len(long) // WORDS_A_TYPO)):
        word = words[number]
        at = draw.randrange(1, len(word) - 1)
        words[number] = draw.choice(
            (
                word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
            )
        )
    return "".join(words)


def _change_case(text: str, draw: random.Random) -> str:
    """Puts all letters into capitals, or into small ones, whichever is another text."""
    others = [other for other in (text.upper(), text.lower()) if other != text]
    return draw.choice(others) if others else text


def _change_punctuation(text: str, draw: random.Random) -> str:
    """Drops every second mark, and ends with a mark where there was none, or with none."""
    kept = "".join(letter for letter in text if letter not in _MARKS or draw.random() < 0.5)
    if text.rstrip().endswith(tuple(_MARKS)):
        return kept.rstrip(_MARKS + " ")
    return kept + draw.choice(".!")


def _change_spacing(text: str, draw: random.Random) -> str:
    """Doubles every second space, closes one of them, and puts some around the text."""
    gaps = [number for number, letter in enumerate(text) if letter == " "]
    closed = draw.choice(gaps) if gaps else -1
    letters = [
        "" if number == closed else "  " if letter == " " and draw.random() < 0.5 else letter
        for number, letter in enumerate(text)
    ]
    return f" {''.join(letters)} "


def _split(text: str) -> list[str]:
    """Returns words and what is between them, in order."""
    pieces: list[str] = []
    for letter in text:
        if pieces and letter.isalnum() == pieces[-1][-1].isalnum():
            pieces[-1] += letter
        else:
            pieces.append(letter)
    return pieces


_CHANGES: dict[str, Callable[[str, random.Random], str]] = {
    "typos": _mistype,
    "case": _change_case,
    "punctuation": _change_punctuation,
    "spacing": _change_spacing,
}
