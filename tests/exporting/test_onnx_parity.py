"""An ONNX model answers as the model that it was written from, at every place that is no padding,
and at padding, too.
"""

import functools

import numpy as np
import onnx
import pytest

from bertjax.architectures import ARCHITECTURES
from bertjax.interop.onnx.blocks import activate
from bertjax.interop.sentence_transformers import Dense, Normalize, SentenceModel
from bertjax.interop.signature import input_names
from bertjax.program.errors import UserError
from tests.exporting.onnx_table import answer, measure_family, write
from tests.families.tiny import tiny_config_of
from tests.parity.cases import CLASSES_OF, OF_FAMILY, draw_cases
from tests.parity.random_models import draw_parameters

# Rounding gives 4e-6.
TOLERANCE = 5e-5
ROWS, LENGTH = 5, 13
# Every family, and every kind of class in one of them.
QUICK = [
    ("BertModel", {}),
    ("BertForPreTraining", {"hidden_act": "silu"}),
    ("BertForMaskedLM", {"attention_window": 2, "attention_head_size": 5}),
    ("RobertaForMaskedLM", {"pad_token_id": 1}),
    ("RobertaForSequenceClassification", {"classifier_norm": "layer"}),
    ("AlbertForPreTraining", {}),
    ("DistilBertForQuestionAnswering", {"hidden_act": "relu"}),
    ("DistilBertForMultipleChoice", {}),
    ("ElectraForPreTraining", {}),
    ("ElectraForTokenClassification", {}),
    ("ModernBertForMaskedLM", {"local_attention": 4, "num_hidden_layers": 3}),
    ("ModernBertForSequenceClassification", {"classifier_pooling": "mean", "attention_bias": True}),
]  # fmt: skip


def draw_inputs(config, name, rows=ROWS, length=LENGTH, seed=0):
    """Padding behind the tokens, in the middle, none, and a row that is nothing else."""
    random = np.random.default_rng(seed)
    lead = (rows, 2) if ARCHITECTURES[name].kind == "choice" else (rows,)
    mask = np.arange(length) < random.integers(2, length, (*lead, 1))
    mask[0], mask[1, ..., 4], mask[2] = True, False, False
    words = np.setdiff1d(np.arange(config.vocab_size), [config.pad_token_id])
    token_ids = np.where(mask, random.choice(words, mask.shape), config.pad_token_id)
    types = random.integers(0, 2, mask.shape)
    every = {"input_ids": token_ids, "attention_mask": mask, "token_type_ids": types}
    return {name: every[name].astype(np.int32) for name in input_names(config)}


def assert_near(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        assert actual[name].dtype == np.float32
        np.testing.assert_allclose(actual[name], values, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize(("name", "fields"), QUICK)
def test_graph_answers_as_the_model(tmp_path, name, fields):
    config = tiny_config_of(name, **fields)
    params = draw_parameters(config, name)
    session, inputs = write(tmp_path, config, name, params), draw_inputs(config, name)
    expected = answer(config, name, params, inputs)
    assert_near(session(inputs), expected)
    # A row alone, of another length: the answers are those of its places in the batch.
    last = {key: values[-1:] for key, values in inputs.items()}
    longest = int(last["attention_mask"].sum(axis=-1).max())
    alone = session({key: values[..., :longest] for key, values in last.items()})
    of_tokens = {key for key, values in expected.items() if LENGTH in values.shape}
    assert_near(
        alone,
        {
            key: values[-1:, :longest] if key in of_tokens else values[-1:]
            for key, values in expected.items()
        },
    )


def test_every_kind_and_family_is_among_the_quick_ones():
    quick = [ARCHITECTURES[name] for name, _ in QUICK]
    families = {its.family for its in ARCHITECTURES.values()} - {"xlm-roberta", "camembert"}
    assert {its.family for its in quick} == families
    kinds = {its.kind for its in ARCHITECTURES.values()} - {"next-sentence"}  # as in pretraining
    assert {its.kind for its in quick} == kinds


@pytest.mark.parametrize("activations", [("Tanh", "ReLU"), ("Sigmoid", "Identity")])
def test_vector_goes_through_linear_layers(tmp_path, activations):
    config, random = tiny_config_of("DistilBertModel"), np.random.default_rng(1)
    first, second = (
        Dense(
            random.normal(0, 0.3, shape).astype(np.float32),
            random.normal(size=shape[0]).astype(np.float32),
            activation,
        )
        for shape, activation in zip(((9, 64), (7, 9)), activations, strict=True)
    )
    steps = SentenceModel(None, ("cls", "mean_sqrt_len_tokens"), (first, second, Normalize()))
    params = draw_parameters(config, "DistilBertModel")
    session = write(tmp_path, config, "DistilBertModel", params, steps)
    inputs = draw_inputs(config, "DistilBertModel")
    expected = answer(config, "DistilBertModel", params, inputs, steps)
    assert_near(session(inputs), expected)
    # The steps on the host, which `bertjax embed` takes, are the reference of both.
    hidden, real = expected["last_hidden_state"], inputs["attention_mask"][..., None]
    sums = (hidden * real).sum(axis=1) / np.sqrt(np.maximum(1, real.sum(axis=1)))
    vectors = np.concatenate([hidden[:, 0], sums], axis=-1)
    for step in steps.after:
        vectors = step(vectors)
    np.testing.assert_allclose(expected["sentence_embedding"], vectors, atol=1e-5)


def test_shared_layers_are_stored_once(tmp_path):
    config = tiny_config_of("AlbertModel", num_hidden_layers=5)
    write(tmp_path, config, "AlbertModel", draw_parameters(config, "AlbertModel"))
    names = [one.name for one in onnx.load(tmp_path / "model.onnx").graph.initializer]
    layers = [name for name in names if name.startswith("bert.encoder.layers.")]
    assert len(layers) == len(set(layers)) == 16
    assert {name.split(".")[3] for name in layers} == {"0"}


def test_text_beyond_the_positions_is_refused(tmp_path):
    config = tiny_config_of("BertForMaskedLM")
    name = "BertForMaskedLM"
    session = write(tmp_path, config, name, draw_parameters(config, name))
    with pytest.raises(Exception, match=r"out of data bounds|broadcast an axis"):
        session(draw_inputs(config, name, length=config.max_length + 1))


def test_activation_without_operators_is_refused():
    with pytest.raises(UserError, match="the activation 'quick_gelu' has no operators of ONNX"):
        activate(None, "quick_gelu", None)


@functools.cache
def cases_of(family):
    return draw_cases(family, 4)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("family", OF_FAMILY)
def test_graph_answers_as_any_model(family, number):
    largest = measure_family(cases_of(family)[number], CLASSES_OF[family], number)
    assert largest.keys() == set(CLASSES_OF[family])
    assert all(gap < TOLERANCE for gap in largest.values()), largest
