"""The config: published sizes, refusals that name the field, the way to config.json and back."""

import dataclasses
import json

import pytest

from bertjax.config import HIDDEN_ACTIVATIONS, BertConfig
from bertjax.families.registry import load_config
from bertjax.program.errors import UserError


@pytest.mark.parametrize(
    ("size", "layers", "width", "heads"),
    [
        ("tiny", 2, 128, 2),
        ("mini", 4, 256, 4),
        ("small", 4, 512, 8),
        ("medium", 8, 512, 8),
        ("base", 12, 768, 12),
        ("large", 24, 1024, 16),
    ],
)
def test_size_has_the_shape_its_paper_gives(size, layers, width, heads):
    config = BertConfig.of_size(size)
    assert config.num_hidden_layers == layers
    assert config.hidden_size == width
    assert config.num_attention_heads == heads
    assert config.intermediate_size == 4 * width
    assert config.head_size == 64


def test_size_takes_overrides():
    config = BertConfig.of_size("tiny", vocab_size=99, intermediate_size=37)
    assert (config.vocab_size, config.intermediate_size, config.hidden_size) == (99, 37, 128)


def test_heads_that_left_the_tensors_do_not_change_the_size_of_the_others():
    config = BertConfig.of_size("base", num_attention_heads=7, attention_head_size=64)
    assert (config.head_size, config.hidden_size) == (64, 768)
    assert BertConfig.from_dict(config.to_dict()) == config


def test_unknown_size_lists_the_known_ones():
    with pytest.raises(UserError, match=r"'huge' is not one of tiny, mini, small"):
        BertConfig.of_size("huge")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 770}, r"hidden_size=770 must be a multiple of num_attention_heads=12"),
        ({"attention_head_size": 0}, r"attention_head_size=0 must be a whole number of at least"),
        ({"attention_head_size": True}, r"attention_head_size=True must be a whole number"),
        ({"vocab_size": 0}, r"vocab_size=0 must be a whole number of at least 1"),
        ({"num_hidden_layers": 2.0}, r"num_hidden_layers=2.0 must be a whole number"),
        ({"num_attention_heads": True}, r"num_attention_heads=True must be a whole number"),
        ({"type_vocab_size": "2"}, r"type_vocab_size='2' must be a whole number"),
        (
            {"hidden_act": "tanh"},
            f"hidden_act='tanh' is not one of {', '.join(HIDDEN_ACTIVATIONS)}$",
        ),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob=1.0 must be in \[0, 1\)"),
        ({"attention_probs_dropout_prob": -0.1}, r"attention_probs_dropout_prob=-0.1 must be"),
        ({"classifier_dropout": 2}, r"classifier_dropout=2 must be"),
        ({"initializer_range": 0.0}, r"initializer_range=0.0 must be above 0"),
        ({"layer_norm_eps": float("nan")}, r"layer_norm_eps=nan must be above 0"),
        ({"pad_token_id": 30522}, r"pad_token_id=30522 must be an id below vocab_size=30522"),
        ({"pad_token_id": -1}, r"pad_token_id=-1 must be an id"),
    ],
)
def test_bad_field_is_refused_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        BertConfig(**fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model_type", "roberta"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("position_embedding_type", "relative_key"),
    ],
)
def test_what_is_no_bert_is_refused(name, value):
    with pytest.raises(UserError, match=rf"{name}={value!r} is not supported: bertjax computes"):
        BertConfig.from_dict({name: value})


def test_fields_of_other_parts_of_transformers_are_passed_over():
    values = {"model_type": "bert", "architectures": ["BertForPreTraining"], "hidden_size": 24}
    assert BertConfig.from_dict(values).hidden_size == 24


