"""Every family's texts and pairs become the ids that transformers makes of them, saved ones, too.

    .venv-parity/bin/python -m pytest tests/parity/test_family_tokenizers.py

Skipped where transformers is not installed.
"""

import itertools
import json
import logging

import pytest

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.text.framing import frame  # noqa: E402
from bertjax.text.tokenizer import Tokenizer, load_tokenizer  # noqa: E402
from tests.parity.published_tokenizers import FAMILIES  # noqa: E402
from tests.text.tiny_tokenizers import FAMILIES as FAMILIES_OF_OURS  # noqa: E402
from tests.text.tiny_tokenizers import make_of  # noqa: E402

ODD = [
    "The Café, Paris模型.",
    " leading, two  spaces, three   spaces and trailing ",
    "\tTabs\nand lines \u00a0 no-break",
    "emoji 🙂🎉 👩‍👩‍👧 and e\u0301 a\u0301b",
    "``quoted'' ﬁne Ａ① ½ ¨x",
    "it's DON'T 1984 &amp; |||EMAIL||| <user> [E1]",
    "日本語の文章と中文的句子",
    "x",
    " ",
    "",
]
# The families of these model types have their own class in transformers.
MODEL_TYPES = {
    "roberta": "roberta", "roberta_in_two_files": "roberta", "xlm_roberta": "xlm-roberta",
    "camembert": "camembert", "albert": "albert", "modernbert": "modernbert",
    "mmbert": "modernbert",
}  # fmt: skip


@pytest.fixture(scope="module")
def texts(request) -> list[str]:
    """The odd ones, and 200 messages where there is real data."""
    folder = request.config.rootpath.parent / "shared" / "data" / "classification"
    if not folder.is_dir():
        return ODD
    lines = (folder / "sms_spam.tsv").read_text(encoding="utf-8").splitlines()
    return ODD + [line.partition("\t")[2] for line in lines[::25]][:200]


@pytest.fixture(scope="module", params=FAMILIES)
def published(request, tmp_path_factory):
    """(the family, its directory, transformers' tokenizer, ours)"""
    folder = tmp_path_factory.mktemp("family") / request.param
    FAMILIES[request.param](folder)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    return request.param, folder, theirs, load_tokenizer(folder)


def ids_of(theirs, text: str, pair: str | None = None, special: bool = True) -> list[int]:
    return theirs(text, pair, add_special_tokens=special)["input_ids"]


def test_ids_and_characters_are_those_of_transformers(published, texts):
    family, _, theirs, ours = published
    for text, fast, (ids, offsets) in zip(
        texts, ours.encode_batch(texts), ours.encode_with_offsets(texts), strict=True
    ):
        expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True)
        assert ids.tolist() == expected["input_ids"], text
        assert fast.tolist() == expected["input_ids"], text
        if not text.isascii():
            continue  # accents in characters of their own: see `find_offsets`
        if family in ("modernbert", "mmbert"):
            # transformers counts the space before a word as part of it; we do not.
            for ours_of, theirs_of in zip(offsets, expected["offset_mapping"], strict=True):
                assert text[slice(*ours_of)] == text[slice(*theirs_of)].strip()
        else:
            assert [tuple(pair) for pair in offsets.tolist()] == expected["offset_mapping"], text


def test_frames_are_those_of_transformers(published, texts):
    _, _, theirs, ours = published
    assert ours.vocab_size == len(theirs)
    encoded = list(zip(texts, ours.encode_batch(texts), strict=True))
    for (text, first), (other, second) in itertools.pairwise(encoded):
        sequence, _ = frame(ours, first, None, 1000)
        assert sequence.token_ids.tolist() == ids_of(theirs, text), text
        if other:  # transformers takes an empty second text for none
            sequence, _ = frame(ours, first, second, 1000)
            assert sequence.token_ids.tolist() == ids_of(theirs, text, other), text
            start = sequence.second_start
            assert sequence.token_ids[start : start + len(second)].tolist() == second.tolist()


