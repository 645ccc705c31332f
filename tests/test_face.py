"""The face: what `import bertjax` costs and gives, and the methods of a model."""

import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

import bertjax
from bertjax.analysis.capture.encoding import encode_texts
from bertjax.analysis.heads.patterns import measure_patterns
from bertjax.analysis.layers.similarity import compare_layers
from bertjax.interop.huggingface import load_model_directory
from bertjax.program.errors import UserError
from tests.analysis.saved import save
from tests.interop.test_hub import ROOT, TINY

LABELLED = [("the dog sees", "no"), ("the cat", "yes"), ("a bird", "no")]


@pytest.fixture(scope="module")
def model():
    return bertjax.load(TINY)


def test_import_gives_its_names_and_loads_nothing_heavy():
    code = (
        "import sys, bertjax\n"
        "heavy = {'jax', 'numpy', 'flax', 'tokenizers', 'huggingface_hub'} & set(sys.modules)\n"
        "print(sorted(heavy), dir(bertjax) == sorted(bertjax.__all__))\n"
        "print([getattr(bertjax, name).__name__ for name in ('Model', 'load', 'UserError')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[] True\n['Model', 'load', 'UserError']\n", "")
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        bertjax.fit  # noqa: B018 - the attribute is asked for
    assert None not in [getattr(bertjax, name) for name in bertjax.__all__]


def test_masks_are_filled_as_by_the_command(model, bertjax_command):
    [found] = model.fill_mask(["it was a [MASK]"], top_k=2)
    code, out, err = bertjax_command(
        "fill-mask", "it was a [MASK]", "--model", TINY, "--top-k", "2"
    )
    assert (code, err) == (0, "")
    for candidate in found.masks[0].candidates:
        assert f"{candidate.probability:7.2%}  {candidate.token}" in out
    assert model.fill_mask("it was a [MASK]", top_k=2) == [found]


def test_trace_has_tokens_and_every_map(model):
    first, second = model.trace(["it was a cat", ("it was", "a cat")])
    assert first.tokens[:4] == ("[CLS]", "it", "was", "a")
    length = len(second.tokens)
    assert second.probs.shape == (5, 4, length, length)
    assert second.hidden.shape == (6, length, 24)
    assert second.context.shape == (5, length, 4, 6)
    np.testing.assert_allclose(second.probs.sum(axis=-1), 1, atol=1e-5)
    shapes = f"probs [5, 4, {length}, {length}], hidden [6, {length}, 24]"
    assert second._repr_html_().count("<rect") == (second.probs >= 0.05).sum()
    assert second._repr_html_().count("<svg") == 20
    np.testing.assert_array_equal(second.token_ids, second.encoded.token_ids)
    assert repr(second).startswith(f"Captured({' '.join(second.tokens)!r}, {shapes}, context [")


def test_heads_and_layers_are_those_of_the_studies(model):
    texts = ["it was a cat", "they were here", "was it", "it is", "this is a text"]
    encoded = encode_texts(model.tokenizer, texts, model.config.max_position_embeddings)
    heads = model.heads(texts)
    tally = measure_patterns(model, encoded)["previous"]
    expected = tally.sums.sum(axis=0) / tally.counts.sum(axis=0)
    np.testing.assert_allclose(heads.figures["previous"].model.value, expected, rtol=1e-9)
    assert len(heads.classes) == 5
    layers = model.compare_layers(texts)
    np.testing.assert_array_equal(layers.value, compare_layers(model, model, encoded).value)
    np.testing.assert_allclose(np.diag(layers.value), 1, atol=1e-5)


READ = {
    "trace": lambda model, text: model.trace([text]),
    "heads": lambda model, text: model.heads([text]),
    "explain": lambda model, text: model.explain(f"{text} [MASK]"),
    "what_if": lambda model, text: model.what_if(text, "was"),
    "contexts of a text": lambda model, text: model.contexts(text, "was", ["it was"]),
    "contexts in a corpus": lambda model, text: model.contexts("it was", "was", [text]),
}


@pytest.mark.parametrize("call", READ)
def test_what_is_not_read_as_given_is_a_warning(model, call):
    with pytest.warns(UserWarning, match=r"\[SEP\]") as told:
        READ[call](model, "it was [SEP]")
    assert {warning.filename for warning in told} == {__file__}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        READ[call](model, "it was a cat")


def test_pruned_model_is_saved_and_verified_as_it_is_in_memory(model, tmp_path):
    pruned = model.prune("1-3,2-0")
    output = pruned.params["bert"]["encoder"]["layers"]["attention"]["output"]["kernel"]
    blank = np.argwhere((np.asarray(output) == 0).all(axis=(2, 3)))
    assert blank.tolist() == [[1, 3], [2, 0]]
    pruned.save(tmp_path / "pruned")
    again = load_model_directory(tmp_path / "pruned").params
    jax.tree.map(np.testing.assert_array_equal, again, dict(pruned.params))
    smaller = model.prune("0-0,1-3,2-0,3-1,4-2", shrink=True)
    assert smaller.config.num_attention_heads == smaller.module.config.num_attention_heads == 3
    assert len(smaller.trace(["it was"])[0].probs[0]) == 3
    with pytest.raises(UserError, match="name heads as layer-head"):
        model.prune("40%")


def test_words_are_explained_replaced_and_found(model):
    [explained] = model.explain("it was a [MASK]")
    assert explained.named.answer == model.fill_mask("it was a [MASK]")[0].masks[0].candidates[0][0]
    assert len(explained.attributions["integrated-gradients"].word_scores) == 6
    assert repr(explained).startswith(f"Explanation([MASK] = {explained.named.answer}, probability")
    page = model.explain("it < a [MASK]")[0]._repr_html_()
    assert (page.count("<td"), page.count("&lt;<br>")) == (6, 1)
    changed = model.what_if("it was a cat", "was", by="is")
    assert changed.after.words[2] == "is"
    assert repr(changed).startswith("WhatIf(was -> is; log probability: it ")
    found = model.contexts("it was a cat", "was", ["was it", "it is", "they were was"])
    assert found.compared == 2


