"""The lens reads what the model answers; a what-if moves what it should and nothing else."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.capture.maps import randomize
from bertjax.analysis.capture.rows import make_inputs
from bertjax.analysis.explain.what_if import replace_word, what_if
from bertjax.analysis.layers import lens as lens_module
from bertjax.analysis.layers.lens import (
    ask_words,
    compare_lenses,
    lens_curve,
    logit_lens,
    with_masked_lm,
)
from bertjax.architectures import MASKED_LM, classes_of
from bertjax.families.registry import FAMILIES
from bertjax.interop.huggingface import save_model_directory
from bertjax.loaded import Model, load
from bertjax.model.bert import BertForMaskedLM
from bertjax.program.errors import UserError
from bertjax.program.wording import with_article
from tests.analysis.tiny_bodies import VOCABULARY, make_body
from tests.families.tiny import tiny_config
from tests.parity.random_models import draw_parameters


@pytest.fixture(scope="module")
def model():
    """With weights so large that every layer changes what it gets."""
    body = make_body()
    layers = body.params["encoder"]["layers"]
    large = jax.tree.map(lambda leaf: 8 * leaf if leaf.ndim > 2 else leaf, layers)
    body = body.replace(params={**body.params, "encoder": {"layers": large}})
    own = BertForMaskedLM(body.config)
    drawn = draw_parameters(body.config, "BertForMaskedLM", spread=0.3)["mlm_head"]
    head = jax.tree.map(jnp.asarray, drawn)
    return Model(own, {"bert": body.params, "mlm_head": head}, body.tokenizer)


@pytest.fixture(scope="module")
def text(model):
    [encoded] = encode_texts(model.tokenizer, ["the cats sat on a mat."], 48)
    assert encoded.tokens[2:4] == ("cat", "##s")
    return encoded


@pytest.fixture(scope="module")
def answers(model):
    """The model's own softmax over the vocabulary for token ids, [T, V]."""

    @jax.jit
    def answer(token_ids):
        output = model.module.apply({"params": model.params}, token_ids[None])
        return jax.nn.softmax(output.logits[0], axis=-1)

    return lambda token_ids: np.asarray(answer(jnp.asarray(token_ids)))


def test_last_layer_is_the_models_own_answer(model, text, answers):
    lens = logit_lens(model, text, top_k=3)
    assert lens.positions.tolist() == list(range(1, len(text.tokens) - 1))
    for place, position in enumerate(lens.positions):
        masked = text.token_ids.copy()
        masked[position] = model.tokenizer.mask_id
        expected = answers(masked)[position]
        true = text.token_ids[position]
        assert lens.probability[-1, place] == pytest.approx(expected[true], abs=1e-5)
        assert lens.rank[-1, place] == 1 + (expected > expected[true]).sum()
        assert lens.top_ids[-1, place].tolist() == np.argsort(-expected)[:3].tolist()
        assert lens.top_tokens[-1][place][0] == VOCABULARY[np.argmax(expected)]
    assert lens.top_probability.shape == (3, len(lens.positions), 3)


def test_layers_differ_and_first_is_the_embeddings(model, text):
    """Masked, all places have the same token embedding: only position tells them apart."""
    lens = logit_lens(model, text)
    assert np.abs(lens.probability[0] - lens.probability[-1]).max() > 1e-3
    masked = text.token_ids[None].copy()
    masked[0, 2] = model.tokenizer.mask_id
    body = model.as_architecture("BertModel")
    read = jax.jit(functools.partial(body.module.apply, trace=True))
    hidden = read({"params": body.params}, masked).trace.hidden_states[0, 0, 2:3]
    head = jax.jit(functools.partial(model.module.apply, method=model.module.restore_words))
    logits = head({"params": model.params}, hidden[None])[0]
    expected = jax.nn.softmax(logits[0])[text.token_ids[2]]
    assert lens.probability[0, 1] == pytest.approx(float(expected), abs=1e-5)


def test_without_mask_the_text_is_read_as_it_stands(model, text, answers):
    lens = logit_lens(model, text, masked=False)
    expected = answers(text.token_ids)[lens.positions, text.token_ids[lens.positions]]
    np.testing.assert_allclose(lens.probability[-1], expected, atol=1e-5)
    assert not lens.masked


def test_more_questions_than_rows_of_a_batch(model, text, monkeypatch):
    whole = logit_lens(model, text)
    monkeypatch.setattr(lens_module, "_ROWS", 4)
    parts = logit_lens(model, text)
    np.testing.assert_allclose(parts.probability, whole.probability, atol=1e-5)
    assert parts.top_tokens == whole.top_tokens


def test_curve_is_the_mean_reciprocal_rank(model, text):
    lens = logit_lens(model, text)
    first = lens._replace(rank=np.array([[1, 2], [4, 4]]), positions=np.arange(2))
    second = lens._replace(rank=np.array([[1], [1]]), positions=np.arange(1))
    second = second._replace(encoded=text._replace(source=1))
    curve = lens_curve([first, second])
    np.testing.assert_allclose(curve.value, [2.5 / 3, 1.5 / 3])
    assert curve.low[1] == pytest.approx(0.25)
    assert curve.high[1] == pytest.approx(1)


def test_control_has_other_weights_of_the_same_shape(model, text):
    control = randomize(model)
    assert jax.tree.structure(control.params) == jax.tree.structure(model.params)
    figures = compare_lenses(model, [text, text._replace(token_ids=text.token_ids[::-1].copy())])
    assert figures.model.value.shape == figures.control.value.shape == (3,)
    assert np.abs(figures.model.value - figures.control.value).max() > 1e-3


