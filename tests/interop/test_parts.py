"""The eight classes in and out: each has its parts, and no head passes for another one."""

import dataclasses
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bertjax.architectures import ARCHITECTURES, BODY
from bertjax.config import CLASSIFIERS, BertConfig
from bertjax.interop.huggingface import (
    inspect_model_directory,
    load_model_directory,
    save_model_directory,
)
from bertjax.interop.tensor_names import flatten, our_shape, rows_of
from bertjax.program.errors import UserError
from tests.families.tiny import BERT_CLASSES, tiny_config_of
from tests.parity.random_models import draw_parameters

TINY = Path(__file__).parents[1] / "parity" / "golden" / "tiny_bert"
LABELS = ("O", "B-PER", "I-PER")


def make_config(**fields):
    """V=99 for the tokenizer of the tiny model; D=24, L=3, N=4, H=6, F=37, M=17, C=3."""
    shape = {
        "vocab_size": 99,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 37,
        "max_position_embeddings": 17,
        "id2label": LABELS,
    }
    return BertConfig(**(shape | fields))


@pytest.fixture
def save(tmp_path):
    """Saves a random model of a class; gives (directory, config, params)."""

    def run(architecture, name="model", **fields):
        config = make_config(**fields)
        params = draw_parameters(config, architecture)
        save_model_directory(tmp_path / name, config, params, TINY, architecture)
        return tmp_path / name, config, params

    return run


def edit_config(directory, **fields):
    values = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(values | fields))


def assert_same(actual, expected):
    actual, expected = dict(flatten(actual)), dict(flatten(expected))
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_table_covers_every_parameter_of_every_class(architecture, norm):
    config = tiny_config_of(architecture, classifier_norm=norm)
    model = ARCHITECTURES[architecture].module(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    shapes = {"bert": shapes} if ARCHITECTURES[architecture].kind == BODY else shapes
    in_model = {name: leaf.shape for name, leaf in flatten(shapes)}
    rows = rows_of(config, ARCHITECTURES[architecture].parts)
    in_table = {path: our_shape(row, config) for row in rows for path in row.paths}
    assert in_table == in_model


@pytest.mark.parametrize("architecture", BERT_CLASSES)
def test_every_class_goes_out_and_comes_in_unchanged(save, tmp_path, architecture):
    directory, config, params = save(architecture)
    loaded = load_model_directory(directory)
    if architecture == "BertForQuestionAnswering":  # its two outputs are no labels of anything
        config = dataclasses.replace(config, id2label=("LABEL_0", "LABEL_1"))
    assert (loaded.config, loaded.architecture, loaded.notes) == (config, architecture, [])
    assert_same(loaded.params, params)
    contents = inspect_model_directory(directory)
    assert contents.architecture == architecture
    assert set(contents.parts) == set(ARCHITECTURES[architecture].parts)
    assert contents.parameters == sum(value.size for _, value in flatten(params))
    save_model_directory(tmp_path / "again", config, loaded.params, TINY, architecture)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()


def test_body_alone_is_stored_without_prefix(save):
    directory, *_ = save("BertModel")
    names = load_file(directory / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"embeddings", "encoder", "pooler"}
    names = load_file(save("BertForMaskedLM", "other")[0] / "model.safetensors").keys()
    assert {name.split(".")[0] for name in names} == {"bert", "cls"}


def test_class_that_config_does_not_name_is_told_from_the_parts(save):
    for number, architecture in enumerate(BERT_CLASSES):
        directory, _, params = save(architecture, f"model{number}")
        for names in (None, [], ["BertForSomethingElse"]):
            edit_config(directory, architectures=names)
            if set(ARCHITECTURES[architecture].parts) & set(CLASSIFIERS):
                message = rf"has a classifier, and config.json .*{re.escape(json.dumps(names))}"
                with pytest.raises(UserError, match=message) as caught:
                    load_model_directory(directory)
                assert "BertForTokenClassification, BertForMultipleChoice" in str(caught.value)
                loaded = load_model_directory(directory, architecture)
            else:
                loaded = load_model_directory(directory)
            assert loaded.architecture == architecture
            assert_same(loaded.params, params)


def test_parts_beside_those_wanted_are_left_out_and_said_where_one_trains(save):
    directory, _, params = save("BertForPreTraining")
    body = load_model_directory(directory, "BertModel")
    assert (body.architecture, body.notes) == ("BertModel", [])
    assert_same(body.params, {"bert": params["bert"]})

    key = jax.random.key(3)
    tagger = load_model_directory(directory, "BertForTokenClassification", initialize_missing=key)
    assert tagger.params.keys() == {"bert", "token_head"}
    assert tagger.params["bert"].keys() == {"embeddings", "encoder"}
    assert tagger.params["token_head"]["dense"]["kernel"].shape == (24, 3)
    left_out = [
        f"{directory}: its {part} is left out, BertForTokenClassification has none"
        for part in ("mlm_head", "nsp_head", "pooler")
    ]
    fresh = f"{directory}: it has no token_head; one is initialised freshly and must be trained"
    assert tagger.notes == [*left_out, fresh]


@pytest.mark.parametrize(
    ("is_a", "asked", "lacks"),
    [
        ("BertForTokenClassification", "BertForSequenceClassification", "pooler and no sequence_"),
        ("BertForSequenceClassification", "BertForTokenClassification", "token_head"),
        ("BertForSequenceClassification", "BertForMultipleChoice", "choice_head"),
        ("BertForMultipleChoice", "BertForSequenceClassification", "sequence_head"),
        ("BertForQuestionAnswering", "BertForTokenClassification", "token_head"),
        ("BertForMaskedLM", "BertForQuestionAnswering", "span_head"),
        ("BertForMaskedLM", "BertForPreTraining", "nsp_head and no pooler"),
        ("BertModel", "BertForNextSentencePrediction", "nsp_head"),
    ],
)
def test_head_of_another_task_is_refused_by_name(save, is_a, asked, lacks):
    # With one label, sequence and choice classifier have the same tensors of the same shapes.
    directory, *_ = save(is_a, id2label=("score",))
    message = rf"{directory}: is a {is_a} and has no {lacks}.*which {asked} needs"
    with pytest.raises(UserError, match=message):
        load_model_directory(directory, asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"id2label": ("O", "B-LOC", "I-LOC")},
        {"id2label": ("yes", "no")},
        {"problem_type": "multi_label_classification"},
        {"classifier_norm": "layer"},
        {"classifier_norm": "batch"},
    ],
)
def test_other_labels_or_normalisation_make_a_fresh_classifier(save, changes):
    directory, _, params = save("BertForSequenceClassification")
    with pytest.raises(UserError, match="has no sequence_head"):
        load_model_directory(directory, changes=changes)
    loaded = load_model_directory(directory, initialize_missing=jax.random.key(1), changes=changes)
    assert_same(loaded.params["bert"], params["bert"])
    head = loaded.params["sequence_head"]
    labels = len(changes.get("id2label", LABELS))
    assert head["dense"]["kernel"].shape == (24, labels)
    assert 0.01 < head["dense"]["kernel"].std() < 0.03
    assert ("norm" in head) == ("classifier_norm" in changes)
    assert loaded.config.id2label == changes.get("id2label", LABELS)
    assert loaded.notes == [
        f"{directory}: its sequence_head has other labels or another normalisation than are wanted"
        " here; one is initialised freshly and must be trained"
    ]


