"""Texts as the model sees them: frame, words, offsets, pairs, windows."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertjax.analysis.capture import encoding
from bertjax.analysis.capture.encoding import (
    encode_stream,
    encode_texts,
    encode_words,
    merge_subwords,
)
from bertjax.program.errors import UserError
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_parts import build
from tests.text.tiny_tokenizers import make_of

TINY = Path(__file__).parents[2] / "parity" / "golden" / "tiny_bert"
LONG = "The cat was at the sea. They had a big red bed, and it was one of the best."


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY)


def check_invariants(encoded):
    """What holds of every encoded text."""
    length, words = len(encoded.tokens), len(encoded.words)
    for values in (encoded.token_ids, encoded.token_type_ids, encoded.special, encoded.word_ids):
        assert values.shape == (length,)
    assert encoded.offsets.shape == (length, 2)
    assert encoded.word_ids.dtype.kind == encoded.offsets.dtype.kind == "i"
    assert set(np.diff(encoded.word_ids)) <= {0, 1}
    assert (encoded.word_ids[0], encoded.word_ids[-1]) == (0, words - 1)
    assert encoded.first_tokens.tolist() == [
        encoded.word_ids.tolist().index(word) for word in range(words)
    ]
    assert encoded.special_words.sum() == encoded.special.sum()
    assert (encoded.offsets[encoded.special] == 0).all()


def test_text_has_its_frame_tokens_words_and_offsets(tokenizer):
    [encoded] = encode_texts(tokenizer, ["The  cat."], 17)
    check_invariants(encoded)
    assert encoded.tokens == ("[CLS]", "the", "c", "##a", "##t", ".", "[SEP]")
    assert encoded.words == ("[CLS]", "The", "cat", ".", "[SEP]")
    assert encoded.word_ids.tolist() == [0, 1, 2, 2, 2, 3, 4]
    assert encoded.offsets.tolist() == [[0, 0], [0, 3], [5, 6], [6, 7], [7, 8], [8, 9], [0, 0]]
    assert encoded.special.tolist() == [True, *[False] * 5, True]
    assert encoded.special_words.tolist() == [True, False, False, False, True]
    assert encoded.token_type_ids.tolist() == [0] * 7
    assert [tokenizer.token(id) for id in encoded.token_ids] == list(encoded.tokens)
    assert (encoded.source, encoded.window) == (0, 0)


def test_pair_keeps_a_and_b_apart(tokenizer):
    pair = ("It was.", "They had a cat")
    _, encoded = encode_texts(tokenizer, ["the", pair], 17)
    check_invariants(encoded)
    second = encoded.tokens.index("[SEP]") + 1
    assert encoded.token_type_ids.tolist() == [0] * second + [1] * (len(encoded.tokens) - second)
    assert encoded.words[:5] == ("[CLS]", "It", "was", ".", "[SEP]")
    assert encoded.words[5:] == ("They", "had", "a", "cat", "[SEP]")
    for kind, (start, end), token in zip(
        encoded.token_type_ids, encoded.offsets, encoded.tokens, strict=True
    ):
        if token not in BERT_TOKENS:
            assert pair[kind][start:end].lower() == token.removeprefix("##")
    assert encoded.source == 1


def test_mask_in_a_text_is_the_mask_and_not_of_the_frame(tokenizer):
    [encoded] = encode_texts(tokenizer, ["the[MASK] is [MASK]."], 17, masks=True)
    check_invariants(encoded)
    assert encoded.words == ("[CLS]", "the", "[MASK]", "is", "[MASK]", ".", "[SEP]")
    assert np.flatnonzero(encoded.token_ids == tokenizer.mask_id).tolist() == [2, 4]
    assert np.flatnonzero(encoded.special).tolist() == [0, 6]


def test_unknown_word_is_one_token_over_all_its_characters(tokenizer):
    [encoded] = encode_texts(tokenizer, ["the Ωmega is"], 17)
    assert encoded.tokens[2] == "[UNK]"
    assert encoded.words[2] == "Ωmega"
    assert encoded.offsets[2].tolist() == [4, 9]


@pytest.mark.parametrize("text", ["", "  ", "\u0301", "\x00\u200d"])
def test_text_of_which_nothing_is_left_is_refused(tokenizer, text):
    with pytest.raises(UserError, match="text 2: nothing is left of it as tokens"):
        encode_texts(tokenizer, ["the", text], 17)
    with pytest.raises(UserError, match="text 1: nothing is left of it as tokens"):
        encode_texts(tokenizer, [("the", text)], 17)


@pytest.mark.parametrize("max_length", [10, 11, 17, 60])
def test_windows_follow_each_other_between_words(tokenizer, max_length):
    [whole] = encode_texts(tokenizer, [LONG], 512)
    _, *windows = encode_texts(tokenizer, ["the", LONG], max_length, too_long="windows")
    assert [window.window for window in windows] == list(range(len(windows)))
    assert {window.source for window in windows} == {1}
    assert (len(windows) > 1) == (len(whole.tokens) > max_length)
    for window in windows:
        check_invariants(window)
        assert len(window.tokens) <= max_length
        assert not window.tokens[1].startswith("##")
    for name in ("token_ids", "offsets"):
        parts = [getattr(window, name)[1:-1] for window in windows]
        np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name)[1:-1])
    words = [word for window in windows for word in window.words[1:-1]]
    assert words == list(whole.words[1:-1])


def test_window_takes_as_many_words_as_it_holds(tokenizer):
    windows = encode_texts(tokenizer, [LONG], 12, too_long="windows")
    for window, following in itertools.pairwise(windows):
        next_word = (following.word_ids == 1).sum()
        assert len(window.tokens) + next_word > 12


def test_word_longer_than_a_window_is_in_several(tokenizer):
    windows = encode_texts(tokenizer, ["the abcdefghijklmnopqrstuvw is"], 11, too_long="windows")
    assert [len(window.tokens) - 2 for window in windows] == [1, 9, 9, 6]
    for window in windows:
        check_invariants(window)
    assert windows[2].words == ("[CLS]", "abcdefghijklmnopqrstuvw", "[SEP]")
    assert windows[3].words == ("[CLS]", "abcdefghijklmnopqrstuvw", "is", "[SEP]")
    assert windows[3].offsets[1].tolist() == [22, 23]


def test_text_of_just_the_length_is_whole(tokenizer):
    text = "the " * 15
    for too_long in ("refuse", "windows"):
        [encoded] = encode_texts(tokenizer, [text], 17, too_long=too_long)
        assert len(encoded.tokens) == 17
    [encoded] = encode_texts(tokenizer, [("the " * 7, "the " * 7)], 17)
    assert len(encoded.tokens) == 17


@pytest.mark.parametrize(
    ("text", "max_length", "too_long", "message"),
    [
        ("the " * 16, 17, "refuse", "text 1: 18 tokens, more than the 17 .* into windows"),
        (("the " * 8, "the " * 7), 17, "refuse", "text 1: 18 tokens, .* pairs are not cut"),
        (("the " * 8, "the " * 7), 17, "windows", "text 1: 18 tokens, .* pairs are not cut"),
        ("the " * 16, 9, "windows", "18 tokens, more than the 9 .* at least 10 tokens"),
    ],
)
def test_text_that_is_too_long_is_refused(tokenizer, text, max_length, too_long, message):
    with pytest.raises(UserError, match=message):
        encode_texts(tokenizer, [text], max_length, too_long=too_long)


def test_stream_gives_what_the_texts_give_together(tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_TEXTS_AT_ONCE", 2)
    texts = ["the cat", LONG, ("it", "was"), "one", "what [MASK]"]
    expected = encode_texts(tokenizer, texts, 17, too_long="windows")
    placed = [(f"a.txt:{number}", text) for number, text in enumerate(texts)]
    found = list(encode_stream(tokenizer, iter(placed), 17, too_long="windows"))
    assert [one.source for one in expected] == [0, *[1] * (len(expected) - 4), 2, 3, 4]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name, value in one._asdict().items():
            np.testing.assert_array_equal(value, getattr(other, name), name)


def test_stream_takes_texts_as_they_are_needed_and_names_their_place(tokenizer, monkeypatch):
    monkeypatch.setattr(encoding, "_TEXTS_AT_ONCE", 2)
    taken = []

    def texts():
        for number in range(10):
            taken.append(number)
            yield f"a.txt:{number}", "the" if number < 5 else ""

    stream = encode_stream(tokenizer, texts(), 17)
    next(stream)
    assert taken == [0, 1]
    with pytest.raises(UserError, match=r"^a\.txt:5: nothing is left"):
        list(stream)


def test_given_words_stay_one_for_one(tokenizer):
    sentences = [["The", "cat", "\u0301", "all", "don't"], [], ["the"] * 16, ["the"] * 15]
    first, empty, long, full = encode_words(tokenizer, sentences, 17)
    for encoded in (first, empty, full):
        check_invariants(encoded)
    assert first.words == ("[CLS]", *sentences[0], "[SEP]")
    # A word of which nothing is left is unknown, and counts.
    [unknown] = np.flatnonzero(first.word_ids == 3)
    assert first.tokens[unknown] == "[UNK]"
    assert first.offsets[unknown].tolist() == [0, 1]
    assert (first.word_ids == 5).sum() == 5
    assert empty.tokens == ("[CLS]", "[SEP]")
    assert long is None
    assert len(full.tokens) == 17
    assert [first.source, full.source] == [0, 3]


def test_words_of_bytes_have_no_space_before_them():
    from tokenizers import decoders, models, pre_tokenizers

    alphabet = [*BERT_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    model = models.BPE({token: id for id, token in enumerate(alphabet)}, [])
    parts = None, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    [encoded] = encode_texts(Tokenizer(build(model, *parts)), ["an été"], 17)
    check_invariants(encoded)
    assert encoded.words == ("[CLS]", "an", "été", "[SEP]")
    assert encoded.word_ids.tolist() == [0, 1, 1, *[2] * 6, 3]
    # Both bytes of a letter come from its one character.
    assert encoded.offsets[4:9].tolist() == [[3, 4], [3, 4], [4, 5], [5, 6], [5, 6]]


def test_word_that_vanishes_leaves_no_gap():
    from tokenizers import decoders, models, pre_tokenizers

    letters = {token: id for id, token in enumerate([*BERT_TOKENS, *"abcdefgh"])}
    # Without an unknown token, BPE drops the letters that it does not have.
    parts = None, pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    tokenizer = Tokenizer(build(models.BPE(letters, []), *parts))
    text = "ΩΩ bad Ω Ω cab Ω"
    [encoded] = encode_texts(tokenizer, [text], 17)
    check_invariants(encoded)
    assert encoded.words == ("[CLS]", "bad", "cab", "[SEP]")
    assert [text[start:end] for start, end in encoded.offsets[1:-1]] == [*"badcab"]
    windows = encode_texts(tokenizer, [f"{text} {text}"], 10, too_long="windows")
    assert [window.words[1:-1] for window in windows] == [("bad", "cab"), ("bad", "cab")]


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(codec="utf-8"), max_size=60), max_length=st.integers(10, 40))
def test_whatever_the_text_its_parts_fit_together(tokenizer, text, max_length):
    try:
        [whole] = encode_texts(tokenizer, [text], 1000)
    except UserError as error:
        assert "nothing is left" in str(error)  # noqa: PT017 - most texts are encoded
        return
    check_invariants(whole)
    for (start, end), special in zip(whole.offsets, whole.special, strict=True):
        assert special or 0 <= start < end <= len(text)
    windows = encode_texts(tokenizer, [text], max_length, too_long="windows")
    for window in windows:
        check_invariants(window)
    parts = [window.token_ids[1:-1] for window in windows]
    np.testing.assert_array_equal(np.concatenate(parts), whole.token_ids[1:-1])


def test_merged_maps_are_sums_over_keys_and_means_over_queries(tokenizer):
    [encoded] = encode_texts(tokenizer, ["The cat sat at it"], 17)
    length, words = len(encoded.tokens), len(encoded.words)
    assert length > words
    probs = np.random.default_rng(0).dirichlet(np.ones(length), (3, 4, length))
    merged = merge_subwords(probs.astype(np.float32), encoded)
    assert merged.shape == (3, 4, words, words)
    assert merged.dtype == np.float32
    np.testing.assert_allclose(merged.sum(axis=-1), 1, rtol=1e-5)
    for i, j in itertools.product(range(words), repeat=2):
        block = probs[..., encoded.word_ids == i, :][..., encoded.word_ids == j]
        np.testing.assert_allclose(merged[..., i, j], block.sum(-1).mean(-1), rtol=1e-5)


def test_maps_between_whole_words_stay_as_they_are(tokenizer):
    [encoded] = encode_texts(tokenizer, ["the one of them all"], 17)
    [whole] = encode_texts(tokenizer, ["the one of all"], 17)
    probs = np.random.default_rng(0).dirichlet(np.ones(6), (2, 6))
    np.testing.assert_array_equal(merge_subwords(probs, whole), probs)
    assert len(encoded.tokens) > len(encoded.words)


def test_frame_of_the_tokenizer_stands_around_texts_and_pairs():
    """`<s> A </s></s> B </s>`: two special tokens between the texts, each a word of its own."""
    tokenizer = make_of("roberta")
    [encoded] = encode_texts(tokenizer, [("the cat", "is able")], 30)
    check_invariants(encoded)
    assert encoded.words == ("<s>", "the", "cat", "</s>", "</s>", "is", "able", "</s>")
    assert encoded.special_words.tolist() == [True, False, False, True, True, False, False, True]
    first, second = np.split(encoded.token_ids, [encoded.token_type_ids.tolist().index(1)])
    assert tokenizer.decode(first) == "the cat"
    assert tokenizer.decode(second) == "is able"
    places = zip(encoded.word_ids, encoded.token_type_ids, encoded.offsets, strict=True)
    spelled = [""] * len(encoded.words)
    for word, text, (start, end) in places:
        spelled[word] += ("the cat", "is able")[text][start:end]
    assert spelled == ["", "the", "cat", "", "", "is", "able", ""]
    length = len(encoded.token_ids)
    assert encode_texts(tokenizer, [("the cat", "is able")], length)
    with pytest.raises(UserError, match=rf"text 1: {length} tokens, more than the {length - 1} "):
        encode_texts(tokenizer, [("the cat", "is able")], length - 1)


def test_given_words_have_the_space_that_they_have_in_a_text():
    tokenizer = make_of("roberta")
    words = ["a", "likely", "Café", "cat"]
    [encoded] = encode_words(tokenizer, [words], 30)
    check_invariants(encoded)
    assert encoded.words == ("<s>", *words, "</s>")
    for word, first in enumerate(encoded.first_tokens[1:-1]):
        assert tokenizer.token(encoded.token_ids[first]).startswith("Ġ"), word
        assert not encoded.tokens[first].startswith(("Ġ", "##")), word
    for word, token_offsets in enumerate(
        np.split(encoded.offsets[1:-1], encoded.first_tokens[2:-1] - 1)
    ):
        assert token_offsets[0, 0] == 0
        assert token_offsets[-1, 1] == len(words[word])
