"""Question answering: windows that cover the context, labels and spans that mean its characters."""

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.question_answering import QuestionAnswering, cut_windows, own_tokens
from bertjax.tasks.squad import Answer, Question
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from tests.text.tiny_tokenizers import make_of

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
    assert cut_windows(3, 1, 9) == [(0, 1), (1, 2), (2, 3)]  # no token is skipped
    # Short windows overlap, too: else none held an answer across their border.
    assert cut_windows(6, 4, 9) == cut_windows(6, 4, 4) == [(0, 4), (2, 6)]


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


def test_answers_are_found_after_two_separators():
    tokenizer = make_of("roberta")
    question = ask("able", context="a cat is able to")
    task = QuestionAnswering(answerable=False)
    [unit] = task.encode([question], tokenizer, 60, training=True).units
    first, last = unit.labels[0]
    ids = unit.sequences[0].token_ids
    assert tokenizer.decode(ids[first : last + 1]) == " able"
    outputs = np.zeros((unit.length, 2), np.float32)
    outputs[first, 0] = outputs[last, 1] = 9
    assert task.decode([question], [unit], [outputs])[0]["answer"] == "able"
    [asked] = tokenizer.encode_batch([question.question])
    task.encode([question], tokenizer, len(asked) + 5, training=True)
    with pytest.raises(UserError, match=r"leaves no room .*; 69 has some for every question"):
        task.encode([question], tokenizer, len(asked) + 4, training=True)


def encode_answer(tokenizer, context, text, max_length=30, training=True):
    """Tokens that are labelled as the answer `text` of the context, in each window, and notes."""
    question = ask(text, context=context)
    task = QuestionAnswering(answerable=False)
    units, notes = task.encode([question], tokenizer, max_length, training=training)
    told = []
    for unit in units:
        first, last = unit.labels[0]
        ids = unit.sequences[0].token_ids[first : last + 1]
        told.append([tokenizer.token(id) for id in ids] if last else [])
    return told, notes


@pytest.mark.parametrize(
    ("context", "answer", "tokens"),
    [
        ("a b  c d", " b  ", ["b"]),
        ("a b  c d", "b  c", ["b", "c"]),
        ("a b\u200b c", "b\u200b", ["b"]),  # the tokenizer throws zero-width characters away
        ("a \u200bb c", "\u200bb", ["b"]),
        ("A É c", "É", ["e"]),  # lower case, without its accent
        ("a e\u0301 c", "e\u0301", ["e"]),
    ],
)
def test_answer_is_the_tokens_that_overlap_its_characters(tokenizer, context, answer, tokens):
    assert encode_answer(tokenizer, context, answer) == ([tokens], [])


def test_answer_that_begins_or_ends_within_a_token_is_the_whole_token_and_told(tokenizer):
    told, notes = encode_answer(tokenizer, "a what c", "ha")
    assert told == [["what"]]
    # The accent is a character of its own, and part of the letter.
    assert encode_answer(tokenizer, "a e\u0301 c", "e") == ([["e"]], notes)
    assert notes == [
        "1 of 1 answers begin or end within a token; the whole token counts as the answer's"
    ]


def test_answer_without_a_token_is_left_out_and_told_and_never_no_answer(tokenizer):
    told, notes = encode_answer(tokenizer, "a \u200b c", "\u200b")
    assert told == []
    assert notes == [
        "left out of training, because no token of the model has a character of the answer:"
        " 1 question, the first q"
    ]
    question = ask("\u200b", context="a \u200b c")
    [unit] = QuestionAnswering(False).encode([question], tokenizer, 30, training=False).units
    assert unit.weights.tolist() == [0]


def test_answer_that_no_window_holds_whole_is_left_out_and_told(tokenizer):
    told, notes = encode_answer(tokenizer, CONTEXT, "b c d e f", max_length=9)
    assert told == []
    assert notes[1] == (
        "left out of training, because no window of max_length=9 tokens holds the whole answer:"
        " 1 question, the first q"
    )
    # One that some window holds is none in the others, as in BERT.
    assert encode_answer(tokenizer, CONTEXT, "d e", max_length=9)[0] == [[], ["d", "e"], []]


def test_later_answer_counts_where_the_first_has_no_token(tokenizer):
    context = "a \u200b c"
    question = ask("\u200b", context=context)._replace(
        answers=(Answer("\u200b", 2), Answer("c", 4))
    )
    [unit] = QuestionAnswering(False).encode([question], tokenizer, 30, training=True).units
    assert unit.labels.tolist() == [[5, 5]]


def test_white_space_within_tokens_is_no_part_of_a_given_answer():
    """Byte-level tokens have the space before them."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "Ġb", "Ġc", "Ġ"]
    library = tokenizers.Tokenizer(
        models.WordLevel({token: n for n, token in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer = Tokenizer(library)
    context = "a b c"
    told, notes = encode_answer(tokenizer, context, "b")
    assert (told, notes) == ([["Ġb"]], [])
    question = ask("b", context=context)
    task = QuestionAnswering(True)
    units = task.encode([question], tokenizer, 30, training=False).units
    first = int(units[0].labels[0, 0])
    [prediction] = task.decode([question], units, [say(units[0], first, first, 1)])
    assert (prediction["answer"], prediction["start"], prediction["end"]) == ("b", 2, 3)


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
    assert notes[0][0].startswith("1 of 2 questions have no answer, and this model gives each")
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
