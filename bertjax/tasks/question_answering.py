"""Extractive question answering: the span of a text that answers a question, or that none does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from bertjax.objectives import losses
from bertjax.objectives.losses import Total
from bertjax.program.errors import UserError
from bertjax.program.strict_json import to_json
from bertjax.program.wording import counted
from bertjax.tasks import squad
from bertjax.tasks.resampling import Resampler
from bertjax.tasks.squad import Answer, Question
from bertjax.tasks.task import Encoded, Prediction, name_lines, softmax
from bertjax.tasks.units import Layout, Unit
from bertjax.text.framing import frame
from bertjax.text.lines import separate_pair
from bertjax.text.tokenizer import Tokenizer
from bertjax.types import TaskBatch

# Source: google-research/bert run_squad.py: --doc_stride, --max_query_length,
# --max_answer_length, --n_best_size.
STRIDE, LONGEST_QUESTION, LONGEST_ANSWER, BEST = 128, 64, 30, 20


class Window(NamedTuple):
    """The part of a context that is in a unit.

    Attributes:
        first: the place of its first token in the unit.
        offsets: the characters of its tokens in the context.
        owned: whether no other window has more context around the token.
    """

    first: int
    offsets: Int[np.ndarray, "t 2"]
    owned: Bool[np.ndarray, " t"]


class AnswerPrediction(NamedTuple):
    """The answer to a question (see `QuestionAnswering.decode`).

    Attributes:
        id: of the question.
        answer: a part of the context; "" for none.
        start: its first character in the context; None of no answer.
        end: past its last character.
        null_odds: the score of no answer minus that of the best span; None where there is no span.
        nbest: the likeliest answers, each with its probability among them.
    """

    id: str
    answer: str
    start: int | None
    end: int | None
    null_odds: float | None
    nbest: list[dict[str, Any]]


class QuestionAnswering:
    """The answer to a question as a span of its context (`tasks.task.Task`).

    A context that is too long for the model is read in overlapping windows, and the best span of
    all of them counts. An answer's span is the tokens that overlap its characters. In a window
    without all of it, as without any answer, the span is that of the frame's first token,
    [CLS]; a question whose whole answer is in no window is left out of training, so that it does
    not become one without answer.

    Args:
        answerable: whether every question has an answer (SQuAD 1.1); otherwise (SQuAD 2.0) the
            prediction is empty where [CLS] scores higher than every span by more than `threshold`.
        threshold: see above.
        stride: tokens from the start of a window to the start of the next, at most; half the
            length of a short window.
        longest_question: tokens of a question; what is longer is cut.
        longest_answer: tokens of an answer that is given.

    Source: Devlin et al. 2019, sections 4.2 and 4.3; google-research/bert `run_squad`.
    """

    name = "question-answering"
    per_token = True
    main_score = "f1"
    prediction = AnswerPrediction
    score_scale = 100.0
    outcome_name = "F1"

    def __init__(
        self,
        answerable: bool,
        threshold: float = 0.0,
        stride: int = STRIDE,
        longest_question: int = LONGEST_QUESTION,
        longest_answer: int = LONGEST_ANSWER,
    ) -> None:
        self._answerable, self._threshold, self._stride = answerable, threshold, stride
        self._longest_question, self._longest_answer = longest_question, longest_answer

    @property
    def score_names(self) -> tuple[str, ...]:
        """The scores of all questions, of those with an answer, and of those without any."""
        names = ("exact", "f1", "HasAns_exact", "HasAns_f1")
        if self._answerable:
            return names
        return (*names, "NoAns_exact", "NoAns_f1", "best_exact", "best_f1")

    def model_fields(self) -> Mapping[str, Any]:
        """Returns whether every question has an answer."""
        return {"answerable": self._answerable}

    def examples_of_lines(
        self, lines: Sequence[str], places: Sequence[str] | None = None
    ) -> list[Question]:
        """Reads a question per line: the question and its context, tab-separated."""
        named = enumerate(name_lines(lines, places), start=1)
        return [_question_of_line(number, *line) for number, line in named]

    def encode(
        self,
        examples: Sequence[Question],
        tokenizer: Tokenizer,
        max_length: int,
        *,
        training: bool,
    ) -> Encoded:
        """Makes units of question and window; the label is first and last token, int32 [1, 2].

        Raises:
            UserError: a question leaves no room for its context.
        """
        questions = tokenizer.encode_batch([example.question for example in examples])
        contexts = tokenizer.encode_with_offsets([example.context for example in examples])
        special = tokenizer.frame.size(pair=True)
        units: list[Unit] = []
        windowed = cut = widened = 0
        unmapped, unheld = [], []
        for number, (example, question, (ids, offsets)) in enumerate(
            zip(examples, questions, contexts, strict=True)
        ):
            if training and not example.answers and not example.is_impossible:
                continue  # its answer is not in its context: the reader has reported it
            cut += len(question) > self._longest_question
            question = question[: self._longest_question]
            room = max_length - len(question) - special
            if room < 1:
                least = self._longest_question + special + 1
                raise UserError(
                    f"{example.place}: the question has {len(question)} tokens and leaves no room"
                    f" for its context in max_length={max_length}; {least} has some for every"
                    " question"
                )
            bounds = cut_windows(len(ids), room, self._stride)
            windowed += len(bounds) > 1
            owners = own_tokens(len(ids), bounds)
            known = (_find_span(example.context, answer, offsets) for answer in example.answers)
            span = next(filter(None, known), None)
            known = example.is_impossible or span is not None
            if span is None and example.answers:
                unmapped.append(example.question_id)
            elif span and not any(start <= span.first and span.last < end for start, end in bounds):
                known = False
                unheld.append(example.question_id)
            if training and not known:
                continue
            widened += span is not None and span.is_wider
            for window, (start, end) in enumerate(bounds):
                sequence, _ = frame(tokenizer, question, ids[start:end], max_length)
                first = sequence.second_start
                label = (0, 0)
                if span and start <= span.first and span.last < end:
                    label = (first + span.first - start, first + span.last - start)
                units.append(
                    Unit(
                        number,
                        (sequence,),
                        np.array([label], np.int32),
                        np.array([known], np.float32),
                        Window(first, offsets[start:end], owners[start:end] == window),
                    )
                )
        notes = tokenizer.describe_readings((each.question, each.context) for each in examples)
        if windowed:
            notes.append(f"{windowed:,} of {len(examples):,} contexts are read in several windows")
        impossible = sum(example.is_impossible for example in examples)
        if self._answerable and impossible:
            notes.append(
                f"{impossible:,} of {len(examples):,} questions have no answer, and this model"
                " gives each of them an answer (answerable in its config.json)"
            )
        left = "left out of training" if training else "not counted in the loss"
        for ids_of, why in (
            (unmapped, "no token of the model has a character of the answer"),
            (unheld, f"no window of max_length={max_length} tokens holds the whole answer"),
        ):
            if ids_of:
                notes.append(
                    f"{left}, because {why}: {counted(len(ids_of), 'question')}, the first"
                    f" {', '.join(ids_of[:3])}"
                )
        if widened:
            notes.append(
                f"{widened:,} of {len(examples):,} answers begin or end within a token;"
                " the whole token counts as the answer's"
            )
        if cut:
            notes.append(f"cut to {self._longest_question} tokens: {counted(cut, 'question')}")
        return Encoded(units, notes)

    def loss(self, logits: Float[Array, "B T 2"], batch: TaskBatch, layout: Layout) -> Total:
        """Returns the mean cross-entropy of first and last token, in nats."""
        return losses.span_cross_entropy(
            logits, batch.labels, batch.sequence_ids, batch.example_starts, batch.weights
        )

    def decode(
        self,
        examples: Sequence[Question],
        units: Sequence[Unit],
        outputs: Sequence[Float[np.ndarray, "t 2"]],
    ) -> list[Prediction]:
        """Makes `{"answer", "start", "end", "null_odds", "nbest": [{"text", "probability", ...}]}`.

        `null_odds` is the score of no answer minus that of the best span; `start` and `end` are
        characters of the context, null where the answer is empty.
        """
        spans: list[list[_Span]] = [[] for _ in examples]
        nothing = np.full(len(examples), np.inf)
        for unit, output in zip(units, outputs, strict=True):
            spans[unit.example] += _best_spans(
                unit.origin, output.astype(np.float64), self._longest_answer
            )
            nothing[unit.example] = min(nothing[unit.example], float(output[0].sum()))
        return [
            self._choose(example, sorted(of_example, key=lambda span: -span.score), null)
            for example, of_example, null in zip(examples, spans, nothing.tolist(), strict=True)
        ]

    def _choose(self, example: Question, spans: Sequence["_Span"], nothing: float) -> Prediction:
        unlike: dict[str, _Span] = {}
        for candidate in spans:
            span = _without_white_space(example.context, candidate)
            if span.start < span.end:
                unlike.setdefault(example.context[span.start : span.end], span)
            if len(unlike) == BEST:
                break
        best = next(iter(unlike.values()), None)
        odds = nothing - best.score if best else np.inf
        answered = best is not None and (self._answerable or odds <= self._threshold)
        entries = [(text, span.start, span.end, span.score) for text, span in unlike.items()]
        if not self._answerable or not entries:
            entries.append(("", None, None, nothing if np.isfinite(nothing) else 0.0))
            entries.sort(key=lambda entry: -entry[3])
        probabilities = softmax(np.array([entry[3] for entry in entries]))
        nbest = [
            {"text": text, "start": start, "end": end, "score": score, "probability": share}
            for (text, start, end, score), share in zip(
                entries, probabilities.tolist(), strict=True
            )
        ]
        return {
            "id": example.question_id,
            "answer": example.context[best.start : best.end] if answered else "",
            "start": best.start if answered else None,
            "end": best.end if answered else None,
            "null_odds": float(odds) if np.isfinite(odds) else None,
            "nbest": nbest,
        }

    def score(
        self, examples: Sequence[Question], predictions: Sequence[Prediction]
    ) -> dict[str, Any]:
        """Computes exact match and F1 as the official scripts do, in percent."""
        return squad.sum_up(self._judge(examples, predictions))

    def resampler(
        self, examples: Sequence[Question], predictions: Sequence[Prediction]
    ) -> Resampler:
        """Makes the `score` of resamples: each question is judged once."""
        judged = self._judge(examples, predictions)
        return lambda drawn: squad.sum_up(judged.drawn(drawn))

    def _judge(
        self, examples: Sequence[Question], predictions: Sequence[Prediction]
    ) -> squad.Judged:
        if self._answerable:
            answers = {prediction["id"]: prediction["answer"] for prediction in predictions}
            return squad.judge(examples, answers)
        # The search for the best threshold needs the best text even where no answer was given.
        texts = {
            prediction["id"]: next(
                (best["text"] for best in prediction["nbest"] if best["text"]), ""
            )
            for prediction in predictions
        }
        odds = {prediction["id"]: prediction["null_odds"] for prediction in predictions}
        return squad.judge(examples, texts, odds, self._threshold)

    def outcomes(
        self, examples: Sequence[Question], predictions: Sequence[Prediction]
    ) -> Float[np.ndarray, " examples"]:
        """Returns the F1 of every answer, in [0, 1]."""
        return np.array(
            [
                squad.answer_f1(prediction["answer"], example.gold_texts)
                for example, prediction in zip(examples, predictions, strict=True)
            ]
        )

    def write_predictions(
        self, directory: Path, examples: Sequence[Question], predictions: Sequence[Prediction]
    ) -> None:
        """Writes `predictions.json`, `nbest_predictions.json`, `null_odds.json`, by question id."""
        files = {
            "predictions.json": {row["id"]: row["answer"] for row in predictions},
            "nbest_predictions.json": {row["id"]: row["nbest"] for row in predictions},
        }
        if not self._answerable:
            files["null_odds.json"] = {row["id"]: row["null_odds"] for row in predictions}
        for name, content in files.items():
            text = to_json(content, indent=2) + "\n"
            (directory / name).write_text(text, encoding="utf-8")


class _Span(NamedTuple):
    """Characters of a context, and the sum of the logits of the first and last token."""

    start: int
    end: int
    score: float


def cut_windows(tokens: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Cuts tokens into windows of at most `room`, as (first, last + 1), that cover all of them.

    Differs: google-research/bert lets windows of no more than `stride` tokens follow each other
    without overlap, so that no window has an answer across their border; here half of each is
    also in the next one.
    """
    assert min(room, stride) > 0, (room, stride)
    step = stride if stride < room else max(1, room // 2)
    bounds, start = [], 0
    while True:
        end = min(start + room, tokens)
        bounds.append((start, end))
        if end == tokens:
            return bounds
        start += step


def own_tokens(tokens: int, bounds: Sequence[tuple[int, int]]) -> Int[np.ndarray, " t"]:
    """Finds the window with the most context for each token: the lesser of left and right.

    Source: google-research/bert `run_squad._check_is_max_context`.
    """
    most, owners = np.full(tokens, -1.0), np.zeros(tokens, np.int64)
    for window, (start, end) in enumerate(bounds):
        here = np.arange(end - start)
        context = np.minimum(here, here[::-1]) + 0.01 * (end - start)
        more = context > most[start:end]
        owners[start:end][more], most[start:end][more] = window, context[more]
    return owners


class _TokenSpan(NamedTuple):
    """First and last token of an answer, and whether they have letters that it lacks."""

    first: int
    last: int
    is_wider: bool


def _find_span(context: str, answer: Answer, offsets: Int[np.ndarray, "t 2"]) -> _TokenSpan | None:
    """Finds the tokens that overlap the answer's characters; None where none does.

    Source: google-research/bert `run_squad.convert_examples_to_features`.
    """
    start, end = answer.start, answer.start + len(answer.text)
    inside = np.flatnonzero(
        (offsets[:, 1] > start) & (offsets[:, 0] < end) & (offsets[:, 1] > offsets[:, 0])
    )
    if not len(inside):
        return None
    first, last = int(inside[0]), int(inside[-1])
    is_wider = offsets[first, 0] < start or end < offsets[last, 1]
    return _TokenSpan(first, last, bool(is_wider))


def _best_spans(window: Window, output: Float[np.ndarray, "t 2"], longest: int) -> list[_Span]:
    """Finds the most likely spans, by first and last token, that can be an answer."""
    size = len(window.offsets)
    scores = output[window.first : window.first + size]
    firsts = np.argsort(-scores[:, 0], kind="stable")[:BEST]
    lasts = np.argsort(-scores[:, 1], kind="stable")[:BEST]
    return [
        _Span(
            int(window.offsets[first, 0]),
            int(window.offsets[last, 1]),
            float(scores[first, 0] + scores[last, 1]),
        )
        for first in firsts
        for last in lasts
        if window.owned[first] and 0 <= last - first < longest
    ]


def _without_white_space(context: str, span: _Span) -> _Span:
    """Removes a span's outer white space, which some tokenizers have tokens for."""
    text = context[span.start : span.end]
    start = span.end - len(text.lstrip())
    return span._replace(start=start, end=max(start, span.start + len(text.rstrip())))


def _question_of_line(number: int, place: str, line: str) -> Question:
    text = separate_pair(place, line)
    if isinstance(text, str):
        raise UserError(f"{place}: no context; give the question and its context, tab-separated")
    # Answers count the characters of the context as given.
    _, _, context = line.partition("\t")
    return Question(str(number), text[0], context, "", (), False, place, ())
