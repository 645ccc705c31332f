"""The classes of a run, told with their counts, and those that differ in spelling only."""

import pytest

from bertjax.tasks.label_counts import describe_labels, describe_twins, find_twins, merge_spellings
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.tagged_sentences import TaggedSentence


@pytest.mark.parametrize(
    ("labels", "twins"),
    [
        ("TRUE FALSE True false", ["FALSE false", "TRUE True"]),
        ("1 1.0 0 0.0 10", ["0 0.0", "1 1.0"]),
        ("2 +2 2.00 2e0 02", ["+2 02 2 2.00 2e0"]),
        ("not_spam not-spam spam ＳＰＡＭ", ["not-spam not_spam", "spam ＳＰＡＭ"]),
        ("é e\u0301", ["e\u0301 é"]),
        ("A A- A+ B- B + -", []),
        ("1 -1 true yes inf nan", []),
        ("v1.0 v1", []),
    ],
)
def test_labels_that_differ_in_spelling_only_are_found(labels, twins):
    found = find_twins(dict.fromkeys(labels.split(), 1))
    assert sorted(" ".join(group) for group in found) == twins


def test_warning_names_the_most_frequent_first_and_the_way_out():
    assert describe_twins({"b": 3, "A": 1, "a": 2000}, "do X") == [
        "WARNING: classes that differ only in spelling stay apart: 'a' (2,000) and 'A' (1)."
        " If they are the same, do X"
    ]
    assert describe_twins({"a": 1, "b": 1}, "") == []


def test_merged_labels_have_the_given_or_the_most_frequent_spelling():
    counts = {"TRUE": 2, "True": 3, "no": 1}
    assert merge_spellings(counts, []) == {"TRUE": "True", "True": "True", "no": "no"}
    assert merge_spellings(counts, ["TRUE", "No"]) == {"TRUE": "TRUE", "True": "TRUE", "no": "No"}
    assert merge_spellings(counts, ["TRUE", "True"]) == {"TRUE": "TRUE", "True": "True", "no": "no"}


def test_classes_are_told_with_the_counts_of_each_split():
    def examples(*labels):
        return [TextExample("f:1", "x", None, label) for label in labels]

    splits = {"train": examples("a", "b", "b"), "validation": examples("a"), "test": []}
    assert describe_labels(splits) == ["2 classes (train / validation): b 2 / 0; a 1 / 1"]
    sets = {"train": examples(("a", "b"), (), ("b",))}
    assert describe_labels(sets) == ["2 classes (train): b 2; a 1"]
    assert describe_labels({"train": examples(0.5)}) == []
    many = {"train": examples(*map(str, range(40)))}
    assert describe_labels(many)[0].endswith(" and 10 more")


def test_entities_are_counted_whole():
    tags = ("B-X", "I-X", "B-X", "O", "B-_", "I-_")
    sentences = [TaggedSentence("f:1", (), tags, "", ())]
    assert describe_labels({"train": sentences}, entities=True) == [
        "2 entity types (train): X 2; (no type) 1"
    ]
    assert describe_labels({"train": sentences[:1]})[0].startswith("5 classes (train): ")
