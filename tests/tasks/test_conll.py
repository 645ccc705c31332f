"""Tagged sentences: the traps of the real files, columns, comments, records, spans, and writing."""

import json
from collections import Counter

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks.conll import describe_readings, read_sentences, to_conll
from bertjax.tasks.label_names import check_tags
from bertjax.tasks.tagged_sentences import TaggedConfig
from bertjax.tasks.tagging_schemes import spans_of


@pytest.fixture
def read(tmp_path):
    """`read(content, labelled=, name=, **options)`: the sentences of a small file."""

    def read(content, labelled=True, name="f.conll", **options):
        if not isinstance(content, str):
            content = "\n".join(map(json.dumps, content))
        (tmp_path / name).write_text(content, encoding="utf-8")
        return read_sentences([str(tmp_path / name)], TaggedConfig(**options), labelled).sentences

    return read


def entities(sentences):
    return [span for s in sentences for span in spans_of(s.tags, s.offsets)]


# As grep counts them: lines of a token, tags that begin with B-, tokens that begin with #.
@pytest.mark.parametrize(
    ("name", "sentences", "tokens", "found", "hashes"),
    [
        ("wnut17train.conll", 3394, 62730, 1975, 828),  # a tab on the line between sentences
        ("emerging.dev.conll", 1009, 15733, 836, 22),  # zero-width space and BOM within tokens
        ("emerging.test.annotated", 1287, 23394, 1079, 247),  # a suffix of its own
        ("en_ewt-ud-dev.iob2", 2001, 25149, 966, 5),  # counted tokens, comments, an annotator
    ],
)
def test_real_files_are_read_to_the_last_token(shared_data, name, sentences, tokens, found, hashes):
    path = str(shared_data / "ner" / name)
    read = read_sentences([path], TaggedConfig()).sentences
    assert len(read) == sentences
    assert sum(len(s.tokens) for s in read) == tokens
    assert len(entities(read)) == found
    assert sum(token.startswith("#") for s in read for token in s.tokens) == hashes
    for s in read:
        assert tuple(s.text[start:end] for start, end in s.offsets) == s.tokens
        assert len(s.tags) == len(s.tokens)


def test_iob2_gives_text_types_and_places_of_its_comments(shared_data):
    path = str(shared_data / "ner" / "en_ewt-ud-dev.iob2")
    read = read_sentences([path], TaggedConfig()).sentences
    lines = (shared_data / "ner" / "en_ewt-ud-dev.iob2").read_text(encoding="utf-8").split("\n")
    texts = [line.removeprefix("# text = ") for line in lines if line.startswith("# text = ")]
    assert [s.text for s in read] == [text.rstrip() for text in texts]
    assert Counter(span.type for span in entities(read)) == {"LOC": 399, "PER": 343, "ORG": 224}
    assert read[0].place == f"{path}:4"
    span = entities(read)[0]
    assert (read[0].text[span.start : span.end], span.type) == ("tampa bay", "LOC")


def test_conllu_gives_parts_of_speech_without_ranges_and_empty_nodes(shared_data):
    read = read_sentences(
        [str(shared_data / "treebank" / "en_ewt-ud-dev.conllu")], TaggedConfig()
    ).sentences
    assert len(read) == 2001
    assert "didn't" not in {token for s in read for token in s.tokens}
    assert check_tags(read)[:3] == ("ADJ", "ADP", "ADV")
    assert sum(s.text != " ".join(s.tokens) for s in read) > 1500


CONLL_2003 = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O
# NN I-NP O
.\t . O O
  \t
