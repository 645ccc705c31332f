"""Tokens that are added to a tokenizer: which, how texts are cut then, and what stays as it was."""

import json

import numpy as np
import pytest
import tokenizers

from bertjax.program.errors import UserError
from bertjax.text.new_tokens import add_new_tokens
from bertjax.text.tokenizer import load_tokenizer
from bertjax.text.word_counts import count_words, describe_cuts, describe_most_cut, measure_cuts
from tests.text.tiny_tokenizers import TEXTS, make, make_of

NEW = ["Harpooneers harpooned; harpoon, harpoon, whaleboat. Whaleboat! Harpoon?"] * 5
# No word of it, and no pair of pieces of BPE, is one of the new texts'.
OLD = "The cat believes in a likely story, 1984."


@pytest.fixture(scope="module", params=["wordpiece", "roberta", "modernbert", "xlm-roberta"])
def tokenizer(request):
    return make("wordpiece") if request.param == "wordpiece" else make_of(request.param)


@pytest.fixture(scope="module")
def extended(tokenizer):
    return add_new_tokens(tokenizer, count_words(NEW), 9)


def lengths(tokenizer, texts):
    return [len(ids) for ids in tokenizer.encode_batch(texts)]


def test_new_text_takes_fewer_tokens_and_old_text_is_cut_as_before(tokenizer, extended):
    larger, new = extended
    assert 2 < len(new) <= 9
    assert [token.id for token in new] == list(range(tokenizer.vocab_size, larger.vocab_size))
    assert lengths(larger, NEW)[0] < 0.7 * lengths(tokenizer, NEW)[0]
    for text in [OLD, *TEXTS]:
        np.testing.assert_array_equal(*(one.encode_batch([text])[0] for one in (tokenizer, larger)))
    for id in range(tokenizer.vocab_size):
        assert larger.token(id) == tokenizer.token(id)
    assert (larger.specials, larger.frame) == (tokenizer.specials, tokenizer.frame)


def test_new_token_stands_for_the_pieces_that_were_there(tokenizer, extended):
    larger, new = extended
    assert {len(token.pieces) for token in new} != {1}
    before, after = (one.encode_batch(NEW[:1])[0].tolist() for one in (tokenizer, larger))
    pieces = {token.id: list(token.pieces) for token in new}
    assert [piece for id in after for piece in pieces.get(id, [id])] == before
    assert set(after) & pieces.keys()


def test_saved_tokenizer_is_read_by_the_library_alone(extended, tmp_path):
    larger, new = extended
    larger.save(tmp_path)
    raw = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    expected = larger.encode_batch(NEW[:1])[0].tolist()
    assert raw.encode(NEW[0], add_special_tokens=False).ids == expected
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == larger.fingerprint
    assert not again.continues_word[new[0].id] or again.kind != "WordPiece"


def test_vocabulary_file_of_wordpiece_has_the_new_words(tmp_path):
    larger, new = add_new_tokens(make("wordpiece"), count_words(NEW), 2)
    assert [token.token for token in new] == ["harpoon", "whaleboat"]
    larger.save(tmp_path)
    assert (tmp_path / "vocab.txt").read_text().splitlines()[-2:] == ["harpoon", "whaleboat"]
    (tmp_path / "tokenizer.json").unlink()
    again = load_tokenizer(tmp_path)
    np.testing.assert_array_equal(*(one.encode_batch(NEW)[0] for one in (larger, again)))
    assert not again.continues_word[[token.id for token in new]].any()


def test_words_are_counted_as_the_tokenizer_spells_them():
    lower = make("wordpiece", lowercase=True)
    _, new = add_new_tokens(lower, count_words(NEW), 2)
    assert (new[0].token, new[0].count) == ("harpoon", 15)


def test_tokens_that_save_most_come_first_and_rare_ones_not_at_all():
    counts = {"zzzzzz": 6, "qqq": 9, "jjjjjjjjj": 4}
    _, new = add_new_tokens(make("wordpiece"), counts, 9)
    assert [token.token for token in new] == ["zzzzzz", "qqq"]


def test_words_that_the_vocabulary_cannot_spell_are_added():
    larger, new = add_new_tokens(make("wordpiece"), {"βήτα": 7}, 9)
    assert [(token.token, token.pieces) for token in new] == [("βήτα", (larger.unk_id,))]
    assert larger.encode_batch(["βήτα"])[0].tolist() == [new[0].id]


def test_tokens_beside_the_vocabulary_keep_their_ids():
    plain = make("wordpiece")
    library = tokenizers.Tokenizer.from_str(plain.library.to_str())
    library.add_tokens(["[E1]", "[E2]"])
    beside = plain.with_parts(**json.loads(library.to_str()))
    larger, new = add_new_tokens(beside, count_words(NEW), 2)
    assert new[0].id == plain.vocab_size + 2
    assert [larger.library.token_to_id(token) for token in ("[E1]", "[E2]")] == [
        plain.vocab_size,
        plain.vocab_size + 1,
    ]
    ids = larger.encode_batch(["[E1] harpoon [E2]"])[0].tolist()
    assert ids == [plain.vocab_size, new[0].id, plain.vocab_size + 1]


def test_tokenizer_of_whole_words_is_refused():
    with pytest.raises(UserError, match=r"is a WordLevel tokenizer, which cuts no word"):
        add_new_tokens(make("word"), count_words(NEW), 9)


def test_cuts_are_counted_by_how_often_words_occur():
    tokenizer = make("wordpiece")
    cuts = measure_cuts(tokenizer, {"the": 6, "harpoon": 3, "βήτα": 1})
    pieces = lengths(tokenizer, ["harpoon"])[0]
    assert (cuts.words, cuts.unknown) == (10, 0.1)
    assert cuts.tokens_per_word == pytest.approx((6 + 3 * pieces + 1) / 10)
    assert (cuts.in_two, cuts.in_three, cuts.in_more) == (0, 0, 0.3)
    [(word, count, tokens)] = cuts.most_cut
    assert (word, count, len(tokens)) == ("harpoon", 3, pieces)
    table = describe_cuts({"new text": cuts, "replay": cuts}).splitlines()
    assert table[0].split() == ["vocabulary", "new", "text", "replay"]
    assert table[-1].split()[-2:] == ["30.00%", "30.00%"]
    assert describe_most_cut(cuts).startswith("most cut: harpoon (3 x h")
    assert describe_most_cut(measure_cuts(tokenizer, {"the": 2})) == ""


def test_words_are_runs_of_letters_and_digits():
    assert count_words(["the _Antelope_ isn't 2nd-rate; das Süße"]) == dict.fromkeys(
        ["the", "Antelope", "isn", "t", "2nd", "rate", "das", "Süße"], 1
    )


def test_rarest_words_are_dropped_where_there_are_very_many(monkeypatch):
    monkeypatch.setattr("bertjax.text.word_counts._MOST_WORDS", 3)
    assert count_words(["a b", "a c", "d e", "f a"]) == {"a": 3, "f": 1}
