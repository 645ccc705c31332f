"""Questions about texts in the format of SQuAD 1.1 and 2.0, and their official scores.

read_questions(names, config)  -> the questions of some files, and what was wrong with answers
sum_up(judge(questions, answers))  -> exact match and F1, as the official scripts define them
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Int

from bertjax.program.errors import UserError
from bertjax.text import streams
from bertjax.text.record_config import shown
from bertjax.text.sources import Source, find_sources
from bertjax.text.surrogates import without_surrogates

Kind = TypeVar("Kind")

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answer(NamedTuple):
    """An answer in the context, without white space around it:
    `context[start : start + len(text)] == text`.
    """

    text: str
    start: int


class Question(NamedTuple):
    """A question.

    question_id: the name for its predictions.
    question, context, title: texts; a byte order mark in the context is one of its characters,
        which offsets count.
    answers: those in the context, with corrected offsets; the only ones to learn from.
    is_impossible: whether the context has no answer.
    place: file and path in its JSON, for messages.
    gold_texts: all answers as in the file, which scores compare with; empty where there is
        none.
    """

    question_id: str
    question: str
    context: str
    title: str
    answers: tuple[Answer, ...]
    is_impossible: bool
    place: str
    gold_texts: tuple[str, ...]


class Judged(NamedTuple):
    """The quality of the answer to each question, in arrays over the questions.

    has_answer: whether the question has an answer.
    exact, f1: in [0, 1], for the answer if it is given.
    odds: how much no answer is preferred to it; None where unknown.
    given_up: whether it counts as no answer.
    """

    has_answer: Bool[np.ndarray, " N"]
    exact: Float[np.ndarray, " N"]
    f1: Float[np.ndarray, " N"]
    odds: Float[np.ndarray, " N"] | None
    given_up: Bool[np.ndarray, " N"]

    def drawn(self, numbers: Int[np.ndarray, " M"]) -> "Judged":
        """Selects these questions, which may be repeated."""
        return Judged(*(None if values is None else values[numbers] for values in self))


class AnswerReport(NamedTuple):
    """Answers whose offset was wrong, as the ids of their questions, each once.

    repaired: the text is elsewhere in the context; the nearest place was taken.
    unusable: the text is not in the context, or there is none although is_impossible is false;
        nothing learns from it.
    """

    repaired: tuple[str, ...]
    unusable: tuple[str, ...]

    def sentences(self) -> list[str]:
        """Returns what a user should know about it: nothing, or a sentence for each kind."""
        kinds = (
            (self.repaired, "answers with a wrong offset were moved to the nearest place"),
            (
                self.unusable,
                "answers that are not in their context, or nothing but white space, are left out"
                " of training",
            ),
        )
        return [
            f"{what}: {len(ids)} questions, the first {', '.join(ids[:3])}"
            for ids, what in kinds
            if ids
        ]


def read_questions(
    names: Sequence[str], config: streams.Decoding, labelled: bool = True
) -> tuple[list[Question], AnswerReport]:
    """Reads the questions of files, in order.

    Args:
        names: JSON files in the format of SQuAD 1.1 or 2.0.
        config: the files' encoding.
        labelled: False: answers are not read.

    Returns:
        The questions, and the answers whose offsets were wrong: corrected if the context has their
        text (except for white space around it), otherwise left out.

    Raises:
        UserError: another format, with the place and what is missing there; two questions with
            the same id; answers to a question that is marked impossible.
    """
    streams.check_encoding(config.encoding)
    questions: dict[str, Question] = {}
    repaired: dict[str, None] = {}
    unusable: dict[str, None] = {}
    for source in find_sources(
        names, config.encoding, otherwise="json", prefix=getattr(config, "option_prefix", "--")
    ):
        for place, title, context, entry in _entries(source, config):
            question = _question(place, title, context, entry)
            if (other := questions.get(question.question_id)) is not None:
                raise UserError(
                    f"{place}: the id {question.question_id!r} is also that of {other.place}; "
                    "predictions are named by id, give each question its own"
                )
            if labelled:
                answers, impossible = _answers(place, entry)
                places = [_locate(text, start, context) for text, start in answers]
                if any(
                    new and new.start != start + _margin(text)
                    for new, (text, start) in zip(places, answers, strict=True)
                ):
                    repaired[question.question_id] = None
                if None in places or not (places or impossible):
                    unusable[question.question_id] = None
                question = question._replace(
                    answers=tuple(answer for answer in places if answer is not None),
                    is_impossible=impossible,
                    gold_texts=tuple(text for text, _ in answers),
                )
            questions[question.question_id] = question
    if not questions:
        raise UserError(f"{', '.join(names)}: no questions")
    return list(questions.values()), AnswerReport(tuple(repaired), tuple(unusable))


def _entries(
    source: Source, config: streams.Decoding
) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yields place, title, context and entry of every question of a file."""
    if source.kind not in ("json", "txt"):
        raise UserError(f"{source.name}: questions come as JSON in the format of SQuAD")
    try:
        text = "".join(streams.pieces(source, config))
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{source.name}:{line}: not JSON ({error})") from None
    content = without_surrogates(source.name, 1, content, text, config)
    for i, article in enumerate(_member(source.name, content, "data", list)):
        place = f"{source.name}: data[{i}]"
        for j, paragraph in enumerate(_member(place, article, "paragraphs", list)):
            inner = f"{place}.paragraphs[{j}]"
            context = _member(inner, paragraph, "context", str)
            for k, entry in enumerate(_member(inner, paragraph, "qas", list)):
                yield f"{inner}.qas[{k}]", str(article.get("title", "")), context, entry


