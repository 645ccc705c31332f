"""Every scheme is recognised and says the same entities in IOB2."""

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.tagging_schemes import (
    TagReading,
    are_entity_tags,
    recognise_scheme,
    spans_of,
)

# Two PER side by side, one of two tokens; a LOC; a LOC of three tokens right behind an ORG.
IOB2 = ["B-PER", "B-PER", "I-PER", "O", "B-LOC", "O", "B-ORG", "B-LOC", "I-LOC", "I-LOC"]
SCHEMES = {
    "IOB2": IOB2,
    "IOB1": ["I-PER", "B-PER", "I-PER", "O", "I-LOC", "O", "I-ORG", "I-LOC", "I-LOC", "I-LOC"],
    "BIOES": ["S-PER", "B-PER", "E-PER", "O", "S-LOC", "O", "S-ORG", "B-LOC", "I-LOC", "E-LOC"],
    "BILOU": ["U-PER", "B-PER", "L-PER", "O", "U-LOC", "O", "U-ORG", "B-LOC", "I-LOC", "L-LOC"],
    "BMES": ["S-PER", "B-PER", "E-PER", "O", "S-LOC", "O", "S-ORG", "B-LOC", "M-LOC", "E-LOC"],
}
# Ways of writing the letter and the type, and what they are called.
WRITTEN = {
    "B_TYPE": "{0}_{1}".format,
    "B.TYPE": "{0}.{1}".format,
    "TYPE-B": "{1}-{0}".format,
    "TYPE_B": "{1}_{0}".format,
    "TYPE/B": "{1}/{0}".format,
    "B-TYPE": lambda letter, kind: f"{letter.lower()}-{kind}",
    "B:TYPE": lambda letter, kind: f"{letter.lower()}:{kind}",
}


def to_iob2(tags, scheme, form="B-TYPE"):
    return TagReading(scheme, form).to_iob2(tags)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_scheme_is_recognised_and_becomes_iob2(scheme):
    tags = SCHEMES[scheme]
    assert recognise_scheme([["O"], tags]) == (scheme, "B-TYPE")
    assert list(to_iob2(tags, scheme)) == IOB2
    if scheme != "IOB1":  # which transformers and others write no more
        assert list(TagReading(scheme).from_iob2(IOB2)) == tags


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_are_read_however_they_are_written(scheme, form):
    tags = ["O" if tag == "O" else WRITTEN[form](*tag.split("-")) for tag in SCHEMES[scheme]]
    reading = recognise_scheme([["O"], tags])
    assert reading == (scheme, form)
    assert list(reading.to_iob2(tags)) == IOB2
    assert recognise_scheme([tags], scheme) == reading
    if scheme != "IOB1" and tags[0][0].isupper():
        assert list(reading.from_iob2(IOB2)) == tags


@pytest.mark.parametrize(
    ("tags", "scheme", "iob2"),
    [
        ("O B I O B B", "IOB2", "O B-_ I-_ O B-_ B-_"),
        ("o b i o", "IOB2", "O B-_ I-_ O"),
        ("O B O B", "IOB2", "O B-_ O B-_"),
        ("O I I O I", "IO", "O B-_ I-_ O B-_"),
        ("O I I B O I", "IOB1", "O B-_ I-_ B-_ O B-_"),
        ("O B I E S O", "BIOES", "O B-_ I-_ I-_ B-_ O"),
        ("B M E S B E", "BMES", "B-_ I-_ I-_ B-_ B-_ I-_"),  # words of Chinese
        ("B I B I I", "IOB2", "B-_ I-_ B-_ I-_ I-_"),
    ],
)
def test_letters_alone_mark_entities_without_a_type(tags, scheme, iob2):
    reading = recognise_scheme([tags.split()])
    assert reading == (scheme, "B")
    assert " ".join(reading.to_iob2(tags.split())) == iob2
    if scheme not in ("IOB1", "IO"):
        assert " ".join(reading.from_iob2(iob2.split())) == tags.upper()


def test_tags_that_nothing_began_are_counted_and_no_other_scheme():
    tags = [["B-A", "O", "I-A", "B-B"], ["B-A", "I-B"]]
    reading = recognise_scheme(tags)
    assert reading.scheme == "IOB2"  # IOB1 has B- only behind an entity of the same type
    assert [reading.count_lone(one) for one in tags] == [1, 1]
    assert recognise_scheme([["I-A", "B-A", "O"]]).count_lone(["I-A", "B-A", "O"]) == 0


def test_entity_of_another_type_may_begin_with_i_in_iob1_alone():
    assert recognise_scheme([["I-A", "I-B", "B-B"]]).scheme == "IOB1"
    assert recognise_scheme([["B-A", "I-A"]]).scheme == "IOB2"


@pytest.mark.parametrize("prefix", ["I-", ""])
def test_io_joins_what_stands_together(prefix):
    tags = [f"{prefix}PER", f"{prefix}PER", "O", f"{prefix}LOC", f"{prefix}ORG", *"OOOOO"]
    reading = recognise_scheme([tags])
    assert reading == ("IO", "B-TYPE" if prefix else "TYPE")
    assert list(reading.to_iob2(tags))[:5] == ["B-PER", "I-PER", "O", "B-LOC", "B-ORG"]


def test_parts_of_speech_stay_as_they_are():
    # O is the pronoun of the Twitter tag set; -LRB- a bracket of the Penn one.
    for tags in (
        ["NOUN", "VERB", "NOUN"],
        ["O", "V", "N", "O", "V", "N"],
        ["NN", "-LRB-", "O"],
        ["S-A", "NN"],
    ):
        reading = recognise_scheme([tags])
        assert reading.scheme == "none"
        assert list(reading.to_iob2(tags)) == list(reading.from_iob2(tags)) == tags


def test_entity_that_nothing_began_begins():
    assert to_iob2(["O", "I-A", "I-B", "I-B"], "IOB2") == ("O", "B-A", "B-B", "I-B")
    assert to_iob2(["E-A", "I-A", "E-A", "B-A"], "BIOES") == ("B-A", "B-A", "I-A", "B-A")


def test_file_without_entities_has_only_o():
    assert recognise_scheme([["O", "O"]]).to_iob2(["O", "O"]) == ("O", "O")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["B-PER", "O", "LOC"], "the tags 'B-PER' and 'LOC' are of different schemes"),
        (["B-PER", "I-PER", "_", "_"], "'B-PER' and '_' are of different .* write O for '_' where"),
        (["B", "PER", "O", "O", "O"], "the tags 'B' and 'PER' are of different schemes"),
        (["E", "O", "O"], "the tags E may be letters that mark entities, or types; name the"),
        (["B-PER|B-LOC", "O"], r"the tag 'B-PER\|B-LOC' contains several tags"),
        (["M-A", "I-A", "B-A"], r"the prefixes \['B', 'I', 'M'\] of the tags are of BMES and of"),
        ([*"OOPQR"], "O is at 40% of the tokens, more often than any other tag: are 'P', 'Q'"),
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
        recognise_scheme([[tag]], scheme).to_iob2([tag])


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
