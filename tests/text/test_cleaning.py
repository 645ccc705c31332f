"""Cleaning: what changes, what stays, and that the fast path is nothing but fast."""

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.program.errors import UserError
from bertjax.text import cleaning
from bertjax.text.cleaning import (
    CleaningConfig,
    LineCounts,
    clean,
    line_hashes,
    remove_boilerplate,
)

CONFIG = CleaningConfig()
SHARED_TEXT = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"


@pytest.mark.parametrize(
    ("dirty", "wanted"),
    [
        ("It’s “good” – really — …", "It’s “good” – really — …"),
        ("a  b\t c \n\n \n d\r\ne\x0bf\x0cg", "a b c\nd\ne\nf\ng"),
        ("a\xa0b\u3000c\u2028d\x85e", "a b c\nd…e"),
        ("schÃ¶n", "schön"),
        ("â€œquoteâ€\x9d", "“quote”"),
        ("the Mona Lisa doesnÃ¢â‚¬â„¢t have eyebrows", "the Mona Lisa doesn’t have eyebrows"),
        ("fish &amp; chips, AT&T; R&D", "fish & chips, AT&T; R&D"),
        ("<b>&amp;</b>\n&amp;", "<b>&amp;</b>\n&"),
        ("ﬂuﬃest 你好，世界", "fluffiest 你好，世界"),
        ("cafe\u0301", "café"),
        ("10³ ½", "10³ ½"),
        ("be\xadfore\u200b \ufeffbell\x07 \x1b[31mred\x1b[0m", "before bell red"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("\ud800", "\ufffd"),
        ("salt &am\u200bp; pepper", "salt & pepper"),
        ("", ""),
        (" \n\t", ""),
    ],
)
def test_clean_mends_what_is_broken_and_keeps_the_rest(dirty, wanted):
    assert clean(dirty, CONFIG) == wanted


def test_clean_follows_its_options():
    assert clean("10³ ﬁ", CleaningConfig(normalization="NFKC")) == "103 fi"
    assert clean("cafe\u0301 x", CleaningConfig(normalization="none")) == "cafe\u0301 x"
    assert clean("schÃ¶n &amp;  e\u0301", CleaningConfig(fix_unicode=False)) == "schÃ¶n &amp; é"


def suspicious_characters() -> str:
    from ftfy.badness import MOJIBAKE_CATEGORIES

    listed = set("".join(MOJIBAKE_CATEGORIES.values())) | set("°±†®™´≤≥¥µø∂¢π²³€œŠš£Ÿž»·Ђ")
    return "".join(sorted(listed | set(map(chr, range(0x7F, 0x180)))))


# Words as they are in text, and characters that ftfy looks at, in any order.
FRAGMENTS = st.one_of(
    st.sampled_from(["the", "été", "—¿Qué", "«Да»", "cœur", "Ñ", "ÃO", "，"]),
    st.sampled_from([" ", "\n", "\t", "&lt;", "<", ";"]),
    st.text(alphabet=suspicious_characters() + "aZ0 .&;", min_size=1, max_size=4),
    st.text(min_size=1, max_size=3),
)
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join)
CONFIGS = st.builds(
    CleaningConfig,
    fix_unicode=st.booleans(),
    normalization=st.sampled_from(["NFC", "NFKC", "none"]),
)


def clean_slowly(text: str, config: CleaningConfig) -> str:
    """What `clean` does, every line by the slow path."""
    for space, replacement in cleaning._ASCII_SPACES.items():
        text = text.replace(space, replacement)
    for _ in range(20):
        lines = (
            cleaning._mend(line, config.fix_unicode, config.normalization)
            for line in text.split("\n")
        )
        stripped = (" ".join(part.split()) for line in lines for part in line.split("\n"))
        mended = "\n".join(filter(None, stripped))
        if mended == text:
            break
        text = mended
    return text


@settings(max_examples=400, deadline=None)
@given(TEXTS, CONFIGS)
def test_fast_path_equals_the_slow_path(text, config):
    assert clean(text, config) == clean_slowly(text, config)