def _member(place: str, value: Any, name: str, kind: type[Kind]) -> Kind:
    """Returns `value[name]`, which must be of this kind."""
    items = value.get(name) if isinstance(value, dict) else None
    if isinstance(items, kind):
        return items
    what = f"{name!r} is {shown(items)}" if isinstance(value, dict) else f"this is {shown(value)}"
    raise UserError(
        f"{place}: {what}, not as SQuAD has it: an object with 'data', a list of objects with "
        "'paragraphs', each with 'context' and 'qas', each with 'id', 'question' and 'answers', "
        "each with 'text' and 'answer_start'"
    )


def _question(place: str, title: str, context: str, entry: Any) -> Question:
    text = _member(place, entry, "question", str)
    number = entry.get("id")
    if not isinstance(number, str | int):
        raise UserError(f"{place}: 'id' is {shown(number)}; predictions are named by it")
    return Question(str(number), text, context, title, (), False, place, ())


def _answers(place: str, entry: Mapping[str, Any]) -> tuple[list[tuple[str, int]], bool]:
    """Returns texts and offsets as they are given, and whether there is no answer."""
    answers = [
        (
            _member(f"{place}.answers[{number}]", answer, "text", str),
            _member(f"{place}.answers[{number}]", answer, "answer_start", int),
        )
        for number, answer in enumerate(_member(place, entry, "answers", list))
    ]
    impossible = bool(entry.get("is_impossible", not answers))
    if impossible and answers:
        raise UserError(
            f"{place}: is_impossible, yet it has the answer {shown(answers[0][0])}; "
            "one of them is wrong (answers that only seem right are plausible_answers)"
        )
    return answers, impossible


def _locate(text: str, start: int, context: str) -> Answer | None:
    """Finds the answer without the white space around it, at its offset, else at the nearest place
    that has its text.
    """
    bare, start = text.strip(), start + _margin(text)
    if bare and start >= 0 and context.startswith(bare, start):
        return Answer(bare, start)
    if not bare or not (places := _occurrences(bare, context)):
        return None
    return Answer(bare, min(places, key=lambda place: abs(place - start)))


def _margin(text: str) -> int:
    """Counts the characters of white space that the text begins with."""
    return len(text) - len(text.lstrip())


def _occurrences(text: str, context: str) -> list[int]:
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    return places


def normalize_answer(text: str) -> str:
    """Returns the text as answers are compared: lower case, without punctuation and the English
    articles a, an, the, with one space between words.

    Args:
        text: an answer.

    Source: Rajpurkar et al. 2016, section 6.1; `evaluate-v1.1.py` and `evaluate-v2.0.py` do the
    same in every language.
    """
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(answer: str, gold_texts: Sequence[str]) -> float:
    """Returns 1 if the answer equals a gold one, both normalised, else 0; "" is no answer.

    Args:
        answer: the model's.
        gold_texts: all answers that are right; none = there is no answer.
    """
    wanted = normalize_answer(answer)
    return float(any(normalize_answer(gold) == wanted for gold in _comparable(gold_texts)))


def answer_f1(answer: str, gold_texts: Sequence[str]) -> float:
    """Computes F1 in [0, 1] of the words that the answer and a gold one share, normalised, for the
    best gold one. If either is no answer, it is 1 if both are.

    Args:
        answer: the model's.
        gold_texts: all answers that are right; none = there is no answer.

    Source: Rajpurkar et al. 2016, section 6.1; 2018 for no answer.
    """
    words = Counter(normalize_answer(answer).split())
    return max(
        _overlap(words, Counter(normalize_answer(gold).split())) for gold in _comparable(gold_texts)
    )


