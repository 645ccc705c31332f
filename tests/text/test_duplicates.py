"""Duplicates: who is judged alike, in any batch and order; splits by hash; overlap as a share."""

import collections
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.program.errors import UserError
from bertjax.text import duplicates
from bertjax.text.duplicates import (
    DuplicateConfig,
    DuplicateFilter,
    OverlapMeter,
    signature,
    signatures,
)
from bertjax.text.shingles import fold, hash_runs, hash_words
from bertjax.text.splits import document_split


def random_words(generator: np.random.Generator, count: int) -> list[str]:
    return ["".join(generator.choice(list("abcdefgh"), 5)) for _ in range(count)]


def same(first, second) -> bool:
    return (
        first.exact == second.exact
        and first.minima.tolist() == second.minima.tolist()
        and first.overlap_hashes.tolist() == second.overlap_hashes.tolist()
    )


def judge(texts: list[str], threshold: float = 0.8) -> list[str]:
    duplicate_filter = DuplicateFilter(DuplicateConfig(near_threshold=threshold))
    return [duplicate_filter.judge(one) for one in signatures(texts)]


def test_documents_equal_but_for_case_and_line_ends_are_exact_duplicates():
    texts = ["The Élan\nof STRASSE.", "the élan of Straße.", "the élan of Strasse", "你好，世界"]
    assert judge([*texts, "你好，世界", ""]) == ["new", "exact", "new", "new", "exact", "new"]


def test_near_duplicates_are_those_above_the_threshold():
    generator = np.random.default_rng(0)
    words = random_words(generator, 1000)
    verdicts = {}
    for changed in (5, 100):
        other = list(words)
        for place in generator.choice(1000, changed, replace=False):
            other[place] = "changed"
        verdicts[changed] = judge([" ".join(words), " ".join(other)])[1]
    # Each changed word changes 5 of 1000 shingles: similarities of about 0.95 and 0.43.
    assert verdicts == {5: "near", 100: "new"}


def test_threshold_zero_removes_exact_duplicates_only():
    text = " ".join(random_words(np.random.default_rng(1), 500))
    assert judge([text, text + " more", text], threshold=0) == ["new", "new", "exact"]


def test_unspaced_scripts_are_compared_character_by_character():
    generator = np.random.default_rng(2)
    text = "".join(map(chr, generator.integers(0x4E00, 0x9000, 1000)))
    assert judge([text, text[:500] + "新" + text[501:]]) == ["new", "near"]


@pytest.mark.parametrize("newest", [16, 64, 1 << 16])
def test_filter_finds_every_duplicate_however_its_index_is_laid_out(monkeypatch, newest):
    monkeypatch.setattr(duplicates._BandIndex, "_NEWEST", newest)
    generator = np.random.default_rng(3)
    texts = [" ".join(random_words(generator, 40)) for _ in range(300)]
    order = generator.integers(0, 300, 900)
    seen: set[int] = set()
    wanted = ["exact" if number in seen else seen.add(number) or "new" for number in order]
    assert judge([texts[number] for number in order]) == wanted


def test_filter_remembers_272_bytes_a_document():
    duplicate_filter = DuplicateFilter(DuplicateConfig())
    generator = np.random.default_rng(4)
    count = 9000  # 144,000 keys: two blocks of the index are sorted in
    minima = generator.integers(0, 1 << 16, (count, 64), dtype=np.uint16)
    for number in range(count):
        one = duplicates.DocumentSignature(
            number.to_bytes(16, "little"), minima[number], None, None
        )
        assert duplicate_filter.judge(one) == "new"
    index = sum(level.nbytes for level in duplicate_filter._index._levels)
    index += sum(waiting.nbytes for waiting in duplicate_filter._index._waiting)
    assert index == count * 128
    assert duplicate_filter._exact[0].nbytes + duplicate_filter._minima[0].nbytes == 16 + 128


WORDS = st.sampled_from(["a", "The", "ÉTÉ", "wörd", "x" * 8, "y" * 9, "z" * 70, "你好", "\n"])
DOCUMENTS = st.lists(WORDS, max_size=20).map(" ".join).map(lambda text: " ".join(text.split(" ")))


@settings(max_examples=100, deadline=None)
@given(st.lists(DOCUMENTS, max_size=6))
def test_signature_does_not_depend_on_the_other_documents_of_the_batch(texts):
    together = signatures(texts)
    assert len(together) == len(texts)
    assert all(same(one, signature(text)) for one, text in zip(together, texts, strict=True))


