"""What a reader is shown for a token, whatever mark its vocabulary has."""

import pytest
from tokenizers import decoders, models, pre_tokenizers

from bertjax.text.shown_tokens import BYTE_LETTERS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build
from tests.text.tiny_tokenizers import FAMILIES, make, make_of

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Entry of byte-level BPE and entry of Unigram, what is shown, and what is shown at a beginning.
SHOWN = [
    ("Ġdog", "▁dog", "dog", "dog"),
    ("dog", "dog", "##dog", "dog"),
    ("ĠcafÃ©", "▁café", "café", "café"),
    ("Ã©", "é", "##é", "é"),
    ("ĠĠ9", "▁▁9", "9", "9"),
    (".", ".", ".", "."),
    ("Ġ(", "▁(", "(", "("),
    ("Ġ", "▁", "␣", "␣"),
    ("ĠĠ", "▁▁", "␣␣", "␣␣"),
]


def byte_level(*entries: str) -> Tokenizer:
    vocabulary = {entry: id for id, entry in enumerate([*SPECIAL, *entries])}
    model = models.BPE(vocabulary, [], unk_token="[UNK]")
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library = build(model, None, pre_tokenizer, decoders.ByteLevel())
    library.add_tokens(["|||IP|||", "Ġspace"])
    return Tokenizer(library)


def of_pieces(*entries: str) -> Tokenizer:
    model = models.Unigram([(entry, 0.0) for entry in [*SPECIAL, *entries]], unk_id=1)
    return Tokenizer(build(model, None, pre_tokenizers.Metaspace(), decoders.Metaspace()))


@pytest.mark.parametrize(("make_kind", "column"), [(byte_level, 0), (of_pieces, 1)])
def test_tokens_are_shown_as_wordpiece_has_them(make_kind, column):
    tokenizer = make_kind(*(row[column] for row in SHOWN))
    for row in SHOWN:
        id = tokenizer.library.token_to_id(row[column])
        assert tokenizer.spell(id) == row[2]
        assert tokenizer.spell(id, begins_word=True) == row[3]
    assert [tokenizer.spell(id) for id in range(5)] == SPECIAL
    assert tokenizer.spell(tokenizer.vocab_size) == f"[unnamed{tokenizer.vocab_size}]"


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("Ċ", "\\n"),
        ("ĊĊ", "\\n\\n"),
        ("Ã", "\\xc3"),
        ("é", "\\xe9"),  # the byte, not the letter
        ("Ġa©", "a\\xa9"),
        ("Ģ", "\\x80"),
        ("Ń", "\\xad"),
        ("¬", "\\xac"),
        ("|||IP|||", "|||IP|||"),
        ("Ġspace", "Ġspace"),
        ("中", "中"),
    ],
)
def test_what_cannot_be_seen_is_shown_by_its_number_and_what_was_added_as_it_is(entry, shown):
    tokenizer = byte_level("Ġdog", "Ċ", "ĊĊ", "Ã", "é", "Ġa©", "Ģ", "Ń", "¬", "中")
    assert tokenizer.spell(tokenizer.library.token_to_id(entry)) == shown


def test_letters_of_bytes_are_those_of_the_library():
    assert {*BYTE_LETTERS} == {*pre_tokenizers.ByteLevel.alphabet()}
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x2FFFF)]))
    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    [(letters, _)] = split.pre_tokenize_str(text)
    assert bytes(map(BYTE_LETTERS.__getitem__, letters)) == text.encode()


def test_wordpiece_and_words_are_shown_as_they_are():
    for kind in ("wordpiece", "word"):
        tokenizer = make(kind)
        for id in range(tokenizer.vocab_size):
            assert tokenizer.spell(id) == tokenizer.token(id)


@pytest.mark.parametrize("family", FAMILIES)
def test_token_is_found_by_what_is_shown(family):
    tokenizer = make_of(family)
    shown = [tokenizer.spell(id) for id in range(tokenizer.vocab_size)]
    assert len(set(shown)) > 0.9 * len(shown)
    for id, spelled in enumerate(shown):
        found = tokenizer.find_token(spelled)
        assert tokenizer.spell(found) == spelled
        assert len(tokenizer.token(found)) <= len(tokenizer.token(id))
        assert tokenizer.spell(tokenizer.find_token(tokenizer.token(id))) in (
            spelled, tokenizer.token(id)
        )  # fmt: skip
    assert tokenizer.find_token("no such token") is None
