"""SQuAD: the traps of the real files, answers mended or reported, and the official scores."""

import json

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.squad import (
    Answer,
    Question,
    answer_f1,
    exact_match,
    judge,
    normalize_answer,
    read_questions,
    sum_up,
)
from bertjax.text.record_config import RecordConfig

CONTEXT = "The cat saw a cat; the old cat slept."


@pytest.fixture
def read(tmp_path):
    """`read(*qas)`: the questions about CONTEXT of a small file, and the report."""

    def read(*qas, context=CONTEXT, labelled=True):
        entries = [{"id": f"q{n}", "question": "who?", **entry} for n, entry in enumerate(qas)]
        data = [{"title": "Cats", "paragraphs": [{"context": context, "qas": entries}]}]
        (tmp_path / "f.json").write_text(json.dumps({"data": data}), encoding="utf-8")
        return read_questions([str(tmp_path / "f.json")], RecordConfig(), labelled)

    return read


def test_half_of_a_character_is_told_with_its_line(tmp_path):
    entry = {"id": "q", "question": "\udc00 who?", **answers(("cat", 4))}
    data = [{"title": "Cats", "paragraphs": [{"context": CONTEXT, "qas": [entry]}]}]
    text = json.dumps({"data": data}).replace('"qas"', '\n"qas"')
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(UserError, match=r"f\.json:2: \\udc00 is half of a character"):
        read_questions([str(tmp_path / "f.json")], RecordConfig())


def answers(*pairs):
    return {"answers": [{"text": text, "answer_start": start} for text, start in pairs]}


@pytest.mark.parametrize(
    ("name", "size", "usable", "impossible", "unusable", "marks"),
    [
        # Translated answers that were not found are "" at -1.
        ("dev-v2.0-es_small.json", 7134, 11135, 3256, 1323, 11),
        ("squad2_small.json", 626, 881, 333, 0, 0),
        ("xquad.en.json", 1190, 1190, 0, 0, 0),
        ("xquad.es.json", 1190, 1190, 0, 0, 19),  # byte order marks that offsets count
    ],
)
def test_real_files_are_read_and_every_answer_stands_in_its_context(
    shared_data, name, size, usable, impossible, unusable, marks
):
    questions, report = read_questions([str(shared_data / "qa" / name)], RecordConfig())
    assert len(questions) == size
    assert sum(len(q.answers) for q in questions) == usable
    assert sum(q.is_impossible for q in questions) == impossible
    assert (len(report.repaired), len(report.unusable)) == (0, unusable)
    assert sum("\ufeff" in q.context for q in questions) == marks
    for q in questions:
        for text, start in q.answers:
            assert q.context[start : start + len(text)] == text != ""
        assert q.is_impossible == (not q.answers)


def test_question_has_its_title_and_place(read):
    (question,), report = read(answers(("cat", 4), ("cat", 14)))
    assert question.title == "Cats"
    assert question.place.endswith("f.json: data[0].paragraphs[0].qas[0]")
    assert question.answers == (Answer("cat", 4), Answer("cat", 14))
    assert report == ((), ())
    assert report.sentences() == []


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("cat", 5), ("cat", 4)),
        (("cat", 12), ("cat", 14)),
        (("cat", 99), ("cat", 27)),
        (("cat", -1), ("cat", 4)),
        ((" cat;\n", 14), ("cat;", 14)),
        ((" cat;\n", 0), ("cat;", 14)),
        ((".", -1), (".", 36)),
        (("\n\n\n\n\ncat", 5), ("cat", 14)),  # 10 is nearer to 14 than to 4
    ],
)
def test_answer_goes_to_the_nearest_place_that_has_its_text(read, given, found):
    (question,), report = read(answers(given))
    assert question.answers == (found,)
    assert report.repaired == (() if given == found else ("q0",))
    assert question.gold_texts == (given[0],)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (("The cat ", 0), ("The cat", 0)),
        ((" cat ", 13), ("cat", 14)),
        (("\u00a0cow\u3000", 37), ("cow", 38)),
    ],
)
def test_white_space_around_an_answer_is_no_part_of_it_and_nothing_to_tell(read, given, found):
    (question,), report = read(answers(given), context=f"{CONTEXT}\u00a0cow\u3000")
    assert question.answers == (found,)
    assert question.gold_texts == (given[0],)
    assert report == ((), ())


