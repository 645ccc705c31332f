"""Records: what a row is in each format, where it stands, and what a wrong row is told."""

import gzip
import json
from pathlib import Path

import pytest

from bertjax.program.errors import UserError
from bertjax.text.record_config import Record, RecordConfig
from bertjax.text.records import read_records
from bertjax.text.sources import find_sources


def read(path: Path, fields: dict[str, str] | None = None, **options: object) -> list[Record]:
    (source,) = find_sources([str(path)], "utf-8")
    return [
        record._replace(place=record.place.removeprefix(f"{path.parent}/"))
        for record in read_records(source, RecordConfig(**options), fields)
    ]


def write(path: Path, content: str) -> Path:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


VALUES = [{"a": "x, y", "b": '"1"'}, {"a": "two\nlines", "b": "2"}]
CONTENTS = {
    "jsonl": "\n".join(map(json.dumps, VALUES)),
    "json": json.dumps(VALUES, indent=1),
    "csv": 'a,b\n"x, y","""1"""\n"two\nlines",2\n',
}
PLACES = {"jsonl": [1, 2], "json": [2, 6], "csv": [2, 3]}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_record_is_whole_and_has_its_line(tmp_path, kind, suffix):
    found = read(write(tmp_path / f"f.{kind}{suffix}", CONTENTS[kind]))
    assert [record.values for record in found] == VALUES
    assert [record.place for record in found] == [
        f"f.{kind}{suffix}:{line}" for line in PLACES[kind]
    ]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parquet_record_is_whole_and_has_its_number(tmp_path, suffix):
    import pyarrow as pa
    import pyarrow.parquet as pq

    values = [{"a": str(n), "b": n, "c": ["x"] * n} for n in range(300)]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "raw.parquet")
    data = (tmp_path / "raw.parquet").read_bytes()
    path = tmp_path / f"f.parquet{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    found = read(path)
    assert [record.values for record in found] == values
    assert found[299].place == f"f.parquet{suffix} record 300"


def test_parquet_columns_that_nobody_asks_for_are_not_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "f.parquet"
    pq.write_table(pa.table({"a": ["x"], "large": ["y" * 1000]}), path)
    assert [record.values for record in read(path, {"a": "--text-column"})] == [{"a": "x"}]


def test_tsv_without_a_header_takes_its_names_from_columns(tmp_path):
    path = write(tmp_path / "f.tsv", 'ham\tsay "hi"\nspam\tbuy\n')
    assert read(path, columns=["label", "text"]) == [
        ("f.tsv:1", {"label": "ham", "text": 'say "hi"'}),
        ("f.tsv:2", {"label": "spam", "text": "buy"}),
    ]


@pytest.mark.parametrize("header", ["label\ttext", "id\ttext", "text\tlabel\tid"])
def test_header_of_a_table_holds_where_columns_are_given_or_remembered(tmp_path, header):
    names = header.split("\t")
    path = write(tmp_path / "f.tsv", f"{header}\n" + "\t".join(["x"] * len(names)) + "\n")
    expected = [("f.tsv:2", dict.fromkeys(names, "x"))]
    assert read(path, columns=["label", "text"]) == expected
    if "label" not in names:
        with pytest.raises(UserError, match="label"):
            read(path, {"label": "--label-column"}, columns=["label", "text"])


def test_quotation_marks_are_as_quoting_says(tmp_path):
    content = 'a{0}b\n"x"{0}y\n'
    tsv = write(tmp_path / "f.tsv", content.format("\t"))
    csv = write(tmp_path / "f.csv", content.format(","))
    assert [read(tsv)[0].values["a"], read(csv)[0].values["a"]] == ['"x"', "x"]
    assert read(tsv, quoting="double")[0].values["a"] == "x"
    assert read(csv, quoting="none")[0].values["a"] == '"x"'


@pytest.mark.parametrize(
    ("name", "content", "options", "first"),
    [
        ("a.csv", "a;b\nx, y;z\n", {}, "x, y"),
        ("b.csv", '"a";"b, c"\n"x;y";z\n', {}, "x;y"),
        ("c.csv", "a|b;c\nx|y|z\n", {"delimiter": "|", "extra_columns": "ignore"}, "x"),
        ("d.csv", "\n a | b\nx, y;|z\n", {}, "x, y;"),
        ("e.csv", "a,b;c\nx;y,z\n", {}, "x;y"),
        ("f.csv", "a\tb\nx,\ty\n", {"delimiter": "tab"}, "x,"),
        ("g.tsv", "a;b\nx\t;y\n", {"delimiter": ";"}, "x\t"),
        ("h.csv", "x;y\n", {"delimiter": ";", "columns": ["a", "b"]}, "x"),
        ("i.csv", "b;a\nx;y\n", {"columns": ["a", "b"]}, "y"),
        ("j.csv", "a\nx\n", {}, "x"),
    ],
)
def test_delimiter_is_as_said_or_as_the_header_shows(tmp_path, name, content, options, first):
    [record] = read(write(tmp_path / name, content), **options)
    assert record.values["a"] == first


