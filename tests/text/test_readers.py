"""Readers: what a document is in each format, and what every kind of wrong file is told."""

import gzip
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bertjax.program.errors import UserError
from bertjax.text import readers, streams
from bertjax.text.readers import ReaderConfig, list_sources, read_documents


def read(*names: object, note: Callable[[str], None] = pytest.fail, **options: object) -> list[str]:
    config = ReaderConfig(input=[str(name) for name in names], **options)
    return [
        document.text
        for source in list_sources(config)
        for document in read_documents(source, config, note)
    ]


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


TEXTS = ['One, two.\nThree "four".', "Fünf."]
CONTENTS = {
    "txt": 'One, two.\nThree "four".\n \n\nFünf.\n',
    "jsonl": "".join(json.dumps({"n": 1, "text": text}) + "\n\n" for text in TEXTS),
    "json": json.dumps([{"text": text, "more": [{}]} for text in TEXTS], indent=1),
    "csv": 'n, text\n1,"One, two.\nThree ""four""."\n2,Fünf.\n',
}


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_reader_gives_the_documents_of_each_format(tmp_path, kind, suffix):
    assert read(write(tmp_path / f"a.{kind}{suffix}", CONTENTS[kind])) == TEXTS


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parquet_gives_its_column_and_passes_over_null(tmp_path, suffix):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": [TEXTS[0], None, TEXTS[1]]}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    assert read(write(tmp_path / f"b.parquet{suffix}", data)) == TEXTS


def test_tsv_takes_quotation_marks_as_they_are(tmp_path):
    assert read(write(tmp_path / "a.tsv", 'text\tn\n"Oh\t1\nno" she said\t2\n')) == [
        '"Oh',
        'no" she said',
    ]


def test_json_reads_objects_that_follow_each_other_and_objects_longer_than_a_piece(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(streams, "_PIECE", 7)
    records = [{"text": "a" * size} for size in (1, 300, 2, 50)]
    one_by_one = "\n".join(json.dumps(record, indent=2) for record in records)
    wanted = [record["text"] for record in records]
    assert read(write(tmp_path / "a.json", one_by_one)) == wanted
    assert read(write(tmp_path / "b.json", json.dumps(records))) == wanted


@pytest.mark.parametrize("piece", [1, 2, 3, 1000])
def test_lines_do_not_depend_on_how_the_file_is_cut_into_pieces(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(streams, "_PIECE", piece)
    path = write(tmp_path / "a.txt", "\ufeffone €\r\ntwo\rthree\n\nfour 𝄞")
    assert read(path) == ["one €\ntwo\nthree", "four 𝄞"]


def test_document_separator_file_keeps_a_file_together(tmp_path):
    path = write(tmp_path / "a.txt", "One\ntwo.\n\nThree\nfour.\n")
    assert read(path, document_separator="file") == ["One\ntwo.\nThree\nfour."]
    assert read(path, document_separator="file", unwrap_lines=True) == ["One two.\nThree four."]
    assert read(path, unwrap_lines=True) == ["One two.", "Three four."]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "json"])