def test_answer_of_white_space_alone_is_reported_and_no_answer_that_is_none(read):
    (question,), report = read(answers((" ", 3)))
    assert (question.answers, question.is_impossible) == ((), False)
    assert report.unusable == ("q0",)


def test_answer_that_is_not_in_its_context_is_reported_and_never_learned_from(read):
    questions, report = read(
        answers(("dog", 4), ("cat", 4)), answers(("", 0)), answers(("Cat", 4), ("Cat", 4))
    )
    assert [q.answers for q in questions] == [(("cat", 4),), (), ()]
    assert [q.gold_texts for q in questions] == [("dog", "cat"), ("",), ("Cat", "Cat")]
    assert not any(q.is_impossible for q in questions)
    assert report == ((), ("q0", "q1", "q2"))
    assert report.sentences() == [
        "answers that are not in their context, or nothing but white space, are left out of "
        "training: 3 questions, the first q0, q1, q2"
    ]


def test_questions_without_an_answer_are_told_from_those_whose_answer_is_lost(read):
    none = {"answers": []}
    questions, report = read(
        {**none, "is_impossible": True}, {**none, "is_impossible": False}, none
    )
    assert [q.is_impossible for q in questions] == [True, False, True]
    assert report.unusable == ("q1",)


def test_answers_stay_unread_when_none_are_asked_for(read):
    (question,), report = read({"answers": "?", "id": 7}, labelled=False)
    assert (question.question_id, question.answers, question.gold_texts) == ("7", (), ())
    assert report == ((), ())


