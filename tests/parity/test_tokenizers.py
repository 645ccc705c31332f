"""Texts become the ids that transformers makes of them, whatever files a tokenizer consists of.

    .venv-parity/bin/python -m pytest tests/parity/test_tokenizers.py

Skipped where transformers is not installed.
"""

import json

import pytest

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.text.special_tokens import BERT_TOKENS  # noqa: E402
from bertjax.text.tokenizer import load_tokenizer  # noqa: E402
from bertjax.text.tokenizer_parts import build_wordpiece  # noqa: E402

WORDS = ["the", "cafe", "paris", "is", "user", "e1", "模", "型", "The", "Café", "Paris模型", "模型"]
VOCABULARY = [*BERT_TOKENS, *WORDS, *"[]<>.,'eE", "##s", "##é", "##1"]
TEXTS = [
    "The Café, Paris模型.",
    "[E1] paris [e1] the[E1]paris",
    "<user> is <USER>s the<user>",
    "the'Pariss \u0301 [ ] <s>",
    "",
]
SIZE = len(VOCABULARY)


def flags(content, **changes):
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
    return {"content": content, "special": True, **plain, **changes}


DECODER = {str(SIZE): flags("[E1]"), str(SIZE + 1): flags("<user>", single_word=True)}
FILES = {
    "plain": {},
    "decoder": {"tokenizer_config.json": {"added_tokens_decoder": DECODER}},
    "stripping": {
        "tokenizer_config.json": {"added_tokens_decoder": {str(SIZE): flags("[E1]", lstrip=True)}}
    },
    "additional": {"tokenizer_config.json": {"additional_special_tokens": ["[E1]", "<user>"]}},
    "map": {"special_tokens_map.json": {"additional_special_tokens": ["[E1]", "<user>"]}},
    "added": {"added_tokens.json": {"[E1]": SIZE, "<user>": SIZE + 1}},
    "both": {
        "added_tokens.json": {"[E1]": SIZE},
        "tokenizer_config.json": {"additional_special_tokens": ["<user>"]},
    },
    "cased": {"tokenizer_config.json": {"do_lower_case": False}},
    "accents": {"tokenizer_config.json": {"do_lower_case": True, "strip_accents": False}},
    "chinese": {"tokenizer_config.json": {"tokenize_chinese_chars": False, "do_lower_case": True}},
    "foreign": {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "do_lower_case": False,
            "additional_special_tokens": ["[E1]"],
        }
    },
}


@pytest.mark.parametrize("form", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize("name", FILES)
def test_ids_are_those_of_transformers(tmp_path, name, form):
    if name == "foreign" and form == "vocab.txt":
        pytest.skip("transformers has no such tokenizer")
    if form == "vocab.txt":
        (tmp_path / form).write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    else:
        build_wordpiece(VOCABULARY, True, None).save(str(tmp_path / form))
    files = {"config.json": {"model_type": "bert"}, **FILES[name]}
    if form == "vocab.txt":  # its words have capitals: what is not said is guessed otherwise
        config = files.get("tokenizer_config.json", {})
        files["tokenizer_config.json"] = {"do_lower_case": True, **config}
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = load_tokenizer(tmp_path)
    assert ours.vocab_size == len(theirs)
    for text in TEXTS:
        expected = theirs(text, return_offsets_mapping=True, add_special_tokens=False)
        [(ids, offsets)] = ours.encode_with_offsets([text])
        assert ids.tolist() == expected["input_ids"], text
        assert [tuple(pair) for pair in offsets.tolist()] == expected["offset_mapping"], text
        assert ours.encode_batch([text])[0].tolist() == expected["input_ids"], text
        # The only difference: what of BERT's own a text spells out.
        marked = f"{text} [MASK]"
        [masked] = ours.encode([marked], masks=True)
        assert masked.ids == theirs(marked, add_special_tokens=False)["input_ids"]
        assert ours.mask_id not in ours.encode_batch([marked])[0]
