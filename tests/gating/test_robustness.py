"""Changed texts: reproducible, each of its kind alone, with the labels that they had."""

import pytest

from bertjax.gating.robustness import change_examples, find_flips
from bertjax.tasks.choice_questions import ChoiceQuestion
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.squad import Question
from bertjax.tasks.tagged_sentences import place_tokens

TEXT = "Call me now, Ann! The second train leaves at nine: do not miss it."


def change(kind, text=TEXT, seed=0):
    [changed] = change_examples([TextExample("f:1", text, None, "ham")], kind, seed)
    assert (changed.place, changed.label) == ("f:1", "ham")
    return changed.first


def test_each_kind_changes_what_it_says_and_nothing_else():
    words = TEXT.split()
    typed = change("typos").split()
    assert len(typed) == len(words)
    assert sum(one != other for one, other in zip(words, typed, strict=True)) == 1
    assert change("case") in (TEXT.upper(), TEXT.lower())
    letters = [letter for letter in TEXT if letter not in ".,;:!?"]
    marked = change("punctuation")
    assert marked != TEXT
    assert [letter for letter in marked if letter not in ".,;:!?"] == letters
    spaced = change("spacing")
    assert spaced != TEXT
    assert spaced.replace(" ", "") == TEXT.replace(" ", "")
    assert len(spaced.split()) == len(words) - 1  # two of them run together


def test_one_word_in_ten_has_a_typing_error():
    words = ["letters"] * 200
    typed = change("typos", " ".join(words)).split()
    assert sum(one != "letters" for one in typed) in range(10, 21)  # doubled ones may be alike


@pytest.mark.parametrize("kind", ["typos", "case", "punctuation", "spacing"])
@pytest.mark.parametrize("text", ["", " ", "a", "...", "12 34", "مرحبا بالعالم", "ﬁne ﬂoor"])
def test_any_text_is_changed_into_a_text(kind, text):
    assert isinstance(change(kind, text), str)


def test_changes_are_drawn_from_the_seed_and_the_number_of_the_example():
    examples = [TextExample(f"f:{n}", TEXT, TEXT, "ham") for n in range(9)]
    for kind in ("typos", "punctuation", "spacing"):
        once, again, other = (change_examples(examples, kind, seed) for seed in (1, 1, 2))
        assert once == again
        assert once != other
        assert len({one.first for one in once}) > 1
        assert all(one.second != TEXT for one in once)
        # A longer list begins with the same changes.
        assert change_examples(examples[:3], kind, 1) == once[:3]


def test_words_with_tags_stay_as_many():
    sentence = place_tokens("f:1", ["Ann's", "trains", "leave", "-", "soon"], None, None)
    for kind in ("typos", "case"):
        [changed] = change_examples([sentence], kind, 0)
        assert len(changed.tokens) == 5
        assert changed.tokens != sentence.tokens


def test_what_holds_the_answer_stays():
    question = Question("q", TEXT, "It leaves at nine.", "", (), False, "f", ("nine",))
    [changed] = change_examples([question], "case", 0)
    assert changed.question != TEXT
    assert changed.context == question.context
    choice = ChoiceQuestion("f:1", TEXT, ("at nine", "never"), 0)
    [changed] = change_examples([choice], "typos", 0)
    assert changed.context != TEXT
    assert changed.choices == choice.choices


@pytest.mark.parametrize(
    ("before", "after", "flipped"),
    [
        ({"label": "a", "probability": 0.9}, {"label": "a", "probability": 0.6}, False),
        ({"label": "a"}, {"label": "b"}, True),
        ({"labels": ["a"]}, {"labels": []}, True),
        ({"tags": ["O", "B-X"]}, {"tags": ["O", "O"]}, True),
        ({"choice": 1, "probabilities": []}, {"choice": 0, "probabilities": []}, True),
        ({"answer": "The nine."}, {"answer": "nine"}, False),
        ({"answer": "nine"}, {"answer": ""}, True),
    ],
)
def test_answer_flips_where_it_is_another(before, after, flipped):
    assert find_flips([before], [after]).tolist() == [flipped]