def test_what_ftfy_takes_for_mojibake_never_takes_the_fast_path():
    from ftfy.badness import is_bad

    characters = suspicious_characters()
    generator = random.Random(0)
    middles = list(characters)
    middles += ["".join(generator.choices(characters, k=2)) for _ in range(40_000)]
    middles += ["".join(generator.choices("ØÙÐÃВ—€¬°“µГ²", k=3)) for _ in range(2000)]
    found = 0
    for middle in middles:
        for before, after in (("", " "), ("a", " "), ("a ", "b"), ("В", "В"), ("é", "1")):
            line = before + middle + after
            if is_bad(line):
                found += 1
                assert not cleaning._is_plain(line, cleaning._characters(line), CONFIG), line
    assert found > 10_000


@settings(max_examples=250, deadline=None)
@given(TEXTS, CONFIGS)
def test_clean_is_idempotent(text, config):
    once = clean(text, config)
    assert clean(once, config) == once


@settings(max_examples=100, deadline=None)
@given(TEXTS)
def test_clean_text_has_no_control_character_and_plain_spaces(text):
    cleaned = clean(text, CONFIG)
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(
        unicodedata.category(character) == "Cc" for character in cleaned.replace("\n", "")
    )
    assert all(line == " ".join(line.split()) and line for line in cleaned.split("\n") if cleaned)


@pytest.mark.parametrize(
    "name", ["psychology.txt", "eltec_spa/SPA4009_ValleInclan_SonataOtonyo.txt"]
)
def test_fast_path_equals_the_slow_path_on_real_text(name):
    if not (SHARED_TEXT / name).exists():
        pytest.skip(f"{SHARED_TEXT / name} is not beside the checkout")
    text = (SHARED_TEXT / name).read_text(encoding="utf-8")[:120_000]
    assert clean(text, CONFIG) == clean_slowly(text, CONFIG)


def test_ftfy_is_not_asked_about_ordinary_text(monkeypatch):
    import ftfy

    text = (
        "It’s “good” – really. «Да», сказал он. —¿Qué? Él murió. 你好，“世界”。 AT&T R & D; " * 50
    )
    text = text.strip()
    clean(text, CONFIG)  # fills the caches
    monkeypatch.setattr(ftfy, "fix_text", None)
    assert clean(text, CONFIG) == text


def test_cleaning_options_out_of_range_are_user_errors():
    with pytest.raises(UserError, match="boilerplate_documents=1 must be 0"):
        CleaningConfig(boilerplate_documents=1)
    with pytest.raises(UserError, match="minimum_characters=-1 must be at least 0"):
        CleaningConfig(minimum_characters=-1)


def test_line_hashes_are_of_distinct_lines():
    assert len(line_hashes("a\nb\na\nc")) == 3
    assert set(line_hashes("a\nb")) < set(line_hashes("b\nc\na"))


def test_line_counts_are_the_same_in_any_order_and_from_any_workers():
    generator = np.random.default_rng(0)
    documents = [generator.integers(0, 50, 9).astype(np.uint64) * 7919 for _ in range(40)]
    whole, first, second = LineCounts(), LineCounts(), LineCounts()
    whole.add(np.concatenate(documents))
    for number in generator.permutation(40):
        (first if number % 3 else second).add(documents[number])
    first.merge(second)
    hashes = np.arange(50, dtype=np.uint64) * 7919
    wanted = [sum((document == value).sum() for document in documents) for value in hashes]
    assert whole.count(hashes).tolist() == first.count(hashes).tolist() == wanted


def test_line_counts_of_rare_lines_stay_low_however_many_lines_there_are(monkeypatch):
    monkeypatch.setattr(LineCounts, "_WIDTH_BITS", 8)
    counts = LineCounts()
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    counts.add(hashes)
    counts.add(np.full(500, 12345, np.uint64))
    assert np.quantile(counts.count(hashes), 0.99) < 30
    assert 400 < counts.count(np.array([12345], np.uint64))[0] < 600


def test_boilerplate_lines_are_removed_from_the_third_document_on():
    documents = [f"All rights reserved.\nText number {number}.\nThe end." for number in range(3)]
    documents.append("Text number 9.\nThe end?")
    counts = LineCounts()
    for document in documents:
        counts.add(line_hashes(document))
    config = CleaningConfig(boilerplate_documents=3)
    assert remove_boilerplate(documents[0], counts, config) == ("Text number 0.", 2)
    assert remove_boilerplate(documents[3], counts, config) == (documents[3], 0)
    off = CleaningConfig(boilerplate_documents=0)
    assert remove_boilerplate(documents[0], counts, off) == (documents[0], 0)
