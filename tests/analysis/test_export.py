"""Attention in files: every format gives back what was captured; the command tells of mistakes."""

import json
import os
import weakref
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bertjax.analysis import selection as selection_module
from bertjax.analysis.bertviz import to_bertviz
from bertjax.analysis.capture import Captured, capture, load_body
from bertjax.analysis.encoding import encode_texts, encode_words, merge_subwords
from bertjax.analysis.export import write_captures
from bertjax.analysis.selection import TEXT_FIELDS, select
from bertjax.analysis.shards import Shards
from bertjax.errors import UserError

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"
TEXTS = ["this is what they had", "a", ("it was", "the cat in"), "Ωmega is in."]
LINES = "".join(("\t".join(text) if isinstance(text, tuple) else text) + "\n" for text in TEXTS[:3])
FORMATS = {"npz": "x.npz", "parquet": "x.parquet", "arrow": "x.arrow", "shards": "x"}


@pytest.fixture(scope="module")
def body():
    return load_body(TINY)


@pytest.fixture(scope="module")
def captures(body):
    texts = encode_texts(body.tokenizer, TEXTS, 17)
    return list(capture(body, texts, hidden=True, context=True))


def read(path, format):
    """Of every text its fields and arrays by name, in one form for all formats."""
    kinds = ("probs", "hidden", "context")
    if format == "shards":
        for one in Shards(path):
            fields = one.encoded._asdict() | one._asdict()
            yield {name: value for name, value in fields.items() if value is not None}
    elif format == "npz":
        with np.load(path) as arrays:
            for number in range(len(arrays["sources"])):
                ours = [name for name in arrays if name.endswith(f"_{number}")]
                record = {name.removesuffix(f"_{number}"): arrays[name] for name in ours}
                yield record | {
                    "source": arrays["sources"][number],
                    "window": arrays["windows"][number],
                }
    else:
        table = pq.read_table(path) if format == "parquet" else pa.ipc.open_file(path).read_all()
        for record in table.to_pylist():
            for kind in kinds:
                if kind in record:
                    values = table[kind].type.value_type.to_pandas_dtype()
                    shape = record.pop(f"{kind}_shape")
                    record[kind] = np.array(record[kind], values).reshape(shape)
            yield record


def check_same(record, captured):
    for name in (*TEXT_FIELDS, "source", "window"):
        expected = getattr(captured.encoded, name)
        assert np.array_equal(np.asarray(record[name]), np.asarray(expected)), name
    for name in ("probs", "hidden", "context"):
        expected = getattr(captured, name)
        assert (expected is None) == (name not in record)
        if expected is not None:
            assert record[name].dtype == expected.dtype
            np.testing.assert_array_equal(record[name], expected, name)