# NN I-NP O
Peter NNP B-NP I-PER
-DOCSTART- -X- -X- O
London\tNNP\tI-NP I-LOC
"""


def test_columns_parted_by_blanks_with_stray_tabs_and_docstart(read):
    found = read(CONLL_2003)
    assert [s.tokens for s in found] == [("EU", "rejects", "#", "."), ("#", "Peter"), ("London",)]
    assert [s.tags[-1] for s in found] == ["O", "B-PER", "B-LOC"]
    assert found[0].tags == ("B-ORG", "O", "O", "O")
    assert [s.place.rpartition(":")[2] for s in found] == ["3", "8", "11"]
    assert found[0].text == "EU rejects # ."
    assert read(CONLL_2003, tag_column=2, scheme="none")[0].tags == ("NNP", "VBZ", "NN", ".")
    assert read(CONLL_2003, token_column="2", labelled=False)[2][1:3] == (("NNP",), None)


def test_comment_is_only_what_stands_before_a_sentence_and_is_no_row(read):
    content = "# a free comment\n# text = #a b\n# newdoc\n#a\tO\n#\tB-X\n\n#b\t\tO \n\t#c \tO\t\n"
    found = read(content)
    assert [s.tokens for s in found] == [("#a", "#"), ("#b", "#c")]
    # The text does not hold the tokens as they are, so they make their own.
    assert found[0].text == "#a #"
    assert read("a\tO\n\n# \tB-X\n")[1].tokens == ("#",)
    assert read("# sent_id = 1\n# O\na B-X\n")[0].tokens == ("#", "a")


def test_token_with_a_blank_in_it_is_one_where_tabs_part(read):
    assert read("10 000\tO\nb\tO\n")[0].tokens == ("10 000", "b")


def test_file_of_tokens_alone_is_read_without_tags(read):
    (found,) = read("a\nb\n", labelled=False)
    assert read("a\nb\n", labelled=False, tag_column=4) == [found]  # of the model's own data
    assert found[1:] == (("a", "b"), None, "a b", ((0, 1), (2, 3)), None)
    with pytest.raises(UserError, match=r"f\.conll:1: column 1 would be both token and tag"):
        read("a\nb\n")


def test_text_is_kept_where_only_white_space_parts_the_tokens(read):
    content = "# text = (a b)  c\n1\t(\tO\n2\ta\tB-X\n3\tb\tI-X\n4\t)\tO\n5\tc\tO\n"
    (found,) = read(content)
    assert found.text == "(a b)  c"
    assert found.offsets == ((0, 1), (1, 2), (3, 4), (4, 5), (7, 8))
    assert read(content.replace("c\n", "c d\n", 1))[0].text == "( a b ) c"
    assert read(content.replace("a b", "a x b", 1))[0].text == "( a b ) c"


def test_compressed_file_of_any_suffix_is_read(tmp_path):
    import gzip

    (tmp_path / "f.annotated.gz").write_bytes(gzip.compress(b"a\tO\n"))
    found = read_sentences([str(tmp_path / "f.annotated.gz")], TaggedConfig())
    assert found.sentences[0].tokens == ("a",)


def test_reading_is_told_for_each_file_and_files_that_contradict_are_refused(tmp_path):
    contents = {"a": "x B\ny I\n", "b": "x\tX-B\ny\tO\nz\tX-I\n", "c": "x O\n", "d": "x NN\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    paths = {name: str(tmp_path / name) for name in contents}
    found = read_sentences([paths[name] for name in "abc"], TaggedConfig())
    assert describe_readings(found.readings) == [
        f"tags of {paths['a']} are read as IOB2: B, I, O",
        f"tags of {paths['b']} are read as IOB2: TYPE-B, TYPE-I, O",
    ]
    assert found.notes == [
        f"{paths['b']}: 1 tags continue an entity that was not begun, which IOB2 does not have;"
        " they are read as its beginning"
    ]
    with pytest.raises(
        UserError, match=r"/d: its tags seem to mark no entities, .* those of .*/a do \(IOB2"
    ):
        read_sentences([paths["a"], paths["d"]], TaggedConfig())


RECORDS = [
    {"tokens": ["New", "York", "!"], "ner_tags": ["B-LOC", "E-LOC", "O"], "text": "New York!"}
]


def test_records_hold_lists_of_tokens_and_tags(read):
    (found,) = read(RECORDS, name="f.jsonl")
    assert found.tags == ("B-LOC", "I-LOC", "O")
    assert found.text == "New York!"
    assert spans_of(found.tags, found.offsets) == [("LOC", 0, 8)]


def test_tags_of_records_may_be_numbers_with_names(read, tmp_path):
    record = {"words": ["a", "b"], "labels": [2, 0]}
    labels = ["O", "B-X", "B-Y"]
    assert read([record], name="f.jsonl", labels=labels)[0].tags == ("B-Y", "O")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "f.parquet")
    (found,), _, _ = read_sentences([str(tmp_path / "f.parquet")], TaggedConfig(labels=labels))
    assert found.tags == ("B-Y", "O")


def test_field_of_records_can_be_chosen(read):
    record = {"tokens": ["a"], "ner_tags": ["B-X"], "pos_tags": ["NOUN"], "mine": ["DET"]}
    with pytest.raises(UserError, match="ner_tags or pos_tags may be it; choose with --tag-column"):
        read([record], name="f.jsonl")
    assert read([record], name="f.jsonl", tag_column="mine")[0].tags == ("DET",)
    assert read([{"tokens": ["a"]}], name="f.jsonl", labelled=False)[0].tags is None


def test_first_of_two_columns_holds_the_tokens_even_where_it_counts(read):
    assert read("1\tB-X\n2\tO\n")[0][1:3] == (("1", "2"), ("B-X", "O"))


WRONG_COLUMNS = {
    "comment": ("a\tO\n# text = b\n", {}, r"f\.conll:2: 4 columns where line 1 has 2"),
    "cut": ("a\tO\nb\n", {}, r"f\.conll:2: 1 columns where line 1 has 2; every line is a token"),
    "empty": ("a\tO\n\n\tO\n", {}, r"f\.conll:3: 1 columns"),
    "more": ("a O\nb c O\n", {}, r"f\.conll:2: 3 columns where line 1 has 2"),
    "hashtag": ("a\tO\n\n#fail\nb\tO\n", {}, r"f\.conll:3: 1 columns where line 1 has 2"),
    "column": ("a\tO\n", {"tag_column": 3}, r"tag_column=3 must be a column's number, 1 to 2"),
    "name": ("a\tO\n", {"token_column": "x"}, r"token_column='x' must be a column's number"),
    "scheme": (
        "a\tO\n\nc\tO\nb\tL-X\n",
        {"scheme": "IOB2"},
        r"f\.conll:4: the tag 'L-X' is not one of",
    ),
    "mixed": ("a\tO\nb\tB-X\nb\tI-X\nc\tX\n", {}, r"f\.conll:4: the tags 'B-X' and 'X' are of"),
    "marked": ("a\tX\nb\tB-X\nc\tX\nd\tO\n", {}, r"f\.conll:2: the tags 'B-X' and 'X' are of"),
    "ends": ("a\tE-X\nb\tS-X\n\nd\tO\nc\tL-X\n", {}, r"f\.conll:5: the prefixes .* are of BIOES"),
    "none": ("# text = a\n\n\t\n", {}, r"f\.conll: no sentences"),
    "range": (
        "1\ta\tO\n\n# text = du\n1-2\tdu\t_\n",
        {},
        r"f\.conll:4: a sentence without a word, only the row 1-2; add the rows",
    ),
}


@pytest.mark.parametrize("case", WRONG_COLUMNS)
def test_wrong_columns_are_told_with_their_line(read, case):
    content, options, message = WRONG_COLUMNS[case]
    with pytest.raises(UserError, match=message):
        read(content, **options)


WRONG_RECORDS = {
    "tags": ({"ner_tags": ["O"]}, r"f\.jsonl:2: 1 tags \('ner_tags'\) for 2 tokens; every token"),
    "text": ({"ner_tags": "O O"}, r"f\.jsonl:2: \"O O\" \('ner_tags'\) for 2 tokens"),
    "numbers": ({"ner_tags": [0, 1]}, r"the tags \('ner_tags'\) are numbers; .* with --labels"),
    "flag": ({"ner_tags": [True, "O"]}, "has true; a tag is a text or a number"),
    "empty": ({"tokens": [], "ner_tags": []}, r"'tokens' is \[\], not a list of at least one"),
    "blank": ({"tokens": ["a", " "]}, r"the token \" \" of 'tokens' is not a text"),
    "tab": ({"tokens": ["a", "b\tc"]}, r"is not a text without tabs"),
    "missing": ({"tokens": None}, r"f\.jsonl:2: 'tokens' is null"),
}


@pytest.mark.parametrize("case", WRONG_RECORDS)
def test_wrong_record_is_told_with_its_line(read, case):
    good = {"tokens": ["a", "b"], "ner_tags": ["O", "O"]}
    changes, message = WRONG_RECORDS[case]
    with pytest.raises(UserError, match=message):
        read([good, {**good, **changes}], name="f.jsonl")


def test_number_of_a_tag_without_a_name_is_told(read):
    with pytest.raises(UserError, match=r"the tag 2 has no name among the 2 labels \(from 0\)"):
        read([{"tokens": ["a"], "tags": [2]}], name="f.jsonl", labels=["O", "B-X"])


def test_written_columns_are_read_back(read):
    (first, second) = read("a\tB-X\nb\tI-X\n\n#c\tO\n")
    text = to_conll([first, second], [["O", "B-X"], ["O"]])
    assert text == "a\tB-X\tO\nb\tI-X\tB-X\n\n#c\tO\tO\n\n"
    assert [s.tags for s in read(text)] == [("O", "B-X"), ("O",)]
    assert read(text, tag_column=2) == [first, second]
    assert to_conll([second._replace(tags=None)], [["B-X"]]) == "#c\tB-X\n\n"
