"""Sentences: one call for many lines changes nothing, and what is no language is refused."""

import pytest
import sentencex
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.program.errors import UserError
from bertjax.text.sentences import check_language, split_sentences


def test_split_sentences_ends_them_at_marks_and_at_lines():
    text = (
        "Mr. Smith paid $3.50 to Dr. Jones. Was it enough?\nA heading\n  He “ran!” Then he slept.  "
    )
    assert split_sentences(text) == [
        "Mr. Smith paid $3.50 to Dr. Jones.",
        "Was it enough?",
        "A heading",
        "He “ran!”",
        "Then he slept.",
    ]


@pytest.mark.parametrize("opening", ["“", "«", "("])
def test_quotation_mark_that_is_never_closed_does_not_make_one_sentence_of_the_rest(opening):
    sentences = [f"Smith told Mr. Jones on day {number}, as he does." for number in range(90)]
    text = " ".join(["He said:", opening + sentences[0], *sentences[1:]])
    found = split_sentences(text)
    assert found[1:] == sentences[1:]
    assert " ".join(found) == text
    # Short ones stay what they are.
    assert split_sentences("He said “Go. Now. Please.” Then he left.") == [
        "He said “Go. Now. Please.”",
        "Then he left.",
    ]


def test_split_sentences_of_nothing_is_nothing():
    assert split_sentences("") == split_sentences(" \n\n ") == []


def test_language_matters():
    text = "Das ist z. B. gut. Und das ist es auch."
    assert split_sentences(text, "de") == ["Das ist z. B. gut.", "Und das ist es auch."]
    assert split_sentences("你好。再见。", "zh") == ["你好。", "再见。"]


PIECES = st.sampled_from(
    [
        "A b.",
        "“Yes!”",
        "(no.",
        "etc.",
        "Dr. X",
        "…",
        ".",
        '"',
        ")",
        " ",
        "\n",
        "\n\n",
        "1.",
        "é?",
        "。",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=20).map("".join), st.sampled_from(["en", "es", "de", "ja"]))
def test_all_lines_in_one_call_give_the_sentences_of_each_line(text, language):
    line_by_line = [
        part.strip() for line in text.split("\n") for part in sentencex.segment(language, line)
    ]
    assert split_sentences(text, language) == list(filter(None, line_by_line))


def test_long_text_gives_the_sentences_of_each_line():
    # sentencex goes through texts of more than 10 kB in pieces.
    text = "\n".join(f"This is line {number}. It has (two) parts" for number in range(1000))
    assert len(split_sentences(text)) == 2000


@pytest.mark.parametrize(
    ("language", "hint"),
    [("english", "'en'"), ("EN", "'en'"), ("pt_BR", "'pt-br'"), ("klingon", ""), ("", "")],
)
def test_what_is_no_language_code_is_a_user_error(language, hint):
    with pytest.raises(UserError, match=f"language={language!r} is not a code") as caught:
        split_sentences("Text.", language)
    assert ("did you mean " + hint in str(caught.value)) == bool(hint)


def test_language_without_rules_of_its_own_is_told():
    assert check_language("en") == ""
    assert "no rules of its own for 'sv'" in check_language("sv")
