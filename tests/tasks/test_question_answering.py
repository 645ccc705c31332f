"""Question answering: windows that cover the context, labels and spans that mean its characters."""

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks.question_answering import QuestionAnswering, cut_windows, own_tokens
from bertjax.tasks.squad import Answer, Question
from bertjax.text.tokenizer import Tokenizer, build_wordpiece

WORDS = "what is a b c d e f g h".split()  # noqa: SIM905
CONTEXT = "a b c d e f g h"


@pytest.fixture(scope="module")
def tokenizer():
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return Tokenizer(build_wordpiece([*specials, *WORDS], True, None))


def ask(answer=None, impossible=False, text="what is", context=CONTEXT):
    answers = () if answer is None else (Answer(answer, context.index(answer)),)
    gold = tuple(answer.text for answer in answers)
    return Question("q", text, context, "", answers, impossible, "f.json: data[0]", gold)


def test_windows_cover_all_tokens_and_overlap():
    assert cut_windows(8, 4, 3) == [(0, 4), (3, 7), (6, 8)]
    assert cut_windows(8, 8, 3) == [(0, 8)]
    assert cut_windows(0, 4, 3) == [(0, 0)]
    assert cut_windows(5, 2, 9) == [(0, 2), (2, 4), (4, 5)]  # no token is skipped


def test_token_is_owned_by_the_window_with_most_context_around_it():
    bounds = [(0, 4), (2, 6), (4, 8)]
    assert own_tokens(8, bounds).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


def test_label_is_the_answer_where_a_window_holds_it_and_cls_elsewhere(tokenizer):
    task = QuestionAnswering(answerable=True, stride=2)
    # [CLS] what is [SEP] and 4 tokens of the context [SEP]
    units = task.encode([ask("e f")], tokenizer, 9, training=True).units
    assert [unit.labels.tolist() for unit in units] == [[[0, 0]], [[6, 7]], [[4, 5]]]
    for unit in units[1:]:
        first, last = unit.labels[0]
        ids = unit.sequences[0].token_ids[first : last + 1]
        assert [tokenizer.token(id) for id in ids] == ["e", "f"]


def test_question_without_a_usable_answer_is_not_learned_from(tokenizer):
    task = QuestionAnswering(answerable=False)
    questions = [ask(), ask(impossible=True)]
    assert [u.example for u in task.encode(questions, tokenizer, 20, training=True).units] == [1]
    units = task.encode(questions, tokenizer, 20, training=False).units
    assert [unit.weights.tolist() for unit in units] == [[0], [1]]


def test_model_that_always_answers_is_told_of_where_some_have_none(tokenizer):
    questions = [ask("a"), ask(impossible=True)]
    notes = [
        QuestionAnswering(answerable).encode(questions, tokenizer, 20, training=False).notes
        for answerable in (True, False)
    ]
    assert notes[0][0].startswith("1 of 2 questions have no answer, and this model gives one")
    assert notes[1] == []


@pytest.mark.parametrize("max_length", [8, 9, 12])
def test_question_that_leaves_no_room_is_told(tokenizer, max_length):
    question = ask(text="what is " * 5)
    match = rf"data\[0\]: the question has 10 tokens .* max_length={max_length}; 68 has"
    with pytest.raises(UserError, match=match):
        QuestionAnswering(True).encode([question], tokenizer, max_length, training=False)


def say(unit, first, last, score):
    """Logits whose best span is this one; [CLS] has 0."""
    logits = np.full((unit.length, 2), -9.0, np.float32)
    logits[0] = 0
    logits[first, 0] = logits[last, 1] = score
    return logits


@pytest.mark.parametrize(
    ("answerable", "score", "answer"), [(True, -1, "e f"), (False, -1, ""), (False, 1, "e f")]
)
def test_best_span_of_all_windows_is_the_answer_unless_none_is_better(
    tokenizer, answerable, score, answer
):
    task, question = QuestionAnswering(answerable, stride=2), ask("e f")
    units = task.encode([question], tokenizer, 9, training=False).units
    outputs = [say(units[0], 4, 4, -8), say(units[1], 6, 7, score), say(units[2], 6, 6, -8)]
    [prediction] = task.decode([question], units, outputs)
    assert prediction["answer"] == answer
    assert prediction["null_odds"] == pytest.approx(-2 * score)
    assert sum(one["probability"] for one in prediction["nbest"]) == pytest.approx(1)
    if answer:
        assert CONTEXT[prediction["start"] : prediction["end"]] == answer
    assert task.outcomes([question], [prediction]) == [float(bool(answer))]