@settings(max_examples=100, deadline=None)
@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.integers(1, 8))
def test_runs_are_equal_exactly_when_their_words_are(texts, length):
    folded = [fold(text) for text in texts]
    runs = hash_runs(hash_words(folded), length)
    wanted = []
    for document in folded:
        words = document.split()
        ends = range(1 if len(words) <= length else len(words) - length + 1)
        wanted.append([tuple(words[end : end + length]) for end in ends] if words else [])
    assert runs.counts.tolist() == [len(document) for document in wanted]
    by_words = collections.defaultdict(set)
    for words, value in zip(
        [run for document in wanted for run in document], runs.hashes, strict=True
    ):
        by_words[words].add(int(value))
    values = [value for found in by_words.values() for value in found]
    assert len(values) == len(set(values)) == len(by_words)


def test_signature_is_small_and_the_same_everywhere():
    text = " ".join(f"word{number}" for number in range(2000))
    one = signature(text)
    assert len(pickle.dumps(one)) < len(text) / 2
    # Golden: what was prepared on one machine must be judged alike on another.
    assert one.exact.hex() == "970554e69e5a42c723f0341f085ac893"
    assert (int(one.minima.sum()), len(one.overlap_hashes)) == (2021320, 504)
    assert int(np.bitwise_xor.reduce(one.overlap_hashes)) == 10803027131745716260


def test_split_follows_the_fractions_and_nothing_but_the_hash():
    many = signatures([f"text {number}" for number in range(3000)])
    splits = [document_split(one.exact, (0.1, 0.3)) for one in many]
    counts = collections.Counter(splits)
    # Binomial bounds of five standard deviations.
    assert abs(counts["validation"] - 300) < 83
    assert abs(counts["test"] - 900) < 126
    assert splits[:50] == [
        document_split(signature(f"TEXT\n{number}").exact, (0.1, 0.3)) for number in range(50)
    ]
    assert document_split(b"x" * 16, (0.0, 0.0)) == "train"


def overlap(capacity: int, order: list[int]) -> dict[str, float | None]:
    generator = np.random.default_rng(5)
    train = generator.integers(0, 2**64, 60_000, dtype=np.uint64)
    validation = np.concatenate([train[:3000], generator.integers(0, 2**64, 7000, dtype=np.uint64)])
    parts = [*np.split(train, 20), *np.split(validation, 20)]
    meter = OverlapMeter(capacity)
    for number in order:
        meter.add(number, parts[number], np.zeros(len(parts[number]), np.uint16))
    return meter.report(lambda documents, pieces: np.where(documents < 20, 2, 0))


def test_overlap_is_the_share_of_held_out_runs_that_train_has():
    assert overlap(1 << 20, list(range(40))) == {"validation": 0.3, "test": None}


def test_overlap_in_little_memory_is_close_and_the_same_in_any_order():
    reports = [
        overlap(8192, np.random.default_rng(seed).permutation(40).tolist()) for seed in range(3)
    ]
    assert reports[0] == reports[1] == reports[2]
    assert 0.24 < reports[0]["validation"] < 0.36


def test_overlap_finds_a_copied_passage():
    generator = np.random.default_rng(6)
    passage = random_words(generator, 2000)
    meter = OverlapMeter()
    train, validation = signatures(
        [" ".join(passage), " ".join(passage[:1000] + random_words(generator, 1000))]
    )
    for number, one in enumerate((train, validation)):
        meter.add(number, one.overlap_hashes, one.overlap_pieces)
    found = meter.report(lambda documents, pieces: np.where(documents == 0, 2, 0))
    assert found["validation"] == pytest.approx(0.5, abs=0.08)


def test_runs_know_the_piece_that_they_begin_in():
    words = random_words(np.random.default_rng(7), 900)
    pieces = (" ".join(words[:100]), " ".join(words[100:400]), " ".join(words[400:]))
    [cut], whole = signatures([pieces]), signature("\n".join(pieces))
    assert same(cut, whole)
    assert not whole.overlap_pieces.any()
    counts = np.bincount(cut.overlap_pieces, minlength=3)
    for piece, count in zip(pieces, counts.tolist(), strict=True):
        # Those that begin in a piece are its own, and some that reach into the next one.
        assert 0 <= count - len(signature(piece).overlap_hashes) <= 7
    meter = OverlapMeter()
    meter.add(0, cut.overlap_hashes, cut.overlap_pieces)
    copied = signature(pieces[1])
    meter.add(1, copied.overlap_hashes, copied.overlap_pieces)

    def second_document_is_train(documents, pieces):
        return np.where(documents == 1, 2, np.where(pieces == 1, 0, 1))

    found = meter.report(second_document_is_train)
    assert found["validation"] > 0.9
    assert found["test"] == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_out_of_range_is_a_user_error(threshold):
    with pytest.raises(UserError, match=r"near_threshold=.* must be in \[0, 1\]"):
        DuplicateConfig(near_threshold=threshold)
