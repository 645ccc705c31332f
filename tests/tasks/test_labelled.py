"""Labelled tables: which column is what, and what a label is."""

import json
from collections import Counter

import pytest

from bertjax.program.errors import UserError
from bertjax.tasks import columns
from bertjax.tasks.columns import ColumnsConfig
from bertjax.tasks.data_config import DataConfig
from bertjax.tasks.label_names import check_labels
from bertjax.tasks.labelled import read_examples


@pytest.fixture
def read(tmp_path):
    """`read(content, kind, labelled=, name=, **columns)`: the examples of a small file."""

    def read(content, kind="class", labelled=True, name="f.jsonl", **columns):
        if not isinstance(content, str):
            content = "\n".join(map(json.dumps, content))
        (tmp_path / name).write_text(content, encoding="utf-8")
        return read_examples([str(tmp_path / name)], ColumnsConfig(**columns), kind, labelled)

    return read


@pytest.mark.parametrize("cell", ["nan", "NaN", "None", "NULL", "N/A", " nan ", "<NA>"])
def test_missing_label_is_no_class_unless_it_is_named(read, cell):
    content = "text,label\n" + f"x,a\ny,{cell}\nz,b\nu,{cell}\n"
    with pytest.raises(UserError) as told:
        read(content, name="f.csv")
    assert str(told.value).partition("f.csv:3: ")[2] == (
        f"the label ('label') is missing ({json.dumps(cell)}), of 2 of 4 examples; fill it in, or"
        f" leave these examples out, or, where {cell.strip()!r} is a class, name all classes with"
        " --labels"
    )
    labels = ["a", "b", cell.strip()]
    assert read(content, name="f.csv", labels=labels)[1].label == cell.strip()
    sets = [{"text": "x", "labels": ["a", cell]}]
    with pytest.raises(UserError, match=r"among the labels \('labels'\) is .*, a missing value"):
        read(sets, "set")


def test_label_that_is_no_number_in_json_is_missing(read):
    content = '{"text": "x", "label": 1.0}\n{"text": "y", "label": NaN}\n'
    with pytest.raises(UserError, match=r"f\.jsonl:2: the label \('label'\) is empty, of 1 of 2"):
        read(content)
    assert read([{"text": "x", "labels": float("nan")}], "set")[0].label == ()


@pytest.mark.parametrize(
    ("name", "size", "first", "second"),
    [
        ("MED.tsv", 5382, "An Irishman won the nobel prize for", "An Irishman won a nobel prize."),
        ("leskexppmb_and.tsv", 6076, "I bought a few eggs and a little", "I bought a few eggs"),
        ("leskexppmb_or.tsv", 438, "Maybe he is Italian or Spanish .", "Maybe he is Italian"),
    ],
)
def test_pairs_are_read_with_nothing_but_defaults(shared_data, name, size, first, second):
    path = str(shared_data / "pairs" / name)
    examples = read_examples([path], ColumnsConfig(), "class")
    assert len(examples) == size
    assert examples[0].first.startswith(first)
    assert examples[0][2:4] == (second, "entailment")
    assert examples[0].place == f"{path}:2"
    assert check_labels(examples) == ("entailment", "neutral")


def test_tsv_without_header_whose_texts_hold_quotation_marks(shared_data):
    path = str(shared_data / "classification" / "sms_spam.tsv")
    examples = read_examples([path], ColumnsConfig(columns=["label", "text"]), "class")
    assert len(examples) == 5574
    assert Counter(e.label for e in examples) == {"ham": 4827, "spam": 747}
    assert sum(e.first.count('"') for e in examples) == 347
    with pytest.raises(
        UserError,
        match=r"sms_spam\.tsv: which column holds the text and which the label\? .*'ham'.*;"
        r" choose with --text-column \(and --pair-column\) and --label-column; .* from --columns",
    ):
        read_examples([path], ColumnsConfig(), "class")


def test_tsv_with_numbers_and_windows_line_ends(shared_data):
    path = str(shared_data / "classification" / "vader_tweets.tsv")
    examples = read_examples([path], ColumnsConfig(columns=["id", "score", "text"]), "number")
    assert len(examples) == 4200
    assert examples[0].label == 2.726315789
    assert examples[0].first.endswith("feeling awesome. So lucky.")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "a", "label": "x"}, ("a", None, "x")),
        ({"Review": "a", "Class": "x"}, ("a", None, "x")),
        ({"premise": "a", "hypothesis": "b", "gold_label": "x"}, ("a", "b", "x")),
        ({"question": "a", "sentence": "b", "label_name": "x"}, ("a", "b", "x")),
        ({"text_b": "b", "text_a": "a", "target": "x", "label1": "y"}, ("a", "b", "x")),
    ],
)
def test_columns_are_recognised_by_their_names(read, fields, expected):
    assert read([fields])[0][1:4] == expected


