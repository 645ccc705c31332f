"""How vectors are made goes out into files and comes in as it was."""

import numpy as np
import pytest

from bertjax.interop.sentence_transformers import (
    Dense,
    Normalize,
    SentenceModel,
    read_sentence_model,
    write_sentence_model,
)


def dense(outputs, inputs, activation):
    weight = np.arange(outputs * inputs, dtype=np.float32).reshape(outputs, inputs)
    return Dense(weight, np.full(outputs, 0.5, np.float32), activation)


@pytest.mark.parametrize(
    "steps",
    [
        {"max_length": 128},
        {"pooling": ("cls", "mean"), "after": (Normalize(),), "max_length": 5, "lowercase": True},
        {
            "pooling": ("mean", "cls"),  # in an order of its own
            "after": (dense(7, 16, "Identity"), dense(5, 7, "Tanh"), Normalize()),
            "max_length": 9,
            "prompt": "query: ",
            "prompts": {"document": "passage: ", "query": "query: "},
        },
        {"max_length": 9, "prompts": {"document": "", "query": ""}},
    ],
)
def test_files_say_what_they_were_written_from(tmp_path, steps):
    written = SentenceModel(tmp_path, **steps)
    write_sentence_model(tmp_path, written, hidden_size=8)
    read = read_sentence_model(tmp_path)
    assert read._replace(after=()) == written._replace(after=())
    assert [type(step) for step in read.after] == [type(step) for step in written.after]
    for ours, theirs in zip(read.after, written.after, strict=True):
        if isinstance(theirs, Dense):
            assert ours.activation == theirs.activation
            np.testing.assert_array_equal(ours.weight, theirs.weight)
            np.testing.assert_array_equal(ours.bias, theirs.bias)
