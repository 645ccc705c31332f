"""`Model.export` and what it compares: mistakes are told, and a NaN is never an equal answer."""

import dataclasses

import jax
import numpy as np
import pytest

import bertjax
from bertjax.exporting.answers import answering
from bertjax.exporting.export import choose_vectors
from bertjax.exporting.parity import measure_difference
from bertjax.exporting.quality import Gate, encode_questions
from tests.analysis.saved import save


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tiny masked LM, in a directory `model`."""
    return bertjax.load(save(tmp_path_factory.mktemp("words"), "BertForMaskedLM"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"check": []}, r"^check: there is no text; give some, or leave it out"),
        ({"check": "texts.txt"}, r"'texts.txt' is not .* but a file; read files first"),
        ({"check": ["a cat", 3]}, r"^text 2: 3 \(int\) is not a text"),
        ({"check": ["a cat"], "format": "stablehlo"}, "^int8 applies to format onnx, not to stab"),
        ({"data": [("a cat", "good")]}, "BertForMaskedLM"),
        ({"output": "model/onnx"}, r"^output .*model/onnx is inside the input .*; name a dir"),
    ],
)
def test_mistake_is_told_before_anything_is_written(words, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(words.directory.parent)
    (words.directory.parent / "texts.txt").touch()
    with pytest.raises(bertjax.UserError, match=message):
        words.export(**{"output": tmp_path / "out", **options})
    assert [*tmp_path.iterdir()] == []


def test_normalization_of_training_is_refused(words, tmp_path):
    config = dataclasses.replace(words.config, classifier_norm="batch")
    model = words.replace(config=config)
    with pytest.raises(bertjax.UserError, match="'batch' is for training only; save the model"):
        model.export(tmp_path / "out")


def test_progress_of_eight_bits_adds_up_to_what_is_asked(words, tmp_path):
    seen = {}

    def progress(stage, done):
        said = seen.setdefault(stage.number, [stage.name, stage.total, 0.0])
        said[2] += done

    words.export(tmp_path / "out", check=["a cat", "the dog sees a bird"], progress=progress)
    assert seen == {
        1: ["writing", 1, 1],
        2: ["comparing with the model", 1, 1],
        3: ["in eight bits", 2, 2],
    }


def spoiled(model, steps):
    """Returns the model as a function of inputs, with one answer that is NaN."""
    answer = jax.jit(answering(model, steps))

    def session(inputs):
        answers = jax.device_get(answer(model.params, inputs))
        answers = {name: np.array(values) for name, values in answers.items()}
        for values in answers.values():
            first = values.reshape(-1, values.shape[-1])[0]  # the rest may be padding
            first[first.argmax()] = np.nan  # which numpy takes for the largest again
        return answers

    return session


def test_nan_is_the_largest_difference(words):
    steps = choose_vectors(words)
    found = measure_difference(words, steps, spoiled(words, steps))
    assert np.isnan(found["logits"])


@pytest.mark.parametrize("architecture", ["BertForMaskedLM", "BertModel"])
def test_nan_is_another_answer(words, architecture):
    model = words.as_architecture(architecture)
    steps = choose_vectors(model)
    gate = Gate([("text 1", "a cat"), ("text 2", "the dog sees a bird")])
    asked = encode_questions(model, gate.lines, steps)
    asked = asked._replace(places=[None] * 2)  # every token's answer counts
    quality = gate.measure(model, steps, spoiled(model, steps), asked)
    assert len(quality.failures) == 1
