"""Texts of a Python program: what is none is refused before anything is computed."""

from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest

from bertjax.program.errors import UserError
from bertjax.text.given_texts import read_parts, read_text, read_texts, read_tuples


@pytest.mark.parametrize(
    "texts",
    [
        ["a", "b"],
        ("a", "b"),
        (text for text in "ab"),
        np.array(["a", "b"]),
        pandas.Series(["a", "b"], index=[7, 7]),
        datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}])["text"],
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_any_iterable_of_texts_is_a_list_of_plain_strings(texts):
    read = read_texts(texts, pairs=False)
    assert read == ["a", "b"]
    assert {type(text) for text in read} == {str}


def test_one_text_is_a_list_of_one_and_a_pair_is_a_tuple():
    assert read_texts(np.str_("ab")) == ["ab"]
    assert read_texts([("a", "b"), ["c", "d"], "e"]) == [("a", "b"), ("c", "d"), "e"]
    assert read_text(("a", "b")) == ("a", "b")
    assert read_parts(["a", "b", "c"], "text 1") == ("a", "b", "c")


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (None, r"^None is not a list of texts, or of pairs of them; leave it out"),
        (b"ab", r"^b'ab' is not a list of texts, .*; decode it first"),
        (3, r"^3 is not a list of texts, .*; give strings$"),
        (Path("a.txt"), r"a.txt'\) is not a list of texts, .*; read files first"),
        ({"text": ["a"]}, r"^dict is not a list of texts; give one of its columns"),
        (pandas.DataFrame({"text": ["a"]}), r"^DataFrame is not a list of texts; give one of its"),
        (datasets.Dataset.from_list([{"text": "a"}]), r"^Dataset is not a list of texts; give one"),
        (
            ["a", None],
            r"^text 2: None \(NoneType\) is not a text, .*; leave it",
        ),
        (["a", float("nan")], r"^text 2: nan \(float\) is not a text, .*; leave it out"),
        ([{"text": "a"}], r"^text 1: \{.*\} \(dict\) is not a text, .*; give the text alone"),
        ([("a", "b", "c")], r"^text 1: \('a', 'b', 'c'\) is not a text, .*; give each text by"),
        ([("a",)], r"^text 1: \('a',\) is not a text, or a pair of texts"),
        ([("a", 3)], r"^text 1: 3 \(int\) is not a text"),
        (["ab\ud800"], r"^text 1: character 3 is U\+D800, half of a surrogate pair"),
    ],
)
def test_what_is_no_text_is_refused(texts, message):
    with pytest.raises(UserError, match=message):
        read_texts(texts)


def test_pair_is_refused_where_one_text_is_taken():
    with pytest.raises(UserError, match=r"^text 1: \('a', 'b'\) is not a text; give each text by"):
        read_texts([("a", "b")], pairs=False)
    with pytest.raises(UserError, match=r"^\['a'\] is a list, and this takes a text.* at a time$"):
        read_text(["a"])


def test_texts_that_belong_together_are_any_number_and_no_file(tmp_path, monkeypatch):
    given = ["a", ("b", "c", "d"), ["e"]]
    assert read_tuples(given) == [
        ("text 1", ("a",)), ("text 2", ("b", "c", "d")), ("text 3", ("e",))
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"^text 2: 3 \(int\) is not a text; give strings"):
        read_tuples(["a", ("b", 3)])
    with pytest.raises(UserError, match=r"^dict is not a list of texts"):
        read_tuples({"text": "a"})
    (tmp_path / "texts.txt").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'texts.txt' is not .* but a file; read files first"):
        read_tuples("texts.txt")
