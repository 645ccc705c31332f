"""What `capture` shows of a model is what transformers' eager attention shows, live.

    .venv-parity/bin/python -m pytest tests/parity/test_attention_maps.py

Skipped where torch is not installed.
"""

import itertools
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (make test-parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

from bertjax.analysis.capture.encoding import encode_texts  # noqa: E402
from bertjax.analysis.capture.maps import capture  # noqa: E402
from bertjax.interop.huggingface import save_model_directory  # noqa: E402
from bertjax.loaded import load  # noqa: E402
from tests.parity.random_models import make_random_model  # noqa: E402

TINY = Path(__file__).parent / "golden" / "tiny_bert"

# Short and long, so that most are padded; a pair, the mask, accents, characters that vanish.
TEXTS = [
    "it was",
    "The capital of France is [MASK].",
    ("They had it in this.", "Was it the one?"),
    "Crème brûlée at 7.30, isn't it?\u200b",
    "in the end there were as many of them as when we had to be on it",
]


@pytest.fixture(params=["random", "bert_tiny_mlm", "minilm"])
def checkpoint(request, tmp_path):
    if request.param == "random":
        config, params = make_random_model(max_position_embeddings=80)
        save_model_directory(tmp_path / "model", config, params, TINY)
        return tmp_path / "model"
    if request.param == "minilm":
        return request.getfixturevalue("minilm")
    return request.getfixturevalue("shared_data") / "weights" / "bert_tiny_mlm"


def test_captures_are_what_transformers_shows(checkpoint):
    theirs = transformers.BertModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    body = load(checkpoint, "BertModel")
    encoded = encode_texts(body.tokenizer, TEXTS, body.config.max_position_embeddings, masks=True)
    for text, one in zip(TEXTS, capture(body, encoded, hidden=True, context=True), strict=True):
        pair = text if isinstance(text, tuple) else (text,)
        inputs = tokenizer(*pair, return_offsets_mapping=True, return_tensors="pt")
        offsets = inputs.pop("offset_mapping")[0].numpy()
        ours = one.encoded
        assert ours.token_ids.tolist() == inputs["input_ids"][0].tolist()
        assert ours.token_type_ids.tolist() == inputs["token_type_ids"][0].tolist()
        assert ours.tokens == tuple(tokenizer.convert_ids_to_tokens(ours.token_ids.tolist()))
        np.testing.assert_array_equal(ours.offsets, offsets)
        # Their words count anew in B, and those of the frame are None.
        theirs_words = inputs.word_ids(0)
        same = np.diff(ours.word_ids) == 0
        assert same.tolist() == [
            word is not None and word == following
            for word, following in itertools.pairwise(theirs_words)
        ]
        with torch.no_grad():
            output = theirs(**inputs, output_attentions=True, output_hidden_states=True)
        probs = np.stack([layer[0].numpy() for layer in output.attentions])
        hidden = np.stack([layer[0].numpy() for layer in output.hidden_states])
        assert one.probs.shape == probs.shape
        assert np.abs(one.probs - probs).max() <= 1e-5
        np.testing.assert_allclose(one.hidden, hidden, rtol=1e-5, atol=1e-5)


def test_context_is_what_the_output_projection_takes(checkpoint):
    theirs = transformers.BertModel.from_pretrained(checkpoint, attn_implementation="eager").eval()
    body = load(checkpoint, "BertModel")
    [encoded] = encode_texts(body.tokenizer, TEXTS[:1], 17)
    [one] = capture(body, [encoded], context=True)
    taken = []
    for layer in theirs.encoder.layer:
        layer.attention.output.dense.register_forward_pre_hook(
            lambda module, inputs: taken.append(inputs[0][0].numpy())
        )
    with torch.no_grad():
        theirs(torch.tensor(encoded.token_ids[None]))
    layers, length, *_ = one.context.shape
    expected = np.stack(taken)
    np.testing.assert_allclose(one.context.reshape(layers, length, -1), expected, atol=1e-5)