WRONG = {
    "answers": ({}, r"qas\[1\]: 'answers' is null, not as SQuAD has it"),
    "answer": ({"answers": ["cat"]}, r"answers\[0\]: this is \"cat\", not as SQuAD has it"),
    "start": ({"answers": [{"text": "cat"}]}, r"answers\[0\]: 'answer_start' is null"),
    "text": ({"answers": [{"answer_start": 4}]}, r"answers\[0\]: 'text' is null"),
    "id": ({"id": None, "answers": []}, r"qas\[1\]: 'id' is null; predictions are named by it"),
    "twice": ({"id": "q0", "answers": []}, r"qas\[1\]: the id 'q0' is also that of .*qas\[0\];"),
    "question": ({"question": 3, "answers": []}, r"qas\[1\]: 'question' is 3"),
    "both": (
        {"is_impossible": True, **answers(("cat", 4))},
        r"qas\[1\]: is_impossible, yet it has the answer \"cat\"",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_entry_is_told_with_its_path(read, case):
    entry, message = WRONG[case]
    with pytest.raises(UserError, match=message):
        read(answers(("cat", 4)), entry)


def test_name_without_a_known_suffix_is_taken_for_json(tmp_path):
    content = {"data": [{"paragraphs": [{"context": "", "qas": [{"id": 1, "question": "?"}]}]}]}
    (tmp_path / "dev-v2.0").write_text(json.dumps(content))
    (question,), _ = read_questions([str(tmp_path / "dev-v2.0")], RecordConfig(), labelled=False)
    assert (question.question_id, question.title) == ("1", "")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"data": [\n{"paragraphs"', r"a\.json:2: not JSON"),
        ("b.json", "[1]", r"b\.json: this is \[1\], not as SQuAD has it"),
        ("c.json", '{"data": [{}]}', r"c\.json: data\[0\]: 'paragraphs' is null"),
        ("d.json", '{"data": []}', r"d\.json: no questions"),
        ("e.csv", "a,b", r"e\.csv: questions come as JSON"),
    ],
)
def test_file_of_another_format_is_told(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_questions([str(tmp_path / name)], RecordConfig())


def test_answers_are_compared_without_case_articles_and_punctuation():
    assert normalize_answer("  The  Cat's (an) a-b, theme. ") == "cats ab theme"
    assert exact_match("a cat!", ["dog", "The cat"]) == 1
    assert exact_match("cats", ["The cat"]) == 0


@pytest.mark.parametrize(
    ("answer", "gold", "f1"),
    [
        ("the cat", ["a cat"], 1),
        ("old cat slept", ["cat"], 1 / 2),
        ("cat cat", ["cat cat cat dog"], 2 * 2 / (2 + 4)),
        ("cat", ["dog", "old cat"], 2 / 3),
        ("cat", ["dog"], 0),
        ("", [], 1),
        ("cat", [], 0),
        ("", ["cat"], 0),
        ("the", [], 1),
        ("", ["", "cat"], 0),  # a gold answer that is nothing does not count beside another
        ("", ["the"], 1),
    ],
)
def test_f1_is_of_the_words_in_common_with_the_best_gold_answer(answer, gold, f1):
    assert answer_f1(answer, gold) == pytest.approx(f1)


def questions(*golds):
    return [
        Question(str(n), "?", "", "", (), not gold, "f", tuple(gold))
        for n, gold in enumerate(golds)
    ]


def score(*arguments, **options):
    return sum_up(judge(*arguments, **options))


# Right, half right, wrong; then no answer found and one made up.
QUESTIONS = questions(["cat"], ["old cat slept"], ["dog"], [], [])
ANSWERS = {"0": "the cat", "1": "cat", "2": "cat", "3": "", "4": "mouse"}


def test_scores_are_means_in_per_cent_of_all_and_of_each_kind():
    assert score(QUESTIONS, ANSWERS) == pytest.approx(
        {
            "exact": 40,
            "f1": 100 * (1 + 1 / 2 + 1) / 5,
            "total": 5,
            "HasAns_exact": 100 / 3,
            "HasAns_f1": 50,
            "HasAns_total": 3,
            "NoAns_exact": 50,
            "NoAns_f1": 50,
            "NoAns_total": 2,
        }
    )
    assert score(QUESTIONS[:1], ANSWERS) == {
        "exact": 100,
        "f1": 100,
        "total": 1,
        "HasAns_exact": 100,
        "HasAns_f1": 100,
        "HasAns_total": 1,
    }


def test_threshold_makes_no_answer_of_what_lies_above_it():
    odds = {"0": 1.0, "1": 2.0, "2": -1.0, "3": 2.0, "4": 3.0}
    scores = score(QUESTIONS, ANSWERS, odds, threshold=1.0)
    assert scores["HasAns_f1"] == pytest.approx(100 / 3)  # the half right one is given up
    assert scores["NoAns_f1"] == 100
    assert scores["f1"] == pytest.approx(60)
    # The best is to give up the last alone.
    assert scores["best_f1"] == pytest.approx(100 * (1 + 1 / 2 + 0 + 2) / 5)
    assert scores["best_f1_thresh"] == 2.0
    # For exact match giving up the half right one costs nothing, and the lowest threshold counts.
    assert (scores["best_exact"], scores["best_exact_thresh"]) == (pytest.approx(60), 1.0)


def test_best_threshold_is_the_best_of_all_there_are():
    rng = np.random.default_rng(0)
    for _ in range(50):
        golds = [["cat"] if has else [] for has in rng.integers(2, size=12)]
        asked = questions(*golds)
        given = {q.question_id: ("cat", "dog", "")[rng.integers(3)] for q in asked}
        # Few values, so that several questions have the same odds.
        odds = {q.question_id: float(rng.integers(-2, 3)) for q in asked}
        scores = score(asked, given, odds)
        tried = {t: score(asked, given, odds, t)["exact"] for t in np.arange(-3, 3) + 0.0}
        assert scores["best_exact"] == pytest.approx(max(tried.values()))
        at = score(asked, given, odds, scores["best_exact_thresh"])["exact"]
        assert at == pytest.approx(scores["best_exact"])


def test_threshold_lies_below_all_odds_when_nothing_is_best_answered():
    asked = questions([], [], ["cat"])
    scores = score(asked, dict.fromkeys("012", "dog"), {"0": 1.5, "1": -4.0, "2": 9.0})
    assert scores["best_f1"] == pytest.approx(200 / 3)
    assert -4.1 < scores["best_f1_thresh"] < -4.0


def test_odds_of_none_are_above_every_threshold():
    asked = questions(["cat"], [])
    scores = score(asked, {"0": "cat", "1": "dog"}, {"0": 0.0, "1": None}, threshold=1e9)
    assert (scores["f1"], scores["best_f1"], scores["best_f1_thresh"]) == (100, 100, 0.0)
    scores = score(asked, {"0": "cat", "1": ""}, {"0": None, "1": None})
    assert (scores["best_f1"], scores["best_f1_thresh"]) == (50, pytest.approx(0))


def test_missing_prediction_is_told():
    with pytest.raises(UserError, match="no answer for 1 of 5 questions, the first '3'"):
        score(QUESTIONS, dict.fromkeys("0124", ""))
    with pytest.raises(UserError, match="no null odds for 5 of 5"):
        score(QUESTIONS, ANSWERS, {})