def test_special_tokens_are_those_of_transformers(published):
    _, _, theirs, ours = published
    names = ("pad", "unk", "cls", "sep", "mask")
    assert ours.special_tokens == tuple(getattr(theirs, f"{name}_token") for name in names)
    assert ours.special_ids[:5] == tuple(getattr(theirs, f"{name}_token_id") for name in names)


def test_masks_are_the_only_special_tokens_of_texts(published):
    _, _, theirs, ours = published
    mask = ours.mask_token
    for text in (f"the cat {mask} it", f"{mask} cat{mask}.", f"  {mask}  "):
        [masked] = ours.encode([text], masks=True)
        assert masked.ids == ids_of(theirs, text, special=False), text
        assert ours.mask_id not in ours.encode_batch([text])[0]
    spelled = " ".join(ours.specials)
    assert set(ours.special_ids).isdisjoint(set(ours.encode_batch([spelled])[0]) - {ours.unk_id})
    assert mask in ours.describe_readings([spelled])[0]


def test_words_by_themselves_are_read_as_in_a_text(published):
    family, folder, _, ours = published
    words = ["the", "unlikely", "Café", "is", "able"]
    [whole] = ours.encode_batch(["x " + " ".join(words)])
    [alone] = ours.encode_batch(["x"])
    apart = [ids for word in words for ids in ours.encode_batch([ours.word_space + word])[0]]
    assert whole.tolist() == [*alone, *apart]
    if family == "roberta":  # what transformers asks for where a text comes in words
        theirs = transformers.AutoTokenizer.from_pretrained(folder, add_prefix_space=True)
        assert (
            apart == theirs(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]
        )


@pytest.mark.parametrize("model", [False, True], ids=["alone", "beside a model"])
def test_saved_tokenizer_is_the_same_to_transformers(published, texts, tmp_path, caplog, model):
    family, _, theirs, ours = published
    ours.save(tmp_path, 512)
    assert (tmp_path / "vocab.txt").exists() is False
    if model:
        config = {"model_type": MODEL_TYPES[family]}
        (tmp_path / "config.json").write_text(json.dumps(config))
    transformers.logging.set_verbosity_warning()
    transformers.utils.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert not caplog.records
    for text, other in itertools.pairwise(texts):
        assert ids_of(loaded, text, other) == ids_of(theirs, text, other), text
    text = f"a {ours.mask_token} and{ours.mask_token}"
    assert ids_of(loaded, text) == ids_of(theirs, text)
    has_types = "token_type_ids" in loaded("a", "b")
    assert has_types == (family == "albert" or "token_type_ids" in theirs("a", "b"))
    assert loaded.special_tokens_map == theirs.special_tokens_map
    assert loaded.model_max_length == 512
    again: Tokenizer = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    assert (again.special_tokens, again.specials, again.frame) == (
        ours.special_tokens, ours.specials, ours.frame
    )  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES_OF_OURS)
def test_new_tokenizers_are_the_same_to_transformers(texts, tmp_path, caplog, family):
    ours = make_of(family)
    ours.save(tmp_path, 512)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    transformers.utils.logging.enable_propagation()
    with caplog.at_level(logging.WARNING):
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert not caplog.records
    encoded = list(zip(texts, ours.encode_batch(texts), strict=True))
    for (text, first), (other, second) in itertools.pairwise(encoded):
        if other:
            sequence, _ = frame(ours, first, second, 1000)
            assert sequence.token_ids.tolist() == ids_of(theirs, text, other), text
    text = f"a {ours.mask_token} and{ours.mask_token}"
    assert ours.encode([text], masks=True)[0].ids == ids_of(theirs, text, special=False)
    names = ("pad", "unk", "cls", "sep", "mask")
    assert ours.special_ids[:5] == tuple(getattr(theirs, f"{name}_token_id") for name in names)
