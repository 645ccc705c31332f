"""Multiple choice: the three forms, how question and choice join, and labels that are none."""

import json

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.choice_questions import read_choice_questions
from bertjax.text.record_config import RecordConfig


@pytest.fixture
def read(tmp_path):
    """`read(*records, labelled=)`: the questions of a small file."""

    def read(*records, labelled=True):
        (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        return read_choice_questions([str(tmp_path / "f.jsonl")], RecordConfig(), labelled)

    return read


SWAG = {
    "sent1": "She opens the door.",
    "sent2": "She",
    **{f"ending{number}": text for number, text in enumerate(["leaves.", "sings.", "is a cat."])},
    "label": 1,
}
RACE = {
    "article": "Tom is tall.",
    "question": "Who is tall?",
    "options": ["Tom", "Ann", "Bob", "Eve"],
    "answer": "D",
}
OTHER = {"premise": "It rained.", "choices": ["It was wet.", "It was dry."], "label": "0"}


def test_swag_begins_the_ending_with_its_second_sentence(read):
    (question,) = read(SWAG)
    assert question[1:4] == (
        "She opens the door.",
        ("She leaves.", "She sings.", "She is a cat."),
        1,
    )


def test_swag_is_read_as_the_csv_that_it_comes_in(tmp_path):
    (tmp_path / "f.csv").write_text(
        ",sent1,sent2,gold-source,ending0,ending1,label\n7,He sits.,He,gold,stands.,sings.,1\n"
    )
    (question,) = read_choice_questions([str(tmp_path / "f.csv")], RecordConfig())
    assert question[:4] == (f"{tmp_path}/f.csv:2", "He sits.", ("He stands.", "He sings."), 1)


def test_race_has_the_option_behind_its_question_or_in_its_blank(read):
    blank = {**RACE, "question": "_ is the_tall.", "options": ["C:\\1", "b"], "answer": "b"}
    plain, filled = read(RACE, blank)
    assert plain[1:4] == ("Tom is tall.", tuple(f"Who is tall? {x}" for x in RACE["options"]), 3)
    assert filled.choices == ("C:\\1 is the_tall.", "b is the_tall.")
    assert filled.label == 1


def test_other_forms_have_a_context_and_choices_with_or_without_a_question(read):
    assert read(OTHER)[0][1:4] == ("It rained.", ("It was wet.", "It was dry."), 0)
    record = {"passage": "p", "question": "q?", "endings": ["a", "b"], "answer": 1}
    assert read(record)[0][1:4] == ("p", ("q? a", "q? b"), 1)


def test_questions_are_read_without_labels(read):
    record = {key: value for key, value in OTHER.items() if key != "label"}
    assert read(record, labelled=False)[0].label is None
    assert read({**OTHER, "label": "?"}, labelled=False)[0].label is None


WRONG = {
    "no label": ({"label": None}, r"'label' is null, none of the 2 choices"),
    "large": (
        {"label": 2},
        r"'label' is 2, none of the 2 choices: a number from 0 to 1, or a letter",
    ),
    "negative": ({"label": -1}, "'label' is -1, none of"),
    "letter": ({"label": "C"}, "'label' is \"C\", none of"),
    "letters": ({"label": "AB"}, "'label' is \"AB\", none of"),
    "blank": ({"label": " "}, "'label' is \" \", none of"),
    "flag": ({"label": True}, "'label' is true, none of"),
    "one": ({"choices": ["a"]}, "needs at least two choices, this has 1"),
    "text": ({"choices": "a b"}, "'choices' is \"a b\", not a list of texts"),
    "number": ({"choices": ["a", 1]}, r"'choices' is \[\"a\", 1\], not a list of texts"),
    "context": ({"premise": None}, "'premise' is null, not text"),
    "two": ({"passage": "x"}, "this record has both 'premise' and 'passage'"),
    "gap": (
        {"sent1": "a", "sent2": "b", "ending0": "x", "ending2": "y"},
        "the endings are ending0, ending2; they count from ending0",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_question_is_told_with_its_line(read, case):
    changes, message = WRONG[case]
    with pytest.raises(UserError, match=rf"f\.jsonl:2: .*{message}"):
        read(OTHER, {**OTHER, **changes})


def test_missing_fields_are_told_with_those_there_are(read):
    with pytest.raises(
        UserError, match=r"one of context, premise, passage, article; this record has none .*'text'"
    ):
        read({"text": "a", "choices": ["a", "b"], "label": 0})
    with pytest.raises(UserError, match="one of label, answer; this record has none"):
        read({"context": "a", "choices": ["a", "b"]})


def test_file_without_questions_is_told(tmp_path):
    (tmp_path / "f.csv").write_text("context,label\n")
    with pytest.raises(UserError, match=r"f\.csv: no questions"):
        read_choice_questions([str(tmp_path / "f.csv")], RecordConfig())