def _comparable(gold_texts: Sequence[str]) -> Sequence[str]:
    """Returns the gold answers that are not empty when normalised; else no answer."""
    return [gold for gold in gold_texts if normalize_answer(gold)] or [""]


def _overlap(words: Counter, gold: Counter) -> float:
    if not words or not gold:
        return float(words == gold)
    return 2 * (words & gold).total() / (words.total() + gold.total())


def judge(
    questions: Sequence[Question],
    answers: Mapping[str, str],
    null_odds: Mapping[str, float | None] | None = None,
    threshold: float | None = None,
) -> Judged:
    """Judges each answer, for `sum_up`.

    Args:
        questions: the questions, with gold texts.
        answers: by question id; "" for no answer. With `null_odds`, the best text that is not
            empty, so that the search for a threshold sees it.
        null_odds: by question id, how much no answer is preferred to the answer; None: entirely.
        threshold: an answer whose null odds are above it counts as none; None: all count as given.

    Raises:
        UserError: a question has no prediction.
    """
    ids = [question.question_id for question in questions]
    for name, given in (("answer", answers), ("null odds", null_odds)):
        missing = [] if given is None else [number for number in ids if number not in given]
        if missing:
            raise UserError(
                f"no {name} for {len(missing)} of {len(ids)} questions, the first {missing[0]!r}; "
                "a file of predictions must have all questions of the data"
            )
    odds = None
    if null_odds is not None:
        given = (null_odds[number] for number in ids)
        odds = np.array([np.inf if value is None else value for value in given])
    return Judged(
        np.array([bool(question.gold_texts) for question in questions]),
        np.array([exact_match(answers[q.question_id], q.gold_texts) for q in questions]),
        np.array([answer_f1(answers[q.question_id], q.gold_texts) for q in questions]),
        odds,
        np.zeros(len(ids), bool) if threshold is None or odds is None else odds > threshold,
    )


def sum_up(judged: Judged) -> dict[str, float | int]:
    """Computes exact match and F1 in percent.

    Args:
        judged: all questions.

    Returns:
        `exact`, `f1` and `total`; the same for questions with an answer (`HasAns_...`) and without
        (`NoAns_...`), where there are any; with null odds also `best_exact` and `best_f1`, from the
        best of all thresholds, `best_exact_thresh` and `best_f1_thresh`.

    Source: Rajpurkar et al. 2016, 2018; the names are those of `evaluate-v2.0.py`. Differs: a
    threshold is judged with all questions on one side of it, also where several have the same
    odds, and is below all odds, not at 0, if it is best to answer nothing.
    """
    has_answer, given_up = judged.has_answer, judged.given_up
    answered = {"exact": judged.exact, "f1": judged.f1}
    scores: dict[str, float | int] = {}
    for prefix, chosen in (
        ("", np.ones(len(has_answer), bool)),
        ("HasAns_", has_answer),
        ("NoAns_", ~has_answer),
    ):
        if chosen.any():
            for name, values in answered.items():
                counted = np.where(given_up, ~has_answer, values)[chosen]
                scores[prefix + name] = 100 * float(counted.mean())
            scores[f"{prefix}total"] = int(chosen.sum())
    if judged.odds is not None:
        for name, values in answered.items():
            best, at = _best_threshold(values, (~has_answer).astype(float), judged.odds)
            scores |= {f"best_{name}": 100 * best, f"best_{name}_thresh": at}
    return scores


def _best_threshold(
    answered: np.ndarray, given_up: np.ndarray, odds: np.ndarray
) -> tuple[float, float]:
    """Finds the best mean score over all thresholds, and the lowest threshold that gives it.

    Args:
        answered: [N] the score of each question if its answer counts.
        given_up: [N] its score if it counts as none, as where odds > threshold.
        odds: [N]
    """
    order = np.argsort(odds, kind="stable")
    odds, gains = odds[order], (answered - given_up)[order]
    # Totals after the last question of each group with the same finite odds, before them zero.
    last = odds != np.append(odds[1:], np.inf)
    totals = np.concatenate([[0.0], np.cumsum(gains)[last]])
    lowest = odds[0] if np.isfinite(odds[0]) else 0.0
    thresholds = np.concatenate([[np.nextafter(lowest, -np.inf)], odds[last]])
    # Rounding must not make a later total better.
    best = int(np.argmax(totals >= totals.max() - 1e-9))
    return float((given_up.sum() + totals[best]) / len(odds)), float(thresholds[best])
