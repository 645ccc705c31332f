"""The face: what `import bertjax` costs and gives, and the methods of a model."""

import subprocess
import sys
import warnings

import jax
import numpy as np
import pytest

import bertjax
from bertjax.interop.huggingface import load_model_directory
from bertjax.program.errors import UserError
from tests.analysis.saved import save
from tests.interop.test_hub import ROOT, TINY


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


def test_what_is_not_read_as_given_is_a_warning(model):
    with pytest.warns(UserWarning, match=r"\[SEP\]"):
        model.trace(["it was [SEP]"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.trace(["it was a cat"])


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
    assert model.what_if("it was a cat", "was", by="is").after.words[2] == "is"
    found = model.contexts("it was a cat", "was", ["was it", "it is", "they were was"])
    assert found.compared == 2


def test_fitted_model_predicts_and_is_scored(tmp_path):
    fitted = bertjax.load(save(tmp_path, "BertForSequenceClassification", id2label=("no", "yes")))
    first, second = fitted.predict(["the dog sees", ("the cat", "hears a bird")])
    assert {first["label"], second["label"]} <= {"no", "yes"}
    data = tmp_path / "data.csv"
    data.write_text("text,label\nthe dog sees,no\nthe cat,yes\na bird,no\n")
    scores = fitted.evaluate([str(data)], resamples=0)
    right = [row["label"] for row in fitted.predict(["the dog sees", "the cat", "a bird"])]
    expected = np.mean(
        [one == other for one, other in zip(right, ["no", "yes", "no"], strict=True)]
    )
    assert scores["scores"]["accuracy"] == pytest.approx(expected)
    with pytest.raises(UserError, match="text 1: has a tab"):
        fitted.predict(["a\tb"])
    with pytest.raises(UserError, match="tiny_bert: a BertForPreTraining has no head of a superv"):
        bertjax.load(TINY).predict(["a"])
