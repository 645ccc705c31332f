"""Filled masks are the model's own answer, whatever they are computed together with."""

from pathlib import Path

import jax
import numpy as np
import pytest

import bertjax.inference.fill_mask as fill_mask_module
from bertjax.inference.fill_mask import encode_masked, fill_mask, name_candidates
from bertjax.inference.shapes import SHORTEST
from bertjax.interop.huggingface import load_model_directory
from bertjax.model.bert import BertForMaskedLM
from bertjax.program.errors import UserError
from bertjax.text.tokenizer import Tokenizer, load_tokenizer
from bertjax.text.tokenizer_parts import build
from tests.text.tiny_tokenizers import make_of

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"  # V=99, M=17
TEXTS = [
    "this is [MASK] cat.",
    "they were [MASK] by the [MASK] of all [MASK].",
    "a b c d e f g h i j k l m n [MASK]",  # 17 tokens: the longest there can be
    "[MASK]",
]


@pytest.fixture(scope="module")
def parts():
    config, params, *_ = load_model_directory(TINY, "BertForMaskedLM")
    return BertForMaskedLM(config), params, load_tokenizer(TINY)


@pytest.fixture(scope="module")
def results(parts):
    return fill_mask(*parts, TEXTS)


def prefer(params, token_id):
    """The parameters with a bias that makes one token the best everywhere."""
    bias = params["mlm_head"]["bias"].copy()
    bias[token_id] = 1000.0
    return {**params, "mlm_head": {**params["mlm_head"], "bias": bias}}


def test_candidates_are_the_models_own_probabilities(parts, results):
    model, params, tokenizer = parts
    ids = fill_mask_module.encode_masked(tokenizer, TEXTS, 17)[1]
    assert len(ids) < SHORTEST  # else there is no padding to look past
    output = jax.jit(model.apply)({"params": params}, ids[None])
    probs = np.asarray(jax.nn.softmax(output.logits[0], axis=-1))
    positions = np.flatnonzero(ids == tokenizer.mask_id)
    assert [mask.position for mask in results[1].masks] == positions.tolist()
    assert len(positions) == 3
    for mask in results[1].masks:
        best = np.argsort(-probs[mask.position])[:5]
        assert [candidate.token_id for candidate in mask.candidates] == best.tolist()
        actual = [candidate.probability for candidate in mask.candidates]
        np.testing.assert_allclose(actual, probs[mask.position][best], atol=1e-5)
        for candidate in mask.candidates:
            assert candidate.token == tokenizer.token(candidate.token_id)


def test_a_text_alone_gives_the_same_as_among_others(parts, results):
    assert [result.text for result in results] == TEXTS
    for text, among_others in zip(TEXTS, results, strict=True):
        [alone] = fill_mask(*parts, [text])
        assert alone.filled == among_others.filled
        for mask, expected in zip(alone.masks, among_others.masks, strict=True):
            assert mask.position == expected.position
            for candidate, other in zip(mask.candidates, expected.candidates, strict=True):
                assert candidate.token_id == other.token_id
                assert candidate.probability == pytest.approx(other.probability, abs=1e-5)


def test_best_candidates_stand_in_the_filled_text(parts):
    model, params, tokenizer = parts
    token_id = tokenizer.library.token_to_id("with")
    [result] = fill_mask(model, prefer(params, token_id), tokenizer, ["He [MASK],  or not"])
    assert result.filled == "He with,  or not"
    assert len(result.masks[0].candidates) == 5
    assert result.masks[0].candidates[0].probability == pytest.approx(1.0)


def test_a_candidate_that_continues_a_word_is_joined(parts):
    model, params, tokenizer = parts
    token_id = tokenizer.library.token_to_id("##s")
    [result] = fill_mask(model, prefer(params, token_id), tokenizer, ["two cat [MASK] were here"])
    assert result.filled == "two cats were here"


@pytest.mark.parametrize(("text", "filled"), [("a [MASK] b", "a dog b"), ("a[MASK]", "adog")])
def test_marks_of_word_beginnings_are_not_shown(parts, text, filled):
    from tokenizers import decoders, models, pre_tokenizers

    model, params, _ = parts
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "Ġ", "Ġdog"]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        build(
            models.BPE(vocabulary, [], unk_token="[UNK]"),
            None,
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
    )
    [result] = fill_mask(model, prefer(params, vocabulary["Ġdog"]), tokenizer, [text])
    assert result.masks[0].candidates[0].token == "dog"
    assert result.filled == filled


def test_ids_without_a_token_are_named_as_such(parts):
    from bertjax.text.special_tokens import BERT_TOKENS
    from bertjax.text.tokenizer_parts import build_wordpiece

    model, params, _ = parts
    tokenizer = Tokenizer(build_wordpiece([*BERT_TOKENS, "a"], True, None))
    [result] = fill_mask(model, prefer(params, 98), tokenizer, ["a [MASK]"])
    assert result.masks[0].candidates[0].token == "[unnamed98]"
    assert result.filled == "a [unnamed98]"


