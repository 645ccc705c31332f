"""Tokenizers: made, saved, loaded, and as fast words give the same ids as the library."""

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from bertjax.program.errors import UserError
from bertjax.text import word_cache
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece, find_offsets
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer
from tests.text.tiny_tokenizers import KINDS, SPANISH, TEXTS, make


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return {kind: make(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_the_first_five_ids(made, kind):
    assert [made[kind].token(id) for id in range(5)] == list(BERT_TOKENS)
    assert made[kind].special_ids == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_vocabulary_has_the_size_asked_for(made, kind):
    if KINDS[kind]:
        assert made[kind].vocab_size == KINDS[kind]


TRAIN_ALL = """
import sys, pydoc_data.topics
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer
texts = [text for _, text in sorted(pydoc_data.topics.topics.items())][:25]
for kind, size in dict(wordpiece=900, bpe=600, unigram=500, word=None, character=None).items():
    print(train_tokenizer(texts, VocabularyConfig(kind=kind, vocab_size=size)).fingerprint)
"""


def test_training_gives_the_same_tokenizer_with_any_number_of_threads():
    """In processes of their own, because the library's hash tables have a new order in each."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", TRAIN_ALL],
            env=os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            stdout=subprocess.PIPE,
            text=True,
        )
        for threads in ("1", "2", "3")
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert len(outputs[0].split()) == 5
    assert outputs[0] == outputs[1] == outputs[2]


def test_lowercase_and_accents_follow_the_options():
    cased = make("character", lowercase=False)
    assert cased.decode(cased.encode_batch(["The"])[0]) == "The"
    bare = make("character", strip_accents=True)
    assert bare.decode(bare.encode_batch(["Café"])[0]) == "cafe"
    bare = make("character", lowercase=False, strip_accents=True)
    assert bare.decode(bare.encode_batch(["Café"])[0]) == "Cafe"


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram", "word", "character"])
def test_letters_in_two_characters_are_read_as_those_in_one(kind):
    sizes = {"wordpiece": 56, "bpe": 270, "unigram": 32}
    config = VocabularyConfig(kind=kind, vocab_size=sizes.get(kind))
    text = "La señora, el año, AÑO"
    decomposed = unicodedata.normalize("NFD", text)
    tokenizer = train_tokenizer(SPANISH, config)
    texts = [text, decomposed, f"ano  {decomposed}", "La senora, el ano, ANO"]
    expected, found, behind, bare = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    assert found == expected != bare
    assert behind[-len(expected) :] == expected
    assert tokenizer.describe_readings([decomposed]) == []


def test_new_tokenizer_brings_texts_into_the_form_of_its_corpus():
    def normalize(text, form, **fields):
        config = VocabularyConfig(kind="character", **fields)
        return train_tokenizer(["año 10"], config, form).library.normalizer.normalize_str(text)

    assert normalize("an\u0303o 10\u00b3", "NFC") == "año 10\u00b3"
    assert normalize("an\u0303o 10\u00b3", "NFKC") == "año 103"
    assert normalize("an\u0303o 10\u00b3", "none") == "an\u0303o 10\u00b3"
    assert normalize("an\u0303o 10\u00b3", "NFKC", strip_accents=True) == "ano 103"


def test_accents_in_characters_of_their_own_are_told_where_they_are_lost():
    words = [*BERT_TOKENS, "año", "ano"]
    texts = ["an\u0303o", ("ano", "an\u0303o"), "año", ("ano", None)]
    [told] = Tokenizer(build_wordpiece(words, True, False)).describe_readings(texts)
    assert told.startswith("2 of 4 texts have letters whose accents are characters of their own")
    assert Tokenizer(build_wordpiece(words, True, True)).describe_readings(texts) == []


@pytest.mark.parametrize("strip_accents", [True, False])
def test_accents_belong_to_the_token_of_their_letter(strip_accents):
    words = [*BERT_TOKENS, "si", "ñu", "nu", "sí", "\u0301", "i", "s"]
    library = build_wordpiece(words, True, strip_accents)
    if not strip_accents:
        library.normalizer = normalizers.Sequence([normalizers.NFC(), library.normalizer])
    text = "n\u0303u  si\u0301, si\u0301"
    [(_, offsets)] = Tokenizer(library).encode_with_offsets([text])
    assert [text[start:end] for start, end in offsets] == ["n\u0303u", "si\u0301", ",", "si\u0301"]
    # An accent that is a token of its own stays one.
    marks = Tokenizer(build_wordpiece([*BERT_TOKENS, "s", "##\u0301"], True, False))
    [(_, offsets)] = marks.encode_with_offsets(["s\u0301"])
    assert offsets.tolist() == [[0, 1], [1, 2]]
    assert find_offsets(marks.encode(["é"])[0], "é").tolist() == [[0, 1]]


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize(
    "kind", {"wordpiece": 56, "bpe": 270, "unigram": 32, "word": None, "character": None}.items()
)
def test_accents_are_kept_unless_they_are_to_go(kind, lowercase):
    name, size = kind
    made = train_tokenizer(SPANISH, VocabularyConfig(name, size, lowercase))
    for word in ("año", "señora", "pasó"):
        assert made.decode(made.encode_batch([word])[0]) == word
    stripped = train_tokenizer(
        SPANISH, VocabularyConfig(name, size and size - 5, lowercase, strip_accents=True)
    )
    assert stripped.decode(stripped.encode_batch(["año"])[0]) == "ano"


def test_character_vocabulary_spells_every_character_of_the_text_in_every_place():
    made = train_tokenizer(["Abc, 中z. Only Once: ñ"], VocabularyConfig("character"))
    assert made.unk_id not in made.encode_batch(["ñabc zb z中,ccñ yl"])[0]
    letters, alone = set("abczonlyeñ"), set(",中.:")
    assert made.vocab_size == 5 + 2 * len(letters) + len(alone)
    with_room_for_ten = train_tokenizer(["aab bcdef " * 3], VocabularyConfig("character", 10))
    assert with_room_for_ten.vocab_size == 10


def test_continues_word_says_where_words_go_on(made):
    def continued(kind: str, text: str) -> str:
        tokenizer = made[kind]
        ids = tokenizer.encode_batch([text])[0]
        return "".join("+" if tokenizer.continues_word[id] else "." for id in ids)

    assert continued("character", "the cat") == ".++.++"
    assert continued("word", "the cat") == ".."
    for kind in ("wordpiece", "bpe", "unigram"):
        marks = continued(kind, "unlikeable zzz unlikeable")
        assert marks.count(".") == 3, kind
        assert marks[0] == ".", kind
    for tokenizer in made.values():
        assert not tokenizer.continues_word[:5].any()
        assert tokenizer.continues_word.shape == (tokenizer.vocab_size,)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.text(st.sampled_from("abtheCÉé\u0301 \t\n.,'-[]MASKß中ﬁ1\u00a0\u200d"), max_size=30),
        max_size=4,
    )
)
def test_remembered_words_give_the_ids_of_the_library(made, kind, texts):
    tokenizer = made[kind]
    tokenizer.library.encode_special_tokens = True
    expected = tokenizer.library.encode_batch(texts, add_special_tokens=False)
    tokenizer.library.encode_special_tokens = False
    assert tokenizer._cache.words_are_alone
    for _ in range(2):  # new words, and then remembered ones
        found = tokenizer.encode_batch(texts)
        assert [ids.tolist() for ids in found] == [encoding.ids for encoding in expected]


def test_forgotten_words_change_nothing_and_memory_is_bounded(made, monkeypatch):
    monkeypatch.setattr(word_cache, "MOST_REMEMBERED_WORDS", 7)
    tokenizer = Tokenizer(made["wordpiece"].library)
    for _ in range(3):
        for text in TEXTS:
            expected = tokenizer.library.encode(text, add_special_tokens=False).ids
            assert tokenizer.encode_batch([text, text])[1].tolist() == expected
            assert len(tokenizer._cache._words.ids) <= 8


@pytest.mark.parametrize("meanwhile", ["encode", "forget"])
def test_threads_share_the_words_that_are_remembered(made, monkeypatch, meanwhile):
    text = f"the {'longest' * 9} words, the"  # a word that is too long to be remembered
    tokenizer = Tokenizer(made["wordpiece"].library)
    expected = tokenizer.library.encode(text, add_special_tokens=False).ids
    cache, ask = tokenizer._cache, tokenizer._cache._encode_words
    others = []

    def interrupt(words):
        """Another thread does the same, or empties the cache, before the library answers."""
        monkeypatch.setattr(cache, "_encode_words", ask)
        others.append(tokenizer.encode_batch([text])[0].tolist())
        if meanwhile == "forget":
            tokenizer.forget_words()
        return ask(words)

    tokenizer.encode_batch(["the words,"])
    monkeypatch.setattr(cache, "_encode_words", interrupt)
    assert tokenizer.encode_batch([text])[0].tolist() == expected
    assert others == [expected]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_in_a_text_are_text(made, kind):
    ids = made[kind].encode_batch(["the [MASK] [SEP] cat [PAD]"])[0]
    assert not set(ids.tolist()) & {0, 2, 3, 4}


def test_vocabulary_larger_than_the_text_says_what_it_supports():
    with pytest.raises(UserError, match=r"vocab_size=5000 .* pass --vocab-size (\d+)") as caught:
        train_tokenizer(TEXTS, VocabularyConfig(vocab_size=5000))
    supported = int(str(caught.value).split("--vocab-size ")[1].split(",")[0])
    made = train_tokenizer(TEXTS, VocabularyConfig(vocab_size=supported))
    assert made.vocab_size == supported


def test_advised_size_works_for_text_that_is_mostly_characters():
    texts = ["ab cd ef gh ij kl mn ab cd ef gh ij kl mn"]
    with pytest.raises(UserError, match="--vocab-size 40,"):
        train_tokenizer(texts, VocabularyConfig(vocab_size=99))
    assert train_tokenizer(texts, VocabularyConfig(vocab_size=40)).vocab_size == 40


def test_most_frequent_characters_are_kept_where_there_is_no_room_for_all():
    texts = [" ".join(chr(0x4E00 + n) for n in range(90)) + " the the the them them"] * 2
    made = train_tokenizer(texts, VocabularyConfig(vocab_size=25))
    assert made.vocab_size == 25
    assert made.unk_id not in made.encode_batch(["them"])[0]
    assert made.unk_id in made.encode_batch([chr(0x4E00 + 89)])[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "wordpiece"}, "vocab_size is missing"),
        ({"vocab_size": 6}, "vocab_size=6 must be at least 7"),
        ({"vocab_size": 99, "minimum_frequency": 0}, "minimum_frequency=0"),
    ],
)
def test_wrong_options_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        VocabularyConfig(**fields)


def test_byte_level_vocabulary_needs_all_bytes():
    with pytest.raises(UserError, match="at least 261"):
        train_tokenizer(TEXTS, VocabularyConfig(kind="bpe", vocab_size=100))


def test_no_words_at_all_are_refused():
    with pytest.raises(UserError, match="no words"):
        train_tokenizer(["  ", "\n"], VocabularyConfig(vocab_size=99))


def test_wordpiece_splits_the_longest_piece_first():
    tokenizer = Tokenizer(build_wordpiece([*BERT_TOKENS, "un", "##able", "##a"], True, None))
    assert [tokenizer.token(id) for id in tokenizer.encode_batch(["Unable"])[0]] == ["un", "##able"]


# ------------------------------------------------------------------- added and special tokens


ADDED = ["[E1]", "<user>", "New"]


def with_added(kind: Tokenizer) -> Tokenizer:
    """The tokenizer with more special tokens, and a word that stays whole."""
    import tokenizers

    library = tokenizers.Tokenizer.from_str(kind.library.to_str())
    library.add_special_tokens(ADDED[:2])
    library.add_tokens(ADDED[2:])
    return Tokenizer(library)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@example(words=["the", " ", "[E1]", " ", "cat"])
@given(
    words=st.lists(
        st.sampled_from(
            [*ADDED, "the", "cat", "[MASK]", "[SEP]", "able", " ", "  ", ",", "\u0301", "new", "É"]
        ),
        max_size=9,
    )
)
def test_added_tokens_are_one_and_the_rest_is_what_transformers_reads(made, kind, words):
    tokenizer, text = with_added(made[kind]), "".join(words)
    assert tokenizer._cache.words_are_alone
    expected = tokenizer.encode([text])[0].ids
    for _ in range(2):  # new words, and then remembered ones
        assert tokenizer.encode_batch([text])[0].tolist() == expected
    if not any(token in text for token in BERT_TOKENS):
        # What the library itself gives, and with it transformers.
        assert tokenizer.library.encode(text, add_special_tokens=False).ids == expected
    for token in ADDED[:2]:
        assert expected.count(tokenizer.library.token_to_id(token)) == text.count(token)
    assert not set(expected) & {0, 2, 3, 4}
    masked = tokenizer.encode([text], masks=True)[0].ids
    assert masked.count(4) == text.count("[MASK]")
    assert not set(masked) & {0, 2, 3}


@pytest.mark.parametrize("kind", ["bpe", "word", "unigram", "pieces"])
def test_special_tokens_stay_letters_where_a_model_finds_them_as_words(kind):
    """Pre-tokenizers that leave `[SEP]` whole, and vocabularies in which it is the best piece."""
    import tokenizers
    from tokenizers import models, pre_tokenizers

    ids = {token: id for id, token in enumerate([*BERT_TOKENS, "a", "[", "S", "E", "P", "]"])}
    if kind == "word":
        model = models.WordLevel(ids, "[UNK]")
    elif kind == "pieces":
        model = models.WordPiece(ids, unk_token="[UNK]")
    elif kind == "unigram":
        model = models.Unigram([(token, 0.0) for token in ids], 1, False)
    else:
        ids |= {token: 20 + id for id, token in enumerate(["[S", "E", "EP", "[SEP"])}
        merges = [("[", "S"), ("E", "P"), ("[S", "EP"), ("[SEP", "]")]
        model = models.BPE(ids, merges, unk_token="[UNK]")
    library = tokenizers.Tokenizer(model)
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    [found] = Tokenizer(library).encode_batch(["a [SEP]"])
    assert found[0] == ids["a"]
    assert ids["[SEP]"] not in found


def test_texts_that_spell_out_special_tokens_are_told(made):
    texts = ["good [SEP] bad", ("a", "[MASK] [SEP]"), ("b", None), "[sep]"]
    tell = made["wordpiece"].describe_readings
    [told] = tell(texts)
    assert told.startswith("[SEP], [MASK] spelled out in 2 of 4 texts: read as letters")
    assert tell(["a [MASK]"], masks=True) == []
    assert tell([]) == []


# ------------------------------------------------------- what the files beside a tokenizer say
