"""Every scheme is recognised and says the same entities in IOB2."""

import pytest

from bertjax.errors import UserError
from bertjax.tasks.tagging_schemes import are_entity_tags, recognise_scheme, spans_of, to_iob2

# Two PER side by side, one of two tokens; a LOC; a LOC of three tokens right behind an ORG.
IOB2 = ["B-PER", "B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "B-LOC", "I-LOC", "I-LOC"]
SCHEMES = {
    "IOB2": IOB2,
    "IOB1": ["I-PER", "B-PER", "I-PER", "O", "I-LOC", "O", "I-ORG", "I-LOC", "I-LOC", "I-LOC"],
    "BIOES": ["S-PER", "B-PER", "E-PER", "O", "S-LOC", "O", "S-ORG", "B-LOC", "I-LOC", "E-LOC"],
    "BILOU": ["U-PER", "B-PER", "L-PER", "O", "U-LOC", "O", "U-ORG", "B-LOC", "I-LOC", "L-LOC"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_is_recognised_and_becomes_iob2(scheme):
    tags = SCHEMES[scheme]
    assert recognise_scheme([["O"], tags]) == scheme
    assert list(to_iob2(tags, scheme)) == IOB2


def test_entity_of_another_type_may_begin_with_i_in_iob1_alone():
    assert recognise_scheme([["B-A", "I-B"]]) == "IOB1"
    assert recognise_scheme([["B-A", "I-A"]]) == "IOB2"


@pytest.mark.parametrize("prefix", ["I-", ""])
def test_io_joins_what_stands_together(prefix):
    tags = [f"{prefix}PER", f"{prefix}PER", "O", f"{prefix}LOC", f"{prefix}ORG", *"OOOOO"]
    assert recognise_scheme([tags]) == "IO"
    assert list(to_iob2(tags, "IO"))[:5] == ["B-PER", "I-PER", "O", "B-LOC", "B-ORG"]


def test_parts_of_speech_stay_as_they_are():
    # O is the pronoun of the Twitter tag set; -LRB- a bracket of the Penn one.
    for tags in (
        ["NOUN", "VERB", "NOUN"],
        ["O", "V", "N", "O", "V", "N"],
        ["NN", "-LRB-", "O"],
        ["S-A", "NN"],
    ):
        assert recognise_scheme([tags]) == "none"
        assert list(to_iob2(tags, "none")) == tags


def test_entity_that_nothing_began_begins():
    assert to_iob2(["O", "I-A", "I-B", "I-B"], "IOB2") == ("O", "B-A", "B-B", "I-B")
    assert to_iob2(["E-A", "I-A", "E-A", "B-A"], "BIOES") == ("B-A", "B-A", "I-A", "B-A")


def test_file_without_entities_has_only_o():
    assert to_iob2(["O", "O"], recognise_scheme([["O", "O"]])) == ("O", "O")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["B-PER", "O", "LOC"], "the tags 'B-PER' and 'LOC' are of different schemes"),
        (["S-PER", "U-LOC"], r"\['S', 'U'\] of the tags are of BIOES and of BILOU"),
    ],
)
def test_mixed_schemes_are_told(tags, message):
    with pytest.raises(UserError, match=message):
        recognise_scheme([tags])


@pytest.mark.parametrize(
    ("tag", "scheme"), [("S-PER", "IOB2"), ("PER", "IOB1"), ("L-PER", "BIOES"), ("B-PER", "IO")]
)
def test_tag_that_the_scheme_does_not_have_is_told(tag, scheme):
    with pytest.raises(UserError, match=f"the tag '{tag}' is not one of {scheme}: O, "):
        to_iob2([tag], scheme)


def test_entity_tags_are_told_from_others():
    assert are_entity_tags(["O", "B-PER", "I-PER"])
    assert not are_entity_tags(["O"])
    assert not are_entity_tags(["B-PER", "NOUN"])
    assert not are_entity_tags(["B-PER", "S-PER"])
    assert not are_entity_tags(["B-", "I-"])


def test_spans_are_of_whole_entities():
    tags = ["B-A", "I-A", "B-A", "O", "I-A", "I-B"]
    offsets = [(n * 3, n * 3 + 2) for n in range(6)]
    assert spans_of(tags, offsets) == [("A", 0, 5), ("A", 6, 8), ("A", 12, 14), ("B", 15, 17)]