def test_named_columns_go_before_recognised_ones(read):
    record = {"text": "a", "sentence1": "b", "sentence2": "c", "label": "x", "score": "y"}
    columns = {"text_column": "sentence2", "label_column": "score"}
    assert read([record], **columns)[0][1:4] == ("c", None, "y")
    assert read([record], **columns, pair_column="text")[0][1:4] == ("c", "a", "y")


AMBIGUOUS = {
    "text": (
        {"text": "a", "review": "b", "label": "x"},
        "text or review may be the text; .*--text-column",
    ),
    "pair": (
        {"text": "a", "sentence1": "b", "sentence2": "c", "label": "x"},
        r"holds the text\? .*sentence1 and sentence2 or text may be the text",
    ),
    "label": (
        {"text": "a", "label": 1, "score": 2},
        "label or score may be the label; .*--label-column",
    ),
    "label in two cases": (
        {"text": "a", "label": 1, "Label": 2},
        "label or Label may be the label; .*--label-column",
    ),
    "text in two cases": (
        {"Text": "a", "TEXT": "b", "label": 2},
        "Text or TEXT may be the text; .*--text-column",
    ),
    "nothing known": (
        {"data": [], "label": 2},
        r"There are: 'data', 'label'; .* choose with --text-column \(and --pair-column\)$",
    ),
    "none": (
        {"text": "a", "grade": 1},
        "which column holds the label.*'text', 'grade'; none of them has a usual name for a label",
    ),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_ambiguous_columns_are_asked_for(read, case):
    record, message = AMBIGUOUS[case]
    with pytest.raises(UserError, match=message):
        read([record])


def test_file_without_labels_is_read_when_none_are_asked_for(read):
    record = {"id": 7, "text": "a", "label": "x"}
    assert read([record], labelled=False)[0][1:] == ("a", None, None, record)
    assert read([{"text": None, "label": ""}], labelled=False)[0][1:4] == ("", None, None)


def test_labels_of_json_become_their_names(read):
    values = [3, True, 2.0, " x ", "4"]
    labels = [e.label for e in read([{"text": "a", "label": value} for value in values])]
    assert labels == ["3", "true", "2", "x", "4"]


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ('{"text": "a", "labels": ["x", 2, "x"]}\n{"text": "b", "labels": []}', {}),
        ("text\tlabel\na\tx, 2\nb\t\n", {"name": "f.tsv", "label_separator": ","}),
        (
            "text,x,y,2\na,1,0,1.0\nb,0,False,0\n",
            {"name": "f.csv", "label_columns": ["x", "y", "2"]},
        ),
    ],
)
def test_set_of_labels_is_a_list_a_separated_cell_or_columns(read, content, options):
    assert [e.label for e in read(content, "set", **options)] == [("x", "2"), ()]