def test_long_document_is_cut_at_the_end_of_a_line(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(readers, "MAXIMUM_DOCUMENT", 20)
    lines = [f"line number {number}" for number in range(9)] + ["x" * 50, "end"]
    text = "\n".join(lines)
    content = text if kind == "txt" else json.dumps({"text": text})
    notes = []
    found = read(write(tmp_path / f"a.{kind}", content), note=notes.append)
    assert "\n".join(found).split("\n") == lines
    assert all(len(document) <= 40 or document == "x" * 50 for document in found)
    assert len(found) >= 5
    [note] = notes
    assert f"1 document of more than 20 characters, read as {len(found)} documents" in note


def test_documents_that_are_cut_are_counted_apart_from_whole_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAXIMUM_DOCUMENT", 20)
    texts = [
        "short",
        "one line of it\nand another\nand a third",
        "x" * 30,
        "\n".join(["y" * 15] * 2),
    ]
    expected = "2 documents of more than 20 characters, read as 5 documents, one after"
    for kind, content in (
        ("txt", "\n\n".join(texts)),
        ("jsonl", "\n".join(json.dumps({"text": text}) for text in texts)),
    ):
        notes = []
        assert len(read(write(tmp_path / f"a.{kind}", content), note=notes.append)) == 7
        [note] = notes
        assert expected in note


@pytest.mark.parametrize("separator", ["blank-line", "file"])
def test_file_without_blank_lines_is_not_read_whole(tmp_path, monkeypatch, separator):
    monkeypatch.setattr(readers, "MAXIMUM_DOCUMENT", 1000)
    read_lines = []
    monkeypatch.setattr(
        streams, "lines", lambda *_: (read_lines.append(1) or "x" * 10 for _ in range(10_000))
    )
    config = ReaderConfig([str(write(tmp_path / "a.txt", "x"))], document_separator=separator)
    next(read_documents(list_sources(config)[0], config, pytest.fail))
    assert len(read_lines) < 200


def test_folder_gives_its_text_files_sorted_and_each_file_once(tmp_path):
    for name in ("b.txt", "a/z.txt", "a/y.jsonl", "readme.md", ".hidden/c.txt", ".c.txt"):
        write(tmp_path / name, '{"text": "x"}')
    config = ReaderConfig(input=[str(tmp_path), str(tmp_path / "b.txt"), str(tmp_path / "*.txt")])
    names = [Path(source.name).relative_to(tmp_path).as_posix() for source in list_sources(config)]
    assert names == ["a/y.jsonl", "a/z.txt", "b.txt"]


def test_fingerprint_is_the_sha256_of_the_file(tmp_path):
    path = write(tmp_path / "a.txt", "hello")
    (source,) = list_sources(ReaderConfig(input=[str(path)]))
    assert source.fingerprint() == hashlib.sha256(b"hello").hexdigest()
    assert source.size == 5


def test_documents_are_numbered_and_named(tmp_path):
    path = write(tmp_path / "a.txt", "one\n\n\n\ntwo")
    config = ReaderConfig(input=[str(path)])
    documents = list(read_documents(list_sources(config)[0], config, pytest.fail))
    assert [(document.source, document.number) for document in documents] == [
        (str(path), 0),
        (str(path), 1),
    ]


def test_dataset_is_streamed_by_its_name_config_and_split(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names, **options):
        asked.append((names, options))
        return iter([{"body": "one"}, {"body": None}, {"body": "two"}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert (
        read("dataset:org/name/de@test[:10]", "dataset:plain", text_column="body")
        == ["one", "two"] * 2
    )
    assert asked == [
        (("org/name", "de"), {"split": "test[:10]", "streaming": True}),
        (("plain",), {"split": "train", "streaming": True}),
    ]


def test_dataset_that_cannot_be_reached_is_a_user_error(monkeypatch):
    import datasets

    def load_dataset(*names, **options):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"dataset:org/name: .*no route to the hub.* or give files"):
        read("dataset:org/name")


LATIN = b"hello\n" * 1840 + b"good text h\xff\n"
ZIPPED = gzip.compress(bytes(range(1, 200)) * 100)

WRONG_FILES = {
    "empty.txt": (b"", r"empty\.txt: the file is empty"),
    "binary.txt": (b"ab\0cd", r"binary\.txt: a binary file, not text \(a NUL byte at offset 2\)"),
    "late.txt": (b"hello\n" * 5000 + b"\0", r"late\.txt:5001: a NUL character"),
    "latin.txt": (
        LATIN,
        r"latin\.txt:1841: not UTF-8 \(byte 0xff at column 12\); "
        r"pass --encoding cp1252 or --errors replace",
    ),
    "cut.txt": ("a\nna é".encode()[:-1], r"cut\.txt:2: not UTF-8 \(byte 0xc3 at column 4\)"),
    "wide.txt": (
        "text".encode("utf-16"),
        r"wide\.txt: this looks like UTF-16; pass --encoding utf-16",
    ),
    "paper.txt": (b"%PDF-1.4", r"paper\.txt: not text, this is a PDF"),
    "zipped.txt": (ZIPPED, r"zipped\.txt: compressed by gzip; its name must end in \.gz"),
    "book.pdf": (b"%PDF-1.4", r"book\.pdf: what kind of file is this\?"),
    "a.parquet": (b"hello", r"a\.parquet: not a Parquet file"),
    "b.parquet": (b"PAR1 hello", r"b\.parquet: damaged Parquet file"),
    "a.jsonl": (
        b'{"text": "x"}\n\n{"body": "y"}\n',
        r"a\.jsonl:3: no field 'text'; there are: 'body'",
    ),
    "b.jsonl": (b'{"text": "x"}\n{"text": \n', r"b\.jsonl:2: not JSON"),
    "c.jsonl": (
        b"[1]\n",
        r"c\.jsonl:1: a record is an object with the field 'text', this is \[1\]",
    ),
    "d.jsonl": (b'{"text": 3}', r"d\.jsonl:1: the field 'text' is 3, not text"),
    "a.json": (b'[{"text": "x"},\n', r"a\.json:2: the array does not end"),
    "b.json": (
        b'[{"text": "x"},\n {"text" "y"}]',
        r"b\.json:2: not JSON \(Expecting ':' delimiter\)",
    ),
    "c.json": (b'{"data": []}', r"c\.json:1: no field 'text'; there are: 'data'"),
    "d.json": (b'[{"text": "x"}] 1', r"d\.json:1: text after the end of the array"),
    "e.json": (b"[" * 100_000, r"e\.json:1: not a record \(JSON nested too deeply\)"),
    "a.csv": (b"n,texts\n1,x\n", r"a\.csv:1: no column 'text'; did you mean 'texts'\?; there are"),
    "b.csv": (b'text\nx\n"open\ny\n', r"b\.csv:3: not CSV .* is a quotation mark left open"),
    "c.csv": (b"text,n\nx,1\ny\n", r"c\.csv:3: 1 columns where the header has 2"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_wrong_file_is_told_with_its_name_place_and_way_out(tmp_path, name):
    content, message = WRONG_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello", "not gzip data although its name ends in .gz"),
        (ZIPPED[:-20], "the gzip data is cut off"),
        (ZIPPED[:-8] + b"\0" * 8, "damaged gzip data"),
    ],
)
def test_damaged_gzip_is_a_user_error(tmp_path, data, message):
    (tmp_path / "a.txt.gz").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read(tmp_path / "a.txt.gz", encoding="latin-1")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("psycology.txt", "no such file or folder; did you mean 'psychology.txt'"),
        ("nowhere/a.txt", "there is no folder"),
        ("*.csv", "no file matches this pattern"),
        ("empty", "no file in this folder ends in .txt"),
    ],
)
def test_missing_file_is_told_with_its_neighbour(tmp_path, name, message):
    write(tmp_path / "psychology.txt", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoding": "utf8x"},
            "encoding='utf8x' is not a text encoding; did you mean 'utf_8'",
        ),
        ({"encoding": "base64"}, "encoding='base64' is not a text encoding$"),
        ({"sentence_per_line": True, "unwrap_lines": True}, "exclude each other"),
        ({"document_separator": "line", "unwrap_lines": True}, "a document of every line"),
        ({"text_column": "body"}, r"text_column=body has no effect on this input \(txt\)"),
    ],
)
def test_wrong_option_is_a_user_error(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.txt", "x"), **options)


@pytest.mark.parametrize(
    "name", ["corpus:perl", "corpus:python+no_such_package", "corpus:python+../x", "dataset:a b"]
)
def test_unknown_corpus_or_dataset_is_a_user_error(name):
    with pytest.raises(UserError, match=f"^{name.split('+')[0]}"):
        list_sources(ReaderConfig(input=[name]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jsonl", {"document_separator": "file"}),
        ("a.jsonl", {"unwrap_lines": True}),
        ("corpus:python", {"encoding": "latin-1"}),
        ("dataset:one/two", {"errors": "replace"}),
    ],
)
def test_option_without_effect_on_any_input_is_refused(tmp_path, name, options):
    write(tmp_path / "a.jsonl", '{"text": "x"}')
    write(tmp_path / "b.txt", "x")
    source = name if ":" in name else str(tmp_path / name)
    [option] = options
    with pytest.raises(UserError, match=f"{option}=.* has no effect on this input"):
        list_sources(ReaderConfig([source], **options))
    # It has one on another input beside.
    assert list_sources(ReaderConfig([source, str(tmp_path / "b.txt")], **options))


def test_sentence_per_line_is_for_txt_only(tmp_path):
    with pytest.raises(UserError, match=r"sentence_per_line is a format of \.txt files"):
        read(write(tmp_path / "a.jsonl", '{"text": "x"}'), sentence_per_line=True)


def test_errors_replace_and_another_encoding_read_what_strict_refuses(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    assert read(tmp_path / "a.txt", errors="replace") == ["caf\ufffd"]
    assert read(tmp_path / "a.txt", errors="ignore") == ["caf"]
    assert read(tmp_path / "a.txt", encoding="latin-1") == ["café"]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "json"])
def test_gzip_bomb_of_one_line_is_refused_before_it_is_unpacked(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(streams, "MAXIMUM_LINE", 1 << 19)
    start = {
        "txt": b"ok\n\n",
        "jsonl": b'{"text": "ok"}\n"',
        "csv": b'text\n"',
        "json": b'[{"text": "',
    }
    path = write(tmp_path / f"a.{kind}.gz", start[kind] + b"a" * (1 << 23))
    unpacked = 0
    real = streams.pieces

    def counted(*arguments):
        nonlocal unpacked
        for piece in real(*arguments):
            unpacked += len(piece)
            yield piece

    monkeypatch.setattr(streams, "pieces", counted)
    with pytest.raises(UserError, match=rf"a\.{kind}\.gz:\d.*(million characters|field limit)"):
        read(path)
    assert unpacked <= 4 << 19


def test_bertjax_text_imports_without_heavy_libraries(tmp_path):
    import subprocess

    code = (
        "import sys; from bertjax.text import readers, cleaning, duplicates, sentences, corpora;"
        "print([m for m in ('jax', 'datasets', 'pyarrow', 'ftfy', 'rensa') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
