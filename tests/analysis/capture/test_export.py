"""Attention in files: every format gives back what was captured."""

import json
import weakref

import numpy as np
import pytest

from bertjax.analysis.capture import selection as selection_module
from bertjax.analysis.capture.bertviz import to_bertviz
from bertjax.analysis.capture.encoding import encode_texts, encode_words, merge_subwords
from bertjax.analysis.capture.export import write_captures
from bertjax.analysis.capture.maps import Captured, capture
from bertjax.analysis.capture.selection import TEXT_FIELDS, select
from bertjax.analysis.capture.shards import Shards
from bertjax.loaded import load
from bertjax.program.errors import UserError
from tests.analysis.exported import (
    FORMATS,
    TEXTS,
    TINY,
    check_same,
    read,
)


@pytest.mark.parametrize("groups", ["in one", "each alone"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_gives_back_what_was_captured(
    captures, tmp_path, monkeypatch, format, dtype, groups
):
    if groups == "each alone":
        monkeypatch.setattr(selection_module, "GROUP_BYTES", 1)
    path = tmp_path / "new" / FORMATS[format]
    chosen = select(load(TINY, "BertModel").config, dtype=dtype)
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
    chosen = select(body.config, layers=[3, 0], heads=[2], words=True)
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
        write_captures(tmp_path / name, captures, select(body.config))
        for record, one in zip(read(tmp_path / name, format), captures, strict=True):
            check_same(record, one)


def test_half_precision_keeps_the_rows_at_one(body, captures):
    chosen = select(body.config, dtype="float16")
    for one in captures:
        half = chosen.apply(one)
        assert half.probs.dtype == np.float16
        np.testing.assert_allclose(half.probs.astype(float).sum(axis=-1), 1, atol=1e-3)


def test_npz_has_the_documented_keys_and_no_pickles(body, captures, tmp_path):
    write_captures(tmp_path / "x.npz", captures[:2], select(body.config, heads=[1, 3]))
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
            write_captures(tmp_path / folder / name, captures, select(body.config))
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
    assert write_captures(tmp_path / name, many(), select(body.config)) == 50
    assert most <= 8


def test_failure_leaves_what_was_there(body, captures, tmp_path):
    chosen = select(body.config)

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
    write_captures(tmp_path / "x", captures * 5, select(body.config, dtype="float16"))
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
        write_captures(tmp_path / "x", captures, select(body.config))
    write_captures(tmp_path / "x", captures, select(body.config), overwrite=True)
    assert len(Shards(tmp_path / "x")) == 4


def test_folder_that_holds_no_shards_is_told(tmp_path):
    with pytest.raises(UserError, match="no folder of shards"):
        Shards(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "bertjax attention", "version": 99}')
    with pytest.raises(UserError, match="newer"):
        Shards(tmp_path)


@pytest.mark.parametrize("words", [False, True])
def test_bertviz_form_is_what_its_views_take(body, captures, words):
    chosen = select(body.config, words=words)
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
        select(body.config, **arguments)


@pytest.mark.parametrize("arguments", [{"layers": [1, 1]}, {"heads": []}])
def test_choice_names_each_once(body, arguments):
    with pytest.raises(UserError, match="each once, and at least one"):
        select(body.config, **arguments)


def test_record_with_half_a_pair_is_told(bertjax_command, tmp_path):
    (tmp_path / "pairs.csv").write_text("text,second\na,the\na,\n")
    arguments = ["--input", tmp_path / "pairs.csv", "--pair-column", "second"]
    code, out, err = bertjax_command("attention", "--model", TINY, *arguments)
    starts = [json.loads(line)["sentence_b_start"] for line in out.splitlines()]
    assert (code, starts) == (0, [3, None])
    told = "pairs.csv:3: one of the two texts is empty, and the other is read alone, as in 1 record"
    assert told in err
