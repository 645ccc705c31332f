"""What every command reads alike: texts as arguments, from files, from standard input."""

import argparse
import io
import json
import sys
from pathlib import Path

import pytest

from bertjax.commands.text_options import add_texts, choose_reading
from bertjax.commands.texts import Texts
from bertjax.program.errors import UserError
from bertjax.text.lines import separate_pair

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("one two", "one two"), (" one\t two", ("one", "two")), ("one\t", "one"),
        ("\t two ", "two"), ("a\u3000b\r", "a\u3000b"),
    ],
)  # fmt: skip
def test_tab_separates_a_pair_and_at_an_end_nothing(line, text):
    assert separate_pair("f:1", line) == text


def test_several_tabs_are_refused():
    with pytest.raises(UserError, match="f:1: 2 tabs; one tab separates a pair"):
        separate_pair("f:1", "a\tb\tc")


def read(*words, stdin=b"", pairs=True, keep_empty=False, monkeypatch=None):
    """(texts, places) of a command line."""
    parser = argparse.ArgumentParser()
    add_texts(parser, pairs=pairs, keep_empty=keep_empty)
    options = parser.parse_args([str(word) for word in words])
    if monkeypatch:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
    reading = choose_reading(options, None)
    texts = Texts(reading, options.texts, options.input, pairs=pairs, keep_empty=keep_empty)
    found = list(texts)
    assert list(texts) == found  # read anew, it is the same
    texts.tell_passed_over()
    return [text for _, text in found], [place for place, _ in found]


LINES = "the dog\n\n  \n a\tcat \r\n"
EXPECTED = ["the dog", ("a", "cat")]


def test_arguments_files_and_standard_input_give_the_same(tmp_path, monkeypatch, capsys):
    file = tmp_path / "t.txt"
    file.write_bytes(b"\xef\xbb\xbf" + LINES.encode())  # with a byte order mark
    texts, places = read("--input", file)
    assert (texts, places) == (EXPECTED, [f"{file}:1", f"{file}:4"])
    assert capsys.readouterr().err == f"{file}: 2 of 4 lines are empty and are passed over\n"
    for words in ([], ["-"], ["--input", "-"]):
        stdin = b"\xef\xbb\xbf" + LINES.encode()
        texts, places = read(*words, stdin=stdin, monkeypatch=monkeypatch)
        assert (texts, places) == (EXPECTED, ["standard input:1", "standard input:4"])
        said = "standard input: 2 of 4 lines are empty and are passed over\n"
        assert capsys.readouterr().err == said
    assert read(*LINES.split("\n")[:4])[0] == EXPECTED
    said = "the command line: 2 of 4 texts are empty and are passed over\n"
    assert capsys.readouterr().err == said
    assert read("one")[1] == ["the text"]
    assert read("one", "", "two")[1] == ["text 1", "text 3"]


def test_empty_lines_keep_their_place_where_the_command_needs_them(tmp_path, capsys):
    file = tmp_path / "t.txt"
    file.write_text(LINES)
    assert read("--input", file, pairs=False, keep_empty=True)[0] == ["the dog", "", "", "a\tcat"]
    assert capsys.readouterr().err == ""


def test_records_give_the_columns_that_are_named(tmp_path, capsys):
    file = tmp_path / "t.csv"
    file.write_text('text,other,n\n"a\tb",c,1\n,,2\nd,,3\n')
    assert read("--input", file)[0] == ["a\tb", "d"]  # a cell is a text, whatever is in it
    assert "1 of 3 records are empty" in capsys.readouterr().err
    assert read("--input", file, "--pair-column", "other")[0] == [("a\tb", "c"), "d"]
    assert read("--input", file, "--text-column", "other")[0] == ["c"]
    with pytest.raises(UserError, match="none"):
        read("--input", file, "--text-column", "none")


@pytest.mark.parametrize(
    ("header", "pairs", "expected"),
    [
        ("id,Review", True, "b"), ("Premise,hypothesis", True, ("a", "b")),
        ("text,premise", False, "a"), ("other,text", False, "b"),
    ],
)  # fmt: skip
def test_columns_without_a_word_are_recognised_as_in_labelled_files(
    tmp_path, header, pairs, expected
):
    file = tmp_path / "t.csv"
    file.write_text(f"{header}\na,b\n")
    assert read("--input", file, pairs=pairs)[0] == [expected]


@pytest.mark.parametrize(
    ("header", "pairs", "message"),
    [
        ("text,Text", True, r"text or Text may be the text; .* --text-column \(and --pair-column"),
        ("premise,hypothesis", False, "premise and hypothesis may be .* with --text-column$"),
        ("id,words", False, "'id', 'words'; none of them .* with --text-column; .* --columns"),
    ],
)
def test_columns_that_may_be_several_things_are_asked_for(tmp_path, header, pairs, message):
    file = tmp_path / "t.csv"
    file.write_text(f"{header}\na,b\n")
    with pytest.raises(UserError, match=message):
        read("--input", file, pairs=pairs)