WRONG = {
    "empty": ("class", {"label": " "}, {}, r"f\.jsonl:2: the label \('label'\) is empty"),
    "null": ("number", {"label": None}, {}, r"f\.jsonl:2: the label \('label'\) is empty"),
    "fraction": ("class", {"label": 2.5}, {}, r"f\.jsonl:2: .*is 2\.5; .*numbers is regression"),
    "list": ("class", {"label": ["x"]}, {}, r"is \[\"x\"\]; .*a multi-label task"),
    "word": ("number", {"label": "good"}, {}, r"is \"good\", not a finite number"),
    "nan": ("number", {"label": "nan"}, {}, r"is missing \(\"nan\"\), of 1 of 2"),
    "infinite": ("number", {"label": 1e999}, {}, r"is Infinity, not a finite number"),
    "flag": ("number", {"label": True}, {}, r"is true, not a finite number"),
    "text": ("set", {"label": "x,y"}, {}, r"are the text \"x,y\"; .*--label-separator"),
    "dict": ("set", {"label": {"x": 1}}, {}, r"not a list or a text"),
    "cell": ("set", {"label": 2}, {"label_columns": ["label"]}, "'label' has 2, not 0 or 1"),
    "columns": ("class", {"label": 1}, {"label_columns": ["label"]}, r"any number of labels"),
    "missing": ("class", {"labels": 1}, {}, r"f\.jsonl:2: no field 'label'.*--label-column"),
    "number": ("class", {"text": 3, "label": 1}, {}, r"f\.jsonl:2: the field 'text' is 3"),
    "lost": ("class", {"label": 1}, {"pair_column": "b"}, r"second text .*--text-column"),
    "absent": (
        "class",
        {"label": 1},
        {"text_column": "txt"},
        r"no field 'txt'; did you mean 'text",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_label_or_column_is_told_with_its_place(read, case):
    kind, record, options, message = WRONG[case]
    good = {"class": "x", "number": 1, "set": []}[kind]
    good = 1 if "label_columns" in options else good
    with pytest.raises(UserError, match=message):
        read([{"text": "a", "label": good}, {"text": "b", **record}], kind, **options)


def test_csv_with_a_missing_column_is_told_at_its_header(read):
    with pytest.raises(UserError, match=r"f\.csv: which column holds the label"):
        read("text,n\na,1\n", name="f.csv")
    with pytest.raises(UserError, match=r"f\.csv:1: no column 'grade'; there are: 'text', 'n'"):
        read("text,n\na,1\n", name="f.csv", label_column="grade")


def test_file_of_nothing_but_a_header_is_told(read):
    with pytest.raises(UserError, match=r"f\.csv: no examples"):
        read("text,label\n", name="f.csv")


def test_both_missing_columns_are_in_one_message_with_the_options_of_the_program(tmp_path):
    path = tmp_path / "f.csv"
    path.write_text("body,grade\nx,a\n")
    config = DataConfig(text_column="txt", label_column="grad")
    with pytest.raises(UserError) as told:
        read_examples([str(path)], config, "class")
    assert str(told.value).partition("f.csv:1: ")[2] == (
        "no column 'txt' and no column 'grad'; did you mean 'grade'?; there are: 'body', 'grade'"
        " (choose with --data.text-column and --data.label-column)"
    )
    with pytest.raises(
        UserError, match=r"with --data.text-column .* and --data.label-column; a fil"
    ):
        read_examples([str(path)], DataConfig(), "class")


def test_labels_in_columns_of_their_own_are_named_as_the_way_out(read):
    with pytest.raises(UserError, match=r"--label-column \(or, where each .* --label-columns\)"):
        read([{"text": "a", "toxic": 1, "rude": 0}], kind="set")


@pytest.mark.parametrize("name", [*columns.TEXTS, *columns.LABELS])
def test_help_names_what_is_recognised_and_that_is_recognised(read, name):
    text, label = (name, "label") if name in columns.TEXTS else ("text", name)
    assert read([{text.upper(): "a", label: "x"}])[0][1:4] == ("a", None, "x")
    assert f"{name}," in ColumnsConfig.__doc__.replace(";", ",").replace(")", ",")


def test_format_says_what_a_file_is_and_extra_cells_can_be_passed_over(read):
    assert read("label\ttext\nx\ta,b\n", name="f.data", format="tsv")[0][1:4] == ("a,b", None, "x")
    assert read("label\ttext\nx\ta,b\n", name="f.csv", format="tsv")[0].first == "a,b"
    with pytest.raises(UserError, match=r"f\.data: what kind .*; say what it is with --format"):
        read("label\ttext\nx\ta\n", name="f.data")
    ragged = "label,text\nx,a,,\ny,b\nz,c,more\n"
    found = read(ragged, name="f.csv", extra_columns="ignore")
    assert [one[1:4] for one in found] == [("a", None, "x"), ("b", None, "y"), ("c", None, "z")]
    with pytest.raises(UserError, match=r"4 columns where .*--extra-columns ignore skips"):
        read(ragged, name="f.csv")
    with pytest.raises(UserError, match=r"f\.csv:2: 1 columns where the header has 2"):
        read("label,text\nx\n", name="f.csv", extra_columns="ignore")
    # Numbers of rows before the first column: the last cell is not the one too many.
    with pytest.raises(UserError, match="every row has more cells than there are column names"):
        read("label,text\n1,x,a\n2,y,b\n", name="f.csv", extra_columns="ignore")


def test_names_of_columns_that_stand_in_the_first_line_all_the_same_are_no_example(read):
    assert len(read("label,text\nx,a\n", name="f.csv", columns=["label", "text"])) == 1