def test_words_are_asked_with_all_their_tokens_masked(model, text, answers):
    logs, _ = ask_words(model, text, [2, 6])
    masked = text.token_ids.copy()
    masked[[2, 3]] = model.tokenizer.mask_id
    probs = answers(masked)
    expected = np.log([probs[k, text.token_ids[k]] for k in (2, 3)]).mean()
    assert logs[0] == pytest.approx(expected, abs=1e-5)
    assert text.words[2] == "cats"


def test_model_without_head_is_refused_with_a_way_out(model, tmp_path):
    model.tokenizer.save(tmp_path / "tokenizer")
    no_head = tmp_path / "tagger"
    head = {"dense": {"kernel": np.zeros((32, 2)), "bias": np.zeros(2)}}
    save_model_directory(
        no_head, model.config, {"bert": model.params["bert"], "token_head": head},
        tmp_path / "tokenizer", "BertForTokenClassification",
    )  # fmt: skip
    with pytest.raises(UserError, match=r"without a masked-LM head.*train the head with"):
        with_masked_lm(load(no_head))
    save_model_directory(
        tmp_path / "whole", model.config, model.params, tmp_path / "tokenizer",
        "BertForMaskedLM",
    )  # fmt: skip
    loaded = with_masked_lm(load(tmp_path / "whole"))
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(model.params))


@pytest.mark.parametrize("family", FAMILIES)
def test_refusal_names_the_class_of_the_family_that_has_the_head(model, family):
    config = tiny_config(family)
    classes = classes_of(config)
    for kind in {"sequence", "body", "replaced-tokens"} & classes.keys():
        its = classes[kind]
        params = draw_parameters(config, its.name)
        params = params["bert"] if kind == "body" else params
        without = Model(its.module(config), params, model.tokenizer)
        with pytest.raises(UserError) as caught:
            with_masked_lm(without)
        told = f"the model: is {with_article(its.name)} without a masked-LM head"
        assert told in str(caught.value)
        assert f"the checkpoint it was made of ({classes[MASKED_LM].name})" in str(caught.value)


def test_top_k_out_of_range_is_refused(model, text):
    with pytest.raises(UserError, match="top_k=21 must be between"):
        logit_lens(model, text, top_k=21)


@pytest.mark.parametrize("replacement", [None, "dog", "big dogs"])
def test_replaced_word_keeps_the_others_in_place(model, text, replacement):
    after = replace_word(model, text, 2, replacement)
    assert after.words[:2] + after.words[3:] == text.words[:2] + text.words[3:]
    inside = {None: ("[MASK]", "[MASK]"), "dog": ("dog",), "big dogs": ("big", "dog", "##s")}
    own = after.word_ids == 2
    assert tuple(np.array(after.tokens)[own]) == inside[replacement]
    assert np.array(after.token_ids)[own].tolist() == [
        VOCABULARY.index(token) for token in inside[replacement]
    ]
    assert len({len(part) for part in after[:6]}) == 1
    assert np.array_equal(after.first_tokens[:3], text.first_tokens[:3])
    assert after.offsets[own].tolist() == [[4, 8]] * own.sum()
    assert after.token_ids[~own].tolist() == text.token_ids[text.word_ids != 2].tolist()


def test_what_if_moves_nothing_when_the_word_stays(model, text):
    same = what_if(model, text, 2, "cats")
    np.testing.assert_allclose(same.moved, 0, atol=1e-5)
    np.testing.assert_allclose(same.log_probability_before, same.log_probability_after, atol=1e-5)
    assert same.asked.tolist() == [1, 3, 4, 5, 6, 7]


def test_what_if_measures_how_far_attention_moves(model, text):
    other = what_if(model, text, 2, "dog")
    assert other.attention_before.shape == other.attention_after.shape == (2, 4, 9, 9)
    assert (other.moved > 1e-3).all()
    assert other.moved.max() < 1 + 1e-5
    expected = np.abs(other.attention_before - other.attention_after).sum(-1)[1, 3].mean() / 2
    assert other.moved[1, 3] == pytest.approx(expected, rel=1e-5)
    assert np.abs(other.log_probability_before - other.log_probability_after).max() > 1e-4
    assert len(other.candidates) == 2
    assert other.candidate_probability.shape == (2, 5)


def test_what_if_mistakes_are_told(model, text):
    with pytest.raises(UserError, match="words are numbered from 1 to 7"):
        what_if(model, text, 0)
    with pytest.raises(UserError, match="nothing is left of ' '"):
        what_if(model, text, 1, " ")
    with pytest.raises(UserError, match="more than the 48 tokens"):
        what_if(model, text, 1, "cats " * 30)
    [alone] = encode_texts(model.tokenizer, ["cats"], 48)
    with pytest.raises(UserError, match="the text is one word"):
        what_if(model, alone, 1, "dog")


def test_products_are_in_full_precision(model, text):
    """GPUs and TPUs round float32 factors unless told not to."""
    asked = np.zeros((2, 1, 1), np.int32)
    inputs = make_inputs(model.config, [text], 1, 16, model.tokenizer.pad_id)
    lowered = lens_module._read_layers.lower(model.module, 2, model.params, (*inputs, *asked))
    products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
    assert len(products) >= 8
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
