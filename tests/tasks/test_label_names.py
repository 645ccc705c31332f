"""Names of classes and tags: their order, and labels that do not fit together."""

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.label_names import check_labels, check_tags
from bertjax.tasks.labelled import TextExample
from bertjax.tasks.tagged_sentences import TaggedSentence


def example(first, label, second=None, place="f:1"):
    return TextExample(place, first, second, label)


def test_labels_are_sorted_and_numbers_by_size():
    assert check_labels([example("a", x) for x in ("b", "a", "c")]) == ("a", "b", "c")
    assert check_labels([example("a", x) for x in ("10", "9", "-1")]) == ("-1", "9", "10")
    assert check_labels([example("a", ("b", "a")), example("a", ())]) == ("a", "b")
    assert check_labels([example("a", x) for x in ("b", "a")], labels=["b", "a"]) == ("b", "a")


TWO = [example("a", "ham"), example("b", "spam")]


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (
            (TWO, [example("c", "spem", place="v.csv:7")]),
            {},
            r"v\.csv:7: the label 'spem' is in validation but in no training example; "
            r"did you mean 'spam'\?; add examples of it to train",
        ),
        ((TWO, [], [example("c", "egg", place="t:3")]), {}, "t:3: the label 'egg' is in test but"),
        ((TWO[:1],), {}, "a single class, 'ham': at least two classes need"),
        ((TWO,), {"labels": ["ham", "spam", "egg"]}, "empty class: .* the label 'egg' of labels"),
        (
            (TWO,),
            {"labels": ["ham", "spams"]},
            r"f:1: the label 'spam' is not among .*did you mean",
        ),
        (([example("a", ()), example("b", ())],), {}, "no training example has a label"),
    ],
)
def test_wrong_labels_are_told_with_a_way_out(arguments, options, message):
    with pytest.raises(UserError, match=message):
        check_labels(*arguments, **options)


def test_label_that_is_not_named_is_shown_where_it_stands_first():
    examples = [example("a", "x"), example("b", "y", place="f:5"), example("c", "y", place="f:9")]
    with pytest.raises(UserError, match="f:5: the label 'y' is not among"):
        check_labels(examples, labels=["x"])


def tagged(*tags, place="f:1"):
    tokens = tuple(f"t{n}" for n in range(len(tags)))
    return TaggedSentence(place, tokens, tags, " ".join(tokens), ())


def test_tags_of_entities_are_o_and_both_of_each_type():
    train = [tagged("O", "B-Y"), tagged("B-X", "I-X")]
    assert check_tags(train) == ("O", "B-X", "I-X", "B-Y", "I-Y")
    # The I- that train lacks is no reason to stop.
    assert check_tags(train, [tagged("B-Y", "I-Y")]) == check_tags(train)
    assert check_tags(train, labels=["O", "B-Y", "B-X", "I-X"]) == ("O", "B-Y", "B-X", "I-X")
    assert check_tags([tagged("NOUN", "VERB")]) == ("NOUN", "VERB")


@pytest.mark.parametrize(
    ("test", "labels", "message"),
    [
        (tagged("B-Z", place="t:7"), None, "t:7: the label 'Z' is in test but in no training"),
        (tagged("O"), ["O", "B-X"], r"f:1: the tag 'B-Y' is not among .*\(entities are IOB2"),
    ],
)
def test_tags_that_do_not_fit_are_told(test, labels, message):
    with pytest.raises(UserError, match=message):
        check_tags([tagged("O", "B-X", "B-Y")], [], [test], labels)


def test_tags_without_types_stay_so_in_the_names_of_a_model():
    train = [tagged("O", "B-_", "I-_")]
    assert check_tags(train) == ("O", "B", "I")
    assert check_tags(train, labels=["B", "I", "O"]) == ("B", "I", "O")
    assert check_tags([tagged("B-X", "O")], labels=["O", "X_B", "X_I"]) == ("O", "X_B", "X_I")
    with pytest.raises(UserError, match=r"f:1: the tag 'S-X' is not among labels=\['O', 'B-X', "):
        check_tags([tagged("B-X", "O")], labels=["O", "B-X", "I-X", "E-X"])


def test_training_data_without_an_entity_is_told():
    with pytest.raises(UserError, match="every tag is O: no sentence marks an entity"):
        check_tags([tagged("O", "O")], [tagged("O")])
    with pytest.raises(UserError, match="the label 'X' is in validation but in no training"):
        check_tags([tagged("O", "O")], [tagged("B-X")])
