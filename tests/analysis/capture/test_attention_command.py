"""`bertjax attention`: what it reads, writes and refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bertjax.analysis.capture.shards import Shards
from tests.analysis.exported import TEXTS, TINY, read

LINES = "".join(("\t".join(text) if isinstance(text, tuple) else text) + "\n" for text in TEXTS[:3])


@pytest.mark.parametrize("source", ["standard input", "txt", "csv", "jsonl.gz"])
def test_command_reads_texts_and_pairs(bertjax_command, captures, tmp_path, source):
    pairs = [("it was", "the cat in"), ("a", "this is what they had")]
    stdin, arguments = b"", []
    if source in ("standard input", "txt"):
        lines = "\n  \n".join("\t".join(pair) for pair in pairs) + "\n\n"
        stdin = lines.encode()
        if source == "txt":
            (tmp_path / "in.txt").write_bytes(stdin)
            arguments = ["--input", tmp_path / "in.txt"]
    elif source == "csv":
        rows = "".join(f"7,{a},{b}\n" for a, b in [pairs[0], ("", ""), pairs[1]])
        (tmp_path / "in.csv").write_text("n,first,second\n" + rows)
        arguments = ["--input", tmp_path / "in.csv"]
    else:
        import gzip

        rows = "".join(json.dumps({"first": a, "second": b}) + "\n" for a, b in pairs)
        with gzip.open(tmp_path / "in.jsonl.gz", "wt") as file:
            file.write(rows)
        arguments = ["--input", tmp_path / "in.jsonl.gz"]
    if source in ("csv", "jsonl.gz"):
        arguments += ["--text-column", "first", "--pair-column", "second"]
    code, out, err = bertjax_command(
        "attention", "--model", TINY, *arguments, "--output", tmp_path / "x.npz", "--hidden",
        "--context", "--json", stdin=stdin,
    )  # fmt: skip
    empty = {"standard input": "2 of 4 lines", "txt": "2 of 4 lines", "csv": "1 of 3 records"}
    told = f"{empty[source]} are empty and are passed over" if source in empty else ""
    assert (code, err.strip().rpartition(": ")[2]) == (0, told)
    about = json.loads(out)
    assert (about["texts"], about["format"], about["units"]) == (2, "npz", "tokens")
    assert about["bytes"] == (tmp_path / "x.npz").stat().st_size
    first, second = read(tmp_path / "x.npz", "npz")
    for kind in ("probs", "hidden", "context"):
        np.testing.assert_allclose(first[kind], getattr(captures[2], kind), atol=1e-5)
    assert second["words"].tolist() == [
        "[CLS]", "a", "[SEP]", "this", "is", "what", "they", "had", "[SEP]",
    ]  # fmt: skip
    assert second["token_type_ids"].tolist() == [0] * 3 + [1] * 6
    assert [first["source"], second["source"]] == [0, 1]


def test_command_cuts_long_texts_on_request(bertjax_command, tmp_path):
    text = "the one of all is in it and they had all of this there as we were on it."
    (tmp_path / "in.txt").write_text(f"a\n{text}\nit\n")
    arguments = ["attention", "--model", TINY, "--input", tmp_path / "in.txt"]
    arguments += ["--output", tmp_path / "x"]
    code, _, err = bertjax_command(*arguments)
    assert code == 2
    assert f"{tmp_path}/in.txt:2: 22 tokens, more than the 17" in err
    assert "--too-long windows" in err
    assert not (tmp_path / "x").exists()
    code, _, err = bertjax_command(*arguments, "--too-long", "windows", "--dtype", "float16")
    assert code == 0
    assert err == (
        f"{tmp_path}/x: 4 texts, 5 layers x 4 heads, between tokens, float16,"
        f" {sum(f.stat().st_size for f in (tmp_path / 'x').iterdir()) / 1e6:.1f} MB\n"
    )
    shards = list(Shards(tmp_path / "x"))
    numbers = [(one.encoded.source, one.encoded.window) for one in shards]
    assert numbers == [(0, 0), (1, 0), (1, 1), (2, 0)]
    words = [word for one in shards[1:3] for word in one.encoded.words[1:-1]]
    assert " ".join(words[:-1]) + "." == text


@pytest.mark.parametrize("format", ["npz", "parquet", "arrow", "shards", "bertviz"])
def test_command_writes_under_a_name_that_is_not_utf8(bertjax_command, tmp_path, format):
    for name in ("plain", os.fsdecode(b"caf\xe9")):
        arguments = ["attention", "--model", TINY, "--output", tmp_path / name]
        code, _, err = bertjax_command(*arguments, "--format", format, stdin=LINES.encode())
        assert code == 0, err
    plain, other = (tmp_path / "plain"), tmp_path / os.fsdecode(b"caf\xe9")
    if format == "shards":
        assert {p.name: p.read_bytes() for p in plain.iterdir()} == {
            p.name: p.read_bytes() for p in other.iterdir()
        }
    else:
        assert other.read_bytes() == plain.read_bytes()


def test_command_gives_bertviz_form(bertjax_command, captures, tmp_path):
    arguments = ["attention", "--model", TINY]
    code, out, err = bertjax_command(*arguments, stdin=LINES.encode())
    assert (code, err) == (0, "")
    forms = [json.loads(line) for line in out.splitlines()]
    assert len(forms) == 3
    for form, one in zip(forms, captures, strict=False):
        assert form.keys() == {"attention", "tokens", "sentence_b_start"}
        assert form["tokens"] == list(one.encoded.tokens)
        found = np.array(form["attention"])
        np.testing.assert_allclose(found[:, 0], one.probs, atol=1e-5)
    assert [form["sentence_b_start"] for form in forms] == [None, None, 4]
    for name in ("x.json", "x.jsonl", "x.data"):
        more = ["--format", "bertviz", "--words", "--layers", 1, 4]
        path = tmp_path / name
        code, out, _ = bertjax_command(*arguments, *more, "--output", path, stdin=LINES.encode())
        assert (code, out) == (0, "")
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if name == "x.json" else list(map(json.loads, text.splitlines()))
        assert [len(form["attention"]) for form in found] == [2, 2, 2]
        assert found[2]["tokens"][4:6] == ["the", "cat"]


@pytest.mark.parametrize(
    ("arguments", "text", "message"),
    [
        ([], "", "in.txt: the file is empty"),
        ([], "\n \n\t\n", "in.txt: no text, nothing but empty lines"),
        ([], "the\n" + "it " * 17 + "\n", "in.txt:2: 19 tokens, more than the 17"),
        (["--max-length", 5], "the\nit was a cat\n", "in.txt:2: 8 tokens, more than the 5"),
        (["--max-length", 18], "the\n", "--max-length 18 must be between 3 and the model's 17"),
        (["--max-length", 9, "--too-long", "windows"], "it " * 9, "at least 10 tokens"),
        (["--output", "x.zip"], "the\n", "--output x.zip: what kind of file is .zip?"),
        (["--output", "x.npz", "--layers", 5], "the\n", "layers=5: the model has layers 0 to 4"),
        (["--output", "x.npz", "--heads", 1, 1], "the\n", "heads=[1, 1] must name each once"),
        (["--format", "npz"], "the\n", "--format npz is for a file; name one with --output"),
        (["--output", "in.txt", "--format", "npz"], "the\n", "--output in.txt: is the input"),
        (["--output", ".", "--format", "npz"], "the\n", "--output .: is a folder"),
        ([], "a\tb\tc\n", "in.txt:1: 2 tabs; one tab separates a pair"),
        ([], "the\n\u0301\n", "in.txt:2: nothing is left of it as tokens"),
    ],
)
def test_command_tells_of_the_users_mistake(
    bertjax_command, tmp_path, monkeypatch, arguments, text, message
):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text(text)
    code, out, err = bertjax_command("attention", "--model", TINY, "--input", "in.txt", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert [file.name for file in Path().iterdir()] == ["in.txt"]
    assert Path("in.txt").read_text() == text


def test_command_tells_of_tables_without_the_column(bertjax_command, tmp_path):
    (tmp_path / "in.csv").write_text("body,label\nthe cat,1\n")
    (tmp_path / "in.jsonl").write_text('{"text": 7}\n')
    arguments = ["attention", "--model", TINY, "--input"]
    _, _, err = bertjax_command(*arguments, tmp_path / "in.csv")
    assert (
        "holds the text? There are: 'body', 'label'; none of them has a usual name for a text"
        in err
    )
    _, _, err = bertjax_command(*arguments, tmp_path / "in.jsonl")
    assert "the field 'text' is 7, not text; name another with --text-column" in err


def test_command_without_any_text_tells_so(bertjax_command):
    code, out, err = bertjax_command("attention", "--model", TINY, stdin=b"\n \n")
    assert (code, out) == (2, "")
    assert "standard input: no text" in err


def test_command_works_on_the_real_model(bertjax_command, shared_data, tmp_path):
    model = shared_data / "weights" / "bert_tiny_mlm"
    stdin = b"The capital of France is [MASK].\n"
    code, _, _ = bertjax_command(
        "attention", "--model", model, "--output", tmp_path / "x.npz", stdin=stdin
    )
    assert code == 0
    [record] = read(tmp_path / "x.npz", "npz")
    assert record["tokens"].tolist()[1:4] == ["the", "capital", "of"]
    np.testing.assert_allclose(record["probs"].sum(axis=-1), 1, atol=1e-5)