def test_changes_that_are_none_keep_the_classifier(save):
    directory, _, params = save("BertForSequenceClassification")
    changes = {
        "id2label": LABELS,
        "problem_type": "single_label_classification",  # what null means with three labels
        "classifier_dropout": 0.3,
    }
    loaded = load_model_directory(directory, initialize_missing=jax.random.key(1), changes=changes)
    assert_same(loaded.params, params)
    assert loaded.notes == []
    assert loaded.config.classifier_dropout == 0.3


def test_classifier_with_layer_normalisation_goes_out_and_comes_in(save):
    directory, config, params = save("BertForTokenClassification", classifier_norm="layer")
    assert load_file(directory / "model.safetensors")["classifier_norm.weight"].shape == (24,)
    loaded = load_model_directory(directory)
    assert (loaded.config, loaded.notes) == (config, [])
    assert_same(loaded.params, params)

    edit_config(directory, classifier_norm="none")
    with pytest.raises(UserError, match=r"unexpected tensor classifier_norm.bias \[24\]"):
        load_model_directory(directory)


def test_classifier_with_running_statistics_is_neither_saved_nor_read(save, tmp_path):
    config = make_config(classifier_norm="batch")
    params = draw_parameters(config, "BertForTokenClassification")
    with pytest.raises(ValueError, match="running statistics have no place"):
        save_model_directory(tmp_path / "x", config, params, TINY, "BertForTokenClassification")
    assert not (tmp_path / "x").exists()
    directory, *_ = save("BertForTokenClassification")
    edit_config(directory, classifier_norm="batch")
    with pytest.raises(UserError, match="classifier_norm='batch' is for training only"):
        load_model_directory(directory)


def test_labels_that_do_not_fit_the_classifier_are_refused(save):
    directory, *_ = save("BertForTokenClassification")
    edit_config(directory, id2label={"0": "O", "1": "X"})
    with pytest.raises(UserError, match=r"classifier.bias has shape \[3\], .* asks for \[2\]"):
        load_model_directory(directory)


def test_head_that_is_half_there_is_refused(save):
    directory, *_ = save("BertForQuestionAnswering")
    tensors = load_file(directory / "model.safetensors")
    del tensors["qa_outputs.bias"]
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(UserError, match=r"missing tensor qa_outputs.bias \[2\]"):
        load_model_directory(directory)


def test_pooler_beside_a_class_that_has_none_is_read_over(save):
    # sentence-transformers and older transformers keep it in files of BertForMaskedLM.
    directory, *_ = save("BertForMaskedLM")
    with_pooler, _, params = save("BertForPreTraining", "other")
    tensors = load_file(with_pooler / "model.safetensors")
    tensors = {n: x for n, x in tensors.items() if not n.startswith("cls.seq_relationship")}
    save_file(tensors, directory / "model.safetensors")
    loaded = load_model_directory(directory)
    assert (loaded.architecture, loaded.notes) == ("BertForMaskedLM", [])
    assert "pooler" not in loaded.params["bert"]
    assert_same(loaded.params["mlm_head"], params["mlm_head"])
    assert inspect_model_directory(directory).parts == ["pooler", "mlm_head"]
