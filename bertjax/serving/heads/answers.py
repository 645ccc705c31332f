"""Answers to questions, found in a text of any length."""

from typing import Any

from bertjax.program.errors import UserError
from bertjax.serving.problems import VALIDATION, RefusedError
from bertjax.serving.programs import Asked
from bertjax.serving.served import Served, Spent, spend
from bertjax.tasks.question_answering import (
    LONGEST_ANSWER,
    LONGEST_QUESTION,
    STRIDE,
    QuestionAnswering,
    cut_windows,
)
from bertjax.tasks.squad import Question


async def answer_question(
    served: Served,
    question: str,
    context: str,
    *,
    top_k: int = 1,
    handle_impossible_answer: bool | None = None,
    max_answer_len: int = LONGEST_ANSWER,
    max_question_len: int = LONGEST_QUESTION,
    max_seq_len: int | None = None,
    doc_stride: int = STRIDE,
    align_to_words: bool = False,
) -> list[dict[str, Any]]:
    """Returns the likeliest answers, the best first: text, probability and characters.

    A context that is too long for the model is read in overlapping windows.

    Args:
        served: a model of answers.
        question: of the context.
        context: that has the answer.
        top_k: how many answers, at most.
        handle_impossible_answer: whether "" is one of them; as the model was fitted when left out.
        max_answer_len: tokens of the longest answer.
        max_question_len: tokens of the question; what is longer is cut.
        max_seq_len: tokens of question and window; as many as the model takes when left out.
        doc_stride: tokens from a window's start to the next one's.
        align_to_words: whether an answer that begins or ends within a word has all of it.

    Raises:
        RefusedError: a number is out of range, or the question leaves no room for the context.
    """
    served.check_has("span")
    length = max_seq_len or served.max_length
    if length > served.max_length:
        raise RefusedError(
            VALIDATION, f"max_seq_len={length} must be at most {served.max_length}, the model's"
        )
    nullable = handle_impossible_answer
    task = QuestionAnswering(
        served.model.config.answerable if nullable is None else not nullable,
        stride=doc_stride,
        longest_question=max_question_len,
        longest_answer=max_answer_len,
    )
    examples = [Question("1", question, context, "", (), False, "question", ())]

    def encode() -> Any:
        asked, read = map(len, served.tokenizer.encode_batch([question, context]))
        room = length - min(asked, max_question_len) - 3
        if room > 0:  # before anything is made of what may be a book
            served.check_room(len(cut_windows(read, room, doc_stride)))
        spend(Spent(len(question) + len(context), truncated=int(asked > max_question_len)))
        return task.encode(examples, served.tokenizer, length, training=False)

    try:
        encoded = await served.encode(encode, size=len(question) + len(context))
    except UserError as error:
        raise RefusedError(VALIDATION, str(error)) from None
    asked_of = (question, context)
    outputs = await served.run(
        "span", [Asked(unit.sequences[0], text=asked_of) for unit in encoded.units]
    )
    [prediction] = await served.offload(
        task.decode, examples, encoded.units, outputs, size=len(context)
    )
    answers = []
    for one in prediction["nbest"][:top_k]:
        start, end = one["start"] or 0, one["end"] or 0
        if align_to_words:
            start, end = _widen(context, start, end)
        answers.append(
            {"answer": context[start:end], "score": one["probability"], "start": start, "end": end}
        )
    return answers


def _widen(text: str, start: int, end: int) -> tuple[int, int]:
    """Returns the characters from the start of the first word to the end of the last."""
    while 0 < start < end and text[start - 1].isalnum() and text[start].isalnum():
        start -= 1
    while start < end < len(text) and text[end - 1].isalnum() and text[end].isalnum():
        end += 1
    return start, end
