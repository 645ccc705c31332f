"""Tokenizers on disk: what is saved, what is read from files of others, and what is told."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from bertjax.program.errors import UserError
from bertjax.text.special_tokens import BERT_TOKENS
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_parts import build_wordpiece
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer
from tests.text.tiny_tokenizers import KINDS, SPANISH, TEXTS, make

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["plain", os.fsdecode(b"not UTF-8: caf\xe9")])
def test_saved_tokenizer_is_the_same_when_loaded(kind, tmp_path, name):
    tmp_path /= name
    made = make(kind)
    made.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == made.fingerprint
    assert load_tokenizer(tmp_path / "tokenizer.json").fingerprint == loaded.fingerprint
    vocabulary = tmp_path / "vocab.txt"
    assert vocabulary.exists() == (made.kind == "WordPiece")
    if vocabulary.exists():
        assert len(vocabulary.read_text().splitlines()) == loaded.vocab_size
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    # BertTokenizer of transformers would make a normalizer without the normal form.
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_tokenizer_that_does_what_bert_does_is_called_bert_tokenizer(tmp_path):
    make("wordpiece", strip_accents=True).save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "BertTokenizer"


@pytest.mark.parametrize("lowercase", [True, False])
def test_vocabulary_file_alone_gives_the_same_ids(tmp_path, lowercase):
    made = make("wordpiece", lowercase=lowercase)
    made.save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    ids = made.encode_batch(TEXTS)[1]
    assert (load_tokenizer(tmp_path / "vocab.txt").encode_batch(TEXTS)[1] == ids).all()
    assert made.unk_id not in ids


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("strip_accents", [True, False])
def test_every_file_that_is_saved_says_the_same_of_case_and_accents(
    tmp_path, lowercase, strip_accents
):
    config = VocabularyConfig("character", None, lowercase, strip_accents)
    made = train_tokenizer(SPANISH, config)
    made.save(tmp_path)
    said = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (said["do_lower_case"], said["strip_accents"]) == (lowercase, strip_accents)
    text = "El AÑO pasó"
    expected = made.encode_batch([text])[0].tolist()
    assert made.unk_id not in expected
    (tmp_path / "tokenizer.json").unlink()
    assert load_tokenizer(tmp_path).encode_batch([text])[0].tolist() == expected
    if lowercase or not strip_accents:  # capitals without accents can be read in two ways
        (tmp_path / "tokenizer_config.json").unlink()
        assert load_tokenizer(tmp_path).encode_batch([text])[0].tolist() == expected


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data")
def test_vocabulary_of_uncased_bert_alone_still_removes_accents():
    loaded = load_tokenizer(SHARED / "vocab" / "bert-base-uncased-vocab.txt")
    plain, accented = loaded.encode_batch(["senora ano", "Señora AÑO"])
    assert plain.tolist() == accented.tolist()


def test_tokenizer_without_special_tokens_names_them(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nword\n")
    with pytest.raises(UserError, match=r"vocab.txt: .* no \[SEP\], \[MASK\]"):
        load_tokenizer(tmp_path)
    import tokenizers

    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, "[UNK]"))
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match=r"no \[PAD\], \[CLS\], \[SEP\], \[MASK\]"):
        load_tokenizer(tmp_path)


def test_unusable_files_are_refused_with_their_name(tmp_path):
    with pytest.raises(UserError, match="nowhere: no such tokenizer"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"neither tokenizer\.json .*; make one with"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match=r"neither tokenizer\.json .*; copy the one that its model"):
        load_tokenizer(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "tokenizer.json").write_text('{"model": 1')
    with pytest.raises(UserError, match=r"tokenizer.json: damaged"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        load_tokenizer(tmp_path)
    twice = tmp_path / "vocab.txt"
    twice.write_text("\n".join([*BERT_TOKENS, "word", "word"]))
    with pytest.raises(UserError, match="'word' is on two lines"):
        load_tokenizer(twice)


def test_vocabulary_with_gaps_counts_to_the_largest_id(tmp_path):
    import tokenizers

    vocabulary = {token: id for id, token in enumerate(BERT_TOKENS)} | {"word": 11}
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "[UNK]"))
    tokenizer = Tokenizer(library)
    assert tokenizer.vocab_size == 12
    assert tokenizer.continues_word.shape == (12,)


def test_published_checkpoint_and_vocabulary_agree():
    checkpoint, vocabulary = SHARED / "weights/bert_tiny_mlm", SHARED / "vocab"
    if not (checkpoint.is_dir() and vocabulary.is_dir()):
        pytest.skip("no shared data beside the checkout")
    ours = load_tokenizer(vocabulary / "bert-base-uncased-vocab.txt")
    theirs = load_tokenizer(checkpoint)
    text = (SHARED / "text/sample_text.txt").read_text(encoding="utf-8")
    np.testing.assert_array_equal(ours.encode_batch([text])[0], theirs.encode_batch([text])[0])
    assert ours.vocab_size == theirs.vocab_size == 30522
    assert ours.special_ids == (0, 100, 101, 102, 103)
    np.testing.assert_array_equal(ours.continues_word, theirs.continues_word)
    assert 5000 < ours.continues_word.sum() < 6000  # BERT's vocabulary has 5828 pieces with ##


MARKS = ["<S>", "<T>", "[ENT_START]", "[E1]", "URL", "##ING", "℃"]


CHINESE = list("模型是好中文的一")


ACCENTED = ["el", "año", "señora", "también", "está", "é", "la"]


@pytest.mark.parametrize(
    ("words", "text", "expected"),
    [
        (["the", "film", *MARKS], "The FILM", ["the", "film"]),
        ([*CHINESE, "film", *MARKS], "模型 Film", ["模", "型", "film"]),
        ([*CHINESE, "<S>"], "模型", ["模", "型"]),
        (["the", "Film", "film", *MARKS], "the Film", ["the", "Film"]),
        (["Film"], "Film", ["Film"]),
        (["BERT", *CHINESE], "BERT 好", ["BERT", "好"]),
        (["a", "A", *(f"w{n}" for n in range(500))], "A", ["A"]),
        # One word in capitals that somebody added, among hundreds of small ones.
        ([*(f"w{'abcdefgh'[n % 8]}" * (1 + n // 8) for n in range(300)), "iPhone"], "WA", ["wa"]),
        (ACCENTED, "El año está", ["el", "año", "está"]),
        (["ano", "el"], "El año", ["el", "ano"]),
        (["한국어", "的"], "한국어", ["한국어"]),
    ],
)
def test_bare_vocabulary_is_read_as_its_ordinary_words_are(tmp_path, words, text, expected):
    (tmp_path / "vocab.txt").write_text("\n".join([*BERT_TOKENS, *words]), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    found = [tokenizer.token(id) for id in tokenizer.encode_batch([text])[0]]
    assert found == expected


@pytest.mark.parametrize(
    ("words", "config", "told"),
    [
        (["the", "film"], {}, []),
        (["the", "film", "iPhone"] + [f"w{'a' * n}" for n in range(1, 300)], {},
         [r"no text reaches 1 of its tokens \(iPhone\)"]),
        (["The", "film"], {}, ["have capital letters, so texts keep theirs, too"]),
        (ACCENTED, {}, ["have accents, so texts keep theirs"]),
        (ACCENTED, {"do_lower_case": True}, ["no text reaches 5 of its tokens"]),
        (ACCENTED, {"do_lower_case": True, "strip_accents": False}, []),
        (["The", "film"], {"do_lower_case": False}, []),
        (["the", "URL"], {"additional_special_tokens": ["URL"]}, []),
    ],
)  # fmt: skip
def test_what_a_vocabulary_and_its_config_leave_open_is_told(tmp_path, words, config, told):
    words = list(dict.fromkeys(words))
    (tmp_path / "vocab.txt").write_text("\n".join([*BERT_TOKENS, *words]), encoding="utf-8")
    if config:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    notes = load_tokenizer(tmp_path).notes
    assert len(notes) == len(told), notes
    for note, expected in zip(notes, told, strict=True):
        assert re.search(expected, note), note


@pytest.mark.parametrize(
    ("config", "told", "tokens"),
    [
        ({"do_lower_case": True, "strip_accents": None}, None, ["the", "cafe"]),
        ({"do_lower_case": True, "strip_accents": True}, None, ["the", "cafe"]),
        ({"do_lower_case": False}, "do_lower_case=false, strip_accents=false", ["The", "Café"]),
        ({"strip_accents": False}, "strip_accents=false", ["the", "café"]),
        ({"tokenize_chinese_chars": False}, "tokenize_chinese_chars=false", ["the", "cafe"]),
        ({"do_lower_case": False, "tokenizer_class": "PreTrainedTokenizerFast"},
         "tokenizer.json wins", ["the", "cafe"]),
    ],
)  # fmt: skip
def test_config_that_contradicts_tokenizer_json_is_told(tmp_path, config, told, tokens):
    words = [*BERT_TOKENS, "the", "cafe", "café", "The", "Café"]
    build_wordpiece(words, True, None).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(tmp_path)
    assert (told is None) == (not tokenizer.notes)
    assert told is None or told in tokenizer.notes[0]
    assert [tokenizer.token(id) for id in tokenizer.encode_batch(["The Café"])[0]] == tokens
    tokenizer.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert (again.fingerprint, again.notes) == (tokenizer.fingerprint, ())


def test_damaged_files_beside_a_tokenizer_are_named(tmp_path):
    build_wordpiece([*BERT_TOKENS, "a"], True, None).save(str(tmp_path / "tokenizer.json"))
    for name, content, message in (
        ("tokenizer_config.json", '{"do_lower_case": "no"}', 'do_lower_case="no" must be true'),
        ("tokenizer_config.json", "[1]", "damaged, not a JSON object"),
        ("added_tokens.json", '{"[E1]": 77}', r"gives the token '\[E1\]' the id 77, .* 6"),
        ("special_tokens_map.json", '{"additional_special_tokens": [7]}', "cannot be read"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(UserError, match=message):
            load_tokenizer(tmp_path)
        (tmp_path / name).unlink()


def test_description_tells_what_is_done_to_texts(tmp_path):
    library = build_wordpiece([*BERT_TOKENS, "a"], True, False, separate_chinese=False)
    library.add_special_tokens(["[E1]"])
    told = Tokenizer(library).describe()
    assert (told["capital_letters"], told["accents"]) == ("lower-cased", "kept")
    assert told["chinese_characters"] == "as other letters"
    assert (told["normalizer"], told["added_tokens"]) == ("BertNormalizer", ["[E1]"])
    plain = Tokenizer(build_wordpiece([*BERT_TOKENS, "a"], False, None)).describe()
    assert (plain["capital_letters"], plain["accents"]) == ("kept", "kept")
    assert (plain["chinese_characters"], plain["added_tokens"]) == ("each a word", [])