def test_tables_are_read_as_is_said(tmp_path):
    file = tmp_path / "t.tsv"
    file.write_text('1\t"a ""b"""\tmore\n')
    words = ("--columns", "n", "text", "--quoting", "double", "--extra-columns", "ignore")
    assert read("--input", file, *words)[0] == ['a "b"']


def test_delimiter_is_recognised_and_told_or_said(tmp_path, capsys):
    file = tmp_path / "t.csv"
    file.write_text("id;text\n1;a, b\n")
    assert read("--input", file)[0] == ["a, b"]
    told = f"{file}: semicolons separate its cells, as its header line shows\n"
    assert capsys.readouterr().err == told
    assert read("--input", file, "--delimiter", ";")[0] == ["a, b"]
    file.write_text("1;a, b\n")
    words = ("--columns", "n", "text", "--delimiter")
    assert read("--input", file, *words, ";")[0] == ["a, b"]
    assert capsys.readouterr().err == ""
    with pytest.raises(UserError, match="--delimiter 'semicolon' must be one character"):
        read("--input", file, *words, "semicolon")


def test_format_of_the_files_is_that_of_the_command_and_not_of_its_output(tmp_path):
    file = tmp_path / "t.xlsx"
    file.write_text("text\na\n")
    parser = argparse.ArgumentParser()
    add_texts(parser, pairs=True)
    options = parser.parse_args(["--input", str(file)])
    texts = Texts(choose_reading(options, None, "csv"), files=options.input, pairs=True)
    assert [text for _, text in texts] == ["a"]
    with pytest.raises(UserError, match="--format conll is for sentences with tags"):
        Texts(choose_reading(options, None, "conll"), files=options.input, pairs=True)
    with pytest.raises(
        UserError, match="--format csv applies to files, and texts of the command line"
    ):
        Texts(choose_reading(options, None, "csv"), ["a"], pairs=True)
    options.format = "npz"  # of what `attention` writes
    with pytest.raises(UserError, match="what kind of file"):
        Texts(choose_reading(options, None), files=options.input, pairs=True)


def test_encoding_is_of_standard_input_too(monkeypatch):
    line = "año\n".encode("latin-1")
    message = r"standard input:1: not UTF-8 \(byte 0xf1 at column 2\); pass --encoding cp1252"
    with pytest.raises(UserError, match=message):
        read("-", stdin=line, monkeypatch=monkeypatch)
    words = ("-", "--encoding", "latin-1")
    assert read(*words, stdin=line, monkeypatch=monkeypatch)[0] == ["año"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "-"], "- reads standard input and stands alone"),
        (["--input", "-", "-"], "- reads standard input and stands alone"),
        (["a", "--text-column", "x"], "--text-column applies to tables, and none is read"),
        (["a", "--delimiter", ";"], "--delimiter applies to tables, and none is read"),
        (["a", "--pair-column", "x"], "--pair-column applies to tables, and none is read"),
        (["a", "--encoding", "latin-1"], "--encoding applies to text files and standard input"),
        (["a", "--errors", "replace"], "--errors applies to text files and standard input"),
        (["--input", "none.txt"], "none.txt: no such file"),
    ],
)
def test_what_would_be_said_in_vain_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        read(*words)


def test_closed_standard_input_is_told(monkeypatch):
    parser = argparse.ArgumentParser()
    add_texts(parser, pairs=True)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match="standard input is closed; give texts as arguments"):
        Texts(choose_reading(parser.parse_args([]), None), pairs=True)


# ------------------------------------------------------------------ every command


def run_command(bertjax_command, name, *words, stdin=b"", output=None):
    """What a command makes of texts, as something that can be compared."""
    extra = {
        "fill-mask": ("--json",),
        "embed": ("--output", output / "x.npy"),
        "attention": (),
        "explain": ("--json", "--method", "gradient-x-input"),
        "what-if": ("--json", "--word", "1"),
    }[name]
    code, out, err = bertjax_command(name, "--model", TINY, *words, *extra, stdin=stdin)
    assert code == 0, err
    return (output / "x.npy").read_bytes() if name == "embed" else out


@pytest.mark.parametrize("name", ["fill-mask", "embed", "attention", "explain", "what-if"])
def test_command_takes_texts_from_everywhere(bertjax_command, tmp_path, name):
    texts = ["this is [MASK].", "they are [MASK]"]
    file = tmp_path / "t.txt"
    file.write_text("\n".join(texts) + "\n")
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    words = (texts, ["--input", file], ["--input", table], ["-"], [])
    found = [
        run_command(bertjax_command, name, *one, stdin=file.read_bytes(), output=tmp_path)
        for one in words
    ]
    assert found[0]
    assert found == [found[0]] * len(words)


@pytest.mark.parametrize("option", ["--hidden", "--context"])
def test_attention_refuses_what_the_form_has_no_place_for(bertjax_command, option):
    code, _, err = bertjax_command("attention", "--model", TINY, "this is", option)
    assert (code, f"{option}: bertviz's form holds attention alone" in err) == (2, True)
