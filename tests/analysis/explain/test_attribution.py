"""Attributions: complete, of the number asked for, and true to a model that is wired by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.explain.answers import (
    Target,
    answer,
    differentiate_by_attention,
)
from bertjax.analysis.explain.attribution import (
    METHODS,
    attribute,
    follow_attention,
    integrate_gradients,
    multiply_gradient_by_input,
    quadrature,
)
from bertjax.analysis.explain.faithfulness import (
    Faithfulness,
    measure_faithfulness,
    take_away,
)
from bertjax.architectures import ARCHITECTURES
from bertjax.interop.huggingface import save_model_directory
from bertjax.loaded import Model, load
from bertjax.model.bert import BertModel
from bertjax.model.probe_points import Edit
from bertjax.program.errors import UserError
from tests.analysis.wired import CONFIG, make_wired_model
from tests.families.tiny import BERT_CLASSES
from tests.parity.random_models import draw_parameters

TEXT = "a b red c [MASK] d"
RED, MASKED = 3, 5  # positions

# Every class with each of its answers: a target, and how it is read from the output by hand.
TARGETS = [
    ("BertModel", Target("hidden", 7, 2), lambda out: out.hidden[0, 2, 7]),
    ("BertModel", Target("pooled", 7), lambda out: out.pooled[0, 0, 7]),
    ("BertForPreTraining", Target("token", 9, MASKED), lambda out: out.mlm_logits[0, MASKED, 9]),
    ("BertForPreTraining", Target("next-sentence", 1), lambda out: out.nsp_logits[0, 0, 1]),
    (
        "BertForMaskedLM",
        Target("token", 9, MASKED, True),
        lambda out: jax.nn.softmax(out.logits[0, MASKED])[9],
    ),
    ("BertForNextSentencePrediction", Target("next-sentence"), lambda out: out.logits[0, 0, 0]),
    (
        "BertForSequenceClassification",
        Target("class", 1, 0, True),
        lambda out: jax.nn.softmax(out.logits[0, 0])[1],
    ),
    ("BertForTokenClassification", Target("tag", 1, RED), lambda out: out.logits[0, RED, 1]),
    ("BertForQuestionAnswering", Target("start", 0, 2), lambda out: out.logits[0, 2, 0]),
    (
        "BertForQuestionAnswering",
        Target("end", 0, 4, True),
        lambda out: jax.nn.softmax(out.logits[0, :, 1])[4],
    ),
    ("BertForMultipleChoice", Target("choice"), lambda out: out.logits[0, 0]),
]


@pytest.fixture(scope="module")
def wired():
    return make_wired_model()


@pytest.fixture(scope="module")
def encode(wired):
    def encode(*texts):
        return encode_texts(wired.tokenizer, texts, CONFIG.max_position_embeddings, masks=True)

    return encode


@pytest.fixture(scope="module")
def make_model(wired):
    """`make_model(architecture)`: a model of the class with random parameters of some size."""
    made = {}

    def make(architecture):
        if architecture not in made:
            model = ARCHITECTURES[architecture].module(CONFIG)
            params = draw_parameters(CONFIG, architecture)
            params = params["bert"] if architecture == "BertModel" else params
            made[architecture] = Model(model, params, wired.tokenizer)
        return made[architecture]

    return make


def test_every_class_and_answer_is_tried():
    tried = {(name, target.output) for name, target, _ in TARGETS}
    assert tried == {
        (name, output) for name in BERT_CLASSES for output in ARCHITECTURES[name].outputs
    }


@pytest.mark.parametrize(
    ("architecture", "target", "read"), TARGETS, ids=[f"{a}-{t.output}" for a, t, _ in TARGETS]
)
def test_attributions_sum_to_what_the_answer_changes(
    make_model, encode, architecture, target, read
):
    whole, [encoded] = make_model(architecture), encode(TEXT)
    # Without padding, by the model's own output.
    output = jax.jit(whole.module.apply)({"params": whole.params}, encoded.token_ids[None])
    np.testing.assert_allclose(answer(whole, encoded, target), [read(output)], rtol=1e-4)
    found = integrate_gradients(whole, encoded, target)
    np.testing.assert_allclose(found.value, read(output), rtol=1e-4)
    blank = np.where(encoded.special, encoded.token_ids, whole.tokenizer.mask_id)
    [baseline_value] = answer(whole, encoded, target, blank[None])
    np.testing.assert_allclose(found.baseline_value, baseline_value, rtol=1e-4)
    change = found.value - baseline_value
    assert abs(change) > 1e-3  # of float32 numbers, to be known to a percent
    assert abs(found.scores.sum() - change) < 0.01 * abs(change)
    assert found.relative_gap < 0.01
    np.testing.assert_array_equal(found.scores[encoded.special], 0)
    assert found.scores[MASKED] == pytest.approx(0, abs=1e-5)  # it is [MASK] in the baseline, too


@pytest.mark.parametrize("baseline", ["pad", "zero"])
@pytest.mark.parametrize("rule", ["middle", "gauss-legendre"])
def test_gap_falls_with_the_number_of_steps(make_model, encode, baseline, rule):
    whole, [encoded] = make_model("BertForTokenClassification"), encode(TEXT)
    target = Target("tag", 1, RED)
    few, many = (
        integrate_gradients(whole, encoded, target, baseline=baseline, rule=rule, steps=steps)
        for steps in (2, 64)
    )
    assert abs(many.gap) < 0.1 * abs(few.gap)
    assert many.relative_gap < 0.01


def test_quadrature_integrates_polynomials():
    for rule, degree in (("middle", 1), ("gauss-legendre", 9)):
        points, weights = quadrature(5, rule)
        for power in range(degree + 1):
            assert weights @ points**power == pytest.approx(1 / (power + 1), abs=1e-12), rule
        assert weights @ points ** (degree + 1) != pytest.approx(1 / (degree + 2), abs=1e-9)


def test_gradient_times_input_is_the_slope_of_the_answer(make_model, encode):
    """Along the straight line through 0, the slope of the answer is the sum of the scores."""
    from bertjax.analysis.explain.answers import differentiate_by_embeddings, embed_tokens

    whole, [encoded] = make_model("BertForTokenClassification"), encode(TEXT)
    target = Target("tag", 1, RED)
    embedded = embed_tokens(whole, encoded)
    scales = np.array([1 - 1e-2, 1 + 1e-2], np.float32)[:, None, None]
    values, _ = differentiate_by_embeddings(whole, encoded, target, scales * embedded)
    found = multiply_gradient_by_input(whole, encoded, target)
    assert found.scores.sum() == pytest.approx((values[1] - values[0]) / 2e-2, rel=1e-2)


def test_gradient_by_attention_is_the_finite_difference(make_model, encode):
    with jax.enable_x64(True):
        half = make_model("BertForSequenceClassification")
        params = jax.tree.map(lambda x: np.asarray(x, np.float64), half.params)
        whole = half.replace(module=type(half.module)(CONFIG, jnp.float64), params=params)
        [encoded] = encode(TEXT)
        _, probs, gradients = differentiate_by_attention(whole, encoded, Target("class", 1))
        assert gradients.dtype == np.float64
        np.testing.assert_allclose(probs.sum(axis=-1), 1)

        @jax.jit
        def logit(offset, params, ids):
            edit = {"probs": Edit(add=offset)}
            return whole.module.apply({"params": params}, ids, edit=edit).logits[0, 0, 1]

        for place in ((0, 0, 3, 2), (1, 2, 0, RED), (2, 3, 0, 7)):
            offset = np.zeros(gradients.shape)
            offset[place] = 1e-5
            offset = offset[:, None]
            rest = params, encoded.token_ids[None]
            slope = (logit(offset, *rest) - logit(-offset, *rest)) / 2e-5
            assert abs(slope) > 1e-5
            assert gradients[place] == pytest.approx(float(slope), rel=1e-5), place


def test_hooks_into_the_model_that_change_nothing_leave_the_answer(make_model, encode):
    whole, [encoded] = make_model("BertForSequenceClassification"), encode(TEXT)
    forward = jax.jit(
        lambda params, ids, **hooks: whole.module.apply(
            {"params": params}, ids, trace=True, **hooks
        )
    )
    forward = functools.partial(forward, whole.params, encoded.token_ids[None])
    plain = forward()
    embedded = plain.encoder.trace.embedded
    offset = jnp.zeros_like(plain.encoder.trace.probs)
    for edit in ({"embedded": Edit(replace=embedded)}, {"probs": Edit(add=offset)}):
        np.testing.assert_allclose(forward(edit=edit).logits, plain.logits, rtol=1e-4, atol=1e-5)
    other = forward(edit={"embedded": Edit(replace=2 * embedded)})
    assert np.abs(other.logits - plain.logits).max() > 1e-3
    # What is added to the first layer's maps is added as it is.
    probs = forward(edit={"probs": Edit(add=offset + 0.25)}).encoder.trace.probs[0]
    np.testing.assert_allclose(probs, plain.encoder.trace.probs[0] + 0.25, rtol=1e-5)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "gradient-x-input"])
def test_word_that_decides_is_found(wired, encode, method):
    target = Target("class", 1)
    for text in ("a b red c d e", "f red g a", "k j i h red a b c d"):
        [encoded] = encode(text)
        assert answer(wired, encoded, target) > 1  # the class is red
        found = attribute(wired, encoded, target, method)
        own = np.where(encoded.special, -np.inf, found.scores)
        assert encoded.tokens[own.argmax()] == "red"
        if method in ("integrated-gradients", "relevance"):
            others = np.abs(np.where(encoded.special, 0, found.scores))
            assert own.max() > 3 * np.delete(others, own.argmax()).max()


def test_gradient_times_input_misses_a_word_whose_length_does_not_matter(wired, encode):
    # The first layer normalises the word's vector, to which its attention adds next to nothing.
    [encoded] = encode("a b red c d e")
    right, missed = (
        attribute(wired, encoded, Target("class", 1), method).scores[RED]
        for method in ("integrated-gradients", "gradient-x-input")
    )
    assert right > 1
    assert abs(missed) < 0.05 * right


def test_relevance_is_of_the_class_asked_for(wired, encode):
    [encoded] = encode("a b red c d")
    red, blue = (follow_attention(wired, encoded, Target("class", c)).scores[RED] for c in (1, 0))
    assert red > 0.1
    assert blue < 0.05 * red
    rolled = [
        follow_attention(wired, encoded, Target("class", c), "rollout").scores for c in (1, 0)
    ]
    np.testing.assert_allclose(*rolled)


def test_scores_of_words_are_sums_over_their_tokens(wired, encode):
    [encoded] = encode("a b")
    encoded = encoded._replace(word_ids=np.array([0, 1, 1, 2]), words=("[CLS]", "ab", "[SEP]"))
    found = attribute(wired, encoded, Target("class", 1), "gradient-x-input")
    assert len(found.word_scores) == 3
    assert found.word_scores[1] == pytest.approx(found.scores[1] + found.scores[2])


@pytest.mark.parametrize(
    ("architecture", "target", "message"),
    [
        ("BertForSequenceClassification", Target("token", 7, 1), "answers with class, not with a"),
        ("BertForMaskedLM", Target("class"), "a BertForMaskedLM answers with token, not"),
        ("BertForQuestionAnswering", Target("tag"), "answers with start or end, not with a tag"),
        ("BertForMaskedLM", Target("token", 18, 1), r"index=18 must be between 0 and 17"),
        ("BertForTokenClassification", Target("tag", 0, 8), "position=8 must be between 0 and 7"),
        ("BertForTokenClassification", Target("tag", -1), "index=-1 must be between 0 and 1"),
        ("BertForMultipleChoice", Target("choice", probability=True), "a choice is no probability"),
    ],
)
def test_number_that_the_model_has_not_is_refused(
    make_model, encode, architecture, target, message
):
    whole, [encoded] = make_model(architecture), encode(TEXT)
    for explain in (integrate_gradients, multiply_gradient_by_input, follow_attention):
        with pytest.raises(UserError, match=message):
            explain(whole, encoded, target)


def test_unknown_method_and_no_step_are_refused(wired, encode):
    [encoded] = encode("a red")
    with pytest.raises(UserError, match="'lime' is not one of integrated-gradients, gradient-x-in"):
        attribute(wired, encoded, Target("class"), "lime")
    with pytest.raises(UserError, match="steps=0 must be at least 1"):
        integrate_gradients(wired, encoded, Target("class"), steps=0)


def test_model_directory_is_loaded_with_its_head(wired, encode, make_model, tmp_path):
    wired.tokenizer.save(tmp_path / "tokenizer")
    for whole in (wired, make_model("BertModel")):
        params = {"bert": whole.params} if isinstance(whole.module, BertModel) else whole.params
        path = tmp_path / whole.architecture
        save_model_directory(path, CONFIG, params, tmp_path / "tokenizer", whole.architecture)
    [encoded] = encode(TEXT)
    target = Target("class", 1)
    loaded = load(tmp_path / "BertForSequenceClassification")
    np.testing.assert_array_equal(answer(loaded, encoded, target), answer(wired, encoded, target))
    body = load(tmp_path / "BertModel")
    assert body.module.pooling
    target = Target("pooled", 3)
    expected = answer(make_model("BertModel"), encoded, target)
    np.testing.assert_array_equal(answer(body, encoded, target), expected)
    with pytest.raises(UserError, match=r"is a BertForSequenceClassification and has no mlm_head"):
        load(tmp_path / "BertForSequenceClassification", "BertForMaskedLM")


# ------------------------------------------------------------------ faithfulness


def test_tokens_go_and_come_in_their_order(encode):
    [encoded] = encode("a b c")
    ids, orders, counts = encoded.token_ids, np.array([[2, 1, 3]]), np.array([0, 1, 2, 3])
    gone = take_away(encoded, orders, counts, 99, keep=False)[0] == 99
    assert gone.tolist() == [
        [False, False, False, False, False],
        [False, False, True, False, False],
        [False, True, True, False, False],
        [False, True, True, True, False],
    ]
    there = take_away(encoded, orders, counts, 99, keep=True)[0] != 99
    np.testing.assert_array_equal(there[:, 1:4], gone[:, 1:4])
    assert there[:, [0, 4]].all()
    np.testing.assert_array_equal(take_away(encoded, orders, counts, 99, keep=True)[0, 3], ids)


def test_area_is_the_mean_along_the_curve():
    shares, line = np.array([0, 0.25, 1]), np.array([1, 0.75, 0])
    measured = Faithfulness(shares, line, 1 - line, np.stack([line, line + 1]), line[None])
    assert measured.areas()["deletion"] == pytest.approx((0.5, 1.0))
    assert measured.areas()["insertion"] == pytest.approx((0.5, 0.5))
    assert measured.random_range()["deletion"] == pytest.approx((0.5, 1.5))


def test_faithful_scores_are_told_from_random_orders(wired, encode):
    target = Target("class", 1, probability=True)
    texts = encode("a b red c d e", "f red g a", "k j i h red a b c d", "a a red", "h red i c")
    measured, reversed_ = [], []
    for encoded in texts:
        scores = integrate_gradients(wired, encoded, target).scores
        measured.append(measure_faithfulness(wired, encoded, target, scores))
        reversed_.append(measure_faithfulness(wired, encoded, target, -scores))
        # With the word gone the model cannot tell; with nothing but it, it can.
        assert measured[-1].deletion[0] > 0.9
        assert measured[-1].deletion[-1] < 0.6
        np.testing.assert_allclose(measured[-1].insertion[-1], measured[-1].deletion[0], rtol=1e-5)
        one_gone, one_there = measured[-1].deletion[1], measured[-1].insertion[1]
        assert one_gone < 0.6
        assert one_there > 0.9
    for one, other in zip(measured, reversed_, strict=True):
        deletion, insertion = one.areas()["deletion"], one.areas()["insertion"]
        assert deletion[0] < deletion[1] - 0.01  # the second is that of random orders
        assert insertion[0] > insertion[1] + 0.01
        deletion, insertion = other.areas()["deletion"], other.areas()["insertion"]
        assert deletion[0] > deletion[1] + 0.01
        assert insertion[0] < insertion[1] - 0.01


def test_mask_that_is_to_be_filled_stays(make_model, encode):
    whole = make_model("BertForMaskedLM")
    [encoded] = encode(TEXT)
    scores = np.arange(8.0)
    measured = measure_faithfulness(whole, encoded, Target("token", 9, MASKED), scores)
    assert len(measured.shares) == 6  # of the five other words
    [alone] = encode("[MASK]")
    with pytest.raises(UserError, match="no token that could be taken away"):
        measure_faithfulness(whole, alone, Target("token", 9, 1), scores)


def test_any_number_of_points_runs_one_program(make_model, encode):
    from bertjax.analysis.explain import answers

    whole, [encoded] = make_model("BertForSequenceClassification"), encode(TEXT)
    embedded = answers.embed_tokens(whole, encoded)
    target, compiled, found = Target("class", 1), set(), []
    for points in (1, 5, 34):
        many = np.repeat(embedded[None], points, axis=0)
        values, gradients = answers.differentiate_by_embeddings(whole, encoded, target, many)
        assert (len(values), len(gradients)) == (points, points)
        found.append(values)
        compiled.add(answers._by_embeddings._cache_size())
    assert len(compiled) == 1
    for one in found:
        np.testing.assert_allclose(one, found[0][0], atol=1e-5)