def test_fitted_model_predicts_and_is_scored(tmp_path):
    fitted = bertjax.load(save(tmp_path, "BertForSequenceClassification", id2label=("no", "yes")))
    first, second = fitted.predict(["the dog sees", ("the cat", "hears a bird")])
    assert {first.label, second.label} <= {"no", "yes"}
    assert first.probability == first._asdict()["probabilities"][first.label]
    rows = [{"text": "the dog sees"}, {"text": "a bird"}]
    assert fitted.predict(rows)[0].label == fitted.predict({"text": ["the dog sees"]})[0].label
    np.testing.assert_allclose(fitted.predict(rows)[0].probability, first.probability, atol=1e-6)
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["text,label", *map(",".join, LABELLED)]))
    scores = fitted.evaluate([str(data)], resamples=0)
    right = [row.label for row in fitted.predict(["the dog sees", "the cat", "a bird"])]
    expected = np.mean(
        [one == other for one, other in zip(right, ["no", "yes", "no"], strict=True)]
    )
    assert scores["scores"]["accuracy"] == pytest.approx(expected)
    same = [{"text": text, "label": label} for text, label in LABELLED]
    assert fitted.evaluate(same, resamples=0)["scores"] == scores["scores"]
    assert repr(scores).startswith("Evaluation(classification, 3 examples: loss ")
    with pytest.raises(UserError, match="data row 1: a row is a dict of fields"):
        fitted.predict(["a", {"text": "b"}])
    with pytest.raises(UserError, match="data=3 is neither rows"):
        fitted.predict(3)
    with pytest.raises(UserError, match="its column text is 'a film'; a dict has columns"):
        fitted.predict({"text": "a film"})
    with pytest.raises(UserError, match="text 1: has a tab"):
        fitted.predict(["a\tb"])
    with pytest.raises(UserError, match="tiny_bert: a BertForPreTraining has no head of a superv"):
        bertjax.load(TINY).predict(["a"])


@pytest.mark.parametrize(
    ("architecture", "labels", "text", "fields"),
    [
        ("BertForTokenClassification", ("O", "B-X"), "the dog", "tags probabilities entities"),
        ("BertForQuestionAnswering", None, ("who sees", "the dog sees"), "answer start nbest"),
        ("BertForMultipleChoice", None, ("the dog", "sees", "hears"), "choice probabilities"),
        ("BertForSequenceClassification", ("value",), "the dog", "value"),
    ],
)
def test_every_task_predicts_what_has_names(tmp_path, architecture, labels, text, fields):
    options = {"id2label": labels} if labels else {}
    if labels == ("value",):
        options["problem_type"] = "regression"
    [found] = bertjax.load(save(tmp_path, architecture, **options)).predict([text])
    assert set(fields.split()) <= set(found._fields)


def test_vectors_are_those_of_the_command(model, bertjax_command, tmp_path):
    texts, out = ["it was a cat", "", "was it"], tmp_path / "x.npy"
    other = {"pooling": ("max", "cls"), "normalize": True}
    for options, words in (
        ({}, []),
        ({"max_length": 4}, ["--max-length", "4"]),
        (other, ["--pooling", "max", "cls", "--normalize"]),
    ):
        with pytest.warns(UserWarning, match=r"(1 of 3 texts are empty|longer than 4 tokens)"):
            vectors = model.embed(texts, **options)
        stdin = "\n".join(texts).encode()
        command = ("embed", "--model", TINY, "--output", out, *words)
        assert bertjax_command(*command, stdin=stdin)[0] == 0
        np.testing.assert_array_equal(vectors, np.load(out))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert model.embed([]).shape == (0, 24)
    with pytest.raises(UserError, match=r"pooling='men' is not one of .*; did you mean 'mean'"):
        model.embed(texts, pooling="men")


def test_trace_without_heads_is_that_of_the_pruned_model(model):
    [cut] = model.trace(["it was a cat"], without_heads="1-3,2-0")
    [pruned] = model.prune("1-3,2-0").trace(["it was a cat"])
    [whole] = model.trace(["it was a cat"])
    np.testing.assert_allclose(cut.hidden, pruned.hidden, atol=1e-5)
    assert np.abs(cut.hidden[-1] - whole.hidden[-1]).max() > 1e-3
    assert not cut.context[1, :, 3].any()
    with pytest.raises(UserError, match="without_heads='40%': name heads as layer-head"):
        model.trace(["it"], without_heads="40%")


def test_models_are_compared_on_the_same_examples(tmp_path):
    labels = {"id2label": ("no", "yes")}
    a = bertjax.load(save(tmp_path / "a", "BertForSequenceClassification", **labels))
    rows = [{"text": f"the {word}", "label": "yes"} for word in ("dog", "cat", "bird") * 8]
    dense = a.params["sequence_head"]["dense"]

    def always(*bias):
        head = {"dense": {**dense, "bias": np.array(bias, np.float32)}}
        return a.replace(params={**a.params, "sequence_head": head})

    sure, wrong = always(-50, 50), always(50, -50)
    found = wrong.compare(sure, rows)
    assert (found.A, found.B, found.verdict, found.examples) == (0, 1, "better", 24)
    assert repr(found).startswith(
        "ComparedModels(accuracy of 24 examples: A 0.0000, B 1.0000, diff"
    )
    assert sure.compare(sure, rows).verdict == "cannot be told apart"