def test_compilations_are_at_most_the_shapes(parts, monkeypatch):
    # Four rows of 16 at a time: 9 texts of several lengths are 3 batches.
    monkeypatch.setattr(fill_mask_module, "BATCH_TOKENS", 64)
    shapes = fill_mask_module.make_batching(parts[0].config, parts[2]).shapes
    fill_mask_module._predict.clear_cache()
    done = []
    texts = ["[MASK] " + "a " * number for number in range(9)]
    fill_mask(*parts, texts, progress=done.append)
    assert done == [4, 4, 1]
    assert fill_mask_module._predict._cache_size() == 2
    for number in range(1, 9):
        fill_mask(*parts, texts[:number])
        fill_mask(*parts, ["[MASK] " * number])
    assert fill_mask_module._predict._cache_size() <= len(shapes) <= 18


def test_no_texts_give_no_results(parts):
    assert fill_mask(*parts, []) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("they were here", r"text 2, 'they were here': there is no \[MASK\] in it; write"),
        ("a [mask] in it", r"there is no \[MASK\] in it"),
        ("", r"text 2, '': there is no \[MASK\]"),
        ("x " * 15 + "[MASK]", r"text 2, 'x x .*': 18 tokens, the model has positions for 17"),
    ],
)
def test_text_that_cannot_be_filled_is_named(parts, text, message):
    with pytest.raises(UserError, match=message):
        fill_mask(*parts, ["a [MASK]", text])


@pytest.mark.parametrize("top_k", [0, -1, 100])
def test_top_k_out_of_range_is_refused(parts, top_k):
    with pytest.raises(UserError, match=f"top_k={top_k} must be between 1 and .*vocab_size=99"):
        fill_mask(*parts, ["a [MASK]"], top_k)


def test_all_tokens_of_the_vocabulary_make_one(parts):
    [result] = fill_mask(*parts, ["a [MASK]"], 99)
    probabilities = [candidate.probability for candidate in result.masks[0].candidates]
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert probabilities == sorted(probabilities, reverse=True)


def test_tokenizer_of_another_model_is_refused(parts):
    from bertjax.text.special_tokens import BERT_TOKENS
    from bertjax.text.tokenizer_parts import build_wordpiece

    model, params, _ = parts
    tokens = [*BERT_TOKENS, *(f"word{number}" for number in range(95))]
    larger = Tokenizer(build_wordpiece(tokens, True, None), "larger")
    with pytest.raises(UserError, match="larger: the tokenizer has 100 ids, more than"):
        fill_mask(model, params, larger, ["a [MASK]"])


def test_mask_is_the_mask_where_the_tokenizer_lists_it_as_a_word_only(parts):
    import tokenizers
    from tokenizers import models, pre_tokenizers

    model, params, _ = parts
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]
    vocabulary = {token: id for id, token in enumerate(words)}
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    [result] = fill_mask(model, params, Tokenizer(library, "unlisted"), ["a [MASK]"])
    assert [mask.position for mask in result.masks] == [2]
    library.add_special_tokens(["[MASK]s"])
    with pytest.raises(UserError, match=r"a \[MASK\] in it is part of another token of unlisted"):
        fill_mask(model, params, Tokenizer(library, "unlisted"), ["a [MASK]s"])


@pytest.fixture(scope="module")
def roberta() -> Tokenizer:
    return make_of("roberta")


def test_mask_of_the_tokenizer_is_what_is_filled(roberta):
    text = "the <mask> and (<mask>"
    [ids] = encode_masked(roberta, [text], 20)
    places = np.flatnonzero(ids == roberta.mask_id)
    assert len(places) == 2
    assert "".join(map(roberta.token, ids)) == "<s>the<mask>ĠandĠ(<mask></s>"
    better = [roberta.library.token_to_id(token) for token in ("Ġcat", "s")]
    probabilities, chosen = np.full((2, 1), 0.5), np.array(better)[:, None]
    filled = name_candidates(roberta, text, ids, (probabilities, chosen), 1)
    assert [mask.position for mask in filled.masks] == places.tolist()
    assert filled.filled == "the cat and (s"
    filled = name_candidates(roberta, text, ids, (probabilities, chosen[::-1]), 1)
    assert filled.filled == "thes and (cat"  # a token without a space before it goes on a word


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the cat", r"no <mask> in it; write <mask> \(with its brackets\) where the model"),
        ("the [MASK]", r"there is no <mask> in it; .* a word, not \[MASK\], which is the mask of"),
        ("the <mask>" * 9, r"positions for 20; .* in parts that each have a <mask>"),
    ],
)
def test_text_without_the_mask_of_the_tokenizer_is_told_its_name(roberta, text, message):
    with pytest.raises(UserError, match=message):
        encode_masked(roberta, [text], 20)