def test_column_may_have_an_empty_name(tmp_path):
    path = write(tmp_path / "f.tsv", "\ta\t\n0\tx\ty\n")
    assert read(path, {"a": "--text-column"})[0].values["a"] == "x"


WRONG = {
    "few.tsv": (
        "a\tb\nx\ty\nz\n",
        {},
        r"few\.tsv:3: 1 columns where the header has 2; a tab or .* give --quoting double",
    ),
    "many.csv": (
        "a,b\nx,y,z\n",
        {},
        r"many\.csv:2: 3 columns where the header has 2; put a text that .* in quotation marks",
    ),
    "none.csv": (
        "a,b\nx,y,z\n",
        {"quoting": "none"},
        r"none\.csv:2: 3 columns .*; a comma inside a text needs quotation marks around it",
    ),
    "named.tsv": (
        "x\ty\tz\n",
        {"columns": ["a", "b"]},
        r"named\.tsv:1: 3 columns where columns names 2",
    ),
    "both.csv": (
        "a;b|c\nx;y|z\n",
        {},
        r"both\.csv:1: one column, \"a;b\|c\"; semicolons separate .* \.csv: .* --delimiter ';'",
    ),
    "unnamed.csv": ("x;y\n", {"columns": ["a", "b"]}, r'unnamed\.csv:1: one column, "x;y"; semico'),
    "commas.csv": (
        "a,b\nx,y\n",
        {"delimiter": ";"},
        r"commas\.csv:1: .* semicolons separate those of this file: .*--delimiter ','",
    ),
    "c.jsonl": ('{"a": 1}', {"delimiter": ";"}, r"c\.jsonl: --delimiter ';' is for \.csv and"),
    "tabs.csv": ("a\tb\nx\ty\n", {}, r"tabs\.csv:1: .* tabs separate .*: call the file \.tsv"),
    "commas.tsv": ("a,b\nx,y\n", {}, r"commas\.tsv:1: .* commas separate .*: call the file \.csv"),
    "quoted.tsv": (
        '"a"\t"b"\n"x"\t"y"\n',
        {},
        r'quoted\.tsv:1: the name "a" is in quotation marks, .* give --quoting double',
    ),
    "twice.csv": ("a,b,a\n1,2,3\n", {}, r"twice\.csv:1: two columns have the name 'a'; rename"),
    "a.jsonl": (
        '{"a": 1}',
        {"columns": ["a"]},
        r"a\.jsonl: columns=\['a'\] names the columns of \.csv and \.tsv files without a header",
    ),
    "b.jsonl": ('{"a": 1}\n3', {}, r"b\.jsonl:2: a record is an object, this is 3"),
    "a.txt": ("a", {}, r"a\.txt: plain text has no fields; records come as \.jsonl"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_row_is_told_with_its_place_and_way_out(tmp_path, name):
    content, options, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / name, content), **options)


@pytest.mark.parametrize("name", ["f.jsonl", "f.csv"])
def test_missing_field_is_told_with_its_option(tmp_path, name):
    path = write(tmp_path / name, '{"labels": 1}' if name == "f.jsonl" else "labels\n1\n")
    with pytest.raises(
        UserError, match=r"no (field|column) 'label'; did you mean 'labels'\?.*with --label-column"
    ):
        read(path, {"label": "--label-column"})


HALF = '{"a": {"b": ["good \\ud83d\\ude00", \n"bad \\uD83D end"]}}'


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_half_of_a_character_is_as_a_bad_byte_is(tmp_path, kind):
    text = HALF if kind == "json" else HALF.replace("\n", "")
    path = write(tmp_path / f"f.{kind}", f'{{"a": 1}}\n{text}\n')
    line = 3 if kind == "json" else 2
    message = rf"f\.{kind}:{line}: \\ud83d is half of a character .* pass --errors replace"
    with pytest.raises(UserError, match=message):
        read(path)
    for errors, mended in (("replace", "bad \ufffd end"), ("ignore", "bad  end")):
        assert read(path, errors=errors)[1].values == {"a": {"b": ["good \U0001f600", mended]}}


def test_backslash_that_is_text_is_no_half_of_a_character(tmp_path):
    path = write(tmp_path / "f.jsonl", r'{"a": "\\ud83d"}')
    assert read(path)[0].values == {"a": r"\ud83d"}


def test_names_in_quotation_marks_are_taken_as_quoting_says(tmp_path):
    path = write(tmp_path / "f.tsv", '"a"\tb\n"x"\ty\n')
    assert read(path, quoting="double")[0].values == {"a": "x", "b": "y"}
    assert read(path, quoting="none")[0].values == {'"a"': '"x"', "b": "y"}