@pytest.mark.parametrize("groups", ["in one", "each alone"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_back_what_was_captured(
    captures, tmp_path, monkeypatch, format, dtype, groups
):
    if groups == "each alone":
        monkeypatch.setattr(selection_module, "GROUP_BYTES", 1)
    path = tmp_path / "new" / FORMATS[format]
    chosen = select(load_body(TINY).model.config, dtype=dtype)
    assert write_captures(path, iter(captures), chosen) == len(TEXTS)
    records = list(read(path, format))
    assert len(records) == len(TEXTS)
    for record, one in zip(records, captures, strict=True):
        typed = Captured(one.encoded, *(part.astype(dtype) for part in one[1:]))
        check_same(record, typed)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
def test_part_of_the_layers_and_heads_and_words(body, captures, tmp_path, format):
    path = tmp_path / FORMATS[format]
    chosen = select(body.model.config, layers=[3, 0], heads=[2], words=True)
    assert write_captures(path, captures, chosen) == len(TEXTS)
    for record, one in zip(read(path, format), captures, strict=True):
        merged = merge_subwords(one.probs, one.encoded)
        np.testing.assert_array_equal(record["probs"], merged[[3, 0], 2:3])
        np.testing.assert_allclose(record["probs"].sum(axis=-1), 1, atol=1e-5)
        words = len(one.encoded.words)
        assert record["hidden"].shape == (3, words, 24)
        assert record["context"].shape == (2, words, 1, 6)
        for word in range(words):
            own = one.encoded.word_ids == word
            for place, layer in enumerate((3, 0)):
                np.testing.assert_allclose(
                    record["context"][place, word, 0],
                    one.context[layer, own, 2].mean(axis=0),
                    atol=1e-5,
                )
            for place, layer in enumerate((0, 4, 1)):
                np.testing.assert_allclose(
                    record["hidden"][place, word], one.hidden[layer, own].mean(axis=0), atol=1e-5
                )


def test_given_words_come_back_whatever_is_in_them(body, tmp_path):
    texts = encode_words(body.tokenizer, [["it", "a\u2028b", "in\x85", '"\n'], ["of"]], 17)
    captures = list(capture(body, texts))
    for format, name in FORMATS.items():
        write_captures(tmp_path / name, captures, select(body.model.config))
        for record, one in zip(read(tmp_path / name, format), captures, strict=True):
            check_same(record, one)


def test_half_precision_keeps_the_rows_at_one(body, captures):
    chosen = select(body.model.config, dtype="float16")
    for one in captures:
        half = chosen.apply(one)
        assert half.probs.dtype == np.float16
        np.testing.assert_allclose(half.probs.astype(float).sum(axis=-1), 1, atol=1e-3)


def test_npz_has_the_documented_keys_and_no_pickles(body, captures, tmp_path):
    write_captures(tmp_path / "x.npz", captures[:2], select(body.model.config, heads=[1, 3]))
    kinds = ("probs", "hidden", "context", *TEXT_FIELDS)
    with np.load(tmp_path / "x.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {f"{kind}_{k}" for kind in kinds for k in (0, 1)} | {
            "sources", "windows", "layers", "heads",
        }  # fmt: skip
        assert arrays["heads"].tolist() == [1, 3]
        assert arrays["layers"].tolist() == [0, 1, 2, 3, 4]
        assert arrays["tokens_1"].tolist() == ["[CLS]", "a", "[SEP]"]
        assert all(arrays[name].dtype != object for name in arrays)


def test_same_captures_give_the_same_bytes(body, captures, tmp_path):
    for format, name in FORMATS.items():
        for folder in ("a", "b"):
            write_captures(tmp_path / folder / name, captures, select(body.model.config))
        files = sorted(file for file in (tmp_path / "a").rglob("*") if file.is_file())
        for file in files:
            other = tmp_path / "b" / file.relative_to(tmp_path / "a")
            assert file.read_bytes() == other.read_bytes(), format


@pytest.mark.parametrize("format", [*FORMATS, "bertviz"])
def test_writing_keeps_few_captures(body, captures, tmp_path, monkeypatch, format):
    """Of fifty captures a handful is alive at a time, however they are written."""
    monkeypatch.setattr(selection_module, "GROUP_BYTES", 3 * captures[0].probs.nbytes)
    living, most = [], 0

    def many():
        nonlocal living, most
        for _ in range(50):
            living = [one for one in living if one() is not None]
            most = max(most, len(living))
            one = captures[0]._replace(probs=captures[0].probs.copy(), hidden=None, context=None)
            living.append(weakref.ref(one.probs))
            yield one

    name = FORMATS.get(format, "x.jsonl")
    # The copies that a selection makes are not counted; this makes none.
    monkeypatch.setattr(selection_module.Selection, "apply", lambda self, one: one)
    assert write_captures(tmp_path / name, many(), select(body.model.config)) == 50
    assert most <= 8


def test_failure_leaves_what_was_there(body, captures, tmp_path):
    chosen = select(body.model.config)

    def failing():
        yield captures[0]
        raise UserError("stopped")

    for format, name in FORMATS.items():
        path = tmp_path / format / name
        write_captures(path, captures[:1], chosen)
        with pytest.raises(UserError, match="stopped"):
            write_captures(path, failing(), chosen, overwrite=True)
        assert len(list(read(path, format))) == 1
        with pytest.raises(UserError, match="no text to write"):
            write_captures(path, [], chosen, overwrite=True)
        assert [file.name for file in path.parent.iterdir()] == [name]


def test_shards_are_read_one_by_one(body, captures, tmp_path, monkeypatch):
    monkeypatch.setattr(selection_module, "GROUP_BYTES", captures[0].probs.nbytes * 3)
    write_captures(tmp_path / "x", captures * 5, select(body.model.config, dtype="float16"))
    shards = Shards(tmp_path / "x")
    assert len(shards) == 20
    assert len(shards.index["shards"]) > 3
    assert (shards.index["units"], shards.index["dtype"]) == ("tokens", "float16")
    for number in (19, 0, 7, 6, 13):
        assert shards[number].encoded.tokens == captures[number % 4].encoded.tokens
        assert shards[number].probs.dtype == np.float16
    with pytest.raises(IndexError):
        shards[20]
    with pytest.raises(UserError, match="exists; pass --overwrite true"):
        write_captures(tmp_path / "x", captures, select(body.model.config))
    write_captures(tmp_path / "x", captures, select(body.model.config), overwrite=True)
    assert len(Shards(tmp_path / "x")) == 4


def test_folder_that_holds_no_shards_is_told(tmp_path):
    with pytest.raises(UserError, match="no folder of shards"):
        Shards(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "bertjax attention", "version": 99}')
    with pytest.raises(UserError, match="newer"):
        Shards(tmp_path)


@pytest.mark.parametrize("words", [False, True])
def test_bertviz_form_is_what_its_views_take(body, captures, words):
    chosen = select(body.model.config, words=words)
    texts = encode_texts(body.tokenizer, [("it was a cat", "the cat")], 17)
    # A has a word of three tokens, so that B starts elsewhere among words.
    both = (captures[0], *capture(body, texts))
    single, pair = (to_bertviz(chosen.apply(one), words) for one in both)
    assert list(pair) == ["attention", "tokens", "sentence_b_start"]
    length = len(pair["tokens"])
    assert [layer.shape for layer in pair["attention"]] == [(1, 4, length, length)] * 5
    assert single["sentence_b_start"] is None
    start = pair["sentence_b_start"]
    assert pair["tokens"][start - 1 : start + 1] == ["[SEP]", "the"]
    assert pair["tokens"].index("[SEP]") == start - 1
    assert ("cat" in pair["tokens"]) == words


@pytest.mark.parametrize("arguments", [{"layers": [5]}, {"layers": [-1]}, {"heads": [0, 4]}])
def test_layer_or_head_that_is_not_there_is_refused(body, arguments):
    with pytest.raises(UserError, match=r"the model has (layers 0 to 4|heads 0 to 3)"):
        select(body.model.config, **arguments)


@pytest.mark.parametrize("arguments", [{"layers": [1, 1]}, {"heads": []}])
def test_choice_names_each_once(body, arguments):
    with pytest.raises(UserError, match="each once, and at least one"):
        select(body.model.config, **arguments)


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
        (["--max-length", 18], "the\n", "--max-length 18 must lie between 3 and the model's 17"),
        (["--max-length", 9, "--too-long", "windows"], "it " * 9, "at least 10 tokens"),
        (["--output", "x.zip"], "the\n", "--output x.zip: what kind of file is .zip?"),
        (["--output", "x.npz", "--layers", 5], "the\n", "layers=5: the model has layers 0 to 4"),
        (["--output", "x.npz", "--heads", 1, 1], "the\n", "heads=[1, 1] must name each once"),
        (["--format", "npz"], "the\n", "--format npz is for a file; name one with --output"),
        (["--output", "in.txt", "--format", "npz"], "the\n", "--output in.txt: is the input"),
        (["--output", ".", "--format", "npz"], "the\n", "--output .: is a folder"),
        ([], "a\tb\tc\n", "in.txt:1: 2 tabs; one tab separates the two of a pair"),
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
        "holds the text? There are: 'body', 'label'; none of them has a usual name of a text" in err
    )
    _, _, err = bertjax_command(*arguments, tmp_path / "in.jsonl")
    assert "the field 'text' holds 7, not text; name another with --text-column" in err


def test_record_with_half_a_pair_is_told(bertjax_command, tmp_path):
    (tmp_path / "pairs.csv").write_text("text,second\na,the\na,\n")
    arguments = ["--input", tmp_path / "pairs.csv", "--pair-column", "second"]
    code, out, err = bertjax_command("attention", "--model", TINY, *arguments)
    starts = [json.loads(line)["sentence_b_start"] for line in out.splitlines()]
    assert (code, starts) == (0, [3, None])
    told = "pairs.csv:3: one of the two texts is empty, and the other is read alone, as in 1 record"
    assert told in err


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
