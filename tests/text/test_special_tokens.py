"""Special tokens: whose names they are, where they stand, and what texts that spell them become."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import models, pre_tokenizers

from bertjax.families.registry import FAMILIES as REGISTERED
from bertjax.program.errors import UserError
from bertjax.text.rows import open_prepared
from bertjax.text.special_tokens import BERT_TOKENS, STYLES
from bertjax.text.texts_in_memory import prepare_texts
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_training import VocabularyConfig, train_tokenizer
from tests.text.tiny_tokenizers import FAMILIES, SPANISH, TEXTS, make, make_of

ROBERTAS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")


@pytest.fixture(scope="module")
def made() -> dict[str, Tokenizer]:
    return {family: make_of(family) for family in FAMILIES}


# The ids of pad, unk, cls, sep and mask in the published tokenizers; the last token is -1.
PUBLISHED_IDS = {
    "roberta": (1, 3, 0, 2, -1),
    "xlm-roberta": (1, 3, 0, 2, -1),
    "camembert": (1, 3, 5, 6, -1),
    "modernbert": (-2, -5, -4, -3, -1),
    "albert": (0, 1, 2, 3, 4),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_new_tokenizers_have_the_special_tokens_of_the_published(made, family):
    tokenizer = made[family]
    assert tokenizer.vocab_size == FAMILIES[family]
    expected = tuple(np.arange(tokenizer.vocab_size)[list(PUBLISHED_IDS[family])].tolist())
    assert tokenizer.special_ids == expected
    assert tokenizer.special_tokens == STYLES[family].tokens
    is_robertas = STYLES[family].tokens == ROBERTAS
    assert tokenizer.describe_frame() == (
        "<s> A </s> </s> B </s>" if is_robertas else "[CLS] A [SEP] B [SEP]"
    )
    assert tokenizer.mask_token == ("<mask>" if is_robertas else "[MASK]")


@pytest.mark.parametrize("family", FAMILIES)
def test_case_and_accents_are_the_familys_unless_chosen(made, family):
    def read(tokenizer: Tokenizer, text: str) -> str:
        return tokenizer.decode(tokenizer.encode_batch([text])[0])

    expected = "the café" if family == "albert" else "The Café"
    assert read(made[family], "The Café") == expected
    other = make_of(family, lowercase=family != "albert")
    assert read(other, "The Café") == ("The Café" if family == "albert" else "the café")
    size = {"roberta": 280, "modernbert": 280}.get(family, 29)
    bare = train_tokenizer(SPANISH, VocabularyConfig(None, size, True, True, family=family))
    assert read(bare, "AÑO") == "ano"


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(
        st.text(
            st.sampled_from("abtheCÉé\u0301 \t\n.,'`-s>[]MASK中ﬁ1\u00a0\u200d\u200b"), max_size=30
        ),
        max_size=4,
    )
)
def test_remembered_words_give_the_ids_of_the_library(made, family, texts):
    tokenizer = made[family]
    assert tokenizer._cache.words_are_alone
    tokenizer.library.encode_special_tokens = True
    expected = tokenizer.library.encode_batch(texts, add_special_tokens=False)
    tokenizer.library.encode_special_tokens = False
    for _ in range(2):  # new words, and then remembered ones
        found = tokenizer.encode_batch(texts)
        assert [ids.tolist() for ids in found] == [encoding.ids for encoding in expected]


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_tokenizer_of_a_family_is_the_same_when_loaded(made, tmp_path, family):
    made[family].save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == made[family].fingerprint
    assert loaded.special_tokens == made[family].special_tokens
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert ("token_type_ids" in config["model_input_names"]) == (family == "albert")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    mask = next(
        token
        for token in json.loads((tmp_path / "tokenizer.json").read_text())["added_tokens"]
        if token["content"] == loaded.mask_token
    )
    assert mask["lstrip"]


@pytest.mark.parametrize("family", FAMILIES)
def test_words_begin_where_the_vocabulary_says(made, family):
    tokenizer = made[family]
    [ids] = tokenizer.encode_batch(["the unlikely cat"])
    begins = ~tokenizer.continues_word[ids]
    begins[0] = True  # nothing is before it
    assert begins.sum() == 3
    assert not tokenizer.continues_word[list(tokenizer.special_ids)].any()


def test_words_by_themselves_are_read_as_in_a_text(made):
    for family, space in (("roberta", " "), ("modernbert", " "), ("xlm-roberta", "")):
        tokenizer = made[family]
        assert tokenizer.word_space == space
        words = ["the", "cat", "believes"]
        whole, first, *apart = tokenizer.encode_batch(
            ["x " + " ".join(words), "x", *(space + word for word in words)]
        )
        assert whole.tolist() == [*first, *np.concatenate(apart)]


@pytest.mark.parametrize("family", FAMILIES)
def test_white_space_is_none_of_a_tokens_characters(made, family):
    text = "the cat  able, it"
    [(_, offsets)] = made[family].encode_with_offsets([text])
    pieces = [text[start:end] for start, end in offsets]
    assert [piece.strip() for piece in pieces] == pieces
    # Unigram's ▁ alone counts as the character after it.
    assert set(text) - {" "} == set("".join(pieces))


def plain_bpe(tokens, post_processor=None) -> Library:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = Library(models.BPE({token: id for id, token in enumerate([*tokens, *alphabet])}, []))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


def test_names_come_from_the_files_before_the_known_sets(tmp_path):
    names = {"pad_token": "(pad)", "unk_token": "(unk)", "mask_token": "(mask)"}
    library = plain_bpe([*ROBERTAS, *names.values(), "(start)", "(end)"])
    library.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).special_tokens == ROBERTAS
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**names, "bos_token": "(start)"}))
    # special_tokens_map.json may have objects, and says what the config leaves open.
    (tmp_path / "special_tokens_map.json").write_text(
        json.dumps({"eos_token": {"content": "(end)", "lstrip": False}, "pad_token": "<pad>"})
    )
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_tokens == ("(pad)", "(unk)", "(start)", "(end)", "(mask)")
    # Where a class of transformers has both, cls and sep count.
    config.write_text(json.dumps({"bos_token": "(start)", "cls_token": "<s>"}))
    assert load_tokenizer(tmp_path).special_tokens.cls == "<s>"
    tokenizer.save(tmp_path / "saved")
    again = load_tokenizer(tmp_path / "saved")
    assert (again.special_tokens, again.frame) == (tokenizer.special_tokens, tokenizer.frame)


def test_named_token_that_the_vocabulary_has_not_is_refused(tmp_path):
    plain_bpe(ROBERTAS).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"mask_token": "[MASK]"}))
    with pytest.raises(UserError, match=r"tokenizer.json: the tokenizer has no \[MASK\]; a model"):
        load_tokenizer(tmp_path)


def write_two_files(directory: Path, merges: str = "#version: 0.2\nt h\nth e\nĠ the\n") -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "th", "the", "Ġthe", "<mask>"]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    (directory / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (directory / "merges.txt").write_text(merges, encoding="utf-8")


def test_vocabulary_and_merges_are_read_as_robertas(tmp_path):
    write_two_files(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.special_ids == (1, 3, 0, 2, 263)
    assert tokenizer.describe_frame() == "<s> A </s> </s> B </s>"
    assert [tokenizer.token(id) for id in tokenizer.encode_batch(["the the"])[0]] == ["the", "Ġthe"]
    [masked] = tokenizer.encode(["the <mask> the"], masks=True)
    # The space before it is the mask's.
    assert [tokenizer.token(id) for id in masked.ids] == ["the", "<mask>", "Ġthe"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": True}))
    assert load_tokenizer(tmp_path).encode(["the"])[0].tokens == ["Ġthe"]


def test_unusable_files_are_named(tmp_path):
    write_two_files(tmp_path, "t h\nx y\n")
    with pytest.raises(UserError, match=r"vocab.json: damaged, or not the vocabulary of .*merges"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"t h\n\xff e\n")
    with pytest.raises(UserError, match=r"vocab.json: damaged, or not the vocabulary .*utf-8"):
        load_tokenizer(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"vocab.json: there is no merges.txt beside it"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"pieces")
    with pytest.raises(UserError, match=r"SentencePiece only, .*save_pretrained"):
        load_tokenizer(tmp_path)


def test_special_tokens_in_texts_are_told_by_their_names(made):
    tell = made["roberta"].describe_readings
    assert tell(["a [SEP] <b>", "[MASK]"]) == []
    [told] = tell(["a </s> b", ("c", "<mask> </s>")])
    assert told.startswith("</s>, <mask> spelled out in 2 of 2 texts: read as letters")
    [told] = tell(["a [MASK]", "a <mask>"], masks=True)
    assert told == "[MASK] in a text is read as letters: this model's mask is <mask>"
    assert make("wordpiece").describe_readings(["a <mask>"], masks=True)[0].startswith("<mask> in")
    described = made["roberta"].describe()
    assert described["frame"] == "<s> A </s> </s> B </s>"
    assert described["special_tokens"]["pad"] == "<pad>"
    assert "<mask>" in described["special_tokens_in_texts"]


def test_kind_of_another_family_is_refused():
    with pytest.raises(UserError, match=r"kind=wordpiece: .*family=roberta are of kind bpe"):
        VocabularyConfig("wordpiece", 300, family="roberta")
    assert VocabularyConfig(vocab_size=300).kind == "wordpiece"
    assert VocabularyConfig(vocab_size=300, family="camembert").kind == "unigram"


def test_distilbert_is_told_no_token_types(tmp_path):
    for family, expected in (("bert", True), ("electra", True), ("distilbert", False)):
        config = VocabularyConfig("character", family=family)
        tokenizer = train_tokenizer(TEXTS, config)
        assert tokenizer.special_tokens == BERT_TOKENS
        tokenizer.save(tmp_path / family)
        said = json.loads((tmp_path / family / "tokenizer_config.json").read_text())
        assert ("token_type_ids" in said["model_input_names"]) == expected


def test_every_family_has_its_style():
    assert set(REGISTERED) <= set(STYLES)


def test_rows_are_framed_and_padded_by_the_tokenizer_of_the_family(tmp_path):
    """Pairs of passages as `<s> A </s></s> B </s>`, `<pad>` behind them."""
    documents = [" ".join(f"{text} And {number}." for text in TEXTS[:3]) for number in range(9)]
    fields = {"max_length": 64, "validation_fraction": 0, "test_fraction": 0}
    prepare_texts(documents, None, 300, tmp_path / "rows", fields, print, "roberta")
    rows = open_prepared(tmp_path / "rows").train[:]
    tokenizer = load_tokenizer(tmp_path / "rows" / "tokenizer")
    assert tokenizer.special_tokens == ROBERTAS
    padding = rows["sequence_ids"] == 0
    assert padding.any()
    assert (rows["token_ids"][padding] == tokenizer.pad_id).all()
    assert not (rows["token_ids"][~padding] == tokenizer.pad_id).any()
    pairs = 0
    for row, slot in np.argwhere(rows["next_sentence_labels"] >= 0):
        own = rows["sequence_ids"][row] == slot + 1
        ids, types = rows["token_ids"][row][own], rows["token_type_ids"][row][own]
        second = types.tolist().index(1)
        ends = np.flatnonzero(ids == tokenizer.sep_id).tolist()
        assert ids[0] == tokenizer.cls_id
        assert ends == [second - 2, second - 1, len(ids) - 1]
        pairs += 1
    assert pairs > 9