def test_config_goes_through_json_unchanged(tmp_path):
    config = BertConfig.of_size("mini", vocab_size=99, classifier_dropout=0.3, hidden_act="relu")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()), encoding="utf-8")
    assert load_config(path) == config
    assert load_config(tmp_path) == config
    assert config.to_dict()["model_type"] == "bert"
    assert config.to_dict().keys() - {"model_type", "label2id"} == {
        field.name for field in dataclasses.fields(BertConfig)
    }


def test_labels_go_through_json_in_the_order_of_their_numbers(tmp_path):
    labels = tuple(f"B-{number}" for number in range(11))  # as strings, 10 sorts before 2
    config = BertConfig(id2label=labels, problem_type="multi_label_classification")
    values = config.to_dict()
    assert values["id2label"]["2"] == "B-2"
    assert values["label2id"]["B-10"] == 10
    shuffled = {**values, "id2label": dict(sorted(values["id2label"].items()))}
    assert list(shuffled["id2label"])[:3] == ["0", "1", "10"]
    (tmp_path / "config.json").write_text(json.dumps(shuffled), encoding="utf-8")
    assert load_config(tmp_path) == config
    assert config.num_labels == 11


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ({}, ("LABEL_0", "LABEL_1")),
        ({"id2label": None}, ("LABEL_0", "LABEL_1")),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"num_labels": 1, "id2label": None}, ("LABEL_0",)),
        ({"num_labels": 7, "id2label": {"0": "yes", "1": "no"}}, ("yes", "no")),
        ({"id2label": {"0": 1, "1": 2.0, "2": 2.5}}, ("1", "2", "2.5")),
        ({"id2label": {"0": False, "1": True}}, ("false", "true")),
        ({"id2label": {1: "b", 0: "a"}}, ("a", "b")),
    ],
)
def test_labels_are_read_from_either_field(values, labels):
    assert BertConfig.from_dict(values).id2label == labels


@pytest.mark.parametrize(
    ("labels", "problem_type", "meaning"),
    [
        (("a", "b"), None, "single_label_classification"),
        (("a",), None, "regression"),
        (("a",), "multi_label_classification", "multi_label_classification"),
    ],
)
def test_meaning_of_labels_is_inferred_where_it_is_not_said(labels, problem_type, meaning):
    assert BertConfig(id2label=labels, problem_type=problem_type).label_meaning == meaning


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, r"must have the keys 0 ... 1"),
        ({"id2label": {"0": "a", "1": None}}, r"the label of 1 is None; it must be text or a num"),
        ({"id2label": {"0": 1, "1": "1"}}, r"id2label=\['1', '1'\] must be distinct labels"),
        ({"id2label": ["a", "b"]}, r"must map numbers to labels"),
        ({"id2label": {"0": "a", "1": "a"}}, r"id2label=\['a', 'a'\] must be distinct labels"),
        ({"num_labels": 0}, r"num_labels=0 must be a whole number of at least 1"),
        ({"num_labels": "2"}, r"num_labels='2' must be"),
        ({"problem_type": "ranking"}, r"problem_type='ranking' is not one of single_label"),
        (
            {"problem_type": "single_label_classification", "num_labels": 1},
            r"needs at least two labels, id2label is \['LABEL_0'\]",
        ),
        ({"classifier_norm": "group"}, r"classifier_norm='group' is not one of none, layer, batch"),
    ],
)
def test_bad_labels_are_refused_by_name(values, message):
    with pytest.raises(UserError, match=message):
        BertConfig.from_dict(values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"config.json: not JSON"),
        (b"\xff\xfe", r"config.json: not JSON"),
        (b"[1]", r"config.json: not a JSON object"),
        (b'{"hidden_size": 7}', r"config.json: hidden_size=7 must be a multiple"),
        (b'{"model_type": "gpt2"}', r"config.json: model_type='gpt2' is not a family"),
    ],
)
def test_bad_file_is_named(tmp_path, content, message):
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path)


def test_missing_file_says_what_a_model_directory_holds(tmp_path):
    with pytest.raises(UserError, match=r"no such file; a model directory holds config.json and"):
        load_config(tmp_path)
